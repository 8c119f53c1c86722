//! The virtual switch: forwarding database and data path.
//!
//! - [`config`]: settings of the switch and of its ports
//! - [`error`]: what can go wrong
//! - [`fdb`]: the forwarding database, shared by all workers
//! - [`report`]: what the switch tells about itself

#![forbid(unsafe_code)]

pub mod config;
pub mod error;
pub mod fdb;
pub mod report;

pub use config::{MAX_FDB_LIMIT, MAX_PORTS, MAX_WORKERS, PortOptions, SwitchConfig};
pub use error::Error;
pub use report::{FdbEntry, FdbReport, PortReport, ShutdownReport, WorkerReport};
