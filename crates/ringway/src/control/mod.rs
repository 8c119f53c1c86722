//! The control socket: how `ringway show` and programs talk to a running switch.
//!
//! - [`protocol`]: requests and responses, one JSON object per line
//! - [`event`]: what subscribers are told
//! - [`refusal`]: why a request was refused
//! - [`server`]: the switch's end, on one thread, safe from slow and hostile clients
//! - [`client`]: the end of `ringway show` and its like
//! - [`listener`]: where the socket listens, and what to do where it cannot
//! - [`path`]: where the socket is
//! - `tagged`: enums of which JSON has the name of a variant as a member

pub mod client;
pub mod event;
pub mod listener;
pub mod path;
pub mod protocol;
pub mod refusal;
pub mod server;
mod tagged;
