//! The first words on a tunnel's stream: for which migration and which socket, and the answer to it.
//!
//! ```text
//!   u16 length (big endian, of what follows) | u8 version | postcard(Hello)      dialler
//!   u8 answer                                                                    the other end
//! ```
//!
//! Only after a welcome do the hypervisors' own bytes follow, in both directions.

use std::fmt;
use std::time::Duration;

use quinn::{RecvStream, SendStream};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::agent::ports::{Channel, Pass};

/// The vocabulary of tunnels.
const VERSION: u8 = 1;
/// Longest hello. Names in a VM's id are at most some 300 bytes in all.
const MAX_HELLO: usize = 1024;
/// How long the first words may take.
const SPEAK: Duration = Duration::from_secs(10);

/// What a stream is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The migration.
    pub pass: Pass,
    /// The socket.
    pub channel: Channel,
}

/// Why a stream carries nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The peer does not expect this node for this migration.
    NotAdmitted,
    /// The migration has no such socket.
    NoSuchChannel,
    /// Nobody listens on the socket.
    NobodyListens,
    /// The hello is of another version, or none.
    Unreadable,
    /// The answer is none that this version knows.
    Unknown(u8),
}

impl Refusal {
    fn code(self) -> u8 {
        match self {
            Self::NotAdmitted => 1,
            Self::NoSuchChannel => 2,
            Self::NobodyListens => 3,
            Self::Unreadable => 4,
            Self::Unknown(code) => code,
        }
    }

    fn of_code(code: u8) -> Self {
        let known = [Self::NotAdmitted, Self::NoSuchChannel, Self::NobodyListens, Self::Unreadable];
        known.into_iter().find(|refusal| refusal.code() == code).unwrap_or(Self::Unknown(code))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAdmitted => "it does not expect this migration",
            Self::NoSuchChannel => "it has no such socket for this migration",
            Self::NobodyListens => "nobody listens there",
            Self::Unreadable => "it does not understand this version of tunnels",
            Self::Unknown(_) => "for a reason that this version does not know",
        })
    }
}

/// The welcome.
const WELCOME: u8 = 0;

/// Says what a stream is for, and waits for the answer, `patience` at most. `None`: the connection broke or is silent.
pub(super) async fn ask(
    hello: &Hello,
    send: &mut SendStream,
    receive: &mut RecvStream,
    patience: Duration,
) -> Option<Result<(), Refusal>> {
    let frame = encode(hello)?;
    timeout(SPEAK, send.write_all(&frame)).await.ok()?.ok()?;
    let mut answer = [0];
    timeout(patience, receive.read_exact(&mut answer)).await.ok()?.ok()?;
    Some(match answer[0] {
        WELCOME => Ok(()),
        code => Err(Refusal::of_code(code)),
    })
}

/// Hears what a stream is for. `None`: it broke, or said nothing in time.
pub(super) async fn hear(receive: &mut RecvStream) -> Option<Result<Hello, Refusal>> {
    timeout(SPEAK, async {
        let mut length = [0; 2];
        receive.read_exact(&mut length).await.ok()?;
        let length = usize::from(u16::from_be_bytes(length));
        if length == 0 || length > MAX_HELLO {
            return Some(Err(Refusal::Unreadable));
        }
        let mut frame = vec![0; length];
        receive.read_exact(&mut frame).await.ok()?;
        Some(decode(&frame))
    })
    .await
    .ok()?
}

/// Answers. `None`: it broke.
pub(super) async fn answer(send: &mut SendStream, answer: Result<(), Refusal>) -> Option<()> {
    let code = answer.map_or_else(Refusal::code, |()| WELCOME);
    timeout(SPEAK, send.write_all(&[code])).await.ok()?.ok()
}

fn encode(hello: &Hello) -> Option<Vec<u8>> {
    let body = postcard::to_stdvec(hello).ok()?;
    let length = u16::try_from(body.len() + 1).ok().filter(|l| usize::from(*l) <= MAX_HELLO)?;
    Some([&length.to_be_bytes()[..], &[VERSION], &body].concat())
}

fn decode(frame: &[u8]) -> Result<Hello, Refusal> {
    let (VERSION, body) = frame.split_first().map(|(v, b)| (*v, b)).ok_or(Refusal::Unreadable)?
    else {
        return Err(Refusal::Unreadable);
    };
    match postcard::take_from_bytes(body) {
        Ok((hello, [])) => Ok(hello),
        _ => Err(Refusal::Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::id::VmId;

    fn hello() -> Hello {
        let vm = VmId { ve: "uid".into(), member: "web".into(), index: 3 };
        Hello { pass: Pass { vm, epoch: 7 }, channel: Channel::Disks }
    }

    #[test]
    fn a_hello_comes_back_as_it_was_and_nothing_else_does() {
        let frame = encode(&hello()).expect("short");
        assert_eq!(decode(&frame[2..]), Ok(hello()));
        let with = |bytes: &[u8]| decode(bytes).expect_err("is none");
        assert_eq!(with(&[]), Refusal::Unreadable);
        assert_eq!(with(&frame[2..frame.len() - 1]), Refusal::Unreadable);
        assert_eq!(with(&[&frame[2..], b"!"].concat()), Refusal::Unreadable);
        assert_eq!(with(&[&[VERSION + 1], &frame[3..]].concat()), Refusal::Unreadable);
        let long = VmId { ve: "x".repeat(MAX_HELLO).as_str().into(), ..hello().pass.vm };
        assert!(encode(&Hello { pass: Pass { vm: long, epoch: 7 }, ..hello() }).is_none());
    }

    #[test]
    fn every_refusal_is_told_by_its_own_code() {
        for code in 1..=5 {
            assert_eq!(Refusal::of_code(code).code(), code);
        }
        assert_eq!(Refusal::of_code(5), Refusal::Unknown(5));
    }
}
