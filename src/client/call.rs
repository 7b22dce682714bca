//! One call, as the caller knows it.

use crate::Key;

/// What became of a call: in the extensions of each response, and in each error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    pub(super) key: Option<Key>,
    pub(super) attempts: u32,
    pub(super) replayed: bool,
}

impl Call {
    /// The key that all its attempts carried; none for a safe method. To go on with a call that
    /// failed, send it under this key.
    pub fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    /// How often it was sent.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether the server said that the answer comes from its record.
    pub fn is_replay(&self) -> bool {
        self.replayed
    }
}

/// The caller's name for a call, in the extensions of its request: within the layer's window the same
/// id is sent under the same key, and at once it is sent once.
///
/// For what a user may ask for twice: the submission that the button belongs to, not its content.
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
    /// Names a call.
    pub fn new(id: impl AsRef<str>) -> Self {
        Self(id.as_ref().into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
