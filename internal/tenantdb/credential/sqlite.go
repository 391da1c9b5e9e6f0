package credential

// SQLite is the engine of embedded databases.
const SQLite EngineName = "sqlite"

var sqliteFacts = engineFacts{name: SQLite, title: "SQLite", products: "SQLite"}
