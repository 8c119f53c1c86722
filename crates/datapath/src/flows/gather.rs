//! Fragments: those of a packet wait where it is tracked until all of it is there, and then go on from there,
//! as fragments.

use std::sync::Arc;

use arrayvec::ArrayVec;
use conntrack::{Fate, Fragment, Refused};
use ethdev::DropReason;
use flow::{Depth, Key, Track, TunnelWords, extract, slot};
use packet::{BURST, Burst, EditRoom, Frame, Open};

use super::enter::Onward;
use super::run::{Run, Steps, bits, deposit};
use crate::datapath::Source;
use crate::outputs::Outputs;

/// The way that fragments have come by, beside what tags they had: those of one packet have the same one.
/// It is nothing that rules may make of the ports of a packet, which only its first fragment has.
#[derive(Debug, PartialEq, Eq)]
struct Way {
    /// The port of the bridge that they came in by: behind a patch port, another one than they began at.
    inlet: u16,
    /// The tunnel that they came by, and that which they are for so far.
    tunnels: [[u128; 5]; 2],
    /// What rules have noted of whose they are.
    metadata: u64,
    /// What they begin with: all of them go on as the last one does, with a header of Ethernet or without.
    packet_type: u32,
}

/// What tells a tunnel apart; not what marks of congestion outer packets have.
fn network_of(tunnel: &TunnelWords) -> [u128; 5] {
    use slot::{TUN_DST, TUN_ID, TUN_IPV6_DST, TUN_IPV6_SRC, TUN_SRC};
    let mut key = Key::default();
    key.set_tunnel(tunnel);
    [TUN_ID, TUN_SRC, TUN_DST, TUN_IPV6_SRC, TUN_IPV6_DST].map(|slot| key.get(slot))
}

/// A way, by what is known where fragments are tracked.
fn way(track: &Track, source: &Source<'_>, outputs: &Outputs) -> Arc<dyn conntrack::Way> {
    let Track { metadata, packet_type, .. } = *track;
    let tunnels = [source.tunnel(), outputs.tunnel()].map(|tunnel| network_of(&tunnel));
    Arc::new(Way { inlet: source.inlet, tunnels, metadata, packet_type })
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
        let (mut fragments, mut broken, came) = (Vec::new(), 0, self.alive());
        self.with(open.as_ref().map(|open| open.as_slice()), cut, |frames| {
            let those = bits(which).filter_map(|bit| {
                let index = bit.trailing_zeros() as usize;
                frames.get(index).zip(came.get(index))
            });
            for (frame, came) in those {
                match copy((frame, came), track, vlans) {
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
        track: &Track,
        source: &Source<'_>,
        outputs: &mut Outputs,
        onward: Onward<'_>,
    ) {
        let Some(all) = self.steps.flows.connections() else { return };
        let way = way(track, source, outputs);
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
        let run = Run::of_whole(steps, Burst::new(&frames), (self.at.saturating_sub(1), whole));
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

/// A fragment, all of it, as it is by now and as it came, with what is asked for. `None` where it is longer than frames in one piece are, or
/// says that its checksum is still to be made: that would be over all of the packet.
fn copy((frame, came): (&Frame<'_>, &Frame<'_>), track: &Track, vlans: u8) -> Option<Fragment> {
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
        tags: tags(came, vlans),
    })
}

/// What tells networks apart of a frame's tags: what kind they are of, and their numbers.
fn tags(frame: &Frame<'_>, vlans: u8) -> [u32; 2] {
    let mut key = Key::default();
    extract(&mut key, frame.head(), frame.len(), vlans, Depth::Link);
    let tags = [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_TPID, slot::INNER_TCI)];
    tags.map(|(kind, control)| {
        u32::from(key.get_u16(kind)) << 16 | u32::from(key.get_u16(control) & 0x1FFF)
    })
}
