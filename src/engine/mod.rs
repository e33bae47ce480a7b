//! The centre: pure, synchronous, deterministic.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod id;
pub mod spec;
pub mod time;
