//! `ringway l2fwd`: the classic of packet forwarding, ports in pairs.
//!
//! - [`forward`]: opens the ports and forwards: the crate `l2fwd`; read it first, it is explained in
//!   `docs/l2fwd.md`
//! - [`args`]: the command line
//! - [`pairs`]: which port sends to which
//! - [`spread`]: which worker has which queues
//! - [`run`]: the main thread, from start to end
//! - [`report`]: the statistics screen

pub mod args;
pub mod pairs;
pub mod report;
pub mod run;
pub mod spread;

pub use ::l2fwd as forward;
