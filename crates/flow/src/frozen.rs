//! What a packet's way was stopped at, and what it takes to go on with it.

pub use openflow::message::continuation::Rest;
use openflow::{Action, Instructions};

use crate::key::Key;

/// The most actions that are left of rules where a packet stops: a message with more would be too long.
pub(crate) const MAX_REST: usize = 4_096;

/// What a packet goes on with, once a controller has let it go on, or it was tracked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frozen {
    /// What travels beside the packet: where it came in, registers, metadata, and so on
    /// ([`Key::beside`]).
    pub key: Box<Key>,
    /// The stack, its top last.
    pub stack: Vec<u128>,
    /// The action set, as written.
    pub set: Vec<Action>,
    /// The table that it is looked up in first, if it is.
    pub table: Option<u8>,
    /// What is still to be done of the rules that it was at, the innermost first.
    pub rest: Vec<Rest>,
    /// Where it was tracked, so that ways of packets from one zone are not those from another: whether a packet was
    /// tracked and translated in a zone decides about its next round.
    pub zone: Option<Zone>,
}

/// A zone in which a packet was tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Zone {
    /// Its number.
    pub number: u16,
    /// Whether its connection is at hand where it is tracked there once more: it stays then what it is to that. As in
    /// Open vSwitch it is not where addresses were to be translated.
    pub keeps: bool,
}

impl Frozen {
    /// About how much memory it takes.
    pub(crate) fn weight(&self) -> usize {
        let Self { key, stack, set, rest, .. } = self;
        let left = rest.iter().map(|of| {
            let Instructions { apply, write, .. } = &of.instructions;
            size_of::<Rest>() + actions(apply) + write.as_deref().map_or(0, actions)
        });
        size_of::<Self>()
            + size_of_val(&**key)
            + size_of_val(stack.as_slice())
            + actions(set)
            + left.sum::<usize>()
    }
}

/// The same of actions.
fn actions(all: &[Action]) -> usize {
    let behind = |action: &Action| match action {
        Action::Clone(inside) => actions(inside),
        Action::Ct(ct) => size_of_val(&**ct) + actions(&ct.actions),
        Action::Controller(to) => size_of_val(&**to) + to.userdata.len(),
        _ => 0,
    };
    size_of_val(all) + all.iter().map(behind).sum::<usize>()
}
