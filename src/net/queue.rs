//! What waits to be sent to one peer: bounded in number, bytes and age.
//!
//! The oldest go first when there is no room: agents repeat what matters, and what they say later is
//! truer than what they said before.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Most frames that wait. A peer that is up takes thousands in a second.
const MAX_FRAMES: usize = 1024;
/// Most bytes that wait: two of the longest messages.
const MAX_BYTES: usize = 8 << 20;
/// Older frames are not sent any more: the engine has repeated them, or has given up on them. Longer than
/// a dial over a dead first address.
const MAX_AGE: Duration = Duration::from_secs(5);

/// A bounded queue with one reader.
#[derive(Default)]
pub(super) struct SendQueue {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    frames: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

impl SendQueue {
    /// Adds a frame; returns how many older ones made room for it.
    pub(super) fn push(&self, frame: Vec<u8>) -> u64 {
        let mut waiting = self.waiting();
        let mut dropped = 0;
        while waiting.frames.len() >= MAX_FRAMES
            || (waiting.bytes + frame.len() > MAX_BYTES && !waiting.frames.is_empty())
        {
            waiting.take();
            dropped += 1;
        }
        waiting.bytes += frame.len();
        waiting.frames.push_back((Instant::now(), frame));
        drop(waiting);
        self.filled.notify_one();
        dropped
    }

    /// Forgets what is too old; returns how many.
    pub(super) fn expire(&self) -> u64 {
        let mut waiting = self.waiting();
        let mut dropped = 0;
        while waiting.frames.front().is_some_and(|(since, _)| since.elapsed() > MAX_AGE) {
            waiting.take();
            dropped += 1;
        }
        dropped
    }

    /// Whether anything waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting().frames.is_empty()
    }

    /// Waits until something waits.
    pub(super) async fn filled(&self) {
        while self.is_empty() {
            // A push between the check and the wait leaves a permit: it is not missed.
            self.filled.notified().await;
        }
    }

    /// The oldest frame, when there is one. Losing the future loses no frame.
    pub(super) async fn pop(&self) -> Vec<u8> {
        loop {
            if let Some(frame) = self.waiting().take() {
                return frame;
            }
            self.filled.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take(&mut self) -> Option<Vec<u8>> {
        let (_, frame) = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_make_room_for_the_newest() {
        let queue = SendQueue::default();
        let dropped: u64 = (0..MAX_FRAMES + 10).map(|n| queue.push(vec![(n % 256) as u8])).sum();
        assert_eq!(dropped, 10);
        assert_eq!(queue.pop().await, [10]);
    }

    #[tokio::test]
    async fn the_bytes_that_wait_are_bounded() {
        let queue = SendQueue::default();
        for n in 0..20 {
            queue.push(vec![n; MAX_BYTES / 4]);
        }
        assert!(queue.waiting().bytes <= MAX_BYTES);
        assert_eq!(queue.pop().await[0], 16);
        // One frame always has room, whatever its length: the longest was checked when it was made.
        assert_eq!(queue.push(vec![99; MAX_BYTES + 1]), 3);
        assert_eq!(queue.pop().await.len(), MAX_BYTES + 1);
        assert_eq!(queue.waiting().bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waited_too_long_is_forgotten() {
        let queue = SendQueue::default();
        queue.push(vec![1]);
        tokio::time::advance(MAX_AGE / 2).await;
        queue.push(vec![2]);
        assert_eq!(queue.expire(), 0);
        tokio::time::advance(MAX_AGE / 2 + Duration::from_millis(1)).await;
        assert_eq!(queue.expire(), 1);
        assert_eq!(queue.pop().await, [2]);
        assert!(queue.is_empty());
    }
}
