//! The control side of a port.

use std::sync::Arc;

use packet::MacAddr;

use crate::events::{PortEvent, PortEvents};
use crate::pressure::Pressure;
use crate::queue::{RxQueue, TxQueue};
use crate::stats::{PortStats, QueueStats, Stats};

/// What went wrong with a port.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device string cannot be understood.
    #[error("device '{device}': {reason}")]
    Spec {
        /// The device string as given.
        device: String,
        /// What is wrong with it and what was expected.
        reason: String,
    },
    /// The device could not be opened or changed.
    #[error("{what}: {reason}")]
    Device {
        /// The device: a socket path, an interface, a file.
        what: String,
        /// What happened, what was expected, and what to do.
        reason: String,
    },
    /// This kind of port cannot do that.
    #[error("{driver} ports cannot {what}")]
    Unsupported {
        /// The driver's name.
        driver: &'static str,
        /// What was asked, as in "cannot ...".
        what: &'static str,
    },
}

/// Whether a port can carry frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The peer is there and takes frames.
    pub up: bool,
    /// Speed in Mbit/s where it is known.
    pub speed_mbps: Option<u32>,
    /// How often the link has gone up or down since the port was opened.
    pub changes: u64,
}

/// Whoever has connected to a port's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The number of its process, where it is known.
    pub process: Option<u32>,
}

/// What a port is and can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// The driver's name, as in device strings.
    pub driver: &'static str,
    /// Number of receive queues.
    pub rx_queues: usize,
    /// Number of transmit queues.
    pub tx_queues: usize,
    /// Largest MTU that can be set, in bytes.
    pub max_mtu: u16,
}

/// What a driver does for the control side of a port. None of it is called on a data path.
/// Dropping it closes the device; its queues then carry nothing any more.
pub trait PortControl: Send {
    /// What the port is and can do.
    fn info(&self) -> PortInfo;

    /// The state of the link now.
    fn link(&self) -> Link;

    /// The port's own MAC address.
    fn mac(&self) -> MacAddr;

    /// Changes the port's own MAC address.
    ///
    /// # Errors
    /// Where the device refuses it or has none.
    fn set_mac(&mut self, mac: MacAddr) -> Result<(), Error> {
        let _ = mac;
        Err(Error::Unsupported { driver: self.info().driver, what: "change their MAC address" })
    }

    /// Largest payload of a frame, in bytes, without link-layer header.
    fn mtu(&self) -> u16;

    /// Changes the MTU.
    ///
    /// # Errors
    /// Where the device refuses it, naming the largest that it takes.
    fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        let _ = mtu;
        Err(Error::Unsupported { driver: self.info().driver, what: "change their MTU" })
    }

    /// Whether frames for other stations are received too.
    fn promiscuous(&self) -> bool {
        true
    }

    /// Switches promiscuous mode.
    ///
    /// # Errors
    /// Where the device cannot.
    fn set_promiscuous(&mut self, on: bool) -> Result<(), Error> {
        if on == self.promiscuous() {
            return Ok(());
        }
        Err(Error::Unsupported { driver: self.info().driver, what: "leave promiscuous mode" })
    }

    /// Counters of this driver's own, by name.
    fn extended_stats(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// Where this port announces that its link changed or that it is gone; `None` for a port
    /// that never announces anything.
    fn events(&self) -> Option<&PortEvents> {
        None
    }

    /// The VMM that has connected to the port, for those that wait for one.
    fn peer(&self) -> Option<Peer> {
        None
    }

    /// Facts about the device that people like to see, by name: the peer, negotiated features.
    fn details(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// An open port: its control side and the counters of its queues. The queues themselves are with
/// the workers that poll them.
pub struct Port {
    /// The name that the operator gave it.
    name: String,
    /// The device string that it was opened with.
    device: String,
    control: Box<dyn PortControl>,
    rx_stats: Vec<Arc<QueueStats>>,
    tx_stats: Vec<Arc<QueueStats>>,
}

impl Port {
    /// A port of a driver's control side and the queues that it made.
    #[must_use]
    pub fn new(
        name: &str,
        device: &str,
        control: Box<dyn PortControl>,
        rx: &[RxQueue],
        tx: &[TxQueue],
    ) -> Self {
        Self {
            name: name.to_owned(),
            device: device.to_owned(),
            control,
            rx_stats: rx.iter().map(|queue| Arc::clone(queue.stats())).collect(),
            tx_stats: tx.iter().map(|queue| Arc::clone(queue.stats())).collect(),
        }
    }

    /// The name that the operator gave it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device string that it was opened with.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The driver's control side.
    #[must_use]
    pub fn control(&self) -> &dyn PortControl {
        &*self.control
    }

    /// The driver's control side, to change something.
    #[must_use]
    pub fn control_mut(&mut self) -> &mut dyn PortControl {
        &mut *self.control
    }

    /// Counters of all queues, now. For counts from now on, keep them and use
    /// [`PortStats::since`].
    #[must_use]
    pub fn stats(&self) -> PortStats {
        PortStats { rx: self.rx_queue_stats(), tx: self.tx_queue_stats() }
    }

    /// Counters per receive queue.
    #[must_use]
    pub fn rx_queue_stats(&self) -> Vec<Stats> {
        self.rx_stats.iter().map(|stats| stats.snapshot()).collect()
    }

    /// Counters per transmit queue.
    #[must_use]
    pub fn tx_queue_stats(&self) -> Vec<Stats> {
        self.tx_stats.iter().map(|stats| stats.snapshot()).collect()
    }

    /// How hard pressed each receive queue and each transmit queue is.
    #[must_use]
    pub fn pressures(&self) -> [Vec<Pressure>; 2] {
        [&self.rx_stats, &self.tx_stats]
            .map(|all| all.iter().map(|stats| stats.pressure()).collect())
    }

    /// Every counter by name: sums (`rx_good_packets`), queues (`tx_q1_drop_ring_full`), and
    /// the driver's own.
    #[must_use]
    pub fn extended_stats(&self) -> Vec<(String, u64)> {
        let mut all = self.stats().extended();
        all.extend(self.control.extended_stats());
        all
    }

    /// Has `listener` called when the port's link changes or the port is gone, in place of
    /// any listener before, and returns whether this kind of port announces such events.
    ///
    /// It is called by whoever notices: a control thread that other ports need too, or a worker.
    /// So it must be quick, such as a message to a channel or a signal to an [`eal::EventFd`],
    /// and ask for the port's state elsewhere. Events may be lost while a listener is replaced, so look at the state once
    /// after this call.
    pub fn on_event(&self, listener: impl Fn(PortEvent) + Send + Sync + 'static) -> bool {
        let events = self.control.events();
        if let Some(events) = events {
            events.listen(listener);
        }
        events.is_some()
    }
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port")
            .field("name", &self.name)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}
