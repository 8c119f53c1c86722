//! The way of one frame through bridges, told instead of gone.

use arrayvec::ArrayVec;
use ethdev::{DropReason, QueueStats};
use flow::Visit;
use l2proto::lacp::pdu::SLOW_PROTOCOLS;
use packet::{BURST, Burst, Frame};

use super::{Datapath, Source};
use crate::bond::entry::{Room, receive};
use crate::bridge::{Bridge, BridgeId};
use crate::flows::enter::{Manner, enter};
use crate::mirror::Copies;
use crate::outputs::Outputs;
use crate::port_set::PortSet;

/// Bridges that a frame is followed to at most: where patch ports make a loop, it would never end.
const MAX_STEPS: usize = 64;

/// The most outputs that are told.
const MAX_OUTPUTS: usize = 4_096;

/// What would become of a frame.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// The ports where it enters a bridge, the first one and peers of patch ports, and the tables of that
    /// bridge that it passes then.
    pub entered: Vec<(u16, Vec<Visit>)>,
    /// The ports where it goes out, and what it is by then.
    pub outputs: Vec<(u16, Vec<u8>)>,
    /// Why it is dropped, where it goes nowhere.
    pub reason: Option<DropReason>,
}

/// What switching as usual does with a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// The ports where it goes out, without copies for mirrors, and what it is by then.
    pub outputs: Vec<(u16, Vec<u8>)>,
    /// Whether it goes everywhere since nobody knows its destination.
    pub is_flooded: bool,
    /// Why it is dropped, where it goes nowhere.
    pub reason: Option<DropReason>,
}

/// A frame that goes out on a port.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) port: u16,
    pub(crate) is_patch: bool,
    pub(crate) frame: Vec<u8>,
}

impl Datapath {
    /// Tells what would become of a frame that comes in on a port, which belongs to a bridge. No
    /// counter counts it. Where it comes from is learnt if `learns`; limits and guards, which remember
    /// what they let through, are not asked.
    pub(crate) fn trace(
        &mut self,
        from: (BridgeId, u16),
        frame: &[u8],
        learns: bool,
        now: u64,
    ) -> Trace {
        let stats = QueueStats::default();
        let mut trace = Trace::default();
        let mut steps = vec![(from, frame.to_vec())];
        for _ in 0..MAX_STEPS {
            let Some(((bridge, port), frame)) = steps.pop() else { break };
            let source = Source::new((bridge, port), &stats, now);
            let mut visits = Vec::new();
            let verdicts = self.trace_step(&frame, &source, learns, &mut visits);
            trace.entered.push((port, visits));
            for Verdict { port, is_patch, frame } in verdicts {
                match self.patches.get(port).filter(|_| is_patch) {
                    Some(patch) => steps.push(((patch.bridge, patch.peer), frame)),
                    None => trace.outputs.push((port, frame)),
                }
            }
            trace.outputs.truncate(MAX_OUTPUTS);
        }
        if trace.outputs.is_empty() {
            trace.reason = why(&stats);
        }
        trace
    }

    /// Tells what a plain bridge does with a frame that seems to come in on a port, whatever its rules
    /// say, and also to which ports it would go that are to be sent nothing.
    pub(crate) fn decide(
        &mut self,
        came: (BridgeId, u16),
        frame: &[u8],
        learns: bool,
        now: u64,
    ) -> Decided {
        self.ignore_no_forward(came.0, true);
        let decided = self.decide_open(came, frame, learns, now);
        self.ignore_no_forward(came.0, false);
        decided
    }

    /// Has ports of a bridge be sent to, or no more, that are told to be sent nothing.
    fn ignore_no_forward(&mut self, id: BridgeId, ignores: bool) {
        let at = usize::from(id.0);
        let usual = self.bridges.get_mut(at).and_then(Option::as_mut);
        let bridge = usual.or_else(|| self.apart.get_mut(at)?.as_mut());
        let Some(bridge) = bridge.filter(|bridge| bridge.bars().is_some()) else { return };
        bridge.ignore_no_forward(ignores);
        match ignores {
            true => self.outputs.bonds_mut().mute(PortSet::default()),
            false => self.mute_bonds(),
        }
    }

    fn decide_open(
        &mut self,
        (id, port): (BridgeId, u16),
        frame: &[u8],
        learns: bool,
        now: u64,
    ) -> Decided {
        let stats = QueueStats::default();
        let source = Source::new((id, port), &stats, now);
        let Self { bridges, apart, outputs, .. } = self;
        let all: [&[Option<Bridge>]; 2] = [bridges, apart];
        let Some(bridge) = find(all, id) else { return Decided::default() };
        let (frames, mut room) = ([Frame::from_bytes(frame)], Room::default());
        let frames = Burst::new(&frames);
        let entered = match outputs.bonds().bond_of(port) {
            None => Some((source, frames)),
            Some(_) if frame.starts_with(&SLOW_PROTOCOLS.0) => {
                stats.count_drops(DropReason::ReservedMulticast, 1);
                None
            }
            Some(_) => receive(outputs.bonds_mut(), all, frames, &source, &mut room),
        };
        let Some((source, frames)) = entered else {
            return Decided { reason: why(&stats), ..Decided::default() };
        };
        let _ = outputs.take_notes();
        decide(bridge, frames, &source, learns, outputs);
        let is_flooded = outputs.take_notes().0 != 0;
        let mut verdicts = Vec::new();
        outputs.spread_dry(&frames, &source);
        outputs.take_verdicts(&frames, &mut verdicts);
        let outputs = of_ports(verdicts);
        let reason = why(&stats).filter(|_| outputs.is_empty());
        Decided { outputs, is_flooded, reason }
    }

    /// The copies that the mirror of this number makes of a frame that has come in on a port, where it
    /// copies it, and those that it would make for ports that are to be sent nothing.
    pub(crate) fn copies(
        &mut self,
        came: (BridgeId, u16),
        index: usize,
        frame: &[u8],
        now: u64,
    ) -> Vec<(u16, Vec<u8>)> {
        self.ignore_no_forward(came.0, true);
        let copies = self.copies_open(came, index, frame, now);
        self.ignore_no_forward(came.0, false);
        copies
    }

    fn copies_open(
        &mut self,
        (id, port): (BridgeId, u16),
        index: usize,
        frame: &[u8],
        now: u64,
    ) -> Vec<(u16, Vec<u8>)> {
        let stats = QueueStats::default();
        let source = Source::new((id, port), &stats, now);
        let Self { bridges, apart, outputs, .. } = self;
        let bridge = find([bridges, apart], id);
        let Some((bridge, taps)) = bridge.and_then(|bridge| Some((bridge, bridge.taps()?))) else {
            return Vec::new();
        };
        let frames = [Frame::from_bytes(frame)];
        let mut verdicts = Vec::new();
        taps.mark(index, &Copies::of_one(index), &bridge.view(&source), &frames, outputs);
        outputs.spread_dry(&frames, &source);
        outputs.take_verdicts(&frames, &mut verdicts);
        of_ports(verdicts)
    }

    /// The verdicts on a frame where it enters a bridge, and the tables that it passes.
    fn trace_step(
        &mut self,
        frame: &[u8],
        source: &Source<'_>,
        learns: bool,
        visits: &mut Vec<Visit>,
    ) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        let (frames, mut received) = ([Frame::from_bytes(frame)], ArrayVec::<_, BURST>::new());
        let frames = Burst::new(&frames);
        // What neighbours say to the switch itself goes to nobody else.
        if source.bridge == BridgeId::BOND && frame.starts_with(&SLOW_PROTOCOLS.0) {
            source.stats.count_drops(DropReason::ReservedMulticast, 1);
            return verdicts;
        }
        let entered = match source.bridge {
            BridgeId::BOND => self.outputs.bonds_mut().receive(frames, source, &mut received),
            _ => Some((*source, frames)),
        };
        let Some((source, frames)) = entered else { return verdicts };
        let Self { bridges, apart, outputs, .. } = self;
        match find([bridges, apart], source.bridge) {
            None => source.stats.count_drops(DropReason::LinkDown, 1),
            Some(bridge) if bridge.taps().is_some_and(|taps| taps.keeps(source.port)) => {
                source.stats.count_drops(DropReason::MirrorPort, 1);
            }
            Some(bridge) if let Some(flows) = bridge.flows() => {
                let manner = Manner::Told { learns };
                let mut onward =
                    |outputs: &mut Outputs, frames: Burst<'_, '_>, source: &Source<'_>| {
                        collect(bridge, &frames, source, outputs, &mut verdicts);
                    };
                enter((bridge, flows), frames, &source, manner, outputs, &mut onward);
                *visits = flows.take_told();
            }
            Some(bridge) => {
                decide(bridge, frames, &source, learns, outputs);
                collect(bridge, &frames, &source, outputs, &mut verdicts);
            }
        }
        verdicts
    }
}

/// Ports, and what goes out there.
fn of_ports(verdicts: Vec<Verdict>) -> Vec<(u16, Vec<u8>)> {
    verdicts.into_iter().map(|Verdict { port, frame, .. }| (port, frame)).collect()
}

/// Takes the verdicts away, and those of mirrors.
fn collect(
    bridge: &Bridge,
    frames: &[Frame<'_>],
    source: &Source<'_>,
    outputs: &mut Outputs,
    verdicts: &mut Vec<Verdict>,
) {
    outputs.spread_dry(frames, source);
    let view = bridge.view(source);
    let copies = bridge.taps().and_then(|taps| taps.select(&view, frames, outputs));
    outputs.take_verdicts(frames, verdicts);
    let (Some(taps), Some(copies)) = (bridge.taps(), copies) else { return };
    for index in 0..taps.len() {
        taps.mark(index, &copies, &view, frames, outputs);
        outputs.spread_dry(frames, source);
        outputs.take_verdicts(frames, verdicts);
    }
}

/// A bridge, of whichever kind it is.
fn find(kinds: [&[Option<Bridge>]; 2], id: BridgeId) -> Option<&Bridge> {
    kinds.into_iter().find_map(|all| all.get(usize::from(id.0))?.as_ref())
}

/// Has a plain bridge decide, and learn or not.
fn decide(
    bridge: &Bridge,
    frames: Burst<'_, '_>,
    source: &Source<'_>,
    learns: bool,
    outputs: &mut Outputs,
) {
    if learns {
        bridge.decide(frames, source, outputs);
    } else {
        bridge.decide_dry(frames, source, outputs);
    }
}

/// Why a frame was dropped, if one was counted.
fn why(stats: &QueueStats) -> Option<DropReason> {
    let mut all = DropReason::ALL.into_iter().zip(stats.drops());
    all.find_map(|(reason, count)| (count > 0).then_some(reason))
}
