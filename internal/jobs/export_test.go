package jobs

// LatestMigration is the number that this release records as River's last migration.
const LatestMigration = latestMigration
