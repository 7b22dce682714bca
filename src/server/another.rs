//! Answers that tell of another request with the key: its response, or a refusal because of it.
//!
//! Nobody hears of a request whose answer is not theirs to see, where replays are authorized: not
//! that its content or its endpoint differs, nor that it runs.

use http::request::Parts;

use crate::{Fingerprint, Operation, Record, RequestId, Store};

use super::dialect::Reason;
use super::earlier::Earlier;
use super::options::LayerOptions;
use super::reply::Reply;
use super::response::replay;

/// Another request with the key, and the answer that tells of it.
pub(super) struct Another {
    answer: Reply,
    earlier: Earlier,
}

impl Another {
    /// The request was done, and this is its record.
    pub(super) fn done(record: Record, options: &LayerOptions) -> Self {
        let request_id = record.request_id().clone();
        // Only for someone who is to be asked, so that otherwise the response need not be copied.
        let earlier = Earlier {
            request_id: Some(request_id.clone()),
            record: options.authorize_replay.is_some().then(|| record.clone()),
        };
        let answer = match record.into_response() {
            Some(response) => Reply::Replay(replay(response, options)),
            None => Reason::ResultUnavailable { original: request_id }.into(),
        };
        Self { answer, earlier }
    }

    /// The request used the key for something else, which has this fingerprint. Its record is read
    /// only if someone is to be asked about it; one that cannot be read is asked about without.
    pub(super) async fn conflict(
        (original, fingerprint): (RequestId, Fingerprint),
        operation: &Operation,
        (store, options): (&Store, &LayerOptions),
    ) -> Self {
        let record = match options.authorize_replay {
            Some(_) => {
                let found = options
                    .lookups
                    .ask(store, operation, |store, asked| store.get(asked.scope(), asked.key()));
                match found.await {
                    Some(found) => found.await.ok().flatten(),
                    None => None,
                }
            }
            None => None,
        };
        let earlier = Earlier { request_id: Some(original.clone()), record };
        let other_endpoint =
            options.fingerprinting.tells_endpoints_apart(fingerprint, operation.fingerprint());
        Self { answer: Reason::Conflict { original, other_endpoint }.into(), earlier }
    }

    /// The request is refused because of this other one, which has no record.
    pub(super) fn without_record(reason: Reason) -> Self {
        let request_id = reason.other_request().map(|(_, request_id)| request_id.clone());
        Self { answer: reason.into(), earlier: Earlier { request_id, record: None } }
    }

    /// Returns the answer, if the client may hear of the other request.
    pub(super) async fn tell(self, head: Parts, options: &LayerOptions) -> Reply {
        match may_hear(options, || head, self.earlier).await {
            true => self.answer,
            false => Reason::Forbidden.into(),
        }
    }
}

/// Returns true if the client may hear of an earlier request.
pub(super) async fn may_hear(
    options: &LayerOptions,
    head: impl FnOnce() -> Parts,
    earlier: Earlier,
) -> bool {
    match &options.authorize_replay {
        Some(authorize) => authorize(head(), earlier).await,
        None => true,
    }
}
