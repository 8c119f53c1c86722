//! Bridges with flows: what becomes of their frames is decided by the rules of OpenFlow tables.
//!
//! A worker looks each frame up in a cache of paths, does what its path says, and counts it there.
//! What a plain bridge does (`NORMAL`) is done by the stages of the same bridge. A bridge whose rules
//! say no more than that is a plain one, and has nothing of all this.
//!
//! - `meter`: what passes of the frames that rules send through meters
//! - `inlet`: packets on their way to controllers
//! - `enter`: from a burst of frames to paths
//! - `packet_out`: packets from controllers
//! - `run`: what a path says is done
//! - `changes`: what was changed of frames so far
//! - `again`: frames that are looked at anew, since what they begin with was behind headers
//! - `track`: connections
//! - `overhear`: connections that others announce
//! - `translate`: connections whose addresses are translated
//! - `gather`: fragments that wait for the rest of their packet

mod again;
mod changes;
pub(crate) mod enter;
mod gather;
mod inlet;
pub mod meter;
mod overhear;
mod packet_out;
mod run;
mod track;
mod translate;

use std::cell::RefCell;
use std::sync::Arc;

use conntrack::{Conntrack, Lane, Translation};
use flow::{Lost, Op, PathCache, PathCounts, PathId, Pipeline, Visit};
use packet::EditRoom;

pub use inlet::{FlowEvent, FlowInlet, FlowPacket, flow_queue};
use meter::{Metering, Meters};
pub(crate) use packet_out::PacketOut;
pub use packet_out::{FlowBegin, FlowPacketOut};
pub use run::NOWHERE;

use crate::record::sparing::Slot;
use crate::record::{Recorder, Recording, Room};

/// What decides about the frames of a bridge, and where it asks.
#[derive(Clone, Debug)]
pub struct BridgeFlows {
    /// Rules and ports.
    pub pipeline: Arc<Pipeline>,
    /// Where packets for controllers go, and rules that are made of packets; without it they are dropped.
    pub packets: Option<FlowInlet>,
    /// The meters, with what workers have in common of them.
    pub metering: Metering,
    /// The connections of all bridges of a switch.
    pub connections: Option<Arc<Conntrack>>,
}

impl BridgeFlows {
    /// Those of a pipeline, without controllers.
    #[must_use]
    pub fn new(pipeline: Arc<Pipeline>) -> Self {
        Self { pipeline, packets: None, metering: Metering::default(), connections: None }
    }

    /// The same with a place for packets for controllers.
    #[must_use]
    pub fn with_packets(self, packets: FlowInlet) -> Self {
        Self { packets: Some(packets), ..self }
    }
}

/// OpenFlow number of a port that has none.
const NO_PORT: u32 = openflow::PortNo::ANY.0;

/// Memory for a burst on its way through one bridge.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    /// For the heads of frames of which more has to be looked at than their heads have.
    deep: EditRoom,
    /// For what their paths do.
    onward: RunRoom,
}

/// Memory for frames on their way along a path.
#[derive(Debug, Default)]
pub(crate) struct RunRoom {
    /// For the heads of those that are changed.
    edit: EditRoom,
    /// For those of those that are cut.
    cut: EditRoom,
    /// How frames of tracked connections are translated, with a bit of the burst for each.
    translations: Vec<(u32, Translation)>,
    /// For parts of large segments.
    parts: Vec<u8>,
}

/// One worker's part in a bridge's flows.
#[derive(Debug)]
pub(crate) struct Flows(RefCell<Inner>);

#[derive(Debug)]
struct Inner {
    cache: PathCache,
    /// OpenFlow numbers of ports, by the switch's.
    numbers: Vec<u32>,
    inlet: Option<FlowInlet>,
    meters: Meters,
    connections: Option<Arc<Conntrack>>,
    /// Those that its frames are of, once one was tracked.
    lane: Option<Box<Lane>>,
    /// The time, as last told, in milliseconds.
    now: u64,
    /// How often a burst is in this bridge: by patch ports, one may come back to it.
    depth: u32,
    /// How often frames of this burst were tracked.
    tracked: u32,
    #[allow(clippy::vec_box, reason = "taken out and put back for each burst")]
    rooms: Vec<Box<Rooms>>,
    /// The tables that a frame has passed of which it is only told what becomes of it.
    told: Vec<Visit>,
    /// Counts those that were tracked, for somebody who looks at flows.
    recorder: Slot,
}

impl Clone for Flows {
    /// The same rules, and nothing that was met by them.
    fn clone(&self) -> Self {
        let inner = self.0.borrow();
        let flows = BridgeFlows {
            pipeline: Arc::clone(inner.cache.pipeline()),
            packets: inner.inlet.clone(),
            metering: inner.meters.all().clone(),
            connections: inner.connections.clone(),
        };
        Self::new(&flows, inner.now)
    }
}

impl Flows {
    /// At `now`, in milliseconds.
    pub(crate) fn new(flows: &BridgeFlows, now: u64) -> Self {
        Self(RefCell::new(Inner {
            cache: PathCache::new(Arc::clone(&flows.pipeline)),
            numbers: numbers(&flows.pipeline),
            inlet: flows.packets.clone(),
            meters: Meters::new(&flows.metering),
            connections: flows.connections.clone(),
            lane: None,
            now,
            depth: 0,
            tracked: 0,
            told: Vec::new(),
            recorder: Slot::default(),
            rooms: Vec::new(),
        }))
    }

    /// Has others decide from `now` on.
    pub(crate) fn update(&mut self, flows: &BridgeFlows, now: u64) {
        let inner = self.0.get_mut();
        inner.numbers = numbers(&flows.pipeline);
        inner.cache.update(Arc::clone(&flows.pipeline), now);
        inner.inlet.clone_from(&flows.packets);
        inner.meters.update(&flows.metering, now);
        inner.connections.clone_from(&flows.connections);
        inner.now = now;
    }

    /// Tells the rules what they were for until `now`.
    pub(crate) fn flush(&self, now: u64) {
        if let Ok(mut inner) = self.0.try_borrow_mut() {
            inner.cache.flush(now);
            inner.meters.flush(now);
            inner.tidy();
            inner.now = now;
        }
    }

    /// How often paths were looked up since this was asked last.
    pub(crate) fn take_look_ups(&self) -> PathCounts {
        let inner = self.0.try_borrow_mut();
        inner.map(|mut inner| inner.cache.take_look_ups()).unwrap_or_default()
    }

    /// Packets come in that have passed another bridge before.
    pub(crate) fn note_again(&self, packets: usize) {
        if let Ok(mut inner) = self.0.try_borrow_mut() {
            inner.cache.note_again(packets);
        }
    }

    /// The rules and ports.
    pub(crate) fn pipeline(&self) -> Arc<Pipeline> {
        Arc::clone(self.0.borrow().cache.pipeline())
    }

    /// An operation of a path that was found in this burst.
    fn op(&self, id: PathId, at: usize) -> Option<Op> {
        self.0.borrow().cache.path(id)?.ops.get(at).cloned()
    }

    /// Why frames with this path go nowhere, if they do; whether they stop at controllers, and whether large segments
    /// are cut before.
    fn end(&self, id: PathId) -> (Option<Lost>, bool, bool) {
        let inner = self.0.borrow();
        let path = inner.cache.path(id);
        path.map_or((None, false, false), |path| (path.lost, path.stops, path.cuts))
    }

    /// Has frames be counted that were tracked, with this room, or what was counted be kept; or nothing.
    pub(crate) fn record(&self, how: Option<(bool, Room)>) {
        // What lacks is known where packets come in.
        _ = self.0.borrow_mut().recorder.set(how);
    }

    /// Gives away what was counted of them.
    pub(crate) fn take_recording(&self) -> Recording {
        let mut inner = self.0.borrow_mut();
        inner.recorder.any().map(Recorder::take).unwrap_or_default()
    }

    /// The tables that a frame has passed of which it was only told what becomes of it.
    pub(crate) fn take_told(&self) -> Vec<Visit> {
        std::mem::take(&mut self.0.borrow_mut().told)
    }

    /// It is through.
    fn end_burst(&self) {
        let mut inner = self.0.borrow_mut();
        inner.depth = inner.depth.saturating_sub(1);
    }

    /// A burst comes in, and needs memory.
    fn take_rooms(&self) -> Box<Rooms> {
        self.0.borrow_mut().begin_burst();
        // One that comes back while it is here has others.
        self.lend_room()
    }

    /// Memory for frames that go on by themselves, which are not one round more.
    fn lend_room(&self) -> Box<Rooms> {
        self.0.borrow_mut().rooms.pop().unwrap_or_default()
    }

    /// It is not needed any more.
    fn take_back(&self, rooms: Box<Rooms>) {
        self.0.borrow_mut().rooms.push(rooms);
    }

    /// It is through.
    fn give_rooms(&self, rooms: Box<Rooms>) {
        self.end_burst();
        self.take_back(rooms);
    }
}

impl Inner {
    /// A burst comes in.
    #[inline]
    fn begin_burst(&mut self) {
        if self.depth == 0 {
            self.cache.begin(self.now);
            self.tracked = 0;
        }
        self.depth += 1;
    }

    /// The connections that its frames are of.
    fn lane(&mut self) -> &mut Lane {
        let Self { lane, connections, .. } = self;
        lane.get_or_insert_with(|| Box::new(Lane::new(connections.clone().unwrap_or_default())))
    }

    /// Lets go of connections that are over.
    fn tidy(&mut self) {
        if let Some(lane) = &mut self.lane {
            let now = lane.all().now();
            lane.tidy(now);
        }
    }
}

/// OpenFlow numbers of ports, by the switch's.
fn numbers(pipeline: &Pipeline) -> Vec<u32> {
    let mut numbers = Vec::new();
    for (port_no, port) in &pipeline.ports {
        let index = usize::from(port.number);
        if numbers.len() <= index {
            numbers.resize(index + 1, NO_PORT);
        }
        if let Some(place) = numbers.get_mut(index) {
            *place = port_no.0;
        }
    }
    numbers
}
