//! A worker without its thread, for measuring programs.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use eal::clock;
use ethdev::{QueueStats, RxQueue, TxQueue};
use fdb::Fdb;
use flow::Pipeline;
use packet::{Burst, Pool};

use crate::bond::way::{Fittings, Way};
use crate::bridge::{Bridge, BridgeChange, BridgeId};
use crate::capture::Captures;
use crate::datapath::{Datapath, Source};
use crate::flows::BridgeFlows;
use crate::guard::{Guard, PortGuard};
use crate::inputs::{Input, Inputs};
use crate::limit::{Direction, PortLimits};
use crate::output::Output;
use crate::vlan::PortVlan;
use crate::vlan::policy::Policy;

/// The MTU of all outputs.
const MTU: u32 = 1500;

/// A data path, its ports and receive queues.
#[derive(Debug)]
pub struct Bench {
    path: Datapath,
    inputs: Inputs,
    stats: QueueStats,
}

impl Bench {
    /// A data path that sends to `outputs`, the first of which is port 0.
    ///
    /// # Panics
    /// When there is no memory for a packet.
    #[must_use]
    #[expect(clippy::expect_used, reason = "for measuring programs only")]
    pub fn new(fdb: Arc<Fdb>, outputs: Vec<TxQueue>) -> Self {
        // It is never allocated from.
        let pool = Pool::new("bench", 1, 64).expect("memory");
        let mut path = Datapath::new(pool.cache());
        let mut bridge = Bridge::new(fdb, 32, 0);
        for (port, queue) in (0..).zip(outputs) {
            let mtu = Arc::new(AtomicU32::new(MTU));
            path.set_output(port, Some(Output::new(vec![queue], (0, 1), u64::MAX, mtu, 0)));
            bridge.join(port, None);
        }
        path.change_bridge(BridgeId::DEFAULT, BridgeChange::Open(bridge));
        Self { path, inputs: Inputs::new(clock::hz()), stats: QueueStats::default() }
    }

    /// Gives `port` its part in VLANs.
    pub fn set_vlan(&mut self, port: u16, vlan: &PortVlan) {
        let policy = Some(Arc::new(Policy::from(vlan)));
        self.path.change_bridge(BridgeId::DEFAULT, BridgeChange::SetVlan(port, policy));
    }

    /// Polls `rx` from now on, as receive queue of `port`.
    pub fn add_input(&mut self, port: u16, rx: RxQueue) {
        self.inputs.push(Input::new(port, 0, rx));
    }

    /// Gives `port` limits.
    pub fn limit(&mut self, port: u16, limits: &PortLimits) {
        let (hz, now) = (clock::hz(), 1);
        for (direction, rate) in [(Direction::Rx, limits.rx()), (Direction::Tx, limits.tx())] {
            let limiter = rate.limiters(1, hz, now).pop().flatten();
            self.path.set_limit(port, direction, limiter.map(Box::new));
        }
    }

    /// Gives `port` a guard, and the storm limits among `limits`.
    pub fn guard(&mut self, port: u16, guard: &PortGuard, limits: &PortLimits) {
        let guard = Guard::of(guard, limits, None, 1).pop().flatten();
        self.path.set_guard(port, guard.map(Box::new));
    }

    /// Has frames go by flows.
    pub fn set_flows(&mut self, pipeline: Arc<Pipeline>) {
        let mut flows = BridgeFlows::new(pipeline);
        flows.metering = flows.metering.of(flows.pipeline.tables.meters(), (1, clock::hz(), 1));
        let flows = Some(Box::new(flows));
        self.path.change_bridge(BridgeId::DEFAULT, BridgeChange::Flows(flows, 0));
    }

    /// Makes `port`, which has no queue, a bond that sends by `way`.
    pub fn bond(&mut self, port: u16, way: Way) {
        self.path.set_output(port, None);
        self.path.set_bond(port, Some((way, Fittings::default())));
    }

    /// Captures as these say.
    pub fn capture(&mut self, captures: Option<Box<Captures>>) {
        self.path.set_captures(captures);
    }

    /// One round of a worker; returns the number of frames.
    pub fn round(&mut self) -> usize {
        let (path, now) = (&mut self.path, clock::now());
        let packets = self.inputs.poll(now, |burst, source| path.forward_burst(burst, source));
        if packets > 0 {
            self.path.flush();
        }
        packets
    }

    /// Forwards a burst that came in on `port`.
    pub fn forward(&mut self, frames: Burst<'_, '_>, port: u16) {
        let source = Source::new((BridgeId::DEFAULT, port), &self.stats, 1);
        self.path.forward(frames, &source, false);
        self.path.flush();
    }
}
