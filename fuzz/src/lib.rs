//! Fuzz targets: what a peer can send, as a function of bytes.
//!
//! A target makes of its input what a hostile peer would do, in any order, and does it to the code
//! that must stand it. It fails by a panic, by touching memory that is not its own, or by taking
//! too long. Inputs that have found something are kept in `corpus/`, a directory for each target,
//! and every `cargo test` replays them; `cargo xtask fuzz` looks for more.
//!
//! - [`frames`]: large segments
//! - [`guest`]: the memory of a guest, and rings in it
//! - [`input`]: decisions of the peer, from bytes
//! - [`targets`]: the targets

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests: to panic is how they fail"
)]

pub mod frames;
pub mod guest;
pub mod input;
pub mod targets;

pub use targets::{TARGETS, Target};
