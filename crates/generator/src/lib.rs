//! Test frames: how they are made, sent at a rate, known again and checked, in the loop of a thread.
//!
//! It is a crate of its own since it is all of `ringway gen` that frames pass through: it is built for
//! speed, as drivers are, and the program around it for size.
//!
//! ```
//! use generator::size::SizeMix;
//!
//! let mix: SizeMix = "64:3,1500:1".parse()?;
//! assert_eq!((mix.smallest(), mix.largest()), (64, 1500));
//! assert_eq!(mix.mean(), 423.0);
//! # Ok::<(), String>(())
//! ```
//!
//! - [`rate`]: how fast, and the pacing that keeps to it
//! - [`size`]: frame sizes and mixes of them
//! - [`range`]: ranges of addresses and numbers
//! - [`headers`]: what headers test frames have
//! - `draft`: makes templates of them
//! - [`template`]: writes test frames
//! - [`order`]: whose turn it is
//! - [`stamp`]: what tells a test frame from any other, and whether it is whole
//! - [`find`]: finds the stamp of a frame that was received
//! - [`topology`]: which of several ports send to which
//! - [`sender`]: builds bursts of test frames and sends them
//! - [`receiver`]: checks what arrives: damage, order, loss, latency
//! - [`lane`]: the loop of one thread, for each mode

#![forbid(unsafe_code)]

mod draft;
pub mod find;
pub mod headers;
pub mod lane;
pub mod order;
pub mod range;
pub mod rate;
pub mod receiver;
pub mod sender;
pub mod size;
pub mod stamp;
pub mod template;
pub mod topology;

/// A count as a floating-point number, for rates; exact up to 2^53.
#[allow(clippy::cast_precision_loss, reason = "rates need no more digits")]
const fn approximate(value: u64) -> f64 {
    value as f64
}
