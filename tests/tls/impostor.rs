//! Somebody between a client and its server, with a certificate that the client trusts: reads all, and passes it on.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

use crate::client::{certificate, roots};
use crate::support::Identity;

/// What asks a PostgreSQL server for TLS (manual, 53.7: SSLRequest).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// How long one direction is waited for while the other may have something.
const TURN: Duration = Duration::from_millis(2);

pub(crate) struct Impostor {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: ServerName<'static>,
    upstream: u16,
}

impl Impostor {
    /// Listens on the port that is returned, for as long as the process lives.
    pub(crate) fn start(identity: &Identity, authority: &str, name: &str, upstream: u16) -> u16 {
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
        let server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate(&identity.certificate)], key);
        let client = ClientConfig::builder()
            .with_root_certificates(roots(authority))
            .with_no_client_auth();
        let impostor = Arc::new(Self {
            server: Arc::new(server.expect("an identity")),
            client: Arc::new(client),
            name: ServerName::try_from(name.to_owned()).expect("a name"),
            upstream,
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let impostor = Arc::clone(&impostor);
                // It ends when either side does.
                thread::spawn(move || impostor.pass_on(client));
            }
        });
        port
    }

    fn pass_on(&self, mut client: TcpStream) -> io::Result<()> {
        client.read_exact(&mut [0; SSL_REQUEST.len()])?;
        client.write_all(b"S")?;
        let mut server = TcpStream::connect(("127.0.0.1", self.upstream))?;
        server.write_all(&SSL_REQUEST)?;
        server.read_exact(&mut [0])?;

        let mut connection =
            ServerConnection::new(Arc::clone(&self.server)).map_err(io::Error::other)?;
        connection.complete_io(&mut client)?;
        client.set_read_timeout(Some(TURN))?;
        let mut client = StreamOwned::new(connection, client);

        let mut connection = ClientConnection::new(Arc::clone(&self.client), self.name.clone())
            .map_err(io::Error::other)?;
        connection.complete_io(&mut server)?;
        server.set_read_timeout(Some(TURN))?;
        let mut server = StreamOwned::new(connection, server);

        loop {
            forward(&mut client, &mut server)?;
            forward(&mut server, &mut client)?;
        }
    }
}

fn forward(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = [0; 16_384];
    match from.read(&mut buffer) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(count) => to.write_all(&buffer[..count]).and_then(|()| to.flush()),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(()),
        Err(e) => Err(e),
    }
}
