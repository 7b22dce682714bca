//! The content of an open job's entry, stored as the checkpoints of its claim.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::JournalError;
use super::began::{Began, FORMAT};

/// The limits of a claim's checkpoints: their number, and the bytes of each.
const PIECES: usize = 16;
const PIECE_BYTES: usize = 16 * 1024;
/// The header in front of the request: format, time of first use, length.
const HEAD: usize = 1 + Began::LEN + 4;

/// When a job's key was handed out first, and for which request.
pub(super) struct Kept {
    pub(super) began: Began,
    pub(super) request: Bytes,
}

impl Kept {
    /// The longest request in bytes.
    pub(super) const MAX_REQUEST_BYTES: usize = PIECES * PIECE_BYTES - HEAD;

    /// Decodes an entry; `None` if the checkpoints are incomplete.
    ///
    /// # Errors
    ///
    /// [`JournalError::Newer`].
    pub(super) fn of(pieces: &[Bytes]) -> Result<Option<Self>, JournalError> {
        let mut bytes = pieces.iter().fold(BytesMut::new(), |mut all, piece| {
            all.extend_from_slice(piece);
            all
        });
        if bytes.len() < HEAD {
            return Ok(None);
        }
        let format = bytes.get_u8();
        if format != FORMAT {
            return Err(JournalError::Newer { found: format });
        }
        let began = Began::get(&mut bytes);
        let len = bytes.get_u32_le() as usize;
        let whole = bytes.len() == len;
        Ok(whole.then(|| Self { began, request: bytes.freeze() }))
    }

    /// Encodes an entry, in pieces of the size of a checkpoint.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Bytes> {
        let mut bytes = BytesMut::with_capacity(HEAD + self.request.len());
        bytes.put_u8(FORMAT);
        self.began.put(&mut bytes);
        bytes.put_u32_le(u32::try_from(self.request.len()).expect("the request fits an entry"));
        bytes.put_slice(&self.request);
        let bytes = bytes.freeze();
        (0..bytes.len())
            .step_by(PIECE_BYTES)
            .map(move |at| bytes.slice(at..bytes.len().min(at + PIECE_BYTES)))
    }
}
