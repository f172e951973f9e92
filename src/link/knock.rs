//! Whether a server answers at all, before a call is made to it that could hang: connecting to one that is frozen, or whose host
//! takes connections for a program that is stuck, has no end, and keeps its thread and its socket until then.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Asks for encryption by GSSAPI, which every server answers by one byte (PostgreSQL's protocol, "Message Formats":
/// GSSENCRequest). A client that hangs up after that leaves no complaint in the log of a server, as after a request for TLS.
const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

/// Fails if nobody answers there within that time. One that ends the connection has answered: connecting tells why.
pub(super) fn knock(config: &postgres::Config, within: Duration) -> io::Result<()> {
    let (address, port) = (config.get_hostaddrs().first(), config.get_ports().first());
    let (Some(address), Some(port)) = (address, port) else {
        // The directory of a socket.
        return Ok(());
    };
    let deadline = Instant::now() + within;
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(*address, *port), within)?;
    let left = deadline.saturating_duration_since(Instant::now());
    stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
    match stream
        .write_all(&GSSENC_REQUEST)
        .and_then(|()| stream.read(&mut [0]))
    {
        Err(error) if is_timeout(&error) => Err(io::Error::new(
            ErrorKind::TimedOut,
            format!("{address}:{port} takes connections and does not answer within {within:.0?}"),
        )),
        _ => Ok(()),
    }
}

/// Which of the two a read that takes too long ends with depends on the system.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn listen() -> (TcpListener, postgres::Config) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut config = postgres::Config::new();
        config.hostaddr(address.ip()).port(address.port());
        (listener, config)
    }

    #[test]
    fn a_server_that_accepts_and_says_nothing_is_not_there() {
        let (_listener, config) = listen();
        let error = knock(&config, Duration::from_millis(50)).expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(
            error.to_string().contains("does not answer within 50ms"),
            "{error}"
        );
    }

    #[test]
    fn a_server_that_answers_or_hangs_up_is_there() {
        for answer in [&b"N"[..], b""] {
            let (listener, config) = listen();
            thread::scope(|scope| {
                scope.spawn(|| {
                    let (mut client, _) = listener.accept().expect("a client");
                    let mut request = [0; 8];
                    client.read_exact(&mut request).expect("a request");
                    assert_eq!(request, GSSENC_REQUEST);
                    client.write_all(answer).expect("a client that reads");
                });
                knock(&config, Duration::from_secs(30)).expect("somebody");
            });
        }
    }

    #[test]
    fn a_server_that_refuses_is_not_there() {
        let (listener, config) = listen();
        drop(listener);
        let error = knock(&config, Duration::from_secs(30)).expect_err("nobody");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
}
