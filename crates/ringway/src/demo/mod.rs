//! `ringway demo`: the switch and two guests over real vhost-user sockets and shared memory.
//!
//! - [`guests`]: the two guests, on one thread
//! - [`stage`]: what traffic there is, and for how long
//! - [`report`]: what the newcomer sees
//! - [`run`]: sets everything up, watches, judges

pub mod guests;
pub mod report;
pub mod run;
pub mod stage;
