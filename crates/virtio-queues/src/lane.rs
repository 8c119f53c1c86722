//! Where a ring passes between the port's thread and the worker that polls it.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Relaxed, SeqCst},
};

use eal::{Closer, EventFd, Handover, PeerEvent};
use virtio::driver::{DriverRing, RingError};

use super::kick::Kick;
use super::receive::RxRing;
use super::transmit::TxRing;

/// A ring of a session, seen by whoever hands it over.
pub trait Ring {
    /// What the device did wrong, if it did; the ring is not used any more.
    fn fault(&self) -> Option<RingError>;
}

/// One queue of a port. It stays for the port's life; its ring comes and goes with sessions.
#[derive(Debug)]
pub struct Lane<R> {
    /// The ring of the present session.
    pub ring: Handover<R>,
    /// What the device signals. It is the same in all sessions, so that a worker can wait for
    /// it without knowing of sessions.
    pub call: PeerEvent,
    /// The ring is there and enabled.
    ready: AtomicBool,
    /// There is a ring, whatever its state.
    installed: AtomicBool,
    /// The worker has found it broken.
    broken: AtomicBool,
    /// The device has a way to signal `call`.
    can_sleep: AtomicBool,
    /// Wakes the port's thread.
    wake: Arc<EventFd>,
}

impl Lane<RxRing> {
    /// Entries of the ring; 0 without one.
    pub fn entries(&self) -> u16 {
        self.ring.lock().as_ref().map_or(0, |ring| ring.queue().entries())
    }
}

impl<R: Ring> Lane<R> {
    /// A lane without a ring; `wake` wakes the port's thread, `closer` closes what the device signals.
    ///
    /// # Errors
    /// When there can be no more files.
    pub fn new(wake: &Arc<EventFd>, closer: &Closer) -> std::io::Result<Self> {
        Ok(Self {
            ring: Handover::empty(),
            call: PeerEvent::for_peer(closer)?,
            ready: AtomicBool::new(false),
            installed: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            can_sleep: AtomicBool::new(true),
            wake: Arc::clone(wake),
        })
    }

    /// Gives the worker a ring, and wakes it should it sleep: what it armed was another ring.
    pub fn install(&self, ring: R) {
        self.broken.store(false, Relaxed);
        self.ring.replace(Some(ring));
        self.installed.store(true, Relaxed);
        self.ready.store(true, Relaxed);
        let _ = self.call.signal();
    }

    /// Takes the ring from the worker.
    pub fn remove(&self) -> Option<R> {
        self.installed.store(false, Relaxed);
        self.ready.store(false, Relaxed);
        self.ring.take()
    }

    /// Whether the worker has a ring.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    /// For the thread that installs rings. It does not lock the ring, which would cost the worker
    /// a burst.
    fn set_ready(&self, ready: bool) {
        if !self.installed.load(Relaxed) {
            return;
        }
        // The worker stores in the other order, so a broken ring is never ready for good.
        self.ready.store(ready, SeqCst);
        if self.broken.load(SeqCst) {
            self.ready.store(false, SeqCst);
        }
    }

    /// Whether a worker may wait for the device: not where it cannot interrupt.
    pub fn can_sleep(&self) -> bool {
        self.can_sleep.load(Relaxed)
    }

    /// For the worker, when the device has broken its ring: wakes the port's thread, which will
    /// find out and end the session.
    #[cold]
    pub fn report_fault(&self) {
        self.broken.store(true, SeqCst);
        self.ready.store(false, SeqCst);
        let _ = self.wake.signal();
    }

    /// What the device did wrong with this ring, if it did. A ring that works is not locked.
    pub fn fault(&self) -> Option<RingError> {
        if !self.broken.load(SeqCst) {
            return None;
        }
        self.ring.lock().as_ref().and_then(Ring::fault)
    }
}

/// The queues of a port, for the port's thread.
#[derive(Clone, Debug)]
pub struct Lanes {
    /// Those that receive.
    pub rx: Vec<Arc<Lane<RxRing>>>,
    /// Those that transmit.
    pub tx: Vec<Arc<Lane<TxRing>>>,
}

impl Lanes {
    /// Lanes for `pairs` pairs of queues; `wake` wakes the port's thread.
    pub fn new(pairs: u16, wake: &Arc<EventFd>) -> std::io::Result<Self> {
        let closer = Closer::default();
        let rx = (0..pairs).map(|_| Lane::new(wake, &closer).map(Arc::new));
        let tx = (0..pairs).map(|_| Lane::new(wake, &closer).map(Arc::new));
        Ok(Self { rx: rx.collect::<Result<_, _>>()?, tx: tx.collect::<Result<_, _>>()? })
    }

    /// What the device signals, by ring.
    pub fn calls(&self) -> Vec<PeerEvent> {
        let pairs = self.rx.iter().zip(&self.tx);
        pairs.flat_map(|(rx, tx)| [rx.call.clone(), tx.call.clone()]).collect()
    }

    /// Hands rings to the workers; queues for which there are none get none.
    pub fn install(&self, pairs: Vec<(RxRing, TxRing)>) {
        for ((rx, tx), (rx_lane, tx_lane)) in pairs.into_iter().zip(self.rx.iter().zip(&self.tx)) {
            rx_lane.install(rx);
            tx_lane.install(tx);
        }
    }

    /// Has the device of ring `index` (receive queue `n` has `2 n`, transmit queue `n` the next)
    /// notified in another way; returns whether there is such a ring.
    pub fn set_kick(&self, index: u8, kick: Kick) -> bool {
        let queue = usize::from(index / 2);
        if index.is_multiple_of(2) {
            let Some(lane) = self.rx.get(queue) else { return false };
            lane.ring.lock().as_mut().map(|ring| ring.set_kick(kick)).is_some()
        } else {
            let Some(lane) = self.tx.get(queue) else { return false };
            lane.ring.lock().as_mut().map(|ring| ring.set_kick(kick)).is_some()
        }
    }

    /// Takes all rings from the workers. A device that is not told so goes on using their
    /// memory, for as long as they are kept.
    pub fn withdraw(&self) -> (Vec<RxRing>, Vec<TxRing>) {
        let rx = self.rx.iter().filter_map(|lane| lane.remove()).collect();
        (rx, self.tx.iter().filter_map(|lane| lane.remove()).collect())
    }

    /// Tells whoever chooses among queues whether the device carries frames now.
    pub fn set_ready(&self, ready: bool) {
        for lane in &self.rx {
            lane.set_ready(ready);
        }
        for lane in &self.tx {
            lane.set_ready(ready);
        }
    }

    /// Whether the device wakes workers that sleep; see [`Lane::can_sleep`].
    pub fn set_can_sleep(&self, yes: bool) {
        for lane in &self.rx {
            lane.can_sleep.store(yes, Relaxed);
        }
    }

    /// What the device did wrong with a ring, if it did.
    pub fn fault(&self) -> Option<RingError> {
        let rx = self.rx.iter().map(|lane| lane.fault());
        let tx = self.tx.iter().map(|lane| lane.fault());
        rx.chain(tx).flatten().next()
    }
}
