//! `ringway gen`: traffic on any port. How test frames are made, sent and checked is in the crate
//! `generator`.
//!
//! - [`traffic`]: headers, flows and their order, as they were asked for
//! - [`several`]: traffic between several ports
//! - [`announce`]: has what is tested learn where frames are to go
//! - [`crew`]: the threads that the lanes run on
//! - [`report`]: the live table and the summary
//! - [`files`]: all latencies and a report, in files
//! - [`page`], [`plot`]: a report with plots
//! - [`run`]: opens the devices, runs the lanes, reports
//! - [`rfc2544`]: searches for throughput and the longest burst

mod announce;
pub mod crew;
mod files;
#[cfg(test)]
mod header_tests;
mod page;
mod plot;
pub mod report;
pub mod rfc2544;
pub mod run;
mod several;
pub mod traffic;

pub use generator::{
    headers, lane, order, range, rate, receiver, sender, size, stamp, template, topology,
};
