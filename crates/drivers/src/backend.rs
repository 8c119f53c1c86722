//! What ports on the device side of virtio-net have in common: vhost-user and VDUSE.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use eal::time::Time;
use ethdev::{Link, PortEvent, PortEvents, QueueStats, RxQueue, TxQueue};
use packet::MacAddr;
use vhost::backend::Event;
use vhost::control::{ControlHandle, ControlThread, SharedLimit};
use vhost_net::{NetDevice, RingSlot};

/// The process's vhost-user control thread, started with its first socket.
#[derive(Debug, Default)]
pub(crate) struct SharedControl {
    handle: Mutex<Option<ControlHandle>>,
    time: Time,
}

impl SharedControl {
    /// One that waits by this clock.
    pub(crate) const fn new(time: Time) -> Self {
        Self { handle: Mutex::new(None), time }
    }

    /// Calls `action` with the thread's handle.
    pub(crate) fn with<R>(
        &self,
        action: impl FnOnce(&ControlHandle) -> Result<R, vhost::control::ControlError>,
    ) -> Result<R, vhost::control::ControlError> {
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = match &mut *handle {
            Some(handle) => handle,
            None => handle.insert(ControlThread::start_with(self.time.clone())?),
        };
        action(handle)
    }
}

/// The state of the link, as the control thread tells it.
#[derive(Debug, Default)]
pub(crate) struct LinkState {
    connected: AtomicBool,
    up: AtomicBool,
    changes: AtomicU64,
    /// For log lines: the driver makes the link change.
    limit: SharedLimit,
    pub(crate) events: PortEvents,
}

impl LinkState {
    pub(crate) fn take(&self, name: &str, event: Event) {
        match event {
            Event::Connected => self.connected.store(true, Ordering::Relaxed),
            Event::Gone => {
                self.connected.store(false, Ordering::Relaxed);
                self.set(name, false);
            }
            Event::Ready => self.set(name, true),
            Event::Suspended => self.set(name, false),
            Event::RingState { .. } => {}
        }
    }

    /// For the port.
    pub(crate) fn link(&self) -> Link {
        Link {
            up: self.up.load(Ordering::Relaxed),
            speed_mbps: None,
            changes: self.changes.load(Ordering::Relaxed),
        }
    }

    /// Whether there is a driver.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    fn set(&self, name: &str, up: bool) {
        if self.up.swap(up, Ordering::Relaxed) == up {
            return;
        }
        self.changes.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = self.limit.admit_line() {
            let link = if up { "up" } else { "down" };
            tracing::info!(port = name, link, suppressed, "link changed");
        }
        self.events.announce(PortEvent::LinkChanged);
    }
}

/// The queues of a device: what its driver sends, and what its driver receives.
pub(crate) fn queues(device: &NetDevice) -> (Vec<RxQueue>, Vec<TxQueue>) {
    let stats = || Arc::new(QueueStats::default());
    let rx = device.receivers().into_iter().map(|rx| RxQueue::new(Box::new(rx), stats()));
    let tx = device.transmitters().into_iter().map(|tx| TxQueue::new(Box::new(tx), stats()));
    (rx.collect(), tx.collect())
}

/// Counters of a device's rings.
pub(crate) fn ring_stats(slots: &[Arc<RingSlot>]) -> Vec<(String, u64)> {
    let mut stats = Vec::new();
    for (index, slot) in slots.iter().enumerate() {
        // Even rings are the guest's receive rings, which this port transmits to.
        let (direction, queue) = (if index % 2 == 0 { "tx" } else { "rx" }, index / 2);
        let mut add = |name: &str, count| {
            stats.push((format!("{direction}_q{queue}_{name}"), count));
        };
        add("guest_notifications", slot.calls.get());
        add("guest_notifications_suppressed", slot.calls_suppressed.get());
        add("bad_chains", slot.bad_chains.get());
        add("large_segments", slot.large_segments.get());
    }
    stats
}

/// What the driver takes of frames that are not complete, in words.
pub(crate) fn taken(slots: &[Arc<RingSlot>]) -> String {
    let takes = slots.first().map(|slot| slot.takes()).unwrap_or_default();
    let takes = takes.iter_names().map(|(name, _)| name).collect::<Vec<_>>();
    if takes.is_empty() { "complete frames".into() } else { takes.join(" ") }
}

/// A locally administered unicast address; the hasher's seed is random enough for it.
pub(crate) fn random_mac() -> MacAddr {
    let [a, b, c, d, e, ..] = RandomState::new().hash_one(()).to_ne_bytes();
    MacAddr([0x02, a, b, c, d, e])
}
