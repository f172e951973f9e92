//! The targets of what is logged, by which hosts filter it: they stay, whatever module logs.

/// The session with Postgres.
pub(crate) const LINK: &str = "pg_peers::link";

/// Who is there.
pub(crate) const PEERS: &str = "pg_peers::peers";

/// What others can do to us, or try to.
pub(crate) const TRUST: &str = "pg_peers::trust";
