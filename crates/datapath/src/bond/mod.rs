//! Bonds, as far as frames pass them: which member has which part of the traffic, and what comes in on one.
//!
//! - [`answers`]: what stations behind a member answer to the switch itself
//! - `entry`: what comes in on a member
//! - [`load`]: how much each part of the traffic is
//! - [`way`]: what the data path makes of a bond

pub mod answers;
pub(crate) mod entry;
pub mod load;
pub mod way;
