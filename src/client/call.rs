//! A call as the caller sees it: its report, and its name.

use crate::Key;

/// A report on a finished call, in the extensions of each response and in each
/// [`Error`](super::Error).
///
/// `Debug` does not print the key; [`key`](Self::key) returns it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    pub(super) key: Option<Key>,
    pub(super) attempts: u32,
    pub(super) replayed: bool,
}

impl Call {
    /// Returns the key of all attempts, or `None` for a safe method.
    ///
    /// To continue a call that failed, send the request again with this key.
    pub fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    /// Returns the number of attempts that were sent; 0 if the call failed before the first.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns true if the server marked the answer as a replay.
    pub fn is_replay(&self) -> bool {
        self.replayed
    }
}

/// The caller's name for a call, set in the extensions of its request.
///
/// Within the layer's time window (see [`call_ids`](super::ClientLayer::call_ids)) requests with
/// the same id get the same key, and equal ones in flight at once are sent once.
///
/// An id names one submission, such as one click of a button, and not the content of the request.
/// If several users share a client, put the user into the id.
///
/// ```
/// use http::Request;
/// use refrain::client::CallId;
///
/// # fn main() -> http::Result<()> {
/// let request = Request::post("/v1/calls").extension(CallId::new("form-7")).body("{}")?;
/// # let _ = request;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallId(std::sync::Arc<str>);

impl CallId {
    /// Returns the id with this text; any text will do.
    pub fn new(id: impl AsRef<str>) -> Self {
        Self(id.as_ref().into())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
