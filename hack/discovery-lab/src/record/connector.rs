//! The kernel's proc connector: it tells of every program that is started on this machine, as it starts. Root of the
//! first pid namespace may listen; elsewhere the kernel does not answer, which is found out at once.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
        netlink::{self, SocketAddrNetlink},
        recv, send, socket_with, sockopt,
    },
};

/// `CN_IDX_PROC` and `CN_VAL_PROC`, both: also the multicast group.
const CN_PROC: u32 = 1;
/// `PROC_CN_MCAST_LISTEN`.
const LISTEN: u32 = 1;
/// `PROC_EVENT_NONE`: the answer to our listening.
const NONE: u32 = 0;
/// `PROC_EVENT_EXEC`.
const EXEC: u32 = 2;
/// `nlmsghdr` and `cn_msg`, bytes.
const HEADERS: usize = 16 + 20;
/// Events that wait while we write: a burst of some ten thousand processes.
const BUFFER: usize = 8 << 20;
/// The answer is there when `send` returns; this is for the odd kernel.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A process has started a program, at this time of CLOCK_MONOTONIC.
    Exec { pid: i32, monotonic_ns: u64 },
    /// The kernel could not keep all events for us: some are lost.
    Lost,
}

/// An open ear.
#[derive(Debug)]
pub struct Connector {
    socket: OwnedFd,
}

impl Connector {
    /// Listens; fails where the kernel refuses, or says nothing.
    pub fn listen() -> rustix::io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::CONNECTOR),
        )?;
        sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER)?;
        bind(&socket, &SocketAddrNetlink::new(0, CN_PROC))?;
        send(&socket, &listen_message(), SendFlags::empty())?;
        let connector = Self { socket };
        connector.await_answer()?;
        Ok(connector)
    }

    fn await_answer(&self) -> rustix::io::Result<()> {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        let within = Timespec::try_from(ANSWERS_WITHIN).map_err(|_| Errno::INVAL)?;
        if poll(&mut fds, Some(&within))? == 0 {
            return Err(Errno::PERM);
        }
        Ok(())
    }

    /// All that has come since.
    pub fn hear(&self) -> rustix::io::Result<Vec<Heard>> {
        let mut heard = Vec::new();
        let mut message = [0; 1024];
        loop {
            match recv(&self.socket, &mut message[..], RecvFlags::empty()) {
                Ok((length, _)) => heard.extend(parse(&message[..length])),
                Err(Errno::AGAIN) => return Ok(heard),
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => heard.push(Heard::Lost),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Connector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn listen_message() -> Vec<u8> {
    let length = (HEADERS + 4) as u32;
    let mut message = Vec::new();
    // nlmsghdr: length, type NLMSG_DONE and no flags, sequence, port.
    for word in [length, 3, 0, 0] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    // cn_msg: which connector, sequence, acknowledgement, length and flags.
    for word in [CN_PROC, CN_PROC, 0, 0] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    for half in [4_u16, 0] {
        message.extend_from_slice(&half.to_ne_bytes());
    }
    message.extend_from_slice(&LISTEN.to_ne_bytes());
    message
}

// proc_event: what, processor, nanoseconds, then for EXEC the thread and its process.
fn parse(message: &[u8]) -> Option<Heard> {
    let word = |at: usize| {
        let bytes = message.get(HEADERS + at..HEADERS + at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    match word(0)? {
        NONE => None,
        EXEC => {
            let time = message.get(HEADERS + 8..HEADERS + 16)?;
            Some(Heard::Exec {
                pid: word(20)?.cast_signed(),
                monotonic_ns: u64::from_ne_bytes(time.try_into().ok()?),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_is_told_with_its_process_and_its_time() {
        let mut message = vec![0; HEADERS];
        for word in [EXEC, 1] {
            message.extend_from_slice(&word.to_ne_bytes());
        }
        message.extend_from_slice(&77_000_000_001_u64.to_ne_bytes());
        for word in [4712_u32, 4711] {
            message.extend_from_slice(&word.to_ne_bytes());
        }
        let exec = Heard::Exec { pid: 4711, monotonic_ns: 77_000_000_001 };
        assert_eq!(parse(&message), Some(exec));
        assert_eq!(parse(&message[..HEADERS + 10]), None, "cut short");
        message[HEADERS..HEADERS + 4].copy_from_slice(&NONE.to_ne_bytes());
        assert_eq!(parse(&message), None);
    }
}
