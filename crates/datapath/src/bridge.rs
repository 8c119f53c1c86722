//! A bridge: ports that share a forwarding database, and the VLANs that they carry; and what it
//! decides about a burst of frames.
//!
//! Neighbouring frames of the same addresses and tags are one *run* and cost one decision. The
//! memory that the decisions need is prefetched for all runs first. The outcome is written to the
//! [`Outputs`]: for each port the frames that go there, and what becomes of them on the way.

mod dry;
mod runs;

use std::sync::Arc;

use arrayvec::ArrayVec;
use ethdev::{DropReason, QueueStats};
use fdb::{Fdb, Hash, Key};
use packet::{BURST, Burst, EditRoom, Frame};

use self::runs::{Run, gather};
use crate::datapath::Source;
use crate::flows::{BridgeFlows, Flows};
use crate::gate::{Bars, Doors, Gate};
use crate::header::{self, Addresses};
use crate::limit::Limits;
use crate::mirror::{self, Copies, Taps};
use crate::outputs::Outputs;
use crate::snoop::stage::{Snoop, Snooping};
use crate::snoop::view::View;
use crate::stage::{Gated, Plain, Stage, Vlans};
use crate::vlan::policy::{Policy, TRUNK};

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

/// The VLAN settings of a bridge's ports.
#[derive(Clone, Debug, Default)]
pub(crate) struct VlanTable {
    /// By port number; those that have no settings of their own are trunks of all VLANs.
    ports: Vec<Option<Arc<Policy>>>,
    /// Whether any has, or the bridge looks at tags all the same.
    is_used: bool,
    /// Whether it does whatever its ports have.
    is_always_used: bool,
}

impl VlanTable {
    /// The settings of `port`.
    #[inline]
    pub(crate) fn of(&self, port: u16) -> &Policy {
        self.ports.get(usize::from(port)).and_then(Option::as_deref).unwrap_or(&TRUNK)
    }

    /// Whether the bridge has to look at tags.
    #[inline]
    pub(crate) const fn is_used(&self) -> bool {
        self.is_used
    }

    fn set(&mut self, port: u16, policy: Option<Arc<Policy>>) {
        let index = usize::from(port);
        if self.ports.len() <= index {
            self.ports.resize(index + 1, None);
        }
        if let Some(place) = self.ports.get_mut(index) {
            *place = policy;
        }
        self.find_out();
    }

    fn set_always(&mut self, always: bool) {
        self.is_always_used = always;
        self.find_out();
    }

    fn find_out(&mut self) {
        self.is_used = self.is_always_used || self.ports.iter().any(Option::is_some);
    }
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

/// A change of a bridge that workers are told.
#[derive(Clone, Debug)]
pub enum BridgeChange {
    /// It is there from now on.
    Open(Bridge),
    /// It has these settings.
    Set {
        /// Where it learns addresses.
        fdb: Arc<Fdb>,
        /// The most addresses that one burst may add there or move.
        learn_per_burst: usize,
        /// Reserved group addresses that are forwarded all the same, as bits.
        group_fwd_mask: u16,
        /// Whether it looks at tags though no port has VLAN settings.
        vlan_aware: bool,
        /// Whether it forwards frames whose source is no station's address.
        any_source: bool,
    },
    /// A port belongs to it, with these VLAN settings; `None`: a trunk of all VLANs.
    Join(u16, Option<Arc<Policy>>),
    /// A port that belongs to it has these VLAN settings.
    SetVlan(u16, Option<Arc<Policy>>),
    /// A port that belongs to it is one of those that frames flood to, as all are that join; or is none.
    Flood(u16, bool),
    /// A port does not belong to it any more.
    Leave(u16),
    /// It has these mirrors, or none.
    Mirror(Option<Box<Taps>>),
    /// Its ports do this by spanning tree; `None`: all of them forward.
    Gate(Option<Arc<Gate>>),
    /// It looks at groups, or does no more.
    Snoop(Option<Box<Snoop>>),
    /// Of one that does: its ports have these groups.
    Groups(Arc<View>),
    /// Its frames go by flows; `None`: as those of a plain bridge. The time is in milliseconds.
    Flows(Option<Box<BridgeFlows>>, u64),
    /// The rules of its flows are told what they were for until this time, in milliseconds.
    FlushFlows(u64),
    /// It is not there any more.
    Close,
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

    /// Makes a change of a bridge that stays.
    pub fn change(&mut self, change: BridgeChange) {
        match change {
            BridgeChange::Open(bridge) => *self = bridge,
            BridgeChange::Set { fdb, learn_per_burst, group_fwd_mask, vlan_aware, any_source } => {
                self.any_source = any_source;
                self.fdb = fdb;
                self.learn_per_burst = learn_per_burst;
                self.group_fwd_mask = group_fwd_mask;
                self.set_vlan_aware(vlan_aware);
            }
            BridgeChange::Join(port, policy) => self.join(port, policy),
            BridgeChange::SetVlan(port, policy) => self.set_vlan(port, policy),
            BridgeChange::Flood(port, floods) => self.set_flooded(port, floods),
            BridgeChange::Leave(port) => self.leave(port),
            BridgeChange::Mirror(taps) => self.set_taps(taps),
            BridgeChange::Gate(gate) => {
                self.gate = gate;
                self.set_doors();
            }
            BridgeChange::Snoop(snoop) => {
                self.snoop = snoop;
                self.look();
            }
            BridgeChange::Groups(groups) => {
                if let Some(snoop) = &mut self.snoop {
                    snoop.groups = groups;
                }
            }
            BridgeChange::Flows(flows, now) => self.set_flows(flows.as_deref(), now),
            BridgeChange::FlushFlows(now) => self.flush_flows(now),
            BridgeChange::Close => {}
        }
    }

    /// Has its frames go by flows from `now` on, or no more.
    fn set_flows(&mut self, flows: Option<&BridgeFlows>, now: u64) {
        match (&mut self.flows, flows) {
            (Some(own), Some(flows)) => own.update(flows, now),
            (own, flows) => {
                own.iter().for_each(|flows| flows.flush(now));
                *own = flows.map(|flows| Box::new(Flows::new(flows, now)));
            }
        }
        let bars = flows.and_then(|flows| Bars::of(&flows.pipeline));
        if self.bars.as_deref() != bars.as_ref() {
            self.bars = bars.map(Box::new);
            self.set_doors();
        }
    }

    fn flush_flows(&self, now: u64) {
        self.flows.iter().for_each(|flows| flows.flush(now));
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

    /// Has it send to ports, or no more, to which it is told to send nothing.
    pub(crate) fn ignore_no_forward(&mut self, ignores: bool) {
        let open = self.bars.as_deref().filter(|_| ignores).map(Bars::without_no_forward);
        self.doors = Doors::new(self.gate.as_deref(), open.as_ref().or(self.bars()));
    }

    /// Finds out what its ports let through.
    fn set_doors(&mut self) {
        self.ignore_no_forward(false);
        self.look();
    }

    /// Finds out what it has to look at.
    const fn look(&mut self) {
        self.looks = match (&self.doors, &self.snoop, self.vlans.is_used()) {
            (None, None, false) => Looks::Addresses,
            (None, None, true) => Looks::Tags,
            _ => Looks::More,
        };
    }

    /// Takes `port` in, with these VLAN settings.
    pub(crate) fn join(&mut self, port: u16, policy: Option<Arc<Policy>>) {
        insert(&mut self.members, port);
        insert(&mut self.flooded, port);
        self.set_vlan(port, policy);
    }

    /// Has frames flood to a port that belongs to it, or not: those whose destination is known go there in any case.
    fn set_flooded(&mut self, port: u16, floods: bool) {
        if !floods {
            self.flooded.retain(|member| *member != port);
        } else if self.members.binary_search(&port).is_ok() {
            insert(&mut self.flooded, port);
        }
    }

    /// Lets `port` go.
    pub(crate) fn leave(&mut self, port: u16) {
        self.members.retain(|member| *member != port);
        self.set_flooded(port, false);
        self.set_vlan(port, None);
    }

    /// Changes mirrors and samplings; those samplings that stay go on.
    fn set_taps(&mut self, taps: Option<Box<Taps>>) {
        if let (Some(next), Some(before)) = (&taps, &self.taps) {
            next.samplers().go_on_from(before.samplers());
        }
        self.taps = taps;
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

    /// Changes the VLAN settings of `port`.
    pub(crate) fn set_vlan(&mut self, port: u16, policy: Option<Arc<Policy>>) {
        self.vlans.set(port, policy);
        self.look();
    }

    /// Has it look at tags though no port has VLAN settings, or no more.
    pub(crate) fn set_vlan_aware(&mut self, aware: bool) {
        self.vlans.set_always(aware);
        self.look();
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

    /// Notes the frames of `flood` at all ports of the bridge that are flooded, ready and carry them, except
    /// where they came from.
    #[cold]
    fn flood<S: Stage>(
        &self,
        stage: &S,
        lookups: &[Lookup<S::Meta>],
        flood: u32,
        source: &Source<'_>,
        outputs: &mut Outputs,
    ) {
        let unknown = lookups.iter().filter(|lookup| !header::is_group(lookup.destination.address));
        outputs.note_unknown(flood & unknown.fold(0, |mask, lookup| mask | lookup.mask));
        let runs: ArrayVec<(u32, S::Meta), BURST> = merged(lookups, flood).take(BURST).collect();
        let (mut reached, mut why) = (0, None);
        let others = self.flooded.iter().filter(|port| **port != source.port);
        for &port in others.filter(|port| !self.taps().is_some_and(|taps| taps.keeps(**port))) {
            let is_for = |(_, meta): &(u32, S::Meta)| S::reaches(port, meta);
            if !runs.iter().any(is_for) || !outputs.is_ready(port, source.now) {
                continue;
            }
            for (mask, meta) in runs.iter().filter(|run| is_for(run)) {
                if !stage.floods(port, meta, outputs.bonds()) {
                    why = why.or(Some(DropReason::FlowDrop));
                    continue;
                }
                match stage.edit(port, meta) {
                    Some(edit) if outputs.mark(port, *mask, edit) => reached |= mask,
                    None if stage.refusal(port) != DropReason::WrongVlan => {
                        why = Some(stage.refusal(port));
                    }
                    Some(_) | None => {}
                }
            }
        }
        let lost = flood & !reached;
        for lookup in lookups.iter().filter(|lookup| lookup.mask & lost != 0) {
            let count = (lookup.mask & lost).count_ones() as usize;
            source.stats.count_drops(why.unwrap_or_else(|| S::lost(&lookup.meta)), count);
        }
    }
}

/// Puts a number into a list that is in order, once.
fn insert(all: &mut Vec<u16>, port: u16) {
    if let Err(place) = all.binary_search(&port) {
        all.insert(place, port);
    }
}

/// The frames of `flood`, those together that are neighbours in `lookups` and of which the same is
/// known.
fn merged<M: Copy + PartialEq>(
    lookups: &[Lookup<M>],
    flood: u32,
) -> impl Iterator<Item = (u32, M)> {
    let flooded = move |lookup: &&Lookup<M>| lookup.mask & flood != 0;
    let mut rest = lookups.iter().filter(flooded).peekable();
    std::iter::from_fn(move || {
        let first = rest.next()?;
        let mut mask = first.mask;
        while let Some(more) = rest.next_if(|next| next.meta == first.meta) {
            mask |= more.mask;
        }
        Some((mask, first.meta))
    })
}
