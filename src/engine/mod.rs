//! The centre: pure, synchronous, deterministic.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod dnt;
pub mod effect;
pub mod host;
pub mod id;
pub mod input;
pub mod lrt;
pub mod record;
pub mod report;
pub mod spec;
pub mod time;
pub mod wire;
