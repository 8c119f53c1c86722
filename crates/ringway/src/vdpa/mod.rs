//! vDPA devices: `ringway vdpa`, and those of `ringway switch`.
//!
//! - [`args`]: the command line
//! - [`report`]: tables and JSON
//! - [`prompt`]: the commands of `--interactive`
//! - [`input`]: lines of standard input, without waiting for them
//! - [`run`]: the command

pub mod args;
mod input;
mod prompt;
pub mod report;
pub mod run;
