//! A network that fails: between client and server, by the connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A fault of a connection, which carries one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The connection is closed before the request is delivered.
    DropBefore,
    /// The connection is closed after the request is delivered, and before the answer is.
    DropAfter,
    /// The answer comes late.
    Delay(Duration),
    /// Half of the answer comes.
    Truncate,
    /// The connection is reset once the request is delivered.
    Reset,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
    /// The number of connections with a fault.
    pub(crate) faults: Arc<AtomicUsize>,
}

/// A size that no message of these tests exceeds.
const MESSAGE: usize = 64 * 1024;

impl Proxy {
    /// Starts in front of a server, and asks `fault` for the fault of each connection.
    pub(crate) async fn start(
        server: SocketAddr,
        fault: impl Fn(usize) -> Fault + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (server, faults) = (Arc::new(Mutex::new(server)), Arc::new(AtomicUsize::new(0)));
        let (behind, count) = (Arc::clone(&server), Arc::clone(&faults));
        tokio::spawn(async move {
            for number in 0.. {
                let (client, _) = listener.accept().await.unwrap();
                let fault = fault(number);
                count.fetch_add(usize::from(fault != Fault::None), Ordering::Relaxed);
                let server = *behind.lock();
                // An end that goes away ends the connection.
                tokio::spawn(async move { carry(client, server, fault).await.ok() });
            }
        });
        Self { address, server, faults }
    }

    /// Connects to another server from now on.
    pub(crate) fn turn_to(&self, server: SocketAddr) {
        *self.server.lock() = server;
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr, fault: Fault) -> std::io::Result<()> {
    let mut request = vec![0; MESSAGE];
    let length = client.read(&mut request).await?;
    if fault == Fault::DropBefore {
        return Ok(());
    }
    let mut server = TcpStream::connect(server).await?;
    server.write_all(&request[..length]).await?;
    let mut answer = vec![0; MESSAGE];
    let length = match fault {
        // The head may come in a piece of its own, and so may the rest of the request.
        Fault::None | Fault::Delay(_) => {
            if let Fault::Delay(by) = fault {
                tokio::time::sleep(by).await;
            }
            tokio::io::copy_bidirectional(&mut client, &mut server).await?;
            return Ok(());
        }
        _ => exchange(&mut client, &mut server, &mut answer).await?,
    };
    match fault {
        Fault::Truncate => client.write_all(&answer[..length / 2]).await,
        Fault::Reset => client.set_zero_linger(),
        _ => Ok(()),
    }
}

/// Passes on what is left of the request until the server begins to answer.
async fn exchange(
    client: &mut TcpStream,
    server: &mut TcpStream,
    answer: &mut [u8],
) -> std::io::Result<usize> {
    let mut more = vec![0; MESSAGE];
    loop {
        tokio::select! {
            length = server.read(answer) => return length,
            length = client.read(&mut more) => match length? {
                0 => return server.read(answer).await,
                length => server.write_all(&more[..length]).await?,
            },
        }
    }
}
