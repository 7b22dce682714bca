//! Keys that requests on other nodes hold, and the requests here that wait for them.
//!
//! Polling is the truth: one statement for all that is due, 10 ms after the wait begins and then
//! ever more rarely. A notification only makes the next poll come at once, and the holder sends one
//! only where the row says that somebody waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use refrain::backend::{Promise, Ticket};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use crate::backend::Fleet;
use crate::link::Link;
use crate::statements::{Seen, state};
use crate::trouble::Trouble;

/// The first pause between two looks at a key, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// The pause after a connection for notifications did not come about.
const LISTEN_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The pause between two looks at whether it has broken.
const IS_CLOSED_EVERY: Duration = Duration::from_secs(1);
/// Keys that are looked at in one statement.
const BATCH: usize = 256;

pub(crate) struct Elsewhere {
    watched: Mutex<HashMap<Uuid, Watched>>,
    /// Wakes the poller for a key that is new or was notified.
    wake: Arc<Notify>,
    is_polling: AtomicBool,
    channel: String,
}

struct Watched {
    attempt: Uuid,
    state: i16,
    promise: Promise<()>,
    due: Instant,
    pause: Duration,
    /// Set if the row says that somebody waits.
    is_marked: bool,
}

impl Elsewhere {
    pub(crate) fn new(schema: &str) -> Self {
        Self {
            watched: Mutex::default(),
            wake: Arc::new(Notify::new()),
            is_polling: AtomicBool::new(false),
            channel: format!("refrain_{schema}"),
        }
    }

    /// Returns a ticket that is ready once the key is no longer as it was seen.
    pub(crate) fn watch(self: &Arc<Self>, fleet: &Arc<Fleet>, seen: &Seen) -> Ticket<()> {
        let (ticket, promise) = Ticket::new();
        // If the holder is dead, a transaction that it left open has the row.
        let (first, longest) = PAUSES;
        let first = if seen.dead { longest } else { first };
        let watched = Watched {
            attempt: seen.attempt,
            state: seen.state,
            promise,
            due: Instant::now() + jittered(first),
            pause: first,
            is_marked: seen.waited,
        };
        // One request of this process has the key in hand, so the key is watched once.
        self.watched().insert(seen.address, watched);
        // The poller answers all that it finds when the store closes, and then returns.
        if *fleet.closing.borrow() {
            self.watched().remove(&seen.address);
            return ticket;
        }
        self.wake.notify_one();
        if !self.is_polling.swap(true, Ordering::AcqRel) {
            let (elsewhere, fleet) = (Arc::clone(self), Arc::clone(fleet));
            fleet.runtime.clone().spawn(async move { elsewhere.poll(&fleet).await });
        }
        ticket
    }

    /// Notifies the other nodes of a key that has changed. A notification that is lost costs them a
    /// poll.
    pub(crate) fn tell(&self, fleet: &Arc<Fleet>, address: Uuid) {
        let (fleet, channel) = (Arc::clone(fleet), self.channel.clone());
        fleet.runtime.clone().spawn(async move {
            let payload = address.to_string();
            let told = async {
                let link = fleet.pool.take().await?;
                link.query(&fleet.statements.notify, &[&channel, &payload]).await
            };
            let _: Result<_, Trouble> = told.await;
        });
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<Uuid, Watched>> {
        self.watched.lock().expect("nobody panics here")
    }

    async fn poll(self: Arc<Self>, fleet: &Arc<Fleet>) {
        let mut listening: Option<JoinHandle<()>> = None;
        let mut closing = fleet.closing.subscribe();
        loop {
            let Some(due) = self.next_due() else {
                // With nothing to wait for there is nothing to listen to, after a while.
                tokio::select! {
                    () = self.wake.notified() => continue,
                    _ = closing.wait_for(|closing| *closing) => return self.watched().clear(),
                }
            };
            // A pooler passes no notifications on, and its connection would listen for ever.
            let is_direct = fleet.pool.connector().is_direct();
            if is_direct && listening.as_ref().is_none_or(JoinHandle::is_finished) {
                let listen = Arc::clone(&self).listen(Arc::clone(fleet));
                listening = Some(fleet.runtime.spawn(listen));
            }
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = self.wake.notified() => continue,
                _ = closing.wait_for(|closing| *closing) => return self.watched().clear(),
            }
            // In trouble, everything is looked at again after its pause.
            let _ = self.look(fleet).await;
        }
    }

    /// Forgets those who no longer wait, and returns the time of the next look.
    fn next_due(&self) -> Option<Instant> {
        let mut watched = self.watched();
        watched.retain(|_, watched| watched.promise.is_wanted());
        watched.values().map(|watched| watched.due).min()
    }

    /// Listens until the connection breaks or the store closes. It is a task of its own, because the
    /// keys are looked at while it connects, and it lasts for a while also where it cannot.
    async fn listen(self: Arc<Self>, fleet: Arc<Fleet>) {
        let mut closing = fleet.closing.subscribe();
        let listening = async {
            match self.listener(&fleet).await {
                Ok(link) => {
                    while !link.is_closed() {
                        tokio::time::sleep(IS_CLOSED_EVERY).await;
                    }
                }
                Err(_) => tokio::time::sleep(LISTEN_AGAIN_AFTER).await,
            }
        };
        tokio::select! {
            () = listening => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
    }

    async fn listener(&self, fleet: &Fleet) -> Result<Link, Trouble> {
        let (wake, notified) = (Arc::clone(&self.wake), Arc::clone(&fleet.elsewhere));
        let link = fleet
            .pool
            .connector()
            .listen(move |payload| {
                if let Ok(address) = payload.parse()
                    && let Some(watched) = notified.watched().get_mut(&address)
                {
                    watched.due = Instant::now();
                    wake.notify_one();
                }
            })
            .await?;
        link.batch_execute(&format!("LISTEN \"{}\"", self.channel)).await?;
        Ok(link)
    }

    async fn look(&self, fleet: &Fleet) -> Result<(), Trouble> {
        let (due, unmarked) = self.take_due();
        if due.is_empty() {
            return Ok(());
        }
        if !unmarked.is_empty() {
            let (addresses, attempts): (Vec<Uuid>, Vec<Uuid>) = unmarked.into_iter().unzip();
            fleet.query(&fleet.statements.mark_waited, &[&addresses, &attempts]).await?;
            let mut watched = self.watched();
            for address in &addresses {
                if let Some(watched) = watched.get_mut(address) {
                    watched.is_marked = true;
                }
            }
        }
        let rows = fleet.query(&fleet.statements.holders, &[&due]).await?;
        let mut holders = HashMap::new();
        for row in &rows {
            let (address, attempt): (Uuid, Uuid) = (row.try_get(0)?, row.try_get(1)?);
            let is_over: bool = row.try_get(3)?;
            let is_dead: bool = row.try_get(4)?;
            let state: i16 = row.try_get(2)?;
            holders
                .insert(address, (attempt, state, is_dead || is_over && fleet.session.may_judge()));
        }
        for address in due {
            let Some(watched) = self.watched().remove(&address) else { continue };
            let is_same = holders.get(&address).is_some_and(|(attempt, state, is_free)| {
                *attempt == watched.attempt && *state == watched.state && !is_free
            });
            if is_same && watched.state < state::INTERRUPTED {
                // Unless another request waits for the key by now.
                self.watched().entry(address).or_insert(watched);
            } else {
                watched.promise.fulfil(Ok(()));
            }
        }
        Ok(())
    }

    /// The keys that are due, of which each is due again after its next pause, and those among them
    /// whose rows do not say yet that somebody waits, with their attempts.
    fn take_due(&self) -> (Vec<Uuid>, Vec<(Uuid, Uuid)>) {
        let now = Instant::now();
        let (_, longest) = PAUSES;
        let (mut due, mut unmarked) = (Vec::new(), Vec::new());
        for (address, watched) in self.watched().iter_mut() {
            if watched.due > now || due.len() >= BATCH {
                continue;
            }
            watched.pause = watched.pause.mul_f64(1.5).min(longest);
            watched.due = now + jittered(watched.pause);
            due.push(*address);
            if !watched.is_marked {
                unmarked.push((*address, watched.attempt));
            }
        }
        due.sort_unstable();
        unmarked.sort_unstable();
        (due, unmarked)
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64())
}
