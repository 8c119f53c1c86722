//! Benchmarks as RFC 2544 has them: throughput (26.1) and back-to-back frames (26.4).
//!
//! - [`search`]: what to try next
//! - [`trial`]: one trial: frames of one size for a while, and how many came
//! - [`report`]: trials and results, as text and JSON
//! - [`run`]: trial after trial

mod report;
pub mod run;
mod search;
mod trial;

pub use report::{Result as Found, Trial};
