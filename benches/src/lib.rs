//! What the measuring programs share.
//!
//! - [`flows`]: rules, and frames that go by them
//! - [`guest`]: a guest with one ring, played in the same thread
//! - [`sink`]: a port that swallows frames

pub mod flows;
pub mod guest;
pub mod sink;
