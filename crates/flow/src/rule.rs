//! A rule: which packets it is for, what becomes of them, and how long it stays.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Relaxed},
};

use openflow::{Action, Instructions, Match};
use packet::prefetch::{prefetch_read, prefetch_write};

use crate::classifier::{Clause, Ranked};
use crate::key::Key;
use crate::onward::{self, Onward};
use crate::pattern::Pattern;
use crate::reads::reads;
use crate::touched::touched;
use crate::uses::{self, Used};

/// What a rule, a group or a bucket has done. It outlives a rule that is changed.
#[derive(Debug, Default)]
pub struct Stats {
    packets: AtomicU64,
    bytes: AtomicU64,
    /// When it was last used, in milliseconds.
    used: AtomicU64,
}

impl Stats {
    /// Of what is new at `now`.
    pub(crate) fn new(now: u64) -> Self {
        Self { used: AtomicU64::new(now), ..Self::default() }
    }

    /// Counts what has passed until `now`, in milliseconds.
    pub fn add(&self, packets: u64, bytes: u64, now: u64) {
        self.packets.fetch_add(packets, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.used.fetch_max(now, AcqRel);
    }

    /// Packets that it was for.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets.load(Relaxed)
    }

    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// When it was last used, or made; in milliseconds.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }
}

/// How a rule is kept (OpenFlow 1.5, 7.3.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    /// Controllers are told when it ends.
    pub send_flow_removed: bool,
    /// It is not added where it overlaps with another of its priority.
    pub check_overlap: bool,
    /// A change begins to count anew.
    pub reset_counts: bool,
    /// Nobody needs the number of packets.
    pub no_packet_counts: bool,
    /// Nobody needs the number of bytes.
    pub no_byte_counts: bool,
}

/// After how many seconds a rule ends; 0: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// Without a packet.
    pub idle: u16,
    /// In any case.
    pub hard: u16,
}

impl Timeouts {
    /// The shorter one of each; where one is never, the other.
    #[must_use]
    pub const fn shortened(self, to: Self) -> Self {
        const fn shorter(timeout: u16, to: u16) -> u16 {
            if to != 0 && (timeout == 0 || timeout > to) { to } else { timeout }
        }
        Self { idle: shorter(self.idle, to.idle), hard: shorter(self.hard, to.hard) }
    }
}

/// Why a rule ends (OpenFlow 1.5, 7.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// It was not used for so long.
    Idle,
    /// Its time was over.
    Hard,
    /// It was deleted.
    Deleted,
    /// It had to make room for another one.
    Evicted,
    /// A group was deleted that it sent packets to.
    GroupDeleted,
    /// A meter was deleted that it used.
    MeterDeleted,
}

/// A rule of a table.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its table.
    pub table: u8,
    /// Which rule is taken of those that are for a packet: the one with the highest.
    pub priority: u16,
    /// Which packets it is for.
    pub matching: Match,
    /// A number of the controller's.
    pub cookie: u64,
    /// How it is kept.
    pub flags: Flags,
    /// How long.
    pub timeouts: Timeouts,
    /// What must make room goes by this, the lowest first.
    pub importance: u16,
    /// What becomes of packets.
    pub instructions: Arc<Instructions>,
    /// When it was made, in milliseconds.
    pub created: u64,
    /// When it was last changed, in milliseconds.
    pub modified: u64,
    /// The version of the tables since which there is a rule with its match and priority.
    pub added: u64,
    /// The last version that it was changed in.
    pub changed: u64,
    /// What it has done.
    pub stats: Arc<Stats>,
    pub(crate) pattern: Pattern,
    /// Which bits of packets its actions depend on.
    pub(crate) reads: Key,
    /// The clauses of conjunctions that it is one of the ways to fulfil.
    pub(crate) clauses: Box<[Clause]>,
    /// The groups that it sends packets to, and its meters.
    pub(crate) uses: Box<[Used]>,
    pub(crate) is_table_miss: bool,
    /// The table that packets go on to, if that is all that becomes of them.
    pub(crate) goes_to: Option<u8>,
    /// If that is all but values that are written to packets and beside them: these, too.
    pub(crate) onward: Option<Onward>,
    /// The words of headers and beside packets that its actions may write to, a bit for each; and those that they read.
    pub(crate) touched: u64,
    pub(crate) read: u64,
}

impl Rule {
    /// A rule that is new at `now`, without cookie, timeouts and flags.
    pub(crate) fn new(
        (table, priority): (u8, u16),
        (matching, pattern): (Match, Pattern),
        instructions: Arc<Instructions>,
        now: u64,
    ) -> Self {
        let reads = reads(&instructions);
        let clauses = instructions.apply.iter().filter_map(clause).collect();
        let uses = uses::of(&instructions);
        let is_table_miss = priority == 0 && pattern.is_any();
        let goes_to = goes_to(&instructions);
        let (onward, touched) = (Onward::of(&instructions), touched(&instructions));
        let read = reads.used();
        Self {
            table,
            priority,
            matching,
            cookie: 0,
            flags: Flags::default(),
            timeouts: Timeouts::default(),
            importance: 0,
            instructions,
            created: now,
            modified: now,
            added: 0,
            changed: 0,
            stats: Arc::new(Stats::new(now)),
            pattern,
            reads,
            clauses,
            uses,
            is_table_miss,
            goes_to,
            onward,
            touched,
            read,
        }
    }

    /// Whether it is for what no other rule is for (OpenFlow 1.3, 5.4).
    #[must_use]
    pub const fn is_table_miss(&self) -> bool {
        self.is_table_miss
    }

    /// Why it ends, if its time is over at `now`: not before the last millisecond of it is over.
    #[must_use]
    pub fn ends(&self, now: u64) -> Option<Ended> {
        let is_over = |since: u64, seconds: u16| {
            seconds != 0 && now.saturating_sub(since) > u64::from(seconds) * 1000
        };
        if is_over(self.modified, self.timeouts.hard) {
            return Some(Ended::Hard);
        }
        is_over(self.stats.used(), self.timeouts.idle).then_some(Ended::Idle)
    }

    /// When it ends if nothing more comes, in milliseconds; never: `u64::MAX`.
    pub(crate) fn end(&self) -> u64 {
        let end = |since: u64, seconds: u16| match seconds {
            0 => u64::MAX,
            seconds => since.saturating_add(u64::from(seconds) * 1000),
        };
        end(self.modified, self.timeouts.hard).min(end(self.stats.used(), self.timeouts.idle))
    }

    /// Whether packets that are for another one of its match and priority go the same way by this one, and
    /// are counted in the same place.
    pub(crate) fn does_as(&self, other: &Self) -> bool {
        self.cookie == other.cookie
            && Arc::ptr_eq(&self.stats, &other.stats)
            && self.instructions == other.instructions
    }

    /// It is going to be exchanged for another one, or is that one: what is looked at then is asked for.
    #[inline]
    pub(crate) fn fetch(self: &Arc<Self>) {
        // How many have it is in front.
        let start = Arc::as_ptr(self).cast::<u8>();
        prefetch_write(start.wrapping_sub(1));
        prefetch_read(std::ptr::from_ref(&self.stats).cast());
        prefetch_read(std::ptr::from_ref(&self.onward).cast());
        prefetch_read(std::ptr::from_ref(&self.touched).cast());
        prefetch_read(std::ptr::from_ref(&self.read).cast());
    }

    /// Whether it ends by itself.
    pub(crate) const fn is_timed(&self) -> bool {
        self.timeouts.idle != 0 || self.timeouts.hard != 0
    }
}

/// The table of a resubmission that is all there is.
fn goes_to(instructions: &Instructions) -> Option<u8> {
    let Instructions { apply, clear: false, write: None, metadata: None, goto_table: None } =
        instructions
    else {
        return None;
    };
    match &apply[..] {
        [action] => onward::goes_to(action),
        _ => None,
    }
}

fn clause(action: &Action) -> Option<Clause> {
    match *action {
        Action::Conjunction { id, clause, clauses } => {
            Some(Clause { id, number: clause, count: clauses })
        }
        _ => None,
    }
}

impl Ranked for Arc<Rule> {
    fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    fn priority(&self) -> u16 {
        self.priority
    }

    fn clauses(&self) -> &[Clause] {
        &self.clauses
    }
}
