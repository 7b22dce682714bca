//! The parameters of statements: of one job, and of a batch column by column.

use std::time::SystemTime;

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::job::{Completion, Job, Wanted, Work};
use crate::ring::Ring;

type Parameter<'a> = &'a (dyn ToSql + Sync);

impl Wanted {
    /// Returns the parameters of a statement that claims one key.
    pub(crate) fn parameters<'a>(
        &'a self,
        sweep: &'a i64,
        session: &'a i64,
    ) -> [Parameter<'a>; 10] {
        [
            &self.address,
            &self.attempt,
            &self.state,
            &self.ttl_ms,
            sweep,
            &self.scope,
            &self.key,
            &self.fingerprint,
            &self.request_id,
            session,
        ]
    }
}

impl Completion {
    /// Returns the parameters of a statement that completes one key.
    pub(crate) fn parameters<'a>(
        &'a self,
        guess: &'a i64,
        window: &'a (SystemTime, SystemTime),
    ) -> [Parameter<'a>; 9] {
        [
            &self.address,
            &self.attempt,
            &self.ttl_ms,
            &self.scope,
            &self.key,
            &self.payload,
            guess,
            &window.0,
            &window.1,
        ]
    }
}

/// The claims of a batch, column by column.
#[derive(Default)]
pub(crate) struct Claims<'a> {
    addresses: Vec<Uuid>,
    attempts: Vec<Uuid>,
    states: Vec<i16>,
    ttls: Vec<i64>,
    sweeps: Vec<i64>,
    scopes: Vec<Option<&'a [u8]>>,
    keys: Vec<Option<&'a str>>,
    fingerprints: Vec<&'a [u8]>,
    request_ids: Vec<&'a str>,
}

impl<'a> Claims<'a> {
    pub(crate) fn of(jobs: &'a [Job], ring: &Ring) -> Self {
        let claim = |job: &'a Job| match &job.work {
            Work::Claim(wanted) => Some(wanted),
            Work::Complete(_) | Work::Find(_) => None,
        };
        let mut claims: Vec<&Wanted> = jobs.iter().filter_map(claim).collect();
        claims.sort_unstable_by_key(|wanted| wanted.address);
        let mut columns = Self::default();
        for wanted in claims {
            columns.addresses.push(wanted.address);
            columns.attempts.push(wanted.attempt);
            columns.states.push(wanted.state);
            columns.ttls.push(wanted.ttl_ms);
            columns.sweeps.push(ring.sweep(wanted.ttl_ms));
            columns.scopes.push(wanted.scope.as_deref());
            columns.keys.push(wanted.key.as_deref());
            columns.fingerprints.push(&wanted.fingerprint);
            columns.request_ids.push(&wanted.request_id);
        }
        columns
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    pub(crate) fn parameters<'b>(&'b self, session: &'b i64) -> Vec<Parameter<'b>> {
        vec![
            &self.addresses,
            &self.attempts,
            &self.states,
            &self.ttls,
            &self.sweeps,
            &self.scopes,
            &self.keys,
            &self.fingerprints,
            &self.request_ids,
            session,
        ]
    }
}

/// The completions of a batch that go into one body table, column by column.
pub(crate) struct Completions<'a> {
    pub(crate) guess: i64,
    window: (SystemTime, SystemTime),
    addresses: Vec<Uuid>,
    attempts: Vec<Uuid>,
    ttls: Vec<i64>,
    scopes: Vec<&'a [u8]>,
    keys: Vec<&'a str>,
    payloads: Vec<&'a [u8]>,
}

impl<'a> Completions<'a> {
    pub(crate) fn by_slot(jobs: &'a [Job], ring: &Ring) -> Vec<Self> {
        let completion = |job: &'a Job| match &job.work {
            Work::Complete(completion) => Some(completion),
            Work::Claim(_) | Work::Find(_) => None,
        };
        let mut completions: Vec<&Completion> = jobs.iter().filter_map(completion).collect();
        completions.sort_unstable_by_key(|completion| completion.address);
        let mut groups: Vec<Self> = Vec::new();
        for completion in completions {
            let guess = ring.guess(completion.ttl_ms);
            match groups.iter_mut().find(|group| group.guess == guess) {
                Some(group) => group.push(completion),
                None => {
                    let mut group = Self::new(guess, ring);
                    group.push(completion);
                    groups.push(group);
                }
            }
        }
        groups
    }

    fn new(guess: i64, ring: &Ring) -> Self {
        Self {
            guess,
            window: ring.window(guess),
            addresses: Vec::new(),
            attempts: Vec::new(),
            ttls: Vec::new(),
            scopes: Vec::new(),
            keys: Vec::new(),
            payloads: Vec::new(),
        }
    }

    fn push(&mut self, completion: &'a Completion) {
        self.addresses.push(completion.address);
        self.attempts.push(completion.attempt);
        self.ttls.push(completion.ttl_ms);
        self.scopes.push(&completion.scope);
        self.keys.push(&completion.key);
        self.payloads.push(&completion.payload);
    }

    pub(crate) fn parameters(&self) -> Vec<Parameter<'_>> {
        vec![
            &self.addresses,
            &self.attempts,
            &self.ttls,
            &self.scopes,
            &self.keys,
            &self.payloads,
            &self.guess,
            &self.window.0,
            &self.window.1,
        ]
    }
}
