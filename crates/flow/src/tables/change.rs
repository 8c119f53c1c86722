//! Changes of rules: what is done, to which rules, and what comes of it.

use std::sync::Arc;

use openflow::action::Action;
use openflow::{Field, Instructions, Match, PortNo};

use crate::rule::{Ended, Flags, Rule, Stats, Timeouts};

/// What is done to rules (OpenFlow 1.5, 6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Add a rule, in the place of one with the same match and priority.
    Add,
    /// Change what becomes of packets, of all rules within a match.
    Modify,
    /// The same, of the rule with just this match and priority.
    ModifyStrict,
    /// Delete all rules within a match.
    Delete,
    /// Delete the rule with just this match and priority.
    DeleteStrict,
    /// Have the rule with just this match, priority and cookie end sooner, by the change's timeouts.
    Shorten,
}

/// Which rules are meant, where not one alone is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    /// Their table; all tables.
    pub table: Option<u8>,
    /// All their packets are among these.
    pub matching: Match,
    /// What their cookies are, and which bits of them count.
    pub cookie: (u64, u64),
    /// A port that they have an action of sending to.
    pub out_port: Option<PortNo>,
    /// Likewise a group.
    pub out_group: Option<u32>,
}

impl Filter {
    /// Whether a rule is meant, beside what it matches on.
    pub(super) fn takes(&self, rule: &Rule) -> bool {
        let (cookie, mask) = self.cookie;
        (rule.cookie ^ cookie) & mask == 0
            && self.out_port.is_none_or(|port| sends(&rule.instructions, &|to| is_port(to, port)))
            && self.out_group.is_none_or(|id| sends(&rule.instructions, &|to| is_group(to, id)))
    }
}

/// A change of rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// What is done.
    pub command: Command,
    /// To which rules, or to which one.
    pub filter: Filter,
    /// The priority of a rule that is added, or is meant alone.
    pub priority: u16,
    /// The cookie of what is added; and of what is changed, if it gets another one.
    pub cookie: Option<u64>,
    /// How it is kept.
    pub flags: Flags,
    /// How long.
    pub timeouts: Timeouts,
    /// Which goes first where room is needed.
    pub importance: u16,
    /// What becomes of packets.
    pub instructions: Arc<Instructions>,
    /// Where there is nothing to change, the rule is added: as in OpenFlow 1.0. Where the rule that is
    /// added is there already, it only lives longer: as one that is learnt.
    pub may_add: bool,
    /// With as many rules in its table that have its cookie, a rule that is learnt is not added; 0: it
    /// always is.
    pub limit: u32,
}

impl Change {
    /// Adds a rule to a table, of priority 0x8000.
    #[must_use]
    pub fn add(table: u8, matching: Match, instructions: Instructions) -> Self {
        Self {
            command: Command::Add,
            filter: Filter { table: Some(table), matching, ..Filter::default() },
            priority: 0x8000,
            cookie: Some(0),
            flags: Flags::default(),
            timeouts: Timeouts::default(),
            importance: 0,
            instructions: Arc::new(instructions),
            may_add: false,
            limit: 0,
        }
    }

    /// The same with another priority.
    #[must_use]
    pub const fn with_priority(mut self, priority: u16) -> Self {
        self.priority = priority;
        self
    }

    /// Deletes all rules within a match.
    #[must_use]
    pub fn delete(table: Option<u8>, matching: Match) -> Self {
        let mut change = Self::add(0, matching, Instructions::default());
        change.command = Command::Delete;
        change.filter.table = table;
        change
    }

    /// Whether it is one of learning what is there already.
    pub(crate) fn only_refreshes(&self, rule: &Rule) -> bool {
        self.may_add
            && self.command == Command::Add
            && (self.cookie, self.timeouts, self.flags)
                == (Some(rule.cookie), rule.timeouts, rule.flags)
            && self.instructions == rule.instructions
    }

    /// What a rule counts in after this change of it. When it was used last stays, as in Open vSwitch.
    pub(super) fn stats(&self, rule: &Rule) -> Arc<Stats> {
        match self.flags.reset_counts {
            true => Arc::new(Stats::new(rule.stats.used())),
            false => Arc::clone(&rule.stats),
        }
    }

    /// A rule after this change of it.
    pub(super) fn apply(&self, rule: &Rule, now: u64) -> Rule {
        let identity = (rule.table, rule.priority);
        let matched = (rule.matching.clone(), rule.pattern.clone());
        let new = Rule::new(identity, matched, Arc::clone(&self.instructions), now);
        let stats = self.stats(rule);
        Rule {
            cookie: self.cookie.unwrap_or(rule.cookie),
            flags: rule.flags,
            timeouts: rule.timeouts,
            importance: rule.importance,
            created: rule.created,
            added: rule.added,
            stats,
            ..new
        }
    }
}

/// Why a change is refused. Nothing is changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such table.
    #[error("there is no such table; they are numbered 0 to 254")]
    BadTable,
    /// There are as many rules as there may be.
    #[error("there are {limit} rules, as many as there may be; delete some")]
    Full {
        /// How many that is.
        limit: usize,
    },
    /// It overlaps with another rule of its priority.
    #[error("it overlaps with another rule of its priority, and was to be checked for that")]
    Overlap,
    /// There is no group to which it sends packets.
    #[error("there is no group {0}: add it first")]
    NoGroup(u32),
    /// There is no meter that it uses.
    #[error("there is no meter {0}: add it first")]
    NoMeter(u32),
    /// An action is not possible yet.
    #[error("the action {0} is not possible yet")]
    Action(&'static str),
    /// No packet here has such a field.
    #[error("no packet here has the field {0}")]
    Field(Field),
}

/// What a change has done.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Rules that are there now and were not.
    pub added: Vec<Arc<Rule>>,
    /// Rules that are others now: before, and after.
    pub modified: Vec<(Arc<Rule>, Arc<Rule>)>,
    /// Rules that are not there any more, and why.
    pub removed: Vec<(Arc<Rule>, Ended)>,
}

/// Whether any action of instructions, or in one of them, is one that `is_it` tells.
pub(super) fn sends(instructions: &Instructions, is_it: &dyn Fn(&Action) -> bool) -> bool {
    let written = instructions.write.iter().flatten();
    instructions.apply.iter().chain(written).any(|action| has(action, is_it))
}

fn has(action: &Action, is_it: &dyn Fn(&Action) -> bool) -> bool {
    let inner = match action {
        Action::Clone(actions) => actions.as_slice(),
        _ => &[],
    };
    is_it(action) || inner.iter().any(|action| has(action, is_it))
}

pub(super) fn is_port(action: &Action, wanted: PortNo) -> bool {
    match action {
        Action::Output { port, .. }
        | Action::OutputTruncated { port, .. }
        | Action::Enqueue { port, .. } => *port == wanted,
        Action::Controller(_) => wanted == PortNo::CONTROLLER,
        _ => false,
    }
}

fn is_group(action: &Action, wanted: u32) -> bool {
    matches!(action, Action::Group(id) if *id == wanted)
}
