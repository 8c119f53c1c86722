//! A bridge: ports that share a forwarding database, and the VLANs that they carry; and what it
//! decides about a burst of frames.
//!
//! Neighbouring frames of the same addresses and tags are one *run* and cost one decision. The
//! memory that the decisions need is prefetched for all runs first. The outcome is written to the
//! [`Outputs`]: for each port the frames that go there, and what becomes of them on the way.
//!
//! - `change`: how it comes to know its ports and settings
//! - `vlans`: the VLAN settings of its ports
//! - `runs`: neighbouring frames that are alike
//! - `flood`: frames for no port in particular
//! - `dry`: what it would decide, with nothing learnt

mod change;
mod dry;
mod flood;
mod runs;
mod vlans;

use std::sync::Arc;

use arrayvec::ArrayVec;
use ethdev::{DropReason, QueueStats};
use fdb::{Fdb, Hash, Key};
use packet::{BURST, Burst, EditRoom, Frame};

use self::runs::{Run, gather};
use crate::datapath::Source;
use crate::flows::Flows;
use crate::gate::{Bars, Doors, Gate};
use crate::header::{self, Addresses};
use crate::limit::Limits;
use crate::mirror::{self, Copies, Taps};
use crate::outputs::Outputs;
use crate::snoop::stage::{Snoop, Snooping};
use crate::stage::{Gated, Plain, Stage, Vlans};

pub use self::change::BridgeChange;
pub(crate) use self::vlans::VlanTable;

/// For how many seconds a station that was heard behind another port cannot have moved, whatever is
/// announced: announcements come back, too.
const ANNOUNCED: u32 = 5;

/// An address to look up.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    address: u64,
    key: Key,
    hash: Hash,
}

/// A run whose addresses make sense.
#[derive(Clone, Copy, Debug)]
struct Lookup<M> {
    mask: u32,
    meta: M,
    /// Whether the run before has the same source.
    same_source: bool,
    source: Wanted,
    /// If it is a group address, it is not looked up.
    destination: Wanted,
}

/// The number by which workers know a bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BridgeId(pub u16);

impl BridgeId {
    /// The bridge that is always there.
    pub const DEFAULT: Self = Self(0);

    /// No bridge: what comes in belongs to that of the bond whose member the port is.
    pub const BOND: Self = Self(u16::MAX);
}

/// One worker's view of a bridge.
#[derive(Clone, Debug)]
pub struct Bridge {
    pub(crate) fdb: Arc<Fdb>,
    /// The most addresses that one burst may change in the forwarding database.
    pub(crate) learn_per_burst: usize,
    /// The reserved group addresses that are forwarded all the same: bit 0 is 01:80:c2:00:00:00.
    pub(crate) group_fwd_mask: u16,
    /// Whether frames are forwarded whose source is no station's address.
    any_source: bool,
    /// The numbers of its ports, in order.
    members: Vec<u16>,
    /// Those of them that frames flood to.
    flooded: Vec<u16>,
    vlans: VlanTable,
    /// Its mirrors, if it has any.
    taps: Option<Box<Taps>>,
    /// Which ports forward, if not all do.
    gate: Option<Arc<Gate>>,
    /// What ports are told to leave undone, if any is.
    bars: Option<Box<Bars>>,
    /// What its ports let through by both of these.
    doors: Option<Box<Doors>>,
    /// The groups of its ports, if it looks at them.
    snoop: Option<Box<Snoop>>,
    /// What decides about its frames, if it is not a plain bridge.
    flows: Option<Box<Flows>>,
    /// What it has to look at for a verdict.
    looks: Looks,
}

/// What a bridge looks at of a frame.
#[derive(Clone, Copy, Debug)]
enum Looks {
    Addresses,
    /// Only where a port has settings, or it is to, does the bridge have to look at tags.
    Tags,
    /// Which ports forward, which groups its ports have, or both; tags or not.
    More,
}

impl Bridge {
    /// One without ports, which learns addresses in `fdb`.
    #[must_use]
    pub fn new(fdb: Arc<Fdb>, learn_per_burst: usize, group_fwd_mask: u16) -> Self {
        let (vlans, looks) = (VlanTable::default(), Looks::Addresses);
        let (taps, gate, bars, doors, snoop, flows) = (None, None, None, None, None, None);
        Self {
            fdb,
            learn_per_burst,
            group_fwd_mask,
            any_source: false,
            members: Vec::new(),
            flooded: Vec::new(),
            vlans,
            taps,
            gate,
            bars,
            doors,
            snoop,
            flows,
            looks,
        }
    }

    /// What decides about its frames, if it is not a plain bridge.
    #[inline]
    pub(crate) fn flows(&self) -> Option<&Flows> {
        self.flows.as_deref()
    }

    /// Whether frames go out on a port, as far as spanning tree is concerned.
    pub(crate) fn forwards_to(&self, port: u16) -> bool {
        self.gate.as_ref().is_none_or(|gate| gate.forwards(port))
    }

    /// What ports are told to leave undone.
    pub(crate) fn bars(&self) -> Option<&Bars> {
        self.bars.as_deref()
    }

    /// Its mirrors, if it has any.
    #[inline]
    pub(crate) fn taps(&self) -> Option<&Taps> {
        self.taps.as_deref()
    }

    /// Sends the copies of a burst to where its mirrors have them go.
    pub(crate) fn mirror(
        &self,
        frames: &[Frame<'_>],
        source: &Source<'_>,
        copies: &Copies,
        outputs: &mut Outputs,
        limits: &mut Limits,
        cut: &mut EditRoom,
    ) {
        let Some(taps) = self.taps() else { return };
        let view = self.view(source);
        for index in 0..taps.len() {
            if !outputs.may_mirror(|| taps.sharing(index, copies)) {
                continue;
            }
            let Some(cut) = taps.copy(index, copies, &view, frames, outputs, cut) else { continue };
            outputs.spread(&cut, source);
            limits.send(&cut, outputs, source.now);
            outputs.send_apart(Burst::new(&cut), source);
        }
    }

    /// The bridge as its mirrors need to know it, for a burst from `source`.
    pub(crate) fn view<'b>(&'b self, source: &'b Source<'b>) -> mirror::View<'b> {
        let (vlans, doors) = (&self.vlans, self.doors.as_deref());
        mirror::View { ports: &self.members, vlans, doors, source }
    }

    /// Decides where each frame of a burst goes, and notes it at the outputs.
    #[inline]
    pub(crate) fn decide(&self, frames: Burst<'_, '_>, source: &Source<'_>, outputs: &mut Outputs) {
        match self.looks {
            Looks::Addresses => self.decide_in(&Plain, frames, source, outputs),
            Looks::Tags => {
                let stage = Vlans::new(&self.vlans, source.port);
                self.decide_in(&stage, frames, source, outputs);
            }
            Looks::More => match self.vlans.is_used() {
                false => self.decide_more(Plain, frames, source, outputs),
                true => {
                    let stage = Vlans::new(&self.vlans, source.port);
                    self.decide_more(stage, frames, source, outputs);
                }
            },
        }
    }

    /// As `decide`, where not all ports forward, or groups are looked at.
    #[inline(never)]
    fn decide_more<S: Stage>(
        &self,
        stage: S,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        outputs: &mut Outputs,
    ) {
        match &self.snoop {
            Some(snoop) => {
                let stage = Snooping::new(stage, snoop, source.port);
                self.decide_gated(stage, frames, source, outputs);
            }
            None => self.decide_gated(stage, frames, source, outputs),
        }
    }

    /// The same, for what stations and groups leave to be decided.
    fn decide_gated<S: Stage>(
        &self,
        stage: S,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        outputs: &mut Outputs,
    ) {
        let Some(doors) = &self.doors else {
            return self.decide_in(&stage, frames, source, outputs);
        };
        if !doors.learns(source.port) {
            return source.stats.count_drops(DropReason::SpanningTree, frames.len());
        }
        self.decide_in(&Gated::new(stage, doors, source.port), frames, source, outputs);
    }

    /// A loop of its own for each kind of bridge: made into that of its caller, it has been measured
    /// to be slower.
    #[inline(never)]
    fn decide_in<S: Stage>(
        &self,
        stage: &S,
        frames: Burst<'_, '_>,
        source: &Source<'_>,
        outputs: &mut Outputs,
    ) {
        let mut runs = ArrayVec::<Run<S::Key>, BURST>::new();
        gather::<S>(frames, source.stats, &mut runs);
        let mut lookups = ArrayVec::<Lookup<S::Meta>, BURST>::new();
        let mut admitted = None;
        for run in &runs {
            self.classify(stage, run, &mut admitted, source.stats, &mut lookups);
        }
        self.learn(&lookups, source.port, outputs);
        if !stage.forwards() {
            let all = lookups.iter().fold(0, |all, lookup| all | lookup.mask);
            return source.stats.count_drops(DropReason::SpanningTree, all.count_ones() as usize);
        }
        for lookup in &mut lookups {
            lookup.mask &= !stage.hear(&frames, lookup.mask, &lookup.meta, source);
        }
        let mut flood = 0;
        for lookup in &lookups {
            flood |= self.find(stage, lookup, source, outputs);
        }
        if flood != 0 {
            self.flood(stage, &lookups, flood, source, outputs);
        }
    }

    /// Which frames of a burst have a source that is behind another port than they came from, though
    /// that does not say that it has moved: they went out there, and come back.
    pub(crate) fn came_back(&self, frames: &[Frame<'_>], source: &Source<'_>) -> u32 {
        match self.vlans.is_used() {
            false => self.came_back_in(&Plain, frames, source),
            true => self.came_back_in(&Vlans::new(&self.vlans, source.port), frames, source),
        }
    }

    fn came_back_in<S: Stage>(&self, stage: &S, frames: &[Frame<'_>], source: &Source<'_>) -> u32 {
        let now = self.fdb.now();
        let came_back = |frame: &Frame<'_>| {
            let Some(addresses) = Addresses::of(frame) else { return false };
            let Ok(meta) = stage.admit(S::read(frame).0) else { return false };
            let key = Key::from_bits(S::vlan(&meta), addresses.source());
            let found = self.fdb.find(key, self.fdb.hash(key));
            let other = found.filter(|value| value.port() != source.port);
            other.is_some_and(|value| {
                let is_fresh = now.saturating_sub(value.seen()) < ANNOUNCED;
                value.is_static() || is_fresh || !header::is_announcement(frame)
            })
        };
        let numbered = frames.iter().enumerate().take(BURST);
        let back = numbered.filter(|(_, frame)| came_back(frame));
        back.fold(0, |all, (index, _)| all | 1_u32 << index)
    }

    /// Checks a run's addresses and starts to load what their lookups need. Of the runs so far, the last
    /// that a port let in for its tags is `admitted`.
    #[allow(
        clippy::inline_always,
        reason = "a call of its own costs a frame 8 % where each is a run"
    )]
    #[inline(always)]
    fn classify<S: Stage>(
        &self,
        stage: &S,
        run: &Run<S::Key>,
        admitted: &mut Option<(S::Key, S::Meta)>,
        stats: &QueueStats,
        lookups: &mut ArrayVec<Lookup<S::Meta>, BURST>,
    ) {
        let (from, to) = (run.addresses.source(), run.addresses.destination());
        // Counted where it is needed only: without an instruction of its own it takes a dozen.
        let drop = |reason| stats.count_drops(reason, run.mask.count_ones() as usize);
        if !header::is_station(from) {
            return self.classify_other(stage, run, stats, lookups);
        }
        if header::is_reserved(to) && !header::is_among(to, self.group_fwd_mask) {
            return drop(DropReason::ReservedMulticast);
        }
        let meta = match *admitted {
            Some((key, meta)) if key == run.key => meta,
            _ => match stage.admit(run.key) {
                Ok(meta) => admitted.insert((run.key, meta)).1,
                Err(reason) => return drop(reason),
            },
        };
        let vlan = S::vlan(&meta);
        // One station that sends to many, and many that send to one, are common.
        let last = lookups.last().filter(|last| S::vlan(&last.meta) == vlan).copied();
        let (source, same_source) = match last {
            Some(last) if last.source.address == from => (last.source, true),
            _ => (self.prepare(vlan, from), false),
        };
        let destination = match last {
            Some(last) if last.destination.address == to => last.destination,
            _ => self.prepare(vlan, to),
        };
        // There is room for as many lookups as there are runs.
        let _ = lookups.try_push(Lookup { mask: run.mask, meta, same_source, source, destination });
    }

    /// The same where the source is no station's address.
    #[cold]
    fn classify_other<S: Stage>(
        &self,
        stage: &S,
        run: &Run<S::Key>,
        stats: &QueueStats,
        lookups: &mut ArrayVec<Lookup<S::Meta>, BURST>,
    ) {
        let (from, to) = (run.addresses.source(), run.addresses.destination());
        let is_held = header::is_reserved(to) && !header::is_among(to, self.group_fwd_mask);
        let admitted = match (self.any_source, is_held) {
            (false, _) => Err(DropReason::BadSource),
            (true, true) => Err(DropReason::ReservedMulticast),
            (true, false) => stage.admit(run.key),
        };
        match admitted {
            Ok(meta) => {
                let vlan = S::vlan(&meta);
                let (source, destination) = (self.prepare(vlan, from), self.prepare(vlan, to));
                // As one that was learnt from already, there is nothing to be learnt from it.
                let same_source = true;
                let lookup = Lookup { mask: run.mask, meta, same_source, source, destination };
                // There is room for as many lookups as there are runs.
                let _ = lookups.try_push(lookup);
            }
            Err(reason) => stats.count_drops(reason, run.mask.count_ones() as usize),
        }
    }

    #[inline(always)]
    fn prepare(&self, vlan: u16, address: u64) -> Wanted {
        let key = Key::from_bits(vlan, address);
        let hash = self.fdb.hash(key);
        self.fdb.prefetch(hash);
        Wanted { address, key, hash }
    }

    /// Notes where the source addresses are.
    #[inline(always)]
    fn learn<M>(&self, lookups: &[Lookup<M>], port: u16, outputs: &mut Outputs) {
        let second = self.fdb.now();
        let mut news = ArrayVec::<Wanted, BURST>::new();
        for lookup in lookups {
            let source = lookup.source;
            if !lookup.same_source
                && self.fdb.see(source.key, source.hash, port, second)
                && news.len() < self.learn_per_burst
            {
                let _ = news.try_push(source);
            }
        }
        if !news.is_empty() {
            let is_full = self.learn_new(&news, port);
            if is_full {
                outputs.note_strangers(self.strangers(lookups, port));
            }
        }
    }

    /// Returns whether the port has a limit of what it may learn, and may learn no more, as far as
    /// can be told.
    #[cold]
    fn learn_new(&self, news: &[Wanted], port: u16) -> bool {
        // If somebody else is changing the database, later frames will do.
        let writer = self.fdb.try_write();
        let is_full = writer.map(|mut writer| {
            for new in news {
                writer.learn(new.key, new.hash, port);
            }
            writer.is_full(port)
        });
        self.fdb.is_limited(port) && is_full.unwrap_or(true)
    }

    /// The frames from addresses that are not known to be behind `port`.
    #[cold]
    fn strangers<M>(&self, lookups: &[Lookup<M>], port: u16) -> u32 {
        let is_strange = |lookup: &&Lookup<M>| {
            let found = self.fdb.find(lookup.source.key, lookup.source.hash);
            found.is_none_or(|value| value.port() != port && !value.is_static())
        };
        lookups.iter().filter(is_strange).fold(0, |mask, lookup| mask | lookup.mask)
    }

    /// Finds the port of a run, where its frames are noted. Returns those that must go to all
    /// ports instead.
    #[allow(
        clippy::inline_always,
        reason = "a call of its own costs a frame 8 % where each is a run"
    )]
    #[inline(always)]
    fn find<S: Stage>(
        &self,
        stage: &S,
        lookup: &Lookup<S::Meta>,
        source: &Source<'_>,
        outputs: &mut Outputs,
    ) -> u32 {
        let to = lookup.destination;
        if header::is_group(to.address) {
            return lookup.mask;
        }
        let Some(found) = self.fdb.find(to.key, to.hash) else { return lookup.mask };
        let port = found.port();
        let reason = if port == source.port {
            DropReason::Hairpin
        } else {
            match stage.edit(port, &lookup.meta) {
                None => stage.refusal(port),
                Some(edit) if outputs.mark(port, lookup.mask, edit) => return 0,
                // The port is just being removed.
                Some(_) => DropReason::LinkDown,
            }
        };
        source.stats.count_drops(reason, lookup.mask.count_ones() as usize);
        0
    }
}
