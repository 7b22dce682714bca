//! pgbouncer in transaction mode, where it is installed.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::room::until;
use super::server::{Server, connect, runtime};

/// The connections that the pooler has to the server.
pub(crate) const POOL: usize = 6;

pub(crate) struct Bouncer {
    pub(crate) port: u16,
    dir: PathBuf,
    process: Child,
}

impl Bouncer {
    /// None where pgbouncer is not installed.
    #[allow(clippy::print_stderr, reason = "what is skipped is said")]
    pub(crate) fn start(role: &str) -> Option<Self> {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"]
            .into_iter()
            .find(|path| std::path::Path::new(path).exists());
        let Some(program) = program else {
            eprintln!("skipped: pgbouncer is not installed");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = std::env::temp_dir().join(format!("refrain-pgbouncer-{port}"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        let settings = dir.join("pgbouncer.ini");
        let mut file = std::fs::File::create(&settings).unwrap();
        write!(
            file,
            "[databases]\npostgres = host=127.0.0.1 port={server} user={role}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = {POOL}\nunix_socket_dir =\n\
             ignore_startup_parameters = extra_float_digits\n",
            server = Server::shared().port,
        )
        .unwrap();
        // It does not run as root.
        let is_root = std::fs::metadata("/proc/self")
            .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        let mut command = if is_root {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", program]);
            command
        } else {
            Command::new(program)
        };
        let process = command
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let bouncer = Self { port, dir, process };
        until("pgbouncer answers", || runtime().block_on(connect(port)).is_ok());
        Some(bouncer)
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        // Whoever became another user passes this on.
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
