package jobs

// LatestMigration is what this release says of River's migrations.
const LatestMigration = latestMigration
