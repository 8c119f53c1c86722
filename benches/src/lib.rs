//! What the measuring programs share.
//!
//! - [`guest`]: a guest with one ring, played in the same thread
//! - [`sink`]: a port that swallows frames

pub mod guest;
pub mod sink;
