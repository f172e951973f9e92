//! A certificate authority, and a server that takes no session which is not encrypted.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::{Server, server_user};

/// Of all roles but `postgres`, who comes over the socket.
pub const PASSWORD: &str = "hunter2";

/// No line lets anybody in from the network without TLS.
const HBA: &str = "\
local all postgres trust
hostssl all app 127.0.0.1/32 scram-sha-256
hostssl all trusted 127.0.0.1/32 trust
hostssl all certified 127.0.0.1/32 cert
hostssl all doubly 127.0.0.1/32 scram-sha-256 clientcert=verify-full
";

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// Two of the same name would be taken for one whose signatures are wrong.
    pub fn new(name: &str) -> Self {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, key());
        Self(issuer.expect("an authority"))
    }

    /// Its own certificate, as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// For a server of this name.
    pub fn server(&self, name: &str) -> Identity {
        self.issue(server_params(name))
    }

    /// The same, but it expired long ago.
    pub fn expired(&self, name: &str) -> Identity {
        let mut params = server_params(name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.issue(params)
    }

    /// For a client that logs in as this role.
    pub fn client(&self, role: &str) -> Identity {
        let mut params = params(role);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    fn issue(&self, params: CertificateParams) -> Identity {
        let key = key();
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

fn server_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// A server with TLS, and roles for each way to log in: `app` by password, `trusted` without, `certified` by certificate,
/// `doubly` by both.
pub struct TlsServer {
    pub server: Server,
    /// What it reads when it starts.
    pub files: tempfile::TempDir,
}

impl TlsServer {
    /// A server of this identity that trusts the authority's clients. `None` where PostgreSQL was built without TLS, which
    /// is said, unless the environment variable `PG_PEERS_REQUIRE_TLS` is set.
    pub fn start(authority: &Authority, identity: &Identity) -> Option<Self> {
        let files = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .expect("a directory");
        give_to_server(files.path());
        let file = |name: &str, text: &str| {
            let path = files.path().join(name);
            fs::write(&path, text).expect("a file");
            // PostgreSQL refuses a key that others may read.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
            give_to_server(&path);
            path.display().to_string()
        };
        let settings = [
            "ssl = on".to_owned(),
            format!("ssl_cert_file = '{}'", file("crt", &identity.certificate)),
            format!("ssl_key_file = '{}'", file("key", &identity.key)),
            format!("ssl_ca_file = '{}'", file("ca", &authority.pem())),
            format!("hba_file = '{}'", file("hba", HBA)),
            // Until version 14 it was another.
            "password_encryption = 'scram-sha-256'".to_owned(),
            "log_connections = on".to_owned(),
        ];
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let server = match Server::try_start(&settings) {
            Ok(server) => server,
            Err(e)
                if e.contains("not supported by this build")
                    && std::env::var_os("PG_PEERS_REQUIRE_TLS").is_none() =>
            {
                eprintln!("SKIPPED: this PostgreSQL was built without TLS");
                return None;
            }
            Err(e) => panic!("no PostgreSQL server: {e}"),
        };
        for role in ["app", "trusted", "certified", "doubly"] {
            server.run(&format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'"));
        }
        Some(Self { server, files })
    }

    /// A connection string for one of its roles, who takes it to have that name.
    pub fn params(&self, role: &str, name: &str) -> String {
        format!(
            "host={name} hostaddr=127.0.0.1 port={} user={role} password={PASSWORD} dbname=postgres sslmode=require",
            self.server.port()
        )
    }

    /// How many sessions this role has had.
    pub fn sessions(&self, role: &str) -> usize {
        let log = self.server.data().with_file_name("log");
        let log = fs::read_to_string(log).expect("its log");
        let authorized = format!("connection authorized: user={role} ");
        log.lines()
            .filter(|line| line.contains(&authorized))
            .count()
    }
}

fn give_to_server(path: &Path) {
    if let Some((uid, gid)) = server_user() {
        chown(path, Some(uid), Some(gid)).expect("a file to give away");
    }
}
