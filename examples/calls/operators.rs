//! The answers to operators: over a socket in the store's directory, or on a port.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use refrain::Store;
use refrain::admin::{Admin, Socket, Token};
use tokio::net::TcpListener;

use crate::failure::Failure;
use crate::recorder::Recorder;

#[derive(Args)]
pub(crate) struct Operators {
    /// Answers operators: on a socket in the store's directory, where the command `refrain` finds
    /// it, or with the token on an IP address and port.
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1)]
    admin: Option<Option<SocketAddr>>,
    /// The file with the token that operators bring to the port.
    #[arg(long, value_name = "FILE", requires = "admin")]
    admin_token_file: Option<PathBuf>,
}

/// The place where operators are answered.
pub(crate) enum Desk {
    Nowhere,
    Socket(Socket),
    Port(TcpListener, Token),
}

impl Operators {
    /// Records the metrics of the process, if operators are answered: before the store opens, which
    /// registers its own.
    pub(crate) fn record_metrics(&self) -> Result<Option<Recorder>, Failure> {
        self.admin.map(|_| Recorder::install()).transpose()
    }

    /// Opens the place, before the server says that it listens.
    pub(crate) async fn open(&self, store: Option<&Path>) -> Result<Desk, Failure> {
        match (self.admin, &self.admin_token_file) {
            (None, _) => Ok(Desk::Nowhere),
            (Some(None), _) => socket(store.ok_or(Failure::NoDirectory)?),
            (Some(Some(_)), None) => Err(Failure::NoToken),
            (Some(Some(address)), Some(file)) => {
                let failed = |source| Failure::Listen { address, source };
                let token = token(file)?;
                Ok(Desk::Port(TcpListener::bind(address).await.map_err(failed)?, token))
            }
        }
    }
}

fn socket(store: &Path) -> Result<Desk, Failure> {
    let path = Socket::path_in(store);
    let failed = |source| Failure::Socket { path: path.clone(), source };
    Socket::bind(&path).map(Desk::Socket).map_err(failed)
}

fn token(file: &Path) -> Result<Token, Failure> {
    let failed = |source| Failure::Token { path: file.into(), source };
    let secret = std::fs::read_to_string(file).map_err(failed)?;
    Token::new(&secret).map_err(|weak| failed(io::Error::new(io::ErrorKind::InvalidData, weak)))
}

impl Desk {
    /// Answers operators until this is dropped.
    pub(crate) async fn serve(self, store: Store, recorder: Option<Recorder>) -> Infallible {
        let admin = match recorder {
            Some(recorder) => recorder.show(Admin::new(store)),
            None => Admin::new(store),
        };
        match self {
            Self::Nowhere => pending().await,
            Self::Socket(socket) => admin.serve_socket(socket).await,
            Self::Port(listener, token) => admin.serve_tcp(listener, token).await,
        }
    }
}
