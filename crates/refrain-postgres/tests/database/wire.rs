//! A network that follows what a store says to its database, and breaks at a statement.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::kit::server::{connect, runtime, wait};

/// A break, which ends the connection that it happens on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Break {
    /// The statement does not arrive.
    Before,
    /// The statement takes effect, and its answer does not arrive.
    After,
    /// The backend is terminated when the statement comes, and says so.
    Terminated,
}

/// Passes messages on between a store and the database on a port.
pub(crate) struct Wire {
    pub(crate) port: u16,
    line: Arc<Line>,
}

struct Line {
    database: u16,
    /// Left out of the statements' texts.
    schema: String,
    armed: Mutex<Option<Armed>>,
    /// How often each statement was said since this was last taken.
    said: Mutex<BTreeMap<String, usize>>,
    /// Tells all connections to break.
    hung_up: watch::Sender<()>,
}

struct Armed {
    text: String,
    /// The number of times that the statement is passed on before the break.
    spared: usize,
    kind: Break,
}

impl Wire {
    pub(crate) fn to(database: u16, schema: &str) -> Self {
        let listener = wait(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (armed, said) = (Mutex::default(), Mutex::default());
        let (schema, hung_up) = (schema.to_owned(), watch::Sender::new(()));
        let line = Arc::new(Line { database, schema, armed, said, hung_up });
        let each = Arc::clone(&line);
        runtime().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let line = Arc::clone(&each);
                tokio::spawn(async move {
                    let mut hung_up = line.hung_up.subscribe();
                    tokio::select! {
                        _ = line.pass_on(client) => {}
                        _ = hung_up.changed() => {}
                    }
                });
            }
        });
        Self { port, line }
    }

    /// Breaks all connections.
    pub(crate) fn hang_up(&self) {
        self.line.hung_up.send_replace(());
    }

    /// Breaks at a statement, after it was passed on so many times.
    pub(crate) fn arm(&self, text: &str, spared: usize, kind: Break) {
        *self.line.armed.lock().unwrap() = Some(Armed { text: text.to_owned(), spared, kind });
    }

    /// Takes the break back. Returns true if it has not happened.
    pub(crate) fn disarm(&self) -> bool {
        self.line.armed.lock().unwrap().take().is_some()
    }

    /// The statements that were said since the last call, and how often each.
    pub(crate) fn take_said(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut *self.line.said.lock().unwrap())
    }
}

/// A connection. An answer that begins when so many others have been read is kept back.
struct Call {
    backend: AtomicI32,
    kept_back: AtomicUsize,
}

impl Line {
    async fn pass_on(&self, client: TcpStream) -> Option<()> {
        let database = TcpStream::connect(("127.0.0.1", self.database)).await.ok()?;
        for stream in [&client, &database] {
            stream.set_nodelay(true).unwrap();
        }
        let (from_client, to_client) = client.into_split();
        let (from_database, to_database) = database.into_split();
        let call = Call { backend: AtomicI32::new(0), kept_back: AtomicUsize::new(usize::MAX) };
        let asking = self.ask(&call, from_client, to_database);
        let mut answering = std::pin::pin!(answer(&call, from_database, to_client));
        tokio::select! {
            // The database has closed the connection, and its last words are passed on.
            Some(_open) = asking => answering.await,
            answered = &mut answering => answered,
            else => None,
        }
    }

    /// Returns the open connection if the rest of the answers is wanted.
    async fn ask(
        &self,
        call: &Call,
        mut client: OwnedReadHalf,
        mut database: OwnedWriteHalf,
    ) -> Option<OwnedWriteHalf> {
        let length = client.read_u32().await.ok()?;
        let mut startup = vec![0; usize::try_from(length).ok()? - 4];
        client.read_exact(&mut startup).await.ok()?;
        database.write_u32(length).await.ok()?;
        database.write_all(&startup).await.ok()?;
        let mut texts = HashMap::new();
        // The answer to the startup is the first.
        let mut questions = 1;
        loop {
            let (kind, body) = read(&mut client).await?;
            let said = match kind {
                b'P' => {
                    let (name, rest) = text(&body);
                    texts.insert(name, text(rest).0);
                    None
                }
                b'B' => texts.get(&text(text(&body).1).0).cloned(),
                b'Q' => Some(text(&body).0),
                _ => None,
            };
            match said.and_then(|said| self.hear(&said)) {
                None => {}
                Some(Break::Before) => return None,
                Some(Break::After) => call.kept_back.store(questions, Ordering::Release),
                Some(Break::Terminated) => {
                    let administrator = connect(self.database).await.unwrap();
                    let backend = call.backend.load(Ordering::Acquire);
                    let terminated = "SELECT pg_terminate_backend($1, 10000)";
                    administrator.query_one(terminated, &[&backend]).await.unwrap();
                    return Some(database);
                }
            }
            if matches!(kind, b'S' | b'Q') {
                questions += 1;
            }
            write(&mut database, kind, &body).await?;
        }
    }

    /// Returns the break, if this is the statement for it.
    fn hear(&self, text: &str) -> Option<Break> {
        let text = text.replace(&self.schema, "SCHEMA");
        let mut armed = self.armed.lock().unwrap();
        let kind = match &mut *armed {
            Some(at) if at.text == text && at.spared == 0 => armed.take().map(|at| at.kind),
            Some(at) if at.text == text => {
                at.spared -= 1;
                None
            }
            _ => None,
        };
        *self.said.lock().unwrap().entry(text).or_default() += 1;
        kind
    }
}

/// Passes answers on, until one that is kept back ends.
async fn answer(
    call: &Call,
    mut database: OwnedReadHalf,
    mut client: OwnedWriteHalf,
) -> Option<()> {
    let mut answered = 0;
    loop {
        let (kind, body) = read(&mut database).await?;
        if kind == b'K' {
            let backend = i32::from_be_bytes(body.get(..4)?.try_into().ok()?);
            call.backend.store(backend, Ordering::Release);
        }
        let is_kept_back = answered >= call.kept_back.load(Ordering::Acquire);
        if kind == b'Z' {
            answered += 1;
            if is_kept_back {
                return None;
            }
        }
        if !is_kept_back {
            write(&mut client, kind, &body).await?;
        }
    }
}

async fn read(from: &mut (impl AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let kind = from.read_u8().await.ok()?;
    let length = from.read_u32().await.ok()?;
    let mut body = vec![0; usize::try_from(length).ok()? - 4];
    from.read_exact(&mut body).await.ok()?;
    Some((kind, body))
}

async fn write(to: &mut OwnedWriteHalf, kind: u8, body: &[u8]) -> Option<()> {
    let length = u32::try_from(body.len()).ok()? + 4;
    let message = [&[kind], &length.to_be_bytes()[..], body].concat();
    to.write_all(&message).await.ok()
}

/// Splits a text off that ends with a zero.
fn text(bytes: &[u8]) -> (String, &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap();
    (String::from_utf8(bytes[..end].to_vec()).unwrap(), &bytes[end + 1..])
}
