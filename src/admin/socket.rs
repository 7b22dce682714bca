//! The Unix socket of a store's directory.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use axum::serve::Listener;
use rustix::process::geteuid;
use tokio::net::unix::{SocketAddr, UCred};
use tokio::net::{UnixListener, UnixStream};

/// The name in a store's directory.
const NAME: &str = "admin.sock";
/// For the user of the process alone.
const MODE: u32 = 0o600;
/// The wait after a connection could not be taken, as without descriptors.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// A Unix socket that only the user of the process, and the superuser, can connect to. Dropped, it
/// is removed.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// The device and the inode of the file.
    file: (u64, u64),
}

impl Socket {
    /// Returns the path of the socket of a store's directory, where the command `refrain` looks for
    /// it.
    pub fn path_in(store: impl AsRef<Path>) -> PathBuf {
        store.as_ref().join(NAME)
    }

    /// Listens at a path, in a runtime. A socket that a process has left there, and does not listen
    /// at, is replaced.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AddrInUse`] if another process listens there or another kind of file is
    /// there, and what the system says, such as that the path is too long (107 bytes on Linux).
    pub fn bind(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let listener = match UnixListener::bind(&path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left(&path) => {
                fs::remove_file(&path)?;
                UnixListener::bind(&path)?
            }
            bound => bound?,
        };
        // Until it has this mode, those who connect are known by their user.
        fs::set_permissions(&path, fs::Permissions::from_mode(MODE))?;
        let file = identity(&path)?;
        Ok(Self { listener, path, file })
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Returns true if a path is a socket at which nobody listens.
fn is_left(path: &Path) -> bool {
    let connected = std::os::unix::net::UnixStream::connect(path);
    connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        && fs::symlink_metadata(path).is_ok_and(|file| is_socket(&file))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

fn is_socket(file: &fs::Metadata) -> bool {
    file.file_type().is_socket()
}

impl Listener for Socket {
    type Io = UnixStream;
    type Addr = SocketAddr;

    /// Takes the next connection of a user who may ask.
    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) if stream.peer_cred().is_ok_and(|peer| may_ask(&peer)) => {
                    return (stream, address);
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn may_ask(peer: &UCred) -> bool {
    peer.uid() == geteuid().as_raw() || peer.uid() == 0
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Where the directory was moved, another store's socket may be at the path. One that is left is
        // replaced by the next process.
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
