//! Fragments: those of a packet wait where it is tracked until all of it is there, and then go on from there,
//! as fragments.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrayvec::ArrayVec;
use conntrack::{Fate, Fragment, Fragments, Refused};
use ethdev::DropReason;
use flow::{Depth, Key, Op, Track, TunnelWords, extract, slot};
use packet::{BURST, EditRoom, Frame, Open};

use super::enter::Onward;
use super::run::{Run, Steps, bits, deposit};
use crate::datapath::Source;
use crate::outputs::Outputs;

/// The way that fragments go on by; those of one packet have the same one.
#[derive(Debug, PartialEq, Eq)]
struct Way {
    /// The port of the bridge that they came in by: behind a patch port, another one than they began at.
    inlet: u16,
    /// The tunnel that they came by, and that which they are for so far.
    tunnels: (Option<TunnelWords>, TunnelWords),
    /// How they are tracked, and what they go on with then.
    track: Arc<Track>,
    /// What is done behind that, as a hash.
    after: u64,
}

/// What is done from an operation on, as far as that is done with fragments that have waited before it.
struct After<'a>(&'a dyn Fn(usize) -> Option<Op>, usize);

impl Hash for After<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut clones = 0_usize;
        for op in (self.1..).map_while(self.0) {
            match &op {
                Op::Save => clones += 1,
                Op::Restore if clones == 0 => return,
                Op::Restore => clones -= 1,
                _ => {}
            }
            match op {
                // Each worker has numbers of its own.
                Op::Track(track, _) => (true, track).hash(state),
                op => (false, op).hash(state),
            }
        }
    }
}

impl Run<'_, '_> {
    /// Takes fragments out of the frames that go on, of which `which` are some: a bit for each.
    pub(super) fn set_apart(
        &mut self,
        which: u32,
        track: &Track,
        open: Option<&mut ArrayVec<Open<'_>, BURST>>,
        cut: &mut EditRoom,
        source: &Source<'_>,
    ) -> Vec<Fragment> {
        if which == 0 {
            return Vec::new();
        }
        let vlans = self.steps.flows.pipeline().vlans.tags();
        let (mut fragments, mut broken) = (Vec::new(), 0);
        self.with(open.as_ref().map(|open| open.as_slice()), cut, |frames, _| {
            let those = bits(which).filter_map(|bit| frames.get(bit.trailing_zeros() as usize));
            for frame in those {
                match copy(frame, track, vlans) {
                    Some(fragment) => fragments.push(fragment),
                    None => broken += 1,
                }
            }
        });
        source.stats.count_drops(DropReason::FragmentBad, broken);
        self.let_go(deposit(which, self.alive), open);
        fragments
    }

    /// Has fragments wait, and those go on whose packet is whole: from where they are tracked, and as far as the
    /// others go that were with them.
    #[cold]
    #[inline(never)]
    pub(super) fn gather(
        &self,
        fragments: Vec<Fragment>,
        track: &Arc<Track>,
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) {
        let Some(all) = self.steps.flows.connections() else { return };
        let way = self.way(track, all.fragments(), source, outputs);
        for fragment in fragments {
            // Nobody puts together what came in by different ports.
            let (fate, gone) = all.fragments().add((source.port.into(), &way), fragment, all.now());
            source.stats.count_drops(DropReason::FragmentNoRoom, gone);
            match fate {
                Fate::Waits => {}
                Fate::Refused(why) => source.stats.count_drops(reason(why), 1),
                Fate::Whole(frames, seen) => {
                    let Steps { flows, manner, .. } = self.steps;
                    let Some(whole) = flows.meet_whole(seen.as_deref(), track, manner) else {
                        return;
                    };
                    for frames in frames.chunks(BURST) {
                        self.go_on_whole(frames, whole, source, outputs, onward);
                    }
                }
            }
        }
    }

    fn way(
        &self,
        track: &Arc<Track>,
        all: &Fragments,
        source: &Source<'_>,
        outputs: &Outputs,
    ) -> Arc<dyn conntrack::Way> {
        let after = all.hash(After(self.steps.next, self.at));
        let tunnels = (source.tunnel.copied(), outputs.tunnel());
        Arc::new(Way { inlet: source.inlet, tunnels, track: Arc::clone(track), after })
    }

    fn go_on_whole(
        &self,
        frames: &[Vec<u8>],
        whole: (conntrack::Tracked, Option<conntrack::Translation>),
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) {
        let Steps { bridge, flows, next, lost, manner } = self.steps;
        // Behind a clone, this is where its way ends.
        let lost = lost.filter(|_| self.saved.is_empty());
        let frames: ArrayVec<Frame<'_>, BURST> =
            frames.iter().map(|frame| Frame::from_bytes(frame)).take(BURST).collect();
        let steps = Steps { bridge, flows, next, lost, manner };
        let mut room = flows.lend_room();
        let run = Run::of_whole(steps, &frames, (self.at.saturating_sub(1), whole));
        run.go(source, &mut room.onward, outputs, onward);
        flows.take_back(room);
    }
}

const fn reason(why: Refused) -> DropReason {
    match why {
        Refused::Bad => DropReason::FragmentBad,
        Refused::Overlaps => DropReason::FragmentOverlap,
        Refused::NoRoom => DropReason::FragmentNoRoom,
    }
}

/// A fragment, all of it, with what is asked for. `None` where it is longer than frames in one piece are, or
/// says that its checksum is still to be made: that would be over all of the packet.
fn copy(frame: &Frame<'_>, track: &Track, vlans: u8) -> Option<Fragment> {
    if frame.len() > usize::from(u16::MAX) || frame.offload().csum().is_some() {
        return None;
    }
    let mut key = Key::default();
    let layers = extract(&mut key, frame.head(), frame.len(), vlans, Depth::All);
    let next =
        track.next.as_ref().and_then(|next| next.table).map_or(0, |table| u16::from(table) + 1);
    Some(Fragment {
        frame: frame.to_vec(),
        network: layers.network.into(),
        ether_type: key.get_u16(slot::ETH_TYPE),
        zone: track.request.zone,
        next,
        tags: tags(&key),
    })
}

/// What tells networks apart of a frame's tags: what kind they are of, and their numbers.
fn tags(key: &Key) -> [u32; 2] {
    let tags = [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_TPID, slot::INNER_TCI)];
    tags.map(|(kind, control)| {
        u32::from(key.get_u16(kind)) << 16 | u32::from(key.get_u16(control) & 0x1FFF)
    })
}
