//! The connections that statements share.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::link::{Connector, Link};
use crate::trouble::Trouble;

/// The connections that are open and idle, and the number of further ones that may be.
pub(crate) struct Pool {
    connector: Arc<Connector>,
    /// Used last, taken first.
    idle: Mutex<Vec<Link>>,
    room: Arc<Semaphore>,
    /// The part of the room for statements that could wait for long.
    aside: Arc<Semaphore>,
}

/// A link on loan. Dropped, it goes back to the pool if it still works.
pub(crate) struct Loan {
    pool: Arc<Pool>,
    /// With its places among those that may be open.
    link: Option<(Link, Room)>,
}

/// The second where the link is one of those for statements that could wait for long.
type Room = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

impl Pool {
    pub(crate) fn new(connector: Arc<Connector>, max: usize) -> Self {
        let (room, aside) = (Semaphore::new(max), Semaphore::new(max / 2));
        let (room, aside) = (Arc::new(room), Arc::new(aside));
        Self { connector, idle: Mutex::default(), room, aside }
    }

    pub(crate) fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }

    pub(crate) async fn take(self: &Arc<Self>) -> Result<Loan, Trouble> {
        self.take_with(None).await
    }

    /// Takes one of the half that statements may have which could wait for long: the others go on.
    pub(crate) async fn take_aside(self: &Arc<Self>) -> Result<Loan, Trouble> {
        let aside = Arc::clone(&self.aside).acquire_owned().await.map_err(|_| Trouble::Closed)?;
        self.take_with(Some(aside)).await
    }

    async fn take_with(
        self: &Arc<Self>,
        aside: Option<OwnedSemaphorePermit>,
    ) -> Result<Loan, Trouble> {
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| Trouble::Closed)?;
        let idle = || self.idle().pop();
        let open = std::iter::from_fn(idle).find(|link| !link.is_closed());
        let link = match open {
            Some(link) => link,
            None => self.connector.connect().await?,
        };
        Ok(Loan { pool: Arc::clone(self), link: Some((link, (room, aside))) })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Link>> {
        self.idle.lock().expect("nobody panics here")
    }
}

impl Loan {
    /// Closes the link instead of giving it back. The idle ones lead to the same server, and are
    /// closed too.
    pub(crate) fn discard(&mut self) {
        self.link = None;
        self.pool.idle().clear();
    }
}

impl std::ops::Deref for Loan {
    type Target = Link;

    fn deref(&self) -> &Link {
        let (link, _) = self.link.as_ref().expect("nothing is asked of a link that was discarded");
        link
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let Some((link, room)) = self.link.take().filter(|(link, _)| !link.is_closed()) else {
            return;
        };
        if link.is_free() {
            return self.pool.idle().push(link);
        }
        // The server is still at work on a statement that nobody waits for. The link keeps its
        // place until then, or there would be ever more of them at a server that is in trouble.
        let pool = Arc::clone(&self.pool);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if link.until_answered().await.is_ok() {
                    pool.idle().push(link);
                }
                drop(room);
            });
        }
    }
}
