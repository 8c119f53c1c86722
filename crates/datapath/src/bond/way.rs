//! What the data path makes of bonds.
//!
//! A bridge knows a bond by the number of its port and nothing of its members: addresses are learnt
//! behind the bond, and verdicts are marks at it. Before a burst goes out, these marks are handed on
//! to the members that a table names ([`Outputs::spread`](crate::outputs::Outputs::spread)), by the
//! part of the traffic that a frame belongs to. What comes in on a member comes in on the bond, or
//! is dropped where the member is not in use.

use std::sync::Arc;

use arrayvec::ArrayVec;
use ethdev::DropReason;
use l2proto::lacp::pdu::SLOW_PROTOCOLS;
use packet::{BURST, Burst, Edit, Frame, MacAddr, flow};

use super::load::Load;
use crate::bridge::BridgeId;
use crate::datapath::Source;
use crate::header::{self, Addresses};
use crate::inlet::Inlet;
use crate::marks::{Marks, all_of, bits};
use crate::output::pick;
use crate::port_set::PortSet;
use crate::vlan::tags::{Tags, vid};

/// The parts that the traffic of a bond is divided into.
pub const BUCKETS: usize = 256;

/// No member: a number that no port has.
pub const NOBODY: u16 = u16::MAX;

/// An odd number without pattern, which spreads bits by multiplication.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// What of what comes in on a member counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receives {
    /// Nothing: another one has it all.
    Nothing,
    /// What goes to one station.
    Unicast,
    /// All of it.
    All,
}

/// By what traffic is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Division {
    /// It is not.
    Whole,
    /// By source address and VLAN.
    Source,
    /// By flow.
    Flow,
}

/// A member, as a worker knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strand {
    /// Its port.
    pub port: u16,
    /// What of what comes in there counts.
    pub receives: Receives,
}

/// A bond, as workers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The bridge that it belongs to.
    pub bridge: BridgeId,
    /// By what traffic is divided.
    pub division: Division,
    /// The port for each part of the traffic, or [`NOBODY`].
    pub table: [u16; BUCKETS],
    /// All members.
    pub members: Vec<Strand>,
    /// Whether the other end does not know that the members are one: then what goes out by one may
    /// come back by another.
    pub comes_back: bool,
}

/// What one worker has of a bond beside that.
#[derive(Clone, Debug, Default)]
pub struct Fittings {
    /// Where it counts.
    pub load: Arc<Load>,
    /// Where it puts what neighbours say; `None`: nobody listens.
    pub inlet: Option<Inlet>,
}

/// A bond, and the verdicts on the burst at hand.
#[derive(Debug)]
struct Lane {
    way: Way,
    /// Its table as it was told, with members that are sent nothing.
    whole: [u16; BUCKETS],
    fittings: Fittings,
    marks: Marks,
}

/// Where a bond's frames are to go: a port, the frames, and what becomes of them.
pub(crate) type Verdict = (u16, u32, Edit);

impl Way {
    /// Whether any frame can go out.
    fn is_ready(&self) -> bool {
        self.table.iter().any(|member| *member != NOBODY)
    }

    /// The part that a frame belongs to which goes out edited as told.
    #[inline]
    fn bucket(&self, frame: &Frame<'_>, edit: Edit) -> usize {
        let hash = match self.division {
            Division::Whole => 0,
            Division::Flow => by_flow(frame.head()),
            Division::Source => by_source(frame, edit),
        };
        usize::from(spread(hash))
    }
}

/// The part of a hash: its highest byte, once all bits count. The table is as long as there are bytes.
#[inline]
const fn spread(hash: u64) -> u8 {
    let [highest, ..] = hash.wrapping_mul(SPREAD).to_be_bytes();
    highest
}

/// The part of the traffic of a bond with [`BondMode::BalanceSlb`](super::BondMode::BalanceSlb) that
/// frames from `mac` belong to, which go out with the tag of `vlan`, or without one where that is 0.
#[must_use]
pub fn source_part(mac: MacAddr, vlan: u16) -> u8 {
    let source = mac.0.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    spread(source | u64::from(vlan) << 48)
}

/// The part of the traffic of a bond with [`BondMode::BalanceTcp`](super::BondMode::BalanceTcp) that a frame
/// belongs to which begins like this.
#[must_use]
pub fn flow_part(head: &[u8]) -> u8 {
    spread(by_flow(head))
}

#[inline]
fn by_flow(head: &[u8]) -> u64 {
    flow::hash(head).into()
}

/// The source address of a frame, and its VLAN as it goes out.
fn by_source(frame: &Frame<'_>, edit: Edit) -> u64 {
    let source = Addresses::of(frame).map_or(0, Addresses::source);
    let vlan = match edit {
        Edit { push: Some(tag), .. } => vid(Some(tag)),
        Edit { pop: true, push: None } => 0,
        Edit { pop: false, push: None } => vid(Tags::of(frame).outer()),
    };
    source | u64::from(vlan) << 48
}

impl Lane {
    fn new((way, fittings): (Way, Fittings), muted: &PortSet) -> Self {
        let mut lane = Self { whole: way.table, way, fittings, marks: Marks::default() };
        lane.mute(muted);
        lane
    }

    /// Has what would go by these members go nowhere.
    fn mute(&mut self, muted: &PortSet) {
        let open = |member: u16| if muted.contains(member) { NOBODY } else { member };
        self.way.table = self.whole.map(open);
    }

    /// Hands frames on to members: neighbours that go to the same one together. They are counted, if
    /// `COUNTS`.
    fn divide<const COUNTS: bool>(
        &self,
        frames: &[Frame<'_>],
        (mask, edit): (u32, Edit),
        take: &mut impl FnMut(Verdict),
    ) {
        let mut run = (NOBODY, 0);
        for bit in bits(mask) {
            let Some(frame) = frames.get(bit as usize) else { continue };
            let bucket = self.way.bucket(frame, edit);
            if COUNTS {
                self.fittings.load.add(bucket, frame.len());
            }
            let member = self.way.table.get(bucket).copied().unwrap_or(NOBODY);
            let bit = 1_u32.wrapping_shl(bit);
            if run.1 != 0 && run.0 != member {
                take((run.0, run.1, edit));
                run.1 = 0;
            }
            run = (member, run.1 | bit);
        }
        if run.1 != 0 {
            take((run.0, run.1, edit));
        }
    }
}

/// The bonds of a worker.
#[derive(Debug, Default)]
pub(crate) struct Bonds {
    /// By port number.
    all: Vec<Option<Box<Lane>>>,
    /// The bond of each member, by the member's number.
    bond_of: Vec<Option<u16>>,
    /// Bonds with marks, each once.
    marked: Vec<u16>,
    /// Those of the bond at hand: room that is used again.
    spare: Marks,
    /// Members that are sent nothing.
    muted: PortSet,
}

impl Bonds {
    /// Whether there are none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Has `port` be a bond, or no more.
    pub(crate) fn set(&mut self, port: u16, bond: Option<(Way, Fittings)>) {
        let index = usize::from(port);
        if self.all.len() <= index {
            self.all.resize_with(index + 1, || None);
        }
        if let Some(place) = self.all.get_mut(index) {
            *place = bond.map(|bond| Box::new(Lane::new(bond, &self.muted)));
        }
        if self.all.iter().all(Option::is_none) {
            self.all.clear();
        }
        self.marked.reserve(self.all.len());
        self.bond_of.clear();
        for (bond, lane) in (0..).zip(&self.all) {
            for strand in lane.iter().flat_map(|lane| &lane.way.members) {
                let index = usize::from(strand.port);
                if self.bond_of.len() <= index {
                    self.bond_of.resize(index + 1, None);
                }
                if let Some(place) = self.bond_of.get_mut(index) {
                    *place = Some(bond);
                }
            }
        }
    }

    /// Has these members be sent nothing, and all others what belongs to them.
    pub(crate) fn mute(&mut self, muted: PortSet) {
        if self.muted != muted {
            self.muted = muted;
            self.all.iter_mut().flatten().for_each(|lane| lane.mute(&muted));
        }
    }

    fn lane_mut(&mut self, port: u16) -> Option<&mut Lane> {
        self.all.get_mut(usize::from(port))?.as_deref_mut()
    }

    fn lane(&self, port: u16) -> Option<&Lane> {
        self.all.get(usize::from(port))?.as_deref()
    }

    /// The bond that `port` is a member of.
    pub(crate) fn bond_of(&self, port: u16) -> Option<u16> {
        *self.bond_of.get(usize::from(port))?
    }

    /// The members of bond `port`; none where it is none.
    pub(crate) fn members(&self, port: u16) -> impl Iterator<Item = u16> {
        self.lane(port).into_iter().flat_map(|lane| &lane.way.members).map(|strand| strand.port)
    }

    /// Whether `port` is a bond with a member that is in use.
    pub(crate) fn is_ready(&self, port: u16) -> bool {
        self.lane(port).is_some_and(|lane| lane.way.is_ready())
    }

    /// Whether what goes out by a member of bond `port` may come back by another.
    pub(crate) fn comes_back(&self, port: u16) -> bool {
        self.lane(port).is_some_and(|lane| lane.way.comes_back)
    }

    /// Notes that the frames in `mask` go to bond `port`, edited as told. Returns whether there is
    /// such a bond.
    pub(crate) fn mark(&mut self, port: u16, mask: u32, edit: Edit) -> bool {
        let Some(lane) = self.lane_mut(port) else { return false };
        let is_first = lane.marks.is_empty();
        lane.marks.add(mask, edit);
        if is_first {
            self.marked.push(port);
        }
        true
    }

    /// Whether frames are to go to bonds.
    #[inline]
    pub(crate) const fn has_marked(&self) -> bool {
        !self.marked.is_empty()
    }

    /// Takes the marks of one bond away, and hands them to `take` for each member in turn; returns
    /// whether there was one with marks. What is sent of each part of the traffic is counted, if
    /// `COUNTS`.
    pub(crate) fn spread_one<const COUNTS: bool>(
        &mut self,
        frames: &[Frame<'_>],
        mut take: impl FnMut(Verdict),
    ) -> bool {
        let Some(bond) = self.marked.pop() else { return false };
        let mut marks = std::mem::take(&mut self.spare);
        if let Some(lane) = self.lane_mut(bond) {
            std::mem::swap(&mut marks, &mut lane.marks);
            for (mask, edit) in marks.parts() {
                match lane.way.division {
                    Division::Whole => take((lane.way.table[0], mask, edit)),
                    Division::Source | Division::Flow => {
                        lane.divide::<COUNTS>(frames, (mask, edit), &mut take);
                    }
                }
            }
        }
        marks.clear();
        self.spare = marks;
        true
    }

    /// What of the frames that came in on a member of a bond comes in, and where it comes from: the
    /// bond. The rest is counted. What neighbours say to the switch itself is put where somebody
    /// listens. Where that is not all of them, they are put into `kept`.
    pub(crate) fn receive<'b, 'f, 's>(
        &mut self,
        mut frames: Burst<'b, 'f>,
        source: &Source<'s>,
        kept: &'b mut ArrayVec<Frame<'f>, BURST>,
    ) -> Option<(Source<'s>, Burst<'b, 'f>)> {
        let bond = self.bond_of(source.port);
        let lane = bond.and_then(|bond| self.lane_mut(bond));
        let Some((bond, lane)) = bond.zip(lane) else {
            source.stats.count_drops(DropReason::LinkDown, frames.len());
            return None;
        };
        let slow = lane.fittings.inlet.as_ref().map_or(0, |inlet| listen(inlet, &frames, source));
        let strand = lane.way.members.iter().find(|strand| strand.port == source.port);
        let receives = strand.map_or(Receives::Nothing, |strand| strand.receives);
        let refused = match receives {
            Receives::All => 0,
            Receives::Unicast => groups(&frames),
            Receives::Nothing => u32::MAX,
        };
        let all = all_of(frames.len());
        let dropped = all & refused & !slow;
        if dropped != 0 {
            source.stats.count_drops(DropReason::InactiveMember, dropped.count_ones() as usize);
        }
        let passed = all & !refused & !slow;
        if passed == 0 {
            return None;
        }
        if passed != all {
            kept.clear();
            kept.extend(pick(&frames, passed));
            frames = Burst::new(kept);
        }
        Some((Source { bridge: lane.way.bridge, port: bond, ..*source }, frames))
    }
}

/// Puts what neighbours say into `inlet`, and returns which frames that are.
fn listen(inlet: &Inlet, frames: &[Frame<'_>], source: &Source<'_>) -> u32 {
    let mut slow = 0;
    for (index, frame) in frames.iter().enumerate().take(BURST) {
        if frame.head().starts_with(&SLOW_PROTOCOLS.0) {
            slow |= 1_u32 << index;
            if !inlet.put((source.port, 0), frame, source.now) {
                source.stats.count_drops(DropReason::RateLimited, 1);
            }
        }
    }
    slow
}

/// Which frames go to groups.
fn groups(frames: &[Frame<'_>]) -> u32 {
    let is_group = |frame: &Frame<'_>| {
        Addresses::of(frame).is_some_and(|addresses| header::is_group(addresses.destination()))
    };
    let numbered = frames.iter().enumerate().take(BURST);
    numbered.filter(|(_, frame)| is_group(frame)).fold(0, |all, (index, _)| all | 1_u32 << index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_the_part_that_its_frames_go_by() {
        let mac = MacAddr([0x52, 0x54, 0, 0, 0x12, 0x34]);
        let head = [&[2, 0, 0, 0, 0, 1][..], &mac.0, &[0x81, 0, 0x60, 7, 8, 0]].concat();
        let frame = Frame::from_parts(&head, &[]).unwrap();
        let part = |edit| spread(by_source(&frame, edit));
        assert_eq!(part(Edit::NONE), source_part(mac, 7));
        assert_eq!(part(Edit { pop: true, push: None }), source_part(mac, 0));
        assert_ne!(source_part(mac, 0), source_part(mac, 7));
    }

    #[test]
    fn a_flow_has_the_part_that_its_frames_go_by() {
        let way = Way {
            bridge: BridgeId::DEFAULT,
            division: Division::Flow,
            table: [0; BUCKETS],
            members: Vec::new(),
            comes_back: false,
        };
        let mut parts = std::collections::BTreeSet::new();
        for port in 0..100 {
            let mut head = vec![0_u8; 60];
            (head[12], head[14], head[23], head[35]) = (8, 0x45, 17, port);
            let frame = Frame::from_parts(&head, &[]).unwrap();
            assert_eq!(way.bucket(&frame, Edit::NONE), usize::from(flow_part(&head)));
            parts.insert(flow_part(&head));
        }
        assert!(parts.len() > 60, "{}", parts.len());
    }
}
