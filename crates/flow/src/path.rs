//! A path: the whole way of a packet through the tables, as few operations.
//!
//! - `hash`: what paths that are the same are found by

mod hash;

use std::sync::Arc;

use arrayvec::ArrayVec;
use conntrack::Request;
use openflow::action::SampleDirection;
use openflow::packet_in::Reason;
use packet::prefetch::prefetch_read;

use crate::frozen::Frozen;
use crate::key::{Key, TunnelWords};
use crate::rule::{Rule, Stats};
use crate::tables::Change;
use crate::walk::room::Room;
use crate::walk::trace::{Trace, Tracer};
use hash::hash_written;

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
    /// Put a label of MPLS on, behind tags.
    PushMpls {
        /// How many tags, at most: what is behind these is behind the label.
        tags: u8,
        /// What the frame carries then.
        ether_type: u16,
        /// The label, with all that belongs to it.
        entry: u32,
    },
    /// Take the outermost label of MPLS off, if there is one behind tags.
    PopMpls {
        /// How many tags, at most.
        tags: u8,
        /// What the frame carries then.
        ether_type: u16,
    },
    /// Put a header of Ethernet in front of all, without addresses.
    PushEthernet {
        /// What it says that the frame carries.
        ether_type: u16,
    },
    /// Take the header of Ethernet off, in front of a whole frame.
    PopEthernet,
    /// Leave nothing of a header of Ethernet without tags but what it says that the frame carries: no addresses, and no
    /// LLC and SNAP behind it.
    EmptyEthernet,
    /// Take the network service header off that a frame without Ethernet begins with.
    PopNsh {
        /// What is behind it, as an EtherType; `None`: a frame of Ethernet.
        ether_type: Option<u16>,
    },
    /// Raise the drop precedence of the packet's class (RFC 2597, section 6) by so much: what a meter does.
    RaiseDrop(u8),
}

/// A network service header that is put in front of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NshPush {
    /// The header, with its metadata.
    pub header: Box<[u8]>,
    /// Whether the packet begins with a header of Ethernet, which is behind it then.
    pub before_ethernet: bool,
}

/// By what a packet goes to another bridge: controllers that it is sent to there are told that, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// What a rule says.
    #[default]
    Rule,
    /// The action set.
    ActionSet,
    /// A controller.
    PacketOut,
}

/// What controllers get of a packet, and are told about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PacketIn {
    /// The most bytes of the packet that the rule asks for, which counts for what is told of it alone: nothing of a packet
    /// is kept, so all of it goes.
    pub max_len: u16,
    /// To which controllers: those with this id.
    pub id: u16,
    /// Why.
    pub reason: Reason,
    /// Whether that is for the place of the action to say, and so for what the packet has come from another bridge by.
    pub is_by_place: bool,
    /// The table whose rule sends it.
    pub table: u8,
    /// The cookie of that rule; all ones where there is none.
    pub cookie: u64,
    /// What travels beside the packet by then: registers, metadata, and where it came in. Words of the
    /// packet itself are empty.
    pub key: Box<Key>,
    /// What the rule passes along.
    pub userdata: Vec<u8>,
    /// If it stops there: what it goes on with when a controller says so.
    pub frozen: Option<Arc<Frozen>>,
}

impl PacketIn {
    /// The same of a packet that has come from another bridge by `cause`.
    #[must_use]
    pub fn by(self: &Arc<Self>, cause: Cause) -> Arc<Self> {
        let reason = match cause {
            Cause::PacketOut => Reason::PACKET_OUT,
            Cause::ActionSet if self.reason != Reason::GROUP => Reason::ACTION_SET,
            _ => self.reason,
        };
        if !self.is_by_place || reason == self.reason {
            return Arc::clone(self);
        }
        Arc::new(Self { reason, ..(**self).clone() })
    }
}

/// What collectors are told of some of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sample {
    /// Of how many of 65,535, not 0.
    pub probability: u16,
    /// Which collectors.
    pub set: u32,
    /// Where from, for the collector.
    pub domain: u32,
    /// Where in that.
    pub point: u32,
    /// The port that is told of, by the number that the switch knows it by.
    pub port: Option<u16>,
    /// In which direction.
    pub direction: SampleDirection,
}

/// How a packet's connection is found out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Track {
    /// What is done with it.
    pub request: Request,
    /// If a copy of the packet goes on then, tracked: with this.
    pub next: Option<Arc<Frozen>>,
    /// What rules have noted of whose it is.
    pub metadata: u64,
    /// What the packet begins with.
    pub packet_type: u32,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Change the packet.
    Edit(Edit),
    /// Put a network service header in front of all.
    PushNsh(Arc<NshPush>),
    /// Leave its first so many bytes.
    Cut(u32),
    /// Send it through the meter of this number, which may drop or remark it.
    Meter(u32),
    /// If it goes into a tunnel whose ends or key are for rules to say: into this one, from now on.
    Tunnel(Arc<TunnelWords>),
    /// Where it goes out on a port that takes more than Ethernet, or its bytes are counted: it begins with this
    /// (`packet_type`), from now on.
    Begins(u32),
    /// Where it goes to another bridge: with this mark (`pkt_mark`), from now on.
    Mark(u32),
    /// The same: by this, from now on.
    Cause(Cause),
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
    /// Tell collectors of it, if its turn has come.
    Sample(Arc<Sample>),
    /// Find out which connection it is of; and what the copy goes on with that is tracked, by its number
    /// in the cache that the path is of.
    Track(Arc<Track>, u32),
    /// Look at the packet anew, and go on with this, by its number in the cache that the path is of: what
    /// it begins with now was behind headers.
    Again(Arc<Frozen>, u32),
    /// Remember the packet as it is.
    Save,
    /// Go on with the packet that was remembered last.
    Restore,
}

impl Op {
    /// Whether it depends on what the packet begins with.
    pub(crate) const fn is_by_type(&self) -> bool {
        use Op::{Flood, Meter, Normal, Output, Sample};
        matches!(self, Output(_) | Flood { .. } | Normal(_) | Meter(_) | Sample(_))
    }

    /// Whether it changes the packet, or how it goes from then on.
    pub(crate) const fn is_change(&self) -> bool {
        use Op::{Begins, Cause, Cut, Edit, Mark, PushNsh, Tunnel};
        let tells = matches!(self, Tunnel(_) | Begins(_) | Mark(_) | Cause(_));
        tells || matches!(self, Edit(_) | PushNsh(_) | Cut(_))
    }

    /// Whether somebody is told all that is known of the packet's connection, which is then a part of the operation.
    fn tells_connection(&self) -> bool {
        match self {
            Self::Controller(about) => about.key.has_connection(),
            Self::Again(next, _) => next.key.has_connection(),
            _ => false,
        }
    }

    /// Whether large segments are cut before it is done.
    const fn cuts(&self) -> bool {
        use Edit::{PushEthernet, PushMpls};
        matches!(self, Self::PushNsh(_) | Self::Edit(PushMpls { .. } | PushEthernet { .. }))
    }
}

/// Why a packet goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lost {
    /// No rule is for it.
    NoRule,
    /// That is what its rules say.
    Dropped,
    /// It came to tables within tables without an end.
    TooDeep,
    /// It came to too many tables.
    TooMany,
    /// It put too much on its stack.
    StackTooDeep,
    /// It has more labels than are looked at.
    TooManyLabels,
    /// A header was to be put on, or taken off, that packets of its kind cannot have or have not.
    PacketType,
}

/// Ports that a simple path sends to, at most.
const MAX_SIMPLE: usize = 64;

/// Some of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TableSet([u64; 4]);

impl TableSet {
    /// Whether one is among them.
    #[must_use]
    pub fn has(&self, table: u8) -> bool {
        let word = self.0.get(usize::from(table / 64)).copied().unwrap_or_default();
        word & 1 << (table % 64) != 0
    }

    /// Those that are among them, in order.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=u8::MAX).filter(|table| self.has(*table))
    }

    /// Adds one.
    pub fn insert(&mut self, table: u8) {
        if let Some(word) = self.0.get_mut(usize::from(table / 64)) {
            *word |= 1 << (table % 64);
        }
    }

    /// Adds those of another set.
    pub(crate) fn join(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(own, other)| *own |= other);
    }

    /// The places at which two lists, of 256 at most, have not the same thing.
    pub(crate) fn of_changed<T>(one: &[Arc<T>], other: &[Arc<T>]) -> Self {
        let mut changed = Self::default();
        for place in (0..=u8::MAX).take(one.len().max(other.len())) {
            let [own, others] = [one, other].map(|list| list.get(usize::from(place)));
            if own.map(Arc::as_ptr) != others.map(Arc::as_ptr) {
                changed.insert(place);
            }
        }
        changed
    }

    /// Whether any table is in both.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }
}

/// What decides about a packet: as long as that stays as it is, its way does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Basis {
    /// The tables that it was looked up in.
    pub tables: TableSet,
    /// Those where it matters which rules there are at all.
    pub counted: TableSet,
    /// Numbers of groups that it came to or that were asked whether they are alive, modulo 256.
    pub groups: TableSet,
    /// Whether ports were asked that.
    pub links: bool,
    /// Whether it is asked if there is a meter for what controllers get.
    pub meters: bool,
}

impl Basis {
    /// Whether anything is in both.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.tables.meets(&other.tables)
            || self.counted.meets(&other.counted)
            || self.groups.meets(&other.groups)
            || self.links && other.links
            || self.meters && other.meters
    }
}

/// A table that a packet was looked up in.
#[derive(Clone, Copy, Debug)]
pub struct Visit<R = Arc<Rule>> {
    /// Its number.
    pub table: u8,
    /// The rule that was found.
    pub rule: Option<R>,
}

/// The same, of a path in the making.
pub(crate) type Passed<'w> = Visit<&'w Arc<Rule>>;

impl Passed<'_> {
    #[inline]
    fn is(&self, other: &Visit) -> bool {
        match (self.rule, &other.rule) {
            // One rule is in one table.
            (Some(rule), Some(other)) => Arc::ptr_eq(rule, other),
            (None, None) => self.table == other.table,
            _ => false,
        }
    }
}

/// The way of a packet.
#[derive(Clone, Debug)]
pub struct Path {
    /// What is done, in order.
    pub ops: Box<[Op]>,
    /// Rules that are made of the packet.
    pub learns: Box<[Arc<Change>]>,
    /// The tables that it passes, with the rules found there, in order; one that it passes twice is there
    /// twice.
    pub visits: Box<[Visit]>,
    /// The counts of groups and buckets that it passes.
    pub groups: Box<[Arc<Stats>]>,
    /// What it was decided by.
    pub basis: Basis,
    /// If it goes nowhere: why. It may go through meters all the same.
    pub lost: Option<Lost>,
    /// All that it does is to send the packet as it is, to some ports once.
    pub is_simple: bool,
    /// It has packets stop at controllers.
    pub stops: bool,
    /// It puts something in front of packets, or between their headers, with which not all ports can cut large segments.
    pub cuts: bool,
    /// What is known of all packets that take it where they were looked up, if that was noted.
    pub(crate) trace: Option<Trace>,
}

/// A path in the making, that has nothing of the rules yet: most ways are known already.
#[derive(Debug)]
pub(crate) struct Way<'w> {
    pub(crate) ops: Vec<Op>,
    pub(crate) learns: Vec<Arc<Change>>,
    pub(crate) visits: Vec<Passed<'w>>,
    /// A hash of the visits.
    pub(crate) trail: u64,
    pub(crate) groups: Vec<&'w Arc<Stats>>,
    /// Without the tables, which are those of the visits.
    pub(crate) basis: Basis,
    pub(crate) lost: Option<Lost>,
    /// What the packet was on it, if that was noted.
    pub(crate) tracer: Option<Box<Tracer>>,
}

impl Way<'_> {
    /// The path; the way's memory goes back to where it was from.
    pub(crate) fn into_path(mut self, trace: Option<Trace>, room: &mut Room) -> Path {
        let mut basis = self.basis;
        self.visits.iter().for_each(|visit| basis.tables.insert(visit.table));
        let owned = |visit: &Passed<'_>| Visit { table: visit.table, rule: visit.rule.cloned() };
        let visits = self.visits.iter().map(owned).collect();
        let groups = self.groups.iter().copied().cloned().collect();
        let (ops, learns) = (self.ops.drain(..).collect(), std::mem::take(&mut self.learns));
        let path = Path { visits, groups, trace, ..Path::new((ops, learns), basis, self.lost) };
        room.take_back(self);
        path
    }

    /// Whether it is that of packets of one connection alone, since somebody is told of that.
    pub(crate) fn tells_connection(&self) -> bool {
        self.ops.iter().any(Op::tells_connection)
    }

    /// What is known of the packet.
    pub(crate) fn trace(&mut self) -> Option<Trace> {
        self.tracer.as_mut().and_then(|tracer| tracer.finish())
    }

    /// Whether a path is this way.
    pub(crate) fn is(&self, path: &Path) -> bool {
        self.visits.len() == path.visits.len()
            && self.visits.iter().zip(&path.visits).all(|(own, other)| own.is(other))
            && are_same(self.groups.iter().copied(), path.groups.iter())
            && *self.ops == *path.ops
            && *self.learns == *path.learns
            && Basis { tables: path.basis.tables, ..self.basis } == path.basis
            && self.lost == path.lost
    }

    /// What is different of a path that is to be this way, which was traced.
    pub(crate) fn renewal_of(mut self, path: &Path, seed: u64, room: &mut Room) -> Renewal {
        let Some(others) = self.others_than(path) else {
            let (hash, trace) = (self.hash(seed), self.trace());
            return Renewal::All(Box::new(self.into_path(trace, room)), hash);
        };
        let hash = (*self.ops != *path.ops).then(|| self.hash(seed));
        let ops = hash.map(|hash| (self.ops.drain(..).collect(), hash));
        let is_same = |tracer: &mut Box<Tracer>| tracer.is(path.trace.as_ref());
        let is_retraced = !self.tracer.as_mut().is_some_and(is_same);
        room.take_back(self);
        Renewal::Rules { others, ops, is_retraced }
    }

    /// The rules that are others than those of a path, with their places, if little else is different.
    fn others_than(&self, path: &Path) -> Option<ArrayVec<(usize, Arc<Rule>), MAX_OTHERS>> {
        let is_like = self.visits.len() == path.visits.len()
            && are_same(self.groups.iter().copied(), path.groups.iter())
            && self.learns.is_empty()
            && path.learns.is_empty()
            && Basis { tables: path.basis.tables, ..self.basis } == path.basis
            && self.lost == path.lost;
        if !is_like {
            return None;
        }
        let mut others = ArrayVec::new();
        for (at, (own, before)) in self.visits.iter().zip(&path.visits).enumerate() {
            if own.is(before) {
                continue;
            }
            let rule = own.rule?;
            let counts_there = |before: &Arc<Rule>| Arc::ptr_eq(&rule.stats, &before.stats);
            // What counts in one place is in one table.
            before.rule.as_ref().filter(|before| counts_there(before))?;
            others.try_push((at, Arc::clone(rule))).ok()?;
        }
        Some(others)
    }
}

/// Rules of a path that may be others in the places where they were.
const MAX_OTHERS: usize = 4;

/// What is different of a path that has become another way.
#[derive(Debug)]
pub(crate) enum Renewal {
    /// In some places there are other rules that count where those before did, and other operations if any are
    /// given, with their hash; and the packet may be something else on its way.
    Rules {
        others: ArrayVec<(usize, Arc<Rule>), MAX_OTHERS>,
        ops: Option<(Box<[Op]>, u64)>,
        is_retraced: bool,
    },
    /// All, and its hash.
    All(Box<Path>, u64),
}

/// How much of it there was to renew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Rules, and what is done.
    Rules,
    /// And what packets are on their way.
    Values,
    /// All.
    All,
}

impl Renewal {
    /// Whether its packets are counted elsewhere from now on.
    pub(crate) const fn has_other_counts(&self) -> bool {
        matches!(self, Self::All(..))
    }

    /// Has the path be that way, which was the last one that took this room. Returns its hash if that may be another
    /// one.
    pub(crate) fn apply(self, path: &mut Path, room: &mut Room) -> (Extent, Option<u64>) {
        match self {
            Self::Rules { others, ops, is_retraced } => {
                for (at, rule) in others {
                    if let Some(visit) = path.visits.get_mut(at) {
                        visit.rule = Some(rule);
                    }
                }
                let extent = if is_retraced { Extent::Values } else { Extent::Rules };
                if let Some(tracer) = room.last().filter(|_| is_retraced) {
                    tracer.put(&mut path.trace);
                }
                let hash = ops.map(|(ops, hash)| {
                    path.set_ops(ops);
                    hash
                });
                (extent, hash)
            }
            Self::All(all, hash) => {
                *path = *all;
                (Extent::All, Some(hash))
            }
        }
    }
}

fn are_same<'s>(
    mut one: impl Iterator<Item = &'s Arc<Stats>>,
    mut other: impl Iterator<Item = &'s Arc<Stats>>,
) -> bool {
    one.all(|stats| other.next().is_some_and(|other| Arc::ptr_eq(stats, other)))
        && other.next().is_none()
}

impl PartialEq for Path {
    /// Paths are equal if they are of the same rules, and do the same.
    fn eq(&self, other: &Self) -> bool {
        let tables =
            |path: &'_ Self| path.visits.iter().map(|visit| visit.table).collect::<Vec<_>>();
        are_same(self.stats(), other.stats())
            && tables(self) == tables(other)
            && (&self.ops, &self.learns) == (&other.ops, &other.learns)
            && (self.basis, self.lost) == (other.basis, other.lost)
    }
}

impl Path {
    /// A path that does this.
    pub(crate) fn new(
        (ops, learns): (Box<[Op]>, Vec<Arc<Change>>),
        basis: Basis,
        lost: Option<Lost>,
    ) -> Self {
        let (ops_of_none, visits, groups, trace) = Default::default();
        let mut path = Self {
            ops: ops_of_none,
            learns: learns.into(),
            visits,
            groups,
            basis,
            lost,
            is_simple: true,
            stops: false,
            cuts: false,
            trace,
        };
        path.set_ops(ops);
        path
    }

    /// Has it do this.
    fn set_ops(&mut self, ops: Box<[Op]>) {
        let is_new = |(at, op): (usize, &Op)| {
            matches!(op, Op::Output(_)) && ops.iter().take(at).all(|before| before != op)
        };
        self.is_simple = ops.len() <= MAX_SIMPLE && ops.iter().enumerate().all(is_new);
        self.stops =
            ops.iter().any(|op| matches!(op, Op::Controller(about) if about.frozen.is_some()));
        self.cuts = ops.iter().any(Op::cuts);
        self.ops = ops;
    }

    /// Whether it is that of packets of one connection alone, since somebody is told of that.
    pub(crate) fn tells_connection(&self) -> bool {
        self.ops.iter().any(Op::tells_connection)
    }

    /// Has operations write other values, each by its number; gives the hash of the path, which was `hash`.
    pub(crate) fn rewrite(&mut self, values: &[(usize, u64)], seed: u64, mut hash: u64) -> u64 {
        for (at, to) in values {
            if let Some(Op::Edit(Edit::Set { value, .. })) = self.ops.get_mut(*at) {
                hash = hash.wrapping_sub(hash_written(seed, *at, *value));
                hash = hash.wrapping_add(hash_written(seed, *at, *to));
                *value = *to;
            }
        }
        hash
    }

    /// Whether nothing that it does depends on what goes along beside packets, but by what rules ask for and what
    /// their actions read.
    pub(crate) fn is_plain(&self) -> bool {
        let tells = |op: &Op| matches!(op, Op::Controller(_) | Op::Track(..) | Op::Again(..));
        self.basis.groups == TableSet::default()
            && self.learns.is_empty()
            && !self.ops.iter().any(tells)
    }

    /// How much there is to look at.
    pub(crate) fn len(&self) -> usize {
        self.visits.len() + self.ops.len() + self.trace.as_ref().map_or(0, Trace::len)
    }

    /// All of it is going to be looked at: the memory that it takes is asked for together.
    pub(crate) fn fetch(&self) {
        const LINE: usize = 64;
        const MOST: usize = 16;
        let visits = self.visits.iter().step_by(LINE / size_of::<Visit>()).take(MOST);
        visits.for_each(|visit| prefetch_read(std::ptr::from_ref(visit).cast()));
        prefetch_read(self.ops.as_ptr().cast());
        self.trace.iter().for_each(Trace::fetch);
    }

    /// The counts of the rules, groups and buckets that it passes.
    pub fn stats(&self) -> impl Iterator<Item = &Arc<Stats>> {
        let rules = self.visits.iter().filter_map(|visit| visit.rule.as_ref());
        rules.map(|rule| &rule.stats).chain(&self.groups)
    }

    /// About how much memory it takes, beside what it shares with rules.
    pub(crate) fn weight(&self) -> usize {
        const SHARED: usize = 512;
        let of_op = |op: &Op| match op {
            Op::Controller(about) => {
                SHARED + about.userdata.len() + about.frozen.as_ref().map_or(0, |of| of.weight())
            }
            Op::Track(track, _) => track.next.as_ref().map_or(0, |of| of.weight()).max(SHARED),
            Op::Again(frozen, _) => frozen.weight().max(SHARED),
            Op::Tunnel(_) | Op::Sample(_) | Op::PushNsh(_) => SHARED,
            _ => 0,
        };
        size_of::<Self>()
            + size_of_val(&*self.ops)
            + self.ops.iter().map(of_op).sum::<usize>()
            + self.learns.len() * SHARED
            + size_of_val(&*self.visits)
            + size_of_val(&*self.groups)
            + self.trace.as_ref().map_or(0, Trace::weight)
    }
}
