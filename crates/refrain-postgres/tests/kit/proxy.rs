//! A network that can be cut, or stall.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::server::{runtime, wait};

/// Passes bytes on to a server, until it is cut.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// What the servers say is kept.
    Deaf,
    Stalled,
    /// Nothing comes any more of what is there.
    Silent,
    Cut,
}

impl Proxy {
    pub(crate) fn to(server: u16) -> Self {
        Self::in_turn(vec![server])
    }

    /// To each of the servers in turn, a connection each.
    pub(crate) fn in_turn(servers: Vec<u16>) -> Self {
        let listener = wait(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, watched) = watch::channel(State::Open);
        runtime().spawn(async move {
            for server in servers.into_iter().cycle() {
                let Ok((client, _)) = listener.accept().await else { return };
                tokio::spawn(pass_on(client, server, watched.clone()));
            }
        });
        Self { port, state }
    }

    /// Breaks every connection, and refuses new ones.
    pub(crate) fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Leaves every connection as it is and passes nothing on, also on new ones. Nothing comes of
    /// either later.
    pub(crate) fn fall_silent(&self) {
        self.state.send_replace(State::Silent);
    }

    /// Keeps what comes, in both directions, until it is mended or cut.
    pub(crate) fn stall(&self) {
        self.state.send_replace(State::Stalled);
    }

    /// Keeps what the servers say, until it is mended or cut.
    pub(crate) fn stall_answers(&self) {
        self.state.send_replace(State::Deaf);
    }

    pub(crate) fn mend(&self) {
        self.state.send_replace(State::Open);
    }
}

async fn pass_on(mut client: TcpStream, server: u16, mut state: watch::Receiver<State>) {
    let at_first = *state.borrow();
    match at_first {
        State::Cut => return,
        State::Silent => std::future::pending().await,
        State::Open | State::Deaf | State::Stalled => {}
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let up = copy(from_client, to_server, state.clone(), &[State::Stalled]);
    let down = copy(from_server, to_client, state.clone(), &[State::Deaf, State::Stalled]);
    let is_silent = tokio::select! {
        _ = async { tokio::join!(up, down) } => false,
        left = state.wait_for(|state| [State::Silent, State::Cut].contains(state)) => {
            left.is_ok_and(|state| *state == State::Silent)
        }
    };
    if is_silent {
        std::future::pending::<()>().await;
    }
}

/// Copies until one end closes, and closes the other one. In some states it stands still.
async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut state: watch::Receiver<State>,
    still: &[State],
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let state = state.wait_for(|state| !still.contains(state)).await;
        let is_flowing = state.is_ok_and(|state| *state != State::Cut);
        if read == 0 || !is_flowing || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
