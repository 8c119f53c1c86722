//! Instructions: what a flow does with a packet at its table.

use crate::action::Action;

/// The instructions of a flow, in the order in which they are done. In OpenFlow 1.0 there is only
/// `apply`.
///
/// A meter is an [`Action::Meter`] at the head of `apply`, as OpenFlow 1.5 has it; earlier versions,
/// where it is an instruction, have no other place for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Instructions {
    /// Actions that are done at once.
    pub apply: Vec<Action>,
    /// Whether the action set is emptied.
    pub clear: bool,
    /// Actions that are put into the action set.
    pub write: Option<Vec<Action>>,
    /// Bits of the metadata that are written, and which: value, mask.
    pub metadata: Option<(u64, u64)>,
    /// The table that comes next.
    pub goto_table: Option<u8>,
}

impl Instructions {
    /// To do these at once, and nothing else.
    #[must_use]
    pub fn apply(actions: Vec<Action>) -> Self {
        Self { apply: actions, ..Self::default() }
    }

    /// Whether packets are dropped: nothing is done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
