//! The way of one frame through bridges, told instead of gone.

use arrayvec::ArrayVec;
use ethdev::{DropReason, QueueStats};
use packet::{BURST, Frame};

use super::{Datapath, Source};
use crate::bridge::{Bridge, BridgeId};
use crate::flows::enter::{Manner, enter};
use crate::lacp::pdu::SLOW_PROTOCOLS;
use crate::outputs::Outputs;

/// Bridges that a frame is followed to at most: where patch ports make a loop, it would never end.
const MAX_STEPS: usize = 64;

/// The most outputs that are told.
const MAX_OUTPUTS: usize = 4_096;

/// What would become of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    /// The ports where it enters a bridge: the first one, and peers of patch ports.
    pub(crate) entered: Vec<u16>,
    /// The ports where it goes out, and what it is by then.
    pub(crate) outputs: Vec<(u16, Vec<u8>)>,
    /// Why it is dropped, where it goes nowhere.
    pub(crate) reason: Option<DropReason>,
    /// Rules have decided where it goes out, and in which order.
    pub(crate) is_ordered: bool,
}

/// What switching as usual does with a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decided {
    /// The ports where it goes out, copies for mirrors behind the others, and what it is by then.
    pub(crate) outputs: Vec<(u16, Vec<u8>)>,
    /// Whether it goes everywhere since nobody knows its destination.
    pub(crate) is_flooded: bool,
    /// Why it is dropped, where it goes nowhere.
    pub(crate) reason: Option<DropReason>,
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
            trace.entered.push(port);
            trace.is_ordered |= self.has_flows(bridge);
            let source = Source { bridge, port, stats: &stats, now };
            for Verdict { port, is_patch, frame } in self.trace_step(&frame, &source, learns) {
                match self.patches.get(port).filter(|_| is_patch) {
                    Some(patch) => steps.push(((patch.bridge, patch.peer), frame)),
                    None => trace.outputs.push((port, frame)),
                }
            }
            trace.outputs.truncate(MAX_OUTPUTS);
        }
        if trace.outputs.is_empty() {
            trace.reason = DropReason::ALL.into_iter().zip(stats.drops()).find_map(dropped);
        }
        trace
    }

    /// Tells what a plain bridge does with a frame that seems to come in on a port, whatever its rules
    /// say.
    pub(crate) fn decide(
        &mut self,
        (id, port): (BridgeId, u16),
        frame: &[u8],
        learns: bool,
        now: u64,
    ) -> Decided {
        let stats = QueueStats::default();
        let source = Source { bridge: id, port, stats: &stats, now };
        let Self { bridges, apart, outputs, .. } = self;
        let at = usize::from(id.0);
        let bridge = [bridges, apart].into_iter().find_map(|all| all.get(at)?.as_ref());
        let Some(bridge) = bridge else { return Decided::default() };
        let frames = [Frame::from_bytes(frame)];
        let _ = outputs.take_notes();
        if learns {
            bridge.decide(&frames, &source, outputs);
        } else {
            bridge.decide_dry(&frames, &source, outputs);
        }
        let is_flooded = outputs.take_notes().0 != 0;
        let mut verdicts = Vec::new();
        collect(bridge, &frames, &source, outputs, &mut verdicts);
        let outputs: Vec<(u16, Vec<u8>)> =
            verdicts.into_iter().map(|Verdict { port, frame, .. }| (port, frame)).collect();
        let why = DropReason::ALL.into_iter().zip(stats.drops()).find_map(dropped);
        let reason = why.filter(|_| outputs.is_empty());
        Decided { outputs, is_flooded, reason }
    }

    /// Whether rules decide what becomes of frames of a bridge.
    fn has_flows(&self, id: BridgeId) -> bool {
        let bridge = self.apart.get(usize::from(id.0)).and_then(Option::as_ref);
        bridge.is_some_and(|bridge| bridge.flows().is_some())
    }

    /// The verdicts on a frame where it enters a bridge.
    fn trace_step(&mut self, frame: &[u8], source: &Source<'_>, learns: bool) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        let (frames, mut received) = ([Frame::from_bytes(frame)], ArrayVec::<_, BURST>::new());
        // What neighbours say to the switch itself goes to nobody else.
        if source.bridge == BridgeId::BOND && frame.starts_with(&SLOW_PROTOCOLS.0) {
            source.stats.count_drops(DropReason::ReservedMulticast, 1);
            return verdicts;
        }
        let entered = match source.bridge {
            BridgeId::BOND => self.outputs.bonds_mut().receive(&frames, source, &mut received),
            _ => Some((*source, frames.as_slice())),
        };
        let Some((source, frames)) = entered else { return verdicts };
        let Self { bridges, apart, outputs, .. } = self;
        let at = usize::from(source.bridge.0);
        let bridge = [bridges, apart].into_iter().find_map(|all| all.get(at)?.as_ref());
        match bridge {
            None => source.stats.count_drops(DropReason::LinkDown, 1),
            Some(bridge) if bridge.taps().is_some_and(|taps| taps.keeps(source.port)) => {
                source.stats.count_drops(DropReason::MirrorPort, 1);
            }
            Some(bridge) if let Some(flows) = bridge.flows() => {
                let manner = Manner::Told { learns };
                let mut onward =
                    |outputs: &mut Outputs, frames: &[Frame<'_>], _: usize, source: &Source<'_>| {
                        collect(bridge, frames, source, outputs, &mut verdicts);
                    };
                enter((bridge, flows), frames, &source, manner, outputs, &mut onward);
            }
            Some(bridge) if learns => {
                bridge.decide(frames, &source, outputs);
                collect(bridge, frames, &source, outputs, &mut verdicts);
            }
            Some(bridge) => {
                bridge.decide_dry(frames, &source, outputs);
                collect(bridge, frames, &source, outputs, &mut verdicts);
            }
        }
        verdicts
    }
}

/// Takes the verdicts away, and those of mirrors.
fn collect(
    bridge: &Bridge,
    frames: &[Frame<'_>],
    source: &Source<'_>,
    outputs: &mut Outputs,
    verdicts: &mut Vec<Verdict>,
) {
    outputs.spread(frames, source);
    let view = bridge.view(source);
    let copies = bridge.taps().and_then(|taps| taps.select(&view, frames, outputs));
    outputs.take_verdicts(frames, verdicts);
    let (Some(taps), Some(copies)) = (bridge.taps(), copies) else { return };
    for index in 0..taps.len() {
        taps.mark(index, &copies, &view, frames, outputs);
        outputs.spread(frames, source);
        outputs.take_verdicts(frames, verdicts);
    }
}

fn dropped((reason, count): (DropReason, u64)) -> Option<DropReason> {
    (count > 0).then_some(reason)
}
