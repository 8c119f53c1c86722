//! The Rapid Spanning Tree Protocol (IEEE 802.1D-2004 clause 17): bridges agree on which of their ports
//! forward, so that there is one way between any two stations. Nothing here reads a clock or sends
//! anything.
//!
//! The state machines have the names of the standard, and so have their variables.
//!
//! - `bpdu`: messages on the wire
//! - `change`: a port's part in topology changes
//! - `information`: what a port knows of the tree
//! - `migration`: which protocol its neighbour speaks
//! - `port`: what a port's machines know, and the order in which they run
//! - `roles`: how a port comes to do what its role is
//! - `settings`: what bridges and ports are set to
//! - `tree`: a bridge with all its ports
//! - `vector`: what messages say of a tree

pub(crate) mod bpdu;
mod change;
mod information;
mod migration;
pub(crate) mod port;
mod roles;
mod settings;
#[cfg(test)]
mod tests;
pub(crate) mod tree;
pub(crate) mod vector;

pub use self::port::{Role as RstpRole, State as RstpState};
pub use self::settings::{PortRstp, Rstp, RstpVersion};
