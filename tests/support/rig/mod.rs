//! What the tests, the benches, the demo and the soak share, and what knows nothing of members: private servers, what stands
//! between them and a member, processes that talk in lines, and waiting with a deadline.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "shared by programs that each use a part of it"
)]

mod flood;
mod holder;
mod pgbouncer;
mod programs;
mod proxy;
mod server;
mod subprocess;
mod usage;
mod wait;

pub use self::flood::Flood;
pub use self::holder::{Holder, NOBODY_WAITS, WATCH};
pub use self::pgbouncer::PgBouncer;
pub use self::programs::{as_server_user, command, server_user};
pub use self::proxy::Proxy;
pub use self::server::{Server, Stop, free_port};
pub use self::subprocess::{Subprocess, lines_of, reap};
pub use self::usage::Usage;
pub use self::wait::{PATIENCE, becomes_true, eventually};
