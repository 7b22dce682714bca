//! A client: it sends requests to the nodes, one at a time, and ends what it was given to run.

use std::time::Duration;

use super::group::Group;
use super::journal::{Entry, Life};
use super::node::LEASE;
use super::plan::{Client, NODES};
use super::words::{Answer, Ask, Begin, Name, Number, response};
use crate::chance::Chance;

/// The pause before a client asks again where all nodes are down.
const PAUSE: Duration = Duration::from_millis(10);
/// The deadlines of requests.
const DEADLINES: [u64; 4] = [0, 50, 500, 2_000];
/// The deadline of the last requests, which nothing disturbs.
const LAST_DEADLINE: u64 = 5_000;
/// Tries of a last request.
const LAST_TRIES: u32 = 20;
/// Times in which a client gives up, if it does.
const PATIENCES: [u64; 4] = [0, 2, 10, 100];
const FINGERPRINTS: usize = 8;

/// A client's requests in a history.
pub(super) struct Requests<'a> {
    group: &'a Group,
    history: u64,
    client: &'a str,
    count: u32,
}

/// A permit or an attempt that a node holds for a client.
struct Run {
    number: Number,
    life: Life,
    name: Name,
    /// The request of the run, and the one that ends it.
    request: String,
    by: String,
    is_durable: bool,
}

/// The reason why a client ends: its group has failed.
pub(super) struct Halt;

type Turn<T = ()> = Result<T, Halt>;

impl<'a> Requests<'a> {
    pub(super) fn new(group: &'a Group, history: u64, client: &'a str) -> Self {
        Self { group, history, client, count: 0 }
    }

    pub(super) async fn all(mut self, client: &Client) -> Turn {
        for chance in &client.steps {
            let mut chance = chance.clone();
            pause(chance.below(500)).await;
            let name =
                (self.history, u32::try_from(chance.below(client.keys as usize)).unwrap_or(0));
            let node = chance.below(NODES);
            if chance.one_in(8) {
                self.ask(node, name, Ask::Get { name }).await?;
            } else {
                self.request(node, name, client.ttls, &mut chance).await?;
            }
        }
        Ok(())
    }

    /// Asks each node for each key, until it answers, and completes what can be completed.
    pub(super) async fn look(mut self, keys: u32) -> Turn {
        let history = self.history;
        for name in (0..keys).map(|key| (history, key)) {
            for node in 0..NODES {
                let node = (node + usize::try_from(history).unwrap_or(0)) % NODES;
                let mut tries = 0..LAST_TRIES;
                while self.look_at(node, name).await?.is_none() {
                    if tries.next().is_none() {
                        self.group.fail(format!("node {node} never answers about {name:?}"));
                        return Err(Halt);
                    }
                }
            }
        }
        Ok(())
    }

    /// Asks one node for a key. None if the node cannot tell.
    async fn look_at(&mut self, node: usize, name: Name) -> Turn<Option<()>> {
        let begin = Begin { deadline_ms: LAST_DEADLINE, ..self.begin(name) };
        let by = begin.request.clone();
        let entry = self.ask(node, name, Ask::Begin(begin)).await?;
        let run = match entry.answer() {
            Some(Answer::Run { .. }) => self.run(&entry, &by, false),
            Some(Answer::Interrupted { request, .. }) => {
                Run { request: request.clone(), ..self.run(&entry, &by, true) }
            }
            Some(Answer::Unavailable(_)) | None => return Ok(None),
            Some(_) => {
                self.ask(node, name, Ask::Get { name }).await?;
                return Ok(Some(()));
            }
        };
        let entry = self.complete(&run, true).await?;
        let is_known =
            !matches!(entry.as_ref().and_then(Entry::answer), Some(Answer::Unavailable(_)));
        Ok(is_known.then_some(()))
    }

    fn begin(&mut self, name: Name) -> Begin {
        self.count += 1;
        Begin {
            name,
            request: format!("{}-{}", self.client, self.count),
            fingerprint: 0,
            is_durable: false,
            ttl_ms: self.group.retention_ms(),
            deadline_ms: 0,
            gone_after_ms: None,
        }
    }

    async fn request(
        &mut self,
        node: usize,
        name: Name,
        (shortest, more): (u64, u64),
        chance: &mut Chance,
    ) -> Turn {
        let begin = Begin {
            fingerprint: u8::from(chance.one_in(FINGERPRINTS)),
            is_durable: chance.one_in(2),
            ttl_ms: shortest + chance.draw() % more,
            deadline_ms: DEADLINES[chance.below(DEADLINES.len())],
            gone_after_ms: chance.one_in(10).then(|| PATIENCES[chance.below(PATIENCES.len())]),
            ..self.begin(name)
        };
        let (by, is_durable) = (begin.request.clone(), begin.is_durable);
        let entry = self.ask(node, name, Ask::Begin(begin)).await?;
        match entry.answer() {
            Some(Answer::Run { .. }) => {
                let run = self.run(&entry, &by, is_durable);
                self.end(&run, chance).await
            }
            Some(Answer::Interrupted { request, .. }) => {
                let run = Run { request: request.clone(), ..self.run(&entry, &by, true) };
                self.judge(run, chance).await
            }
            _ => Ok(()),
        }
    }

    fn run(&self, entry: &Entry, by: &str, is_durable: bool) -> Run {
        let (number, life, name) = (entry.number, entry.life, entry.name);
        Run { number, life, name, request: by.to_owned(), by: by.to_owned(), is_durable }
    }

    /// Runs for a while, and ends the run in one of all possible ways.
    async fn end(&mut self, run: &Run, chance: &mut Chance) -> Turn {
        let lease = LEASE.as_millis() as usize;
        let mut lasts = [0, chance.below(lease / 2), chance.below(3 * lease)][chance.below(3)];
        while run.is_durable && chance.one_in(2) {
            let part = chance.below(lasts + 1);
            lasts -= part;
            pause(part).await;
            let data = format!("{} at {}", run.request, chance.below(1000));
            self.ask_about(run, Ask::Checkpoint { held: run.number, data }).await?;
        }
        pause(lasts).await;
        let held = run.number;
        let ask = match chance.below(12) {
            0 => Ask::Release { held },
            1 => Ask::Interrupt { held },
            2 => Ask::Drop { held },
            end => return self.complete(run, end > 3).await.map(drop),
        };
        self.ask_about(run, ask).await.map(drop)
    }

    async fn judge(&mut self, run: Run, chance: &mut Chance) -> Turn {
        pause([0, chance.below(200)][chance.below(2)]).await;
        let held = run.number;
        let ask = match chance.below(6) {
            0 => Ask::Release { held },
            1 => Ask::Drop { held },
            2 => return self.complete(&run, true).await.map(drop),
            _ => Ask::Retry { held },
        };
        let entry = self.ask_about(&run, ask).await?;
        match entry.as_ref().and_then(Entry::answer) {
            Some(Answer::Run { .. }) => {
                let run = Run { request: run.by.clone(), is_durable: true, ..run };
                self.end(&run, chance).await
            }
            _ => Ok(()),
        }
    }

    async fn complete(&mut self, run: &Run, is_kept: bool) -> Turn<Option<Entry>> {
        let response = is_kept.then(|| response(&run.request, &run.by));
        self.ask_about(run, Ask::Complete { held: run.number, response }).await
    }

    /// Asks the process that holds a run. None if it has ended.
    async fn ask_about(&mut self, run: &Run, ask: Ask) -> Turn<Option<Entry>> {
        self.group.ask(run.life.node, run.name, ask, Some(run.life)).await.ok_or(Halt)
    }

    /// Asks a node, or the next one that is up.
    async fn ask(&mut self, node: usize, name: Name, ask: Ask) -> Turn<Entry> {
        loop {
            for next in 0..NODES {
                let node = (node + next) % NODES;
                let asked = self.group.ask(node, name, ask.clone(), None).await.ok_or(Halt)?;
                if let Some(entry) = asked {
                    return Ok(entry);
                }
            }
            self.group.failed().map_err(|_| Halt)?;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn pause(millis: usize) {
    tokio::time::sleep(Duration::from_millis(millis as u64)).await;
}
