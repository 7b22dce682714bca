//! A network that can be cut, or stall.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::server::{runtime, wait};

/// Passes bytes on to a server, until it is cut.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    weather: watch::Sender<Weather>,
}

/// What connections see of the network. A break is counted, so that one which is mended at once is not
/// missed.
#[derive(Clone, Copy)]
struct Weather {
    state: State,
    cuts: u32,
    silences: u32,
}

impl Weather {
    /// Returns whether a connection that was made in the weather `then` is over.
    fn ends(self, then: Self) -> bool {
        self.cuts != then.cuts || self.silences != then.silences
    }
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
        let fair = Weather { state: State::Open, cuts: 0, silences: 0 };
        let (weather, watched) = watch::channel(fair);
        runtime().spawn(async move {
            for server in servers.into_iter().cycle() {
                let Ok((client, _)) = listener.accept().await else { return };
                tokio::spawn(pass_on(client, server, watched.clone()));
            }
        });
        Self { port, weather }
    }

    /// Breaks every connection, and refuses new ones.
    pub(crate) fn cut(&self) {
        self.weather
            .send_modify(|now| *now = Weather { state: State::Cut, cuts: now.cuts + 1, ..*now });
    }

    /// Leaves every connection as it is and passes nothing on, also on new ones. Nothing comes of
    /// either later.
    pub(crate) fn fall_silent(&self) {
        let silenced = |now: &mut Weather| {
            *now = Weather { state: State::Silent, silences: now.silences + 1, ..*now };
        };
        self.weather.send_modify(silenced);
    }

    /// Keeps what comes, in both directions, until it is mended or cut.
    pub(crate) fn stall(&self) {
        self.weather.send_modify(|now| now.state = State::Stalled);
    }

    /// Keeps what the servers say, until it is mended or cut.
    pub(crate) fn stall_answers(&self) {
        self.weather.send_modify(|now| now.state = State::Deaf);
    }

    pub(crate) fn mend(&self) {
        self.weather.send_modify(|now| now.state = State::Open);
    }
}

async fn pass_on(mut client: TcpStream, server: u16, mut weather: watch::Receiver<Weather>) {
    let then = *weather.borrow();
    match then.state {
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
    let up = copy(from_client, to_server, weather.clone(), then, &[State::Stalled]);
    let down = copy(from_server, to_client, weather.clone(), then, &[State::Deaf, State::Stalled]);
    let is_silent = tokio::select! {
        _ = async { tokio::join!(up, down) } => false,
        now = weather.wait_for(|now| now.ends(then)) => now.is_ok_and(|now| now.cuts == then.cuts),
    };
    if is_silent {
        std::future::pending::<()>().await;
    }
}

/// Copies until one end closes, and closes the other one. In some states it stands still, and once
/// the connection is over for good.
async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
    then: Weather,
    still: &[State],
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let moves = |now: &Weather| now.ends(then) || !still.contains(&now.state);
        if weather.wait_for(moves).await.is_ok_and(|now| now.ends(then)) {
            return std::future::pending().await;
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
