//! How names and texts stand in SQL, and what our statements begin with. The program `pg-peers` has it from here, too. Pure.

/// What a query begins with, as `pg_stat_activity` and the server's log show it. It makes no separate entry.
pub(crate) const MARK: &str = "/* pg-peers */";

/// Quotes an SQL identifier (PostgreSQL manual, 4.1.1). Postgres folds the case of unquoted ones.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes an SQL string so that it reads the same whatever `standard_conforming_strings` is (manual, 4.1.2.2).
pub(crate) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
