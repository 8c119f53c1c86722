//! A path: the whole way of a packet through the tables, as few operations.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use openflow::packet_in::Reason;

use crate::key::Key;
use crate::rule::Stats;
use crate::tables::Change;

/// A change of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Edit {
    /// Write bits of a word of the key.
    Set {
        /// Number of the word.
        word: u8,
        /// Which bits.
        mask: u64,
        /// What.
        value: u64,
    },
    /// Take the outer tag off.
    PopVlan,
    /// Put a tag on.
    PushVlan {
        /// What kind of tag.
        tpid: u16,
        /// Priority, drop eligibility and VLAN.
        tci: u16,
    },
    /// Write bits of the outer tag's control information.
    SetVlan {
        /// Which bits.
        mask: u16,
        /// What.
        tci: u16,
    },
}

/// What controllers get of a packet, and are told about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PacketIn {
    /// The most bytes of the packet.
    pub max_len: u16,
    /// To which controllers: those with this id.
    pub id: u16,
    /// Why.
    pub reason: Reason,
    /// The table whose rule sends it.
    pub table: u8,
    /// The cookie of that rule; all ones where there is none.
    pub cookie: u64,
    /// What travels beside the packet by then: registers, metadata, and where it came in. Words of the
    /// packet itself are empty.
    pub key: Box<Key>,
    /// What the rule passes along.
    pub userdata: Vec<u8>,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Change the packet.
    Edit(Edit),
    /// Leave its first so many bytes.
    Cut(u32),
    /// Send it to a port, by the number that the switch knows it by.
    Output(u16),
    /// Send it to all ports, or to those that flood, but that where it came in.
    Flood {
        /// Whether to those as well that do not flood.
        all: bool,
        /// Where it came in, by its OpenFlow number.
        but: u32,
    },
    /// Do what a plain bridge does, as if it had come in there; `None`: on no port.
    Normal(Option<u16>),
    /// Send it to controllers.
    Controller(Arc<PacketIn>),
    /// Remember the packet as it is.
    Save,
    /// Go on with the packet that was remembered last.
    Restore,
}

/// Why a packet goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lost {
    /// No rule is for it.
    NoRule,
    /// That is what its rules say.
    Dropped,
    /// It came to too many tables.
    TooDeep,
}

/// Ports that a simple path sends to, at most.
const MAX_SIMPLE: usize = 64;

/// Some of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TableSet([u64; 4]);

impl TableSet {
    /// Adds one.
    pub fn insert(&mut self, table: u8) {
        if let Some(word) = self.0.get_mut(usize::from(table / 64)) {
            *word |= 1 << (table % 64);
        }
    }

    /// Whether any table is in both.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }
}

/// The way of a packet.
#[derive(Clone, Debug)]
pub struct Path {
    /// What is done, in order.
    pub ops: Box<[Op]>,
    /// Rules that are made of the packet.
    pub learns: Box<[Arc<Change>]>,
    /// The counts of the rules that it passes; of one that it passes twice, twice.
    pub rules: Box<[Arc<Stats>]>,
    /// The tables that it was looked up in.
    pub tables: TableSet,
    /// If it goes nowhere: why.
    pub lost: Option<Lost>,
    /// All that it does is to send the packet as it is, to some ports once.
    pub is_simple: bool,
}

impl Hash for Path {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.ops, &self.learns).hash(state);
        self.rules.iter().for_each(|stats| Arc::as_ptr(stats).hash(state));
        (self.tables, self.lost).hash(state);
    }
}

impl PartialEq for Path {
    /// Paths are equal if they are of the same rules, and do the same.
    fn eq(&self, other: &Self) -> bool {
        let rules = self.rules.iter().zip(&other.rules);
        self.rules.len() == other.rules.len()
            && (&self.ops, &self.learns) == (&other.ops, &other.learns)
            && (self.tables, self.lost) == (other.tables, other.lost)
            && rules.into_iter().all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

impl Path {
    /// A path that does this.
    pub(crate) fn new(
        (ops, learns): (Vec<Op>, Vec<Arc<Change>>),
        rules: Vec<Arc<Stats>>,
        tables: TableSet,
        lost: Option<Lost>,
    ) -> Self {
        let is_new = |(at, op): (usize, &Op)| {
            matches!(op, Op::Output(_)) && ops.iter().take(at).all(|before| before != op)
        };
        let is_simple = ops.len() <= MAX_SIMPLE && ops.iter().enumerate().all(is_new);
        let (ops, learns, rules) = (ops.into(), learns.into(), rules.into());
        Self { ops, learns, rules, tables, lost, is_simple }
    }
}
