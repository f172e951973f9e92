//! The way to the server, step by step: what a login does in one, and says of only as a whole.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pg_peers::postgres::config::Host;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::Findings;
use super::finding::Finding;
use super::judge::{self, Times};
use super::subject::Subject;
use crate::connection::Failure;
use crate::deadline::within;
use crate::latency::milliseconds;

const PORT: u16 = 5432;

/// What resolving, connecting or a handshake may take: as long as a member waits for an address.
const STEP: Duration = Duration::from_secs(5);

/// Asks a server to speak TLS: a length and a number (PostgreSQL manual, 55.7, SSLRequest).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Each address of each host, in the order in which a member tries them.
pub(super) fn addresses(subject: &mut Subject) -> Findings {
    let connection = &subject.connection;
    let tls = connection.tls().map(|tls| Arc::new(tls.client.clone()));
    let fixed = connection.config().get_hostaddrs();
    let mut found = Vec::new();
    for (n, (host, port)) in connection.hosts().enumerate() {
        let port = port.unwrap_or(PORT);
        match host {
            Host::Unix(directory) => found.push(socket(directory, port)),
            Host::Tcp(name) => {
                let fixed = fixed.get(n).copied();
                found.extend(host_addresses(name, fixed, port, tls.as_ref()));
            }
        }
    }
    if found.is_empty() {
        let ports = connection.config().get_ports();
        for (n, address) in fixed.iter().enumerate() {
            let port = ports.get(n).or_else(|| ports.first()).copied();
            let address = SocketAddr::new(*address, port.unwrap_or(PORT));
            found.push(one_address(
                address,
                &address.ip().to_string(),
                None,
                tls.as_ref(),
            ));
        }
    }
    // One of several that does not answer costs time, and is no failure.
    let reached = found.iter().any(|it| it.level != super::Level::Failure);
    for finding in &mut found {
        if reached && finding.level == super::Level::Failure {
            finding.level = super::Level::Warning;
        }
    }
    Ok(found)
}

/// Logs in as members do.
pub(super) fn login(subject: &mut Subject) -> Findings {
    let start = Instant::now();
    if let Err(error) = subject.connect() {
        return Ok(vec![Finding::failure(error, advice_for_login(subject))]);
    }
    let took = milliseconds(start.elapsed());
    let row = subject.row("SELECT current_user, pg_catalog.current_database()")?;
    let (user, database) = (row.text(0), row.text(1));
    Ok(vec![Finding::ok(format!(
        "role {user}, database {database}: all of a login in {took}"
    ))])
}

fn advice_for_login(subject: &Subject) -> &'static str {
    match subject.connection.tls() {
        Some(_) => {
            "try the same with psql; for a certificate that is not by a public authority name it with --root-cert FILE"
        }
        None => {
            "try the same with psql; if the server takes encrypted sessions only, write sslmode=require"
        }
    }
}

fn socket(directory: &Path, port: u16) -> Finding {
    let path = directory.join(format!(".s.PGSQL.{port}"));
    let place = path.clone();
    let connected = within("a socket", STEP, move || {
        UnixStream::connect(place).map_err(|e| e.to_string())
    });
    match connected.and_then(|it| it) {
        Ok(_) => Finding::ok(format!("socket {}", path.display())),
        Err(error) => Finding::failure(
            format!("socket {}: {error}", path.display()),
            "see whether the server runs, and where unix_socket_directories leads",
        ),
    }
}

fn host_addresses(
    name: &str,
    fixed: Option<IpAddr>,
    port: u16,
    tls: Option<&Arc<ClientConfig>>,
) -> Vec<Finding> {
    if let Some(address) = fixed {
        let address = SocketAddr::new(address, port);
        return vec![one_address(address, name, None, tls)];
    }
    let start = Instant::now();
    let looked_up = (name.to_owned(), port);
    let resolved = within("resolving a name", STEP, move || {
        let found = looked_up.to_socket_addrs();
        found.map(|found| found.collect::<Vec<_>>())
    });
    let took = start.elapsed();
    let resolved = resolved.and_then(|found| found.map_err(|e| e.to_string()));
    let advice = "see whether the name is right, and whether this machine's name servers answer";
    match resolved {
        Ok(found) if found.is_empty() => {
            vec![Finding::failure(format!("{name} has no address"), advice)]
        }
        Ok(found) => {
            // An address is its own name.
            let took = name.parse::<IpAddr>().is_err().then_some(took);
            let one = |address: SocketAddr| one_address(address, name, took, tls);
            found.into_iter().map(one).collect()
        }
        Err(error) => vec![Finding::failure(
            format!("{name} cannot be resolved: {error}"),
            advice,
        )],
    }
}

fn one_address(
    address: SocketAddr,
    name: &str,
    resolved: Option<Duration>,
    tls: Option<&Arc<ClientConfig>>,
) -> Finding {
    let start = Instant::now();
    let place = match name.parse::<IpAddr>() {
        Ok(_) => address.to_string(),
        Err(_) => format!("{name} ({address})"),
    };
    let stream = match TcpStream::connect_timeout(&address, STEP) {
        Ok(stream) => stream,
        Err(error) => {
            return Finding::failure(
                format!("{place}: {error}"),
                "see whether the server runs there and listens (listen_addresses), and what a firewall lets through",
            );
        }
    };
    let tcp = start.elapsed();
    let handshake = tls.map(|tls| {
        let start = Instant::now();
        handshake(stream, name, tls).map(|()| start.elapsed())
    });
    match handshake.transpose() {
        Ok(tls) => judge::address(&place, resolved, &Times { tcp, tls }),
        Err(error) => Finding::failure(
            format!("{place}: TCP {}, TLS fails: {error}", milliseconds(tcp)),
            "for a certificate that is not by a public authority name it with --root-cert FILE; the host in CONNECTION must be \
             a name in the certificate",
        ),
    }
}

/// Speaks TLS with the server and hangs up.
fn handshake(mut stream: TcpStream, name: &str, tls: &Arc<ClientConfig>) -> Result<(), Failure> {
    stream.set_read_timeout(Some(STEP))?;
    stream.set_write_timeout(Some(STEP))?;
    stream.write_all(&SSL_REQUEST)?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    if answer != *b"S" {
        return Err("the server has none (ssl = off)".into());
    }
    let name = ServerName::try_from(name.to_owned())?;
    let mut session = ClientConnection::new(Arc::clone(tls), name)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    Ok(())
}
