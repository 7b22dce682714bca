//! A job whose window has passed, after it has given up its place: its key without its request,
//! stored as the record of its claim.

use bytes::{Buf, BufMut, BytesMut};
use http::Response;

use bytes::Bytes;

use crate::{Key, Record};

use super::JournalError;
use super::began::{Began, FORMAT};

/// When a job's key was handed out first, and the key.
pub(super) struct Expired {
    pub(super) began: Began,
    pub(super) key: Key,
}

impl Expired {
    /// Decodes the body of a record.
    ///
    /// # Errors
    ///
    /// [`JournalError::Newer`]; a record in another form counts as of a newer format too.
    pub(super) fn of(record: &Record) -> Result<Self, JournalError> {
        let mut bytes = record.response().map_or(&[][..], |response| response.body());
        let found = bytes.try_get_u8().unwrap_or_default();
        if found != FORMAT || bytes.len() < Began::LEN {
            return Err(JournalError::Newer { found });
        }
        let began = Began::get(&mut bytes);
        let key = Key::from_stored(bytes).ok_or(JournalError::Newer { found })?;
        Ok(Self { began, key })
    }

    /// Encodes the job as the response of a record.
    pub(super) fn response(&self) -> Response<Bytes> {
        let key = self.key.as_str().as_bytes();
        let mut bytes = BytesMut::with_capacity(1 + Began::LEN + key.len());
        bytes.put_u8(FORMAT);
        self.began.put(&mut bytes);
        bytes.put_slice(key);
        Response::new(bytes.freeze())
    }
}
