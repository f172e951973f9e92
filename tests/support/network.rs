//! A host on the other side of a router, in network namespaces: a network that can be cut without anybody being told.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::Server;

/// Makes the network, obeys, and removes it when its input ends: that is, when the test does, for whatever reason.
///
/// Here, veth, the router's namespace, veth, the far host's namespace: a router that does not forward says nothing to
/// either side.
const KEEPER: &str = r#"
exec 2>&1
id=$1 net=$2 near=pgp$1n router=pgp$1r far=pgp$1f
clean() { ip netns del "$router"; ip netns del "$far"; ip link del "$near"; } 2>/dev/null
forward() { ip netns exec "$router" sh -c "echo $1 > /proc/sys/net/ipv4/ip_forward"; }
set -e
ip netns add "$router"
# Only now: of the same number, it would be another program's.
trap clean EXIT
ip netns add "$far"
ip link add "$near" type veth peer name r0 netns "$router"
ip -n "$router" link add r1 type veth peer name f0 netns "$far"
ip addr add "$net.1/30" dev "$near"
ip link set "$near" up
ip -n "$router" addr add "$net.2/30" dev r0
ip -n "$router" link set r0 up
ip -n "$router" addr add "$net.5/30" dev r1
ip -n "$router" link set r1 up
ip -n "$far" addr add "$net.6/30" dev f0
ip -n "$far" link set f0 up
ip -n "$far" link set lo up
ip -n "$far" route add default via "$net.5"
ip route add "$net.4/30" via "$net.2"
forward 1
echo done
while read -r order; do forward "$order"; echo done; done
"#;

pub struct Network {
    keeper: Child,
    answers: BufReader<ChildStdout>,
    /// The first three numbers of its addresses.
    net: String,
    namespace: String,
}

impl Network {
    /// `None` where none can be made (it takes Linux, root and iproute2), which is said, unless the environment variable
    /// `PG_PEERS_REQUIRE_NETWORK` is set.
    pub fn new() -> Option<Self> {
        match Self::try_new() {
            Ok(network) => Some(network),
            Err(e) if std::env::var_os("PG_PEERS_REQUIRE_NETWORK").is_some() => {
                panic!("no network: {e}")
            }
            Err(e) => {
                eprintln!("skipped: no network can be made here: {e}");
                None
            }
        }
    }

    fn try_new() -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = || std::process::id() % 10_000 * 7 + COUNT.fetch_add(1, Ordering::Relaxed);
        // Another program may have one of the same number.
        Self::make(number()).or_else(|_| Self::make(number()))
    }

    fn make(id: u32) -> Result<Self, String> {
        // Addresses set aside for tests of networks (RFC 2544).
        let net = format!("198.{}.{}", 18 + id / 256 % 2, id % 256);
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "pg-peers-network", &id.to_string(), &net])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let answers = BufReader::new(keeper.stdout.take().expect("its output"));
        let mut network = Self {
            keeper,
            answers,
            net,
            namespace: format!("pgp{id}f"),
        };
        network.answer()?;
        Ok(network)
    }

    /// Nothing gets through any more, and nobody is told.
    pub fn cut(&mut self) {
        self.order("0");
    }

    pub fn mend(&mut self) {
        self.order("1");
    }

    /// A command that runs on the far host.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(program);
        command
    }

    fn order(&mut self, order: &str) {
        let input = self.keeper.stdin.as_mut().expect("its input");
        writeln!(input, "{order}").expect("a keeper that reads");
        self.answer().expect("a network that obeys");
    }

    fn answer(&mut self) -> Result<(), String> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        match read {
            Ok(_) if line == "done\n" => Ok(()),
            _ => Err(line.trim().to_owned()),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

impl Server {
    /// Starts a server that the far host of the network can reach too, and nobody else.
    pub fn start_on(network: &Network) -> Self {
        let net = &network.net;
        let server = Self::start_with(&[&format!("listen_addresses = '127.0.0.1,{net}.1'")]);
        server.admit(&format!("host all all {net}.0/29 trust"));
        server
    }

    /// A connection string for the far host.
    pub fn params_from(&self, network: &Network) -> String {
        format!("host={}.1 port={} user=postgres", network.net, self.port())
    }
}
