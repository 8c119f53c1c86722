//! What is told of a packet's way, step by step.

use std::fmt::Arguments;
use std::sync::Arc;

use openflow::Action;

use crate::classifier::Classifier;
use crate::frozen::Frozen;
use crate::groups::{Choice, PlaceHash};
use crate::key::Key;
use crate::path::Op;
use crate::rule::Rule;
use crate::tables::Change;

/// Where a packet is on its way: what is told next is done there, until it [leaves](Watch::leave).
#[derive(Clone, Copy, Debug)]
pub enum Place<'p> {
    /// What a table says, by a rule; or by none: whether controllers are asked then.
    Table(u8, Result<&'p Rule, bool>),
    /// A table in which fragments find no rule, since they are dropped.
    Fragments(u8),
    /// The action set.
    ActionSet,
    /// The bucket of this number of a group.
    Bucket(u32),
}

/// What is done.
#[derive(Clone, Copy, Debug)]
pub enum Step<'s> {
    /// Nothing: the packet goes no farther here.
    Drop,
    /// An action.
    Action(&'s Action),
    /// The action set is emptied, in which these were.
    Clear(&'s [Action]),
    /// These are put into the action set.
    Write(&'s [Action]),
    /// Bits of the metadata are written, and which.
    Metadata(u64, u64),
    /// Another table goes on with it.
    GoTo(u8),
}

/// What kind of note something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What is as it should be.
    Detail,
    /// What keeps something from being done.
    Warning,
    /// What keeps all of it from being done.
    Error,
}

/// Follows a packet on its way, to tell of it. `key` is what the packet is by then.
///
/// Whoever only wants some of it leaves the others as they are: they do nothing.
pub trait Watch {
    /// It is looked up among these rules, which are those of a table.
    fn look_up(&mut self, key: &Key, table: u8, rules: &Classifier<Arc<Rule>>) {
        let _ = (key, table, rules);
    }

    /// It comes somewhere.
    fn enter(&mut self, key: &Key, place: Place<'_>) {
        let _ = (key, place);
    }

    /// It goes on where it was before.
    fn leave(&mut self) {}

    /// This is done next. `is_last` if nothing follows it in its list, nor by the action set.
    fn step(&mut self, key: &Key, step: Step<'_>, is_last: bool) {
        let _ = (key, step, is_last);
    }

    /// This was done.
    fn done(&mut self, key: &Key, action: &Action) {
        let _ = (key, action);
    }

    /// The action set is so now.
    fn action_set(&mut self, actions: &[Action]) {
        let _ = actions;
    }

    /// What follows, until the next [`join`](Self::join), is done with a copy of the packet.
    fn fork(&mut self, key: &Key, actions: &[Action]) {
        let _ = (key, actions);
    }

    /// What follows is done with the packet as it was at the fork.
    fn join(&mut self) {}

    /// The packet is handed on, or cut.
    fn send(&mut self, key: &Key, op: &Op) {
        let _ = (key, op);
    }

    /// What follows, until the next [`end_by_len`](Self::end_by_len), is done with a packet that is longer
    /// than `len` bytes, and what follows that, until the next one, with one that is not.
    fn by_len(&mut self, key: &Key, len: u16) {
        let _ = (key, len);
    }

    /// What is done by the packet's length has come to its end, of longer packets, or of others.
    fn end_by_len(&mut self) {}

    /// A rule is made of it.
    fn learn(&mut self, rule: &Change) {
        let _ = rule;
    }

    /// It is sent to a port that has queues, whether or not it gets a class of service there.
    fn queue(&mut self, key: &Key, is_marked: bool) {
        let _ = (key, is_marked);
    }

    /// A bucket of a group is to be chosen. Returns whether the packet stops before, to go round: then
    /// what it goes on with [is told](Self::round), and nothing else is done with it.
    fn choose(&mut self, key: &Key, choice: Choice<'_>) -> bool {
        let _ = (key, choice);
        false
    }

    /// Whether a packet stops where an action says that it goes round (`debug_recirc`): then what it goes on
    /// with [is told](Self::round). If not, it goes on at once.
    fn goes_round(&self) -> bool {
        false
    }

    /// The packet goes round, for a place by this hash if there is one, and goes on with this.
    fn round(&mut self, key: &Key, hash: Option<PlaceHash>, next: Frozen) {
        let _ = (key, hash, next);
    }

    /// What was wrong until now keeps nothing else from being done.
    fn recover(&mut self) {}

    /// There is something to say about what is done.
    fn note(&mut self, kind: Kind, note: Arguments<'_>) {
        let _ = (kind, note);
    }
}
