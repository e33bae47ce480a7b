//! What goes over the guard's socket: frames of four bytes' length (little endian), a version, and a postcard.
//!
//! Agent and guard are of different ages for most of a guard's life, so each frame says its version, and a guard answers what it
//! does not understand with [`Reply::Refused`] before it closes: the text comes last in any version.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::engine::guard::{Allowance, GuardInput};

/// Of these sentences; 1 did not say which life of an agent speaks.
pub const VERSION: u8 = 2;
/// No frame is longer, whoever sends it.
pub const LONGEST: usize = 4096;
/// The length before a frame.
const HEAD: usize = 4;

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// VMs may run until then.
    Allow(Allowance),
}

/// What the guard says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// What holds.
    Tell(GuardInput),
    /// The request has arrived.
    Heard,
    /// The request was none; the connection ends.
    Refused(String),
}

/// What is wrong with what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than anything that is said here.
    #[error("a frame of {0} bytes: {LONGEST} are the most")]
    TooLong(usize),
    /// Another version.
    #[error(
        "a frame of version {0}: this side speaks version {VERSION}; update the older of agent and guard"
    )]
    Version(u8),
    /// Not what it should be.
    #[error("a frame that says nothing")]
    Undecodable,
}

/// A frame, ready to be sent.
///
/// # Errors
/// Never for what is said here: a text that is too long.
pub fn frame(said: &impl Serialize) -> io::Result<Vec<u8>> {
    let said = postcard::to_stdvec(said).map_err(io::Error::other)?;
    let length = said.len() + 1;
    if length > LONGEST {
        return Err(io::Error::other("too long to be said"));
    }
    let mut frame = u32::try_from(length).map_err(io::Error::other)?.to_le_bytes().to_vec();
    frame.push(VERSION);
    frame.extend(said);
    Ok(frame)
}

/// Bytes that have come, and are taken out frame by frame.
#[derive(Debug, Default)]
pub struct Inbox(Vec<u8>);

impl Inbox {
    /// More of them.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next frame, if all of it is here.
    ///
    /// # Errors
    /// When it is none: the connection is of no more use.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(head) = self.0.first_chunk::<HEAD>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
        if length > LONGEST {
            return Err(FrameError::TooLong(length));
        }
        let Some(body) = self.0.get(HEAD..HEAD + length) else { return Ok(None) };
        let said = match body.split_first() {
            Some((&VERSION, said)) => {
                postcard::from_bytes(said).map_err(|_| FrameError::Undecodable)?
            }
            Some((version, _)) => return Err(FrameError::Version(*version)),
            None => return Err(FrameError::Undecodable),
        };
        self.0.drain(..HEAD + length);
        Ok(Some(said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::guard::Teller;
    use crate::engine::replica::DiskId;
    use crate::engine::time::Instant;

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let by = Teller { disk: DiskId(3), life: 4 };
        let said = Request::Allow(Allowance { by, lease: 7, until: Some(Instant(u64::MAX)) });
        let bytes = frame(&said).expect("short").repeat(3);
        let (mut inbox, mut out) = (Inbox::default(), Vec::new());
        for byte in bytes {
            inbox.push(&[byte]);
            out.extend(inbox.take::<Request>().expect("whole"));
        }
        assert_eq!(out, [said.clone(), said.clone(), said]);
    }

    #[test]
    fn what_is_no_frame_is_named() {
        let cases = [
            (&[255, 255, 255, 255][..], FrameError::TooLong(u32::MAX as usize)),
            (&[2, 0, 0, 0, 9, 0], FrameError::Version(9)),
            (&[2, 0, 0, 0, VERSION, 99], FrameError::Undecodable),
            (&[0, 0, 0, 0], FrameError::Undecodable),
        ];
        for (bytes, wrong) in cases {
            let mut inbox = Inbox::default();
            inbox.push(bytes);
            assert_eq!(inbox.take::<Request>(), Err(wrong));
        }
    }
}
