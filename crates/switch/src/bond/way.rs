//! What the data path makes of bonds.
//!
//! A bridge knows a bond by the number of its port and nothing of its members: addresses are learnt
//! behind the bond, and verdicts are marks at it. Before a burst goes out, these marks are handed on
//! to the members that a table names ([`Outputs::spread`](crate::outputs::Outputs::spread)), by the part of
//! the traffic that a frame belongs to. What comes in on a member comes in on the bond, or is
//! dropped where the member is not in use.

use ethdev::DropReason;
use packet::{Edit, Frame};

use crate::bridge::BridgeId;
use crate::datapath::Source;
use crate::marks::Marks;

/// The parts that the traffic of a bond is divided into.
pub(crate) const BUCKETS: usize = 256;

/// No member: a number that no port has.
pub(crate) const NOBODY: u16 = u16::MAX;

/// A member, as a worker knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strand {
    /// Its port.
    pub(crate) port: u16,
    /// Whether what comes in there counts.
    pub(crate) receives: bool,
}

/// A bond, as a worker knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The bridge that it belongs to.
    pub(crate) bridge: BridgeId,
    /// The port for each part of the traffic, or [`NOBODY`].
    pub(crate) table: [u16; BUCKETS],
    pub(crate) members: Vec<Strand>,
}

impl Way {
    /// Whether any frame can go out.
    fn is_ready(&self) -> bool {
        self.table.iter().any(|member| *member != NOBODY)
    }

    /// The member that has all the traffic.
    fn only(&self) -> u16 {
        self.table.first().copied().unwrap_or(NOBODY)
    }
}

/// A bond, and the verdicts on the burst at hand.
#[derive(Debug)]
struct Lane {
    way: Way,
    marks: Marks,
}

/// Where a bond's frames are to go: a port, the frames, and what becomes of them.
pub(crate) type Verdict = (u16, u32, Edit);

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
}

impl Bonds {
    /// Whether there are none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Has `port` be a bond, or no more.
    pub(crate) fn set(&mut self, port: u16, way: Option<Way>) {
        let index = usize::from(port);
        if self.all.len() <= index {
            self.all.resize_with(index + 1, || None);
        }
        if let Some(place) = self.all.get_mut(index) {
            *place = way.map(|way| Box::new(Lane { way, marks: Marks::default() }));
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

    fn lane_mut(&mut self, port: u16) -> Option<&mut Lane> {
        self.all.get_mut(usize::from(port))?.as_deref_mut()
    }

    /// The bond that `port` is a member of.
    pub(crate) fn bond_of(&self, port: u16) -> Option<u16> {
        *self.bond_of.get(usize::from(port))?
    }

    /// Whether `port` is a bond with a member that is in use.
    pub(crate) fn is_ready(&self, port: u16) -> bool {
        let lane = self.all.get(usize::from(port)).and_then(Option::as_ref);
        lane.is_some_and(|lane| lane.way.is_ready())
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
    /// whether there was one with marks.
    pub(crate) fn spread_one(&mut self, mut take: impl FnMut(Verdict)) -> bool {
        let Some(bond) = self.marked.pop() else { return false };
        let mut marks = std::mem::take(&mut self.spare);
        if let Some(lane) = self.lane_mut(bond) {
            std::mem::swap(&mut marks, &mut lane.marks);
            let member = lane.way.only();
            for (mask, edit) in marks.parts() {
                take((member, mask, edit));
            }
        }
        marks.clear();
        self.spare = marks;
        true
    }

    /// Where frames that came in on a member of a bond come from: the bond. What is not to come in
    /// is counted, and then there is no answer.
    pub(crate) fn receive<'s>(
        &self,
        frames: &[Frame<'_>],
        source: &Source<'s>,
    ) -> Option<Source<'s>> {
        let bond = self.bond_of(source.port);
        let lane = bond.and_then(|bond| self.all.get(usize::from(bond))?.as_deref());
        let drop = |reason| {
            source.stats.count_drops(reason, frames.len());
            None
        };
        let Some((bond, lane)) = bond.zip(lane) else { return drop(DropReason::LinkDown) };
        let strand = lane.way.members.iter().find(|strand| strand.port == source.port);
        if !strand.is_some_and(|strand| strand.receives) {
            return drop(DropReason::InactiveMember);
        }
        Some(Source { bridge: lane.way.bridge, port: bond, ..*source })
    }
}
