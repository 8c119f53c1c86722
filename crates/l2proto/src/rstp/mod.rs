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

pub mod bpdu;
mod change;
mod information;
mod migration;
pub mod port;
mod roles;
mod settings;
#[cfg(test)]
mod tests;
pub mod tree;
pub mod vector;

pub use self::port::{Role as RstpRole, State as RstpState};
pub use self::settings::{PortRstp, Rstp, RstpVersion, numbers};

/// Plays a bridge with four ports to which neighbours send these frames, each to the port with its
/// number modulo 4, and a second passes before each of those with a number from 128 on. Returns for each frame
/// how many messages were sent because of it. Of use to those who test it.
#[doc(hidden)]
#[must_use]
pub fn probe(frames: &[(u8, &[u8])]) -> Vec<usize> {
    let settings = Rstp::default().settings(packet::MacAddr([2, 0, 0, 0, 0, 9]));
    let mut tree = tree::Tree::new(settings);
    let of = |number| PortRstp::default().settings(number, None, RstpVersion::Rstp);
    let link = |port| tree::Link { port, settings: of(port + 1), is_up: true };
    let links: Vec<tree::Link> = (0..4).map(link).collect();
    tree.update(&links);
    let play = |(number, frame): &(u8, &[u8])| {
        if *number >= 128 {
            tree.tick();
        }
        if let Some(bpdu) = bpdu::parse(frame) {
            tree.hear(u16::from(number % 4), &bpdu);
        }
        tree.take().send.len()
    };
    frames.iter().map(play).collect()
}
