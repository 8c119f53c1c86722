//! Mirrors, as far as frames pass them: copies of what passes through some ports.
//!
//! - [`recorder`]: a worker's part where copies go to files
//! - [`taps`]: what the data path makes of the mirrors of a bridge

pub mod recorder;
pub mod taps;

pub(crate) use self::taps::{Copies, Taps, View};

/// The most mirrors that a switch can have.
pub const MAX_MIRRORS: usize = 32;
