//! `ringway gen`: traffic on any port.
//!
//! - [`rate`]: how fast, and the pacing that keeps to it
//! - [`size`]: frame sizes and mixes of them
//! - [`range`]: ranges of addresses and numbers
//! - [`headers`]: what headers test frames have
//! - [`draft`]: makes templates of them
//! - [`template`]: writes test frames
//! - [`order`]: whose turn it is
//! - [`stamp`]: what tells a test frame from any other, and whether it is whole
//! - [`find`]: finds the stamp of a frame that was received
//! - [`traffic`]: headers, flows and their order, as they were asked for
//! - [`topology`]: which of several ports send to which
//! - [`several`]: traffic between several ports
//! - [`announce`]: has what is tested learn where frames are to go
//! - [`sender`]: builds bursts of test frames and sends them
//! - [`receiver`]: checks what arrives: damage, order, loss, latency
//! - [`lane`]: the loop of one thread, for each mode
//! - [`crew`]: the threads that the lanes run on
//! - [`report`]: the live table and the summary
//! - [`files`]: all latencies and a report, in files
//! - [`page`], [`plot`]: a report with plots
//! - [`run`]: opens the devices, runs the lanes, reports
//! - [`rfc2544`]: searches for throughput and the longest burst

mod announce;
pub mod crew;
mod draft;
mod files;
mod find;
pub mod headers;
pub mod lane;
pub mod order;
mod page;
mod plot;
pub mod range;
pub mod rate;
pub mod receiver;
pub mod report;
pub mod rfc2544;
pub mod run;
pub mod sender;
mod several;
pub mod size;
pub mod stamp;
pub mod template;
pub mod topology;
pub mod traffic;
