//! vDPA devices: `ringway vdpa`, and those of `ringway switch`.
//!
//! - [`args`]: the command line
//! - [`placement`]: strings such as `vdpa:DEVICE,socket=PATH`
//! - [`hub`]: the devices that are attached to sockets
//! - [`report`]: tables and JSON
//! - [`prompt`]: the commands of `--interactive`
//! - [`input`]: lines of standard input, without waiting for them
//! - [`run`]: the command

pub mod args;
pub mod hub;
mod input;
pub mod placement;
mod prompt;
pub mod report;
pub mod run;
