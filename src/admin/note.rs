//! The notes that acts of operators leave in the store.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Key, Scope, Store};

use super::refusal::chain;
use super::time;

/// The longest name and the longest reason that are kept, in characters.
const MAX_CHARS: usize = 200;

/// Who acts, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mandate {
    /// The operator, as the caller knows them.
    #[serde(default)]
    pub who: String,
    /// The reason.
    #[serde(default)]
    pub why: String,
}

/// An act of an operator. It is noted before it is done, so one that has failed is here too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When it was noted, by the machine's clock.
    #[serde(with = "time")]
    pub when: SystemTime,
    /// Who acted, and why; cut to 200 characters each.
    #[serde(flatten)]
    pub mandate: Mandate,
    /// `complete`, `complete_without_response`, `release`, `forget`, `reap` or `erase`; `unreadable`
    /// for a line that cannot be read.
    pub act: String,
    /// The owner of the key, of an act on one.
    pub scope: Option<Scope>,
    /// The first 8 hexadecimal digits of the SHA-256 of the key: enough to find the acts on a key, and
    /// too little to learn it.
    pub key_hash: Option<String>,
}

/// The outcome of an act that was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The reason for which the act could not be noted. It was done all the same: a full disk must not
    /// keep an operator from making room.
    pub unnoted: Option<String>,
}

impl Note {
    /// Notes an act, durably.
    #[expect(clippy::disallowed_methods, reason = "it is the time that the operator's clock shows")]
    pub(super) fn write(
        store: &Store,
        act: &str,
        at: Option<(Scope, &Key)>,
        mandate: &Mandate,
    ) -> Done {
        let note = Self {
            when: SystemTime::now(),
            mandate: Mandate { who: cut(&mandate.who), why: cut(&mandate.why) },
            act: act.to_owned(),
            scope: at.map(|(scope, _)| scope),
            key_hash: at.map(|(_, key)| Self::hash_of(key)),
        };
        let line = serde_json::to_string(&note).expect("it has a form in JSON");
        Done { unnoted: store.note(&line).wait().err().map(|error| chain(&error)) }
    }

    /// Reads a line.
    pub(super) fn read(line: &str) -> Self {
        serde_json::from_str(line).unwrap_or_else(|_| Self {
            when: SystemTime::UNIX_EPOCH,
            mandate: Mandate::default(),
            act: "unreadable".to_owned(),
            scope: None,
            key_hash: None,
        })
    }

    /// Returns the hash by which a key is noted.
    pub fn hash_of(key: &Key) -> String {
        let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(key.as_str()).into();
        format!("{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect()
}
