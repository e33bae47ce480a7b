//! Frames: how a message becomes bytes on a stream, and back.
//!
//! ```text
//!   u32 length (big endian, of what follows) | u8 version | postcard(Message)
//! ```
//!
//! Whatever a peer sends, decoding ends in a message that is within [`Message::check`] or in a named
//! error, and holds memory in proportion to the bytes that have really come: see [`Metered`].

use postcard::Deserializer;
use postcard::de_flavors::{Flavor, Slice};
use serde::Deserialize;

use crate::engine::wire::{MAX_MESSAGE, Message, VERSION};

/// Bytes before the body: length and version.
pub const HEADER: usize = 5;

/// The oldest vocabulary that is read: the version before ours, so that a cluster can be upgraded node
/// by node. There is no version 0.
pub const OLDEST_VERSION: u8 = if VERSION > 1 { VERSION - 1 } else { VERSION };

/// How many reads (numbers' bytes and texts) one message may take. An element of a list costs a read or
/// more but may take a hundred times its bytes in memory, so this, not the length, bounds what a message
/// can make us hold: some 25 MiB. The longest honest one (256 VMs with 16 disks each) takes 70,000.
const MAX_READS: usize = 1 << 18;

/// Why a message cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Longer than [`MAX_MESSAGE`].
    #[error("message of {0} bytes is longer than {MAX_MESSAGE}")]
    TooLong(usize),
    /// Our own bug: a type that postcard cannot write.
    #[error("message cannot be written: {0}")]
    Layout(postcard::Error),
}

/// Why bytes are no message. The connection lives on; the message is dropped and counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Ended before its frame did.
    #[error("frame is cut short")]
    TooShort,
    /// Claims more than [`MAX_MESSAGE`].
    #[error("frame claims {0} bytes, more than {MAX_MESSAGE}")]
    TooLong(usize),
    /// Neither our vocabulary nor the one before.
    #[error("version {0} is not among {OLDEST_VERSION}..={VERSION}")]
    Version(u8),
    /// Not a message.
    #[error("body is no message: {0}")]
    Layout(postcard::Error),
    /// Many small elements: see [`MAX_READS`].
    #[error("body has more than {MAX_READS} parts")]
    TooManyParts,
    /// Something follows the message.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    /// A message that no honest peer sends.
    #[error("out of bounds: {0}")]
    Bounds(&'static str),
}

impl DecodeError {
    /// A word for counters.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::TooLong(_) => "too_long",
            Self::Version(_) => "version",
            Self::Layout(_) => "layout",
            Self::TooManyParts => "too_many_parts",
            Self::Trailing(_) => "trailing",
            Self::Bounds(_) => "bounds",
        }
    }
}

/// A message as a frame.
///
/// # Errors
/// When it is too long; nothing is half-written.
pub fn encode(message: &Message) -> Result<Vec<u8>, EncodeError> {
    let mut frame = vec![0, 0, 0, 0, VERSION];
    frame = postcard::to_extend(message, frame).map_err(EncodeError::Layout)?;
    let body = frame.len() - HEADER;
    if body > MAX_MESSAGE {
        return Err(EncodeError::TooLong(body));
    }
    let length = u32::try_from(frame.len() - 4).map_err(|_| EncodeError::TooLong(body))?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// What a frame's first bytes say: the length of the body that follows them.
///
/// # Errors
/// [`DecodeError::TooLong`], [`DecodeError::TooShort`] or [`DecodeError::Version`].
pub fn decode_header(header: [u8; HEADER]) -> Result<usize, DecodeError> {
    let [a, b, c, d, version] = header;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let body = length.checked_sub(1).ok_or(DecodeError::TooShort)?;
    if body > MAX_MESSAGE {
        return Err(DecodeError::TooLong(body));
    }
    if !(OLDEST_VERSION..=VERSION).contains(&version) {
        return Err(DecodeError::Version(version));
    }
    Ok(body)
}

/// A frame's body as a message within bounds. Both readable versions have one layout so far.
///
/// # Errors
/// Names what is wrong with it.
pub fn decode_body(body: &[u8]) -> Result<Message, DecodeError> {
    let metered = Metered { bytes: Slice::new(body), reads: MAX_READS };
    let mut deserializer = Deserializer::from_flavor(metered);
    let message = Message::deserialize(&mut deserializer).map_err(|error| match error {
        // The meter's word: postcard itself never says so.
        postcard::Error::NotYetImplemented => DecodeError::TooManyParts,
        error => DecodeError::Layout(error),
    })?;
    let rest = deserializer.finalize().map_err(DecodeError::Layout)?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing(rest.len()));
    }
    message.check().map_err(DecodeError::Bounds)?;
    Ok(message)
}

/// A whole frame as a message.
///
/// # Errors
/// Names what is wrong with it.
pub fn decode(frame: &[u8]) -> Result<Message, DecodeError> {
    let (header, rest) = frame.split_first_chunk::<HEADER>().ok_or(DecodeError::TooShort)?;
    let length = decode_header(*header)?;
    if rest.len() < length {
        return Err(DecodeError::TooShort);
    }
    let (body, after) = rest.split_at(length);
    if !after.is_empty() {
        return Err(DecodeError::Trailing(after.len()));
    }
    decode_body(body)
}

/// A slice that may be read only so often. A list's claimed length reserves nothing beyond the bytes that
/// are left (postcard caps it, and serde caps it again at 1 MiB); this caps what its elements add up to.
struct Metered<'de> {
    bytes: Slice<'de>,
    reads: usize,
}

impl Metered<'_> {
    fn count(&mut self) -> postcard::Result<()> {
        self.reads = self.reads.checked_sub(1).ok_or(postcard::Error::NotYetImplemented)?;
        Ok(())
    }
}

impl<'de> Flavor<'de> for Metered<'de> {
    type Remainder = &'de [u8];
    type Source = &'de [u8];

    fn pop(&mut self) -> postcard::Result<u8> {
        self.count()?;
        self.bytes.pop()
    }

    fn size_hint(&self) -> Option<usize> {
        self.bytes.size_hint().map(|left| left.min(self.reads))
    }

    fn try_take_n(&mut self, count: usize) -> postcard::Result<&'de [u8]> {
        self.count()?;
        self.bytes.try_take_n(count)
    }

    fn finalize(self) -> postcard::Result<&'de [u8]> {
        self.bytes.finalize()
    }
}
