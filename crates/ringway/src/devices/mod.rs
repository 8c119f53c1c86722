//! `ringway devices`: PCI devices, and which drivers have them.
//!
//! - [`run`]: the commands
//! - [`list`]: all devices
//! - [`detail`]: one device

mod detail;
mod list;
pub mod run;
