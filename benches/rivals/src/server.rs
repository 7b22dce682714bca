//! A database server of its own, which ends with this process.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The time within which a server must answer, recovery included.
const START: Duration = Duration::from_secs(600);

pub struct Server(Child);

/// Another user to run as, where root must not.
#[derive(Clone, Copy)]
pub struct User {
    uid: u32,
    gid: u32,
}

impl User {
    pub fn named(name: &str) -> Result<Self> {
        Ok(Self { uid: id("-u", name)?, gid: id("-g", name)? })
    }

    pub fn own(self, path: &Path) -> Result<()> {
        Ok(chown(path, Some(self.uid), Some(self.gid))?)
    }
}

fn id(flag: &str, name: &str) -> Result<u32> {
    let output = Command::new("id").args([flag, name]).output()?;
    ensure!(output.status.success(), "there is no user {name}");
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// A command that is killed with this process.
pub fn command(program: impl AsRef<std::ffi::OsStr>, user: Option<User>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(User { uid, gid }) = user {
        command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()]);
    }
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Finds a program on the path, or in one of these places.
pub fn find(program: &str, places: &[PathBuf]) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).chain(places.iter().cloned());
    found
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("{program} is not installed"))
}

impl Server {
    /// Starts a server whose errors go to a file, and waits until it answers.
    pub fn start<T>(
        mut command: Command,
        errors: &Path,
        mut answer: impl FnMut() -> Result<T>,
    ) -> Result<Self> {
        let mut server = Self(command.stderr(std::fs::File::create(errors)?).spawn()?);
        let deadline = Instant::now() + START;
        while let Err(error) = answer() {
            if let Some(status) = server.0.try_wait()? {
                let said = std::fs::read_to_string(errors).unwrap_or_default();
                bail!("the server ended with {status}: {said}");
            }
            ensure!(Instant::now() < deadline, "the server does not answer: {error:#}");
            thread::sleep(Duration::from_millis(2));
        }
        Ok(server)
    }

    /// The server, and the processes that it has started.
    pub fn processes(&self) -> Vec<u32> {
        let mut all = vec![self.0.id()];
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        all
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed already, on purpose.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
