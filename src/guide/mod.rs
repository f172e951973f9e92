//! The guide: a page for each question that comes after the first program.
//!
//! - [`deployment`]: Kubernetes, systemd, managed Postgres, poolers.
//! - [`database`]: the sessions, rights and encoding that a member needs.
//! - [`tls`]: TLS, and passwords that expire.
//! - [`program`]: `pg-peers check`, `watch`, `members`, `channels` and `ping`, for people who run a cluster.
//! - [`regions`]: members that are far from Postgres.
//! - [`faults`]: what happens when something fails, and how soon everybody is back.
//! - [`tuning`]: settings, speed and cost.
//! - [`signing`]: members that share a secret.
//! - [`elixir`]: together with libcluster_postgres, or instead of it.
//! - [`logging`]: log targets and metrics.
//! - [`questions`]: what people ask, in short.
//! - [`wire_format`]: the messages, for a member in another language.

#[cfg(test)]
mod numbers;

#[doc = include_str!("database.md")]
pub mod database {}
#[doc = include_str!("deployment.md")]
pub mod deployment {}
#[doc = include_str!("elixir.md")]
pub mod elixir {}
#[doc = include_str!("faults.md")]
pub mod faults {}
#[doc = include_str!("logging.md")]
pub mod logging {}
#[doc = include_str!("program.md")]
pub mod program {}
#[doc = include_str!("questions.md")]
pub mod questions {}
#[doc = include_str!("regions.md")]
pub mod regions {}
#[doc = include_str!("signing.md")]
pub mod signing {}
#[doc = include_str!("tls.md")]
pub mod tls {}
#[doc = include_str!("tuning.md")]
pub mod tuning {}
#[doc = include_str!("wire.md")]
pub mod wire_format {}
