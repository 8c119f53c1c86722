//! What programs that watch a switch read: all its figures, in OpenMetrics or Prometheus' text format.
//! docs/metrics.md has them all.
//!
//! - [`family`]: the list of metrics
//! - [`text`]: how they are written
//! - [`figures`]: what a switch has counted
//! - [`protocols`]: what it knows by protocols
//! - [`http`]: requests and the heads of answers
//! - [`server`]: the listening socket and its connections
//! - [`listener`]: where it listens

#[cfg(test)]
mod contrib_tests;
pub mod family;
pub mod figures;
mod http;
pub mod listener;
mod protocols;
pub mod server;
pub mod text;

pub use figures::{Figures, Service};
pub use server::Server;
