// The rig's servers for the examples in the documentation, which can `include!` a file but have no modules in files. So the
// files named here have no inner attributes or comments.

mod programs {
    include!("rig/programs.rs");
}
mod server {
    include!("rig/server.rs");
}
mod wait {
    include!("rig/wait.rs");
}

use programs::{as_server_user, command, server_user};
pub use server::Server;
use wait::{becomes_true, eventually};
