//! `ringway capture`, and what serves it in a switch.
//!
//! - `line`: a frame in a line, for people
//! - `run`: the command
//! - `source`: what comes from the switch, until somebody has enough
//! - [`stream`]: what a switch sends

mod line;
pub mod run;
mod source;
pub mod stream;
