//! The rings of a session, which outlive it where the back-end keeps records of the chains that it
//! has in flight.
//!
//! A back-end that is killed leaves such records behind, in memory that this side keeps. The next
//! one goes on exactly there, so nothing that the rings hold is lost. From a back-end without
//! records nobody would know where to go on; its rings go with it.

use std::sync::Arc;

use eal::dma::DmaBacking;
use eal::{Closer, PeerEvent};
use ethdev::Error;
use vhost::frontend::InflightFile;

use super::session::{Plan, no_room, system};
use crate::control_queue::ControlQueue;
use crate::plan::RingPlan;
use virtio_queues::kick::Kick;
use virtio_queues::memory::Parts;
use virtio_queues::receive::RxRing;
use virtio_queues::transmit::TxRing;

/// All that belongs to a session's rings, without those that the workers have.
#[derive(Debug)]
pub(super) struct RingSet {
    pub(super) plan: RingPlan,
    pub(super) memory: Arc<DmaBacking>,
    /// How the back-end hears of each ring without a doorbell, by index.
    pub(super) kicks: Vec<PeerEvent>,
    pub(super) control: Option<Control>,
    /// Where the back-end records what it has in flight.
    pub(super) records: Option<InflightFile>,
}

/// The control queue.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) queue: ControlQueue,
    /// Its place among the rings.
    pub(super) index: u8,
    /// How the back-end hears of commands, and how it tells of answers.
    pub(super) kick: PeerEvent,
    pub(super) call: PeerEvent,
}

/// The rings of a session that is not running.
#[derive(Debug)]
pub(super) struct Rings {
    pub(super) set: RingSet,
    pub(super) pairs: Vec<(RxRing, TxRing)>,
}

impl RingSet {
    /// Rings that records have to be for: all up to the last one.
    pub(super) fn count(&self) -> u16 {
        let after_pairs = u16::try_from(self.kicks.len()).unwrap_or(u16::MAX);
        let control = self.control.as_ref().map(|control| u16::from(control.index) + 1);
        control.unwrap_or(after_pairs).max(after_pairs)
    }

    /// Entries of the largest of them.
    pub(super) fn entries(&self) -> u16 {
        let RingPlan { rx_size, tx_size, control_size, .. } = self.plan;
        rx_size.max(tx_size).max(control_size.unwrap_or(0))
    }

    fn control_index(&self) -> Option<u8> {
        self.control.as_ref().map(|control| control.index)
    }
}

impl Rings {
    /// New rings for the port called `name`.
    pub(super) fn new(name: &str, plan: &Plan) -> Result<Self, Error> {
        let mut parts = Parts::shared(name, plan.rings.bytes().unwrap_or(usize::MAX))?;
        let closer = Closer::default();
        let event = || PeerEvent::for_peer(&closer).map_err(|source| system(name, &source));
        let (mut pairs, mut kicks) = (Vec::new(), Vec::new());
        for _ in 0..plan.rings.pairs {
            let (rx, tx) = (event()?, event()?);
            let with = (Kick::Event(rx.clone()), Kick::Event(tx.clone()));
            pairs.push(plan.rings.pair(&mut parts, with, None).ok_or_else(|| no_room(name))?);
            kicks.extend([rx, tx]);
        }
        let mut control = None;
        if let Some(index) = plan.control_index {
            let (kick, call) = (event()?, event()?);
            let with = Kick::Event(kick.clone());
            let queue = plan.rings.control_queue(&mut parts, with, Some(call.clone()));
            control = queue.map(|queue| Control { queue, index, kick, call });
        }
        let memory = Arc::clone(parts.memory());
        let set = RingSet { plan: plan.rings.clone(), memory, kicks, control, records: None };
        Ok(Self { set, pairs })
    }

    /// Whether a session as in `plan` can go on with them.
    pub(super) fn fit(&self, plan: &Plan) -> bool {
        self.set.plan == plan.rings && self.set.control_index() == plan.control_index
    }
}
