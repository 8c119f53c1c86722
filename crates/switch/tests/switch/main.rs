//! The switch as whoever embeds it has it, between ports whose other ends are the test.
//!
//! One program for all: it is compiled and linked once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failure fails the test")]

mod bond;
mod bridges;
mod capture;
mod common;
mod groups;
mod guard;
mod limit;
mod mirror;
mod patch;
mod rstp;
mod sample;
mod trace;
mod vlan;
mod watch;
mod whole;
