//! `ringway gen`: traffic on any port.
//!
//! - [`rate`]: how fast, and the pacing that keeps to it
//! - [`size`]: frame sizes and mixes of them
//! - [`frame`]: test frames: what is in them and how they are checked
//! - [`sender`]: builds bursts of test frames and sends them
//! - [`receiver`]: checks what arrives: damage, order, loss, latency
//! - [`lane`]: the loop of one thread, for each mode
//! - [`crew`]: the threads that the lanes run on
//! - [`report`]: the live table and the summary
//! - [`run`]: opens the devices, runs the lanes, reports
//! - [`rfc2544`]: searches for throughput and the longest burst

pub mod crew;
pub mod frame;
pub mod lane;
pub mod rate;
pub mod receiver;
pub mod report;
pub mod rfc2544;
pub mod run;
pub mod sender;
pub mod size;
