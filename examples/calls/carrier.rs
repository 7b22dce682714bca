//! The carrier: the effect that handlers have on the world. It is slow, and it keeps a journal of
//! all requests that reach it, so that a test can count them.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::request::Parts;
use refrain::RequestId;
use refrain::server::Execution;
use serde::Serialize;

use crate::failure::{self, Failure};
use crate::number::Number;
use crate::refusal::Refusal;

pub(crate) struct Carrier {
    latency: Duration,
    journal: Option<Arc<File>>,
}

impl Carrier {
    pub(crate) fn new(latency: Duration, journal: Option<PathBuf>) -> Result<Self, Failure> {
        let open = |path: PathBuf| {
            let opened = File::options().append(true).create(true).open(&path);
            opened.map(Arc::new).map_err(|source| Failure::Journal { path, source })
        };
        Ok(Self { latency, journal: journal.map(open).transpose()? })
    }

    /// Carries out a request, after its delay.
    pub(crate) async fn carry_out(&self, errand: Errand) -> Result<(), Refusal> {
        tokio::time::sleep(self.latency).await;
        let Some(journal) = self.journal.clone() else { return Ok(()) };
        let written = tokio::task::spawn_blocking(move || errand.append_to(&journal)).await;
        written.map_err(io::Error::other).flatten().map_err(|error| {
            // The client is not told why, so this is the only trace of it.
            failure::warn(&format!("cannot write journal: {}", failure::chain(&error)));
            Refusal::internal()
        })
    }

    /// Carries out a call from a number, unless the number is not the caller's.
    pub(crate) async fn connect(&self, errand: Errand, caller_id: &Number) -> Result<(), Refusal> {
        self.carry_out(errand).await?;
        if caller_id.is_verified() { Ok(()) } else { Err(Refusal::unverified()) }
    }
}

/// A request of one run of a handler to the carrier: a line of the journal.
#[derive(Serialize)]
pub(crate) struct Errand {
    request_id: String,
    method: String,
    path: String,
    key: Option<String>,
}

impl Errand {
    /// Appends the line by one write, so that no two lines mix. It is durable when this returns.
    fn append_to(&self, mut journal: &File) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        journal.write_all(&line)?;
        journal.sync_data()
    }
}

impl<S: Sync> FromRequestParts<S> for Errand {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        let request_id = parts.extensions.get::<RequestId>().ok_or_else(Refusal::internal)?;
        let execution = parts.extensions.get::<Execution>();
        // Routing has cut the prefix off the other URI.
        let uri = parts.extensions.get().map_or(&parts.uri, |OriginalUri(uri)| uri);
        Ok(Self {
            request_id: request_id.as_str().to_owned(),
            method: parts.method.as_str().to_owned(),
            path: uri.path().to_owned(),
            key: execution.map(|execution| execution.key().as_str().to_owned()),
        })
    }
}
