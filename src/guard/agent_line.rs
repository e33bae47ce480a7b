//! The agent's connection, seen from the guard.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::process::geteuid;

use super::wire::{Inbox, Reply, Request, frame};
use crate::engine::guard::Allowance;

/// Read at a time; more waits for the next round.
const CHUNK: usize = 4096;

/// One that was let in.
pub struct Line {
    stream: UnixStream,
    inbox: Inbox,
}

/// What came.
pub struct Heard {
    /// In its order.
    pub said: Vec<Allowance>,
    /// Whether it is over.
    pub end: End,
}

/// How a connection ends.
pub enum End {
    /// It does not.
    No,
    /// The agent has gone.
    Quiet,
    /// The agent says what is none, and is to be told so.
    Wrong(String),
}

impl Line {
    /// The next caller, if it may call. Others are told why not.
    pub fn accept(listener: &UnixListener) -> Option<Self> {
        // It has gone already.
        let (stream, _) = listener.accept().ok()?;
        let mut line = Self { stream, inbox: Inbox::default() };
        line.stream.set_nonblocking(true).ok()?;
        let caller = getsockopt(&line.stream, PeerCredentials).ok()?.uid();
        if caller == 0 || caller == geteuid().as_raw() {
            return Some(line);
        }
        tracing::warn!(uid = caller, "a caller that is not root is refused");
        let said =
            line.say(&Reply::Refused("only root of this node speaks to its guard".to_owned()));
        // It did not listen.
        drop(said);
        None
    }

    /// Says something at once or not at all.
    pub fn say(&mut self, reply: &Reply) -> io::Result<()> {
        self.stream.write_all(&frame(reply)?)
    }

    /// What has come.
    pub fn hear(&mut self) -> Heard {
        let mut chunk = [0; CHUNK];
        let read = match self.stream.read(&mut chunk) {
            Ok(0) => return Heard { said: Vec::new(), end: End::Quiet },
            Ok(read) => read,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                0
            }
            Err(_) => return Heard { said: Vec::new(), end: End::Quiet },
        };
        self.inbox.push(&chunk[..read]);
        let mut said = Vec::new();
        loop {
            match self.inbox.take() {
                Ok(Some(Request::Allow(allowance))) => said.push(allowance),
                Ok(None) => return Heard { said, end: End::No },
                Err(wrong) => return Heard { said, end: End::Wrong(wrong.to_string()) },
            }
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
