//! Where the queues of a port lie, so that the sockets behind them can be replaced.
//!
//! A worker has a queue of ethdev's for as long as the port is open. Behind it is a slot, in which
//! the control side puts the driver's queue when the interface is there, and from which it takes
//! it when the interface goes. A worker takes it along for a burst, as it does a guest's ring.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

use eal::handover::Loan;
use eal::{Epoll, Handover};
use ethdev::{QueueStats, RxDriver, RxQueue, Sent, TxDriver, TxQueue};
use packet::{Capabilities, Frame, FrameBatch};

use super::link::LinkState;

/// A receive queue in its slot.
#[derive(Debug)]
struct Held<R> {
    queue: R,
    /// Nobody has received from it yet, so it is armed.
    fresh: bool,
}

/// Where a driver's receive queue lies.
#[derive(Debug)]
struct RxSlot<R> {
    queue: Handover<Box<Held<R>>>,
    /// What the worker sleeps on, whichever queue is here.
    wait: Arc<Epoll>,
}

/// Where a driver's transmit queue lies.
#[derive(Debug)]
struct TxSlot<T> {
    queue: Handover<Box<T>>,
    filled: AtomicBool,
    /// What the queue takes, bits of [`Capabilities`].
    takes: AtomicU8,
}

/// The slots of a port; a clone is the same ones.
#[derive(Debug)]
pub(crate) struct Slots<R, T> {
    rx: Vec<Arc<RxSlot<R>>>,
    tx: Vec<Arc<TxSlot<T>>>,
}

impl<R, T> Default for Slots<R, T> {
    fn default() -> Self {
        Self { rx: Vec::new(), tx: Vec::new() }
    }
}

impl<R, T> Clone for Slots<R, T> {
    fn clone(&self) -> Self {
        Self { rx: self.rx.clone(), tx: self.tx.clone() }
    }
}

impl<R, T> Slots<R, T>
where
    R: RxDriver + 'static,
    T: TxDriver + 'static,
{
    /// Empty slots for `count` queue pairs.
    pub(crate) fn new(count: usize) -> io::Result<Self> {
        let rx = || {
            let wait = Arc::new(Epoll::new()?);
            Ok(Arc::new(RxSlot { queue: Handover::empty(), wait }))
        };
        let tx = || {
            let (filled, takes) = (AtomicBool::new(false), AtomicU8::new(0));
            Arc::new(TxSlot { queue: Handover::empty(), filled, takes })
        };
        let rx = std::iter::repeat_with(rx).take(count).collect::<io::Result<_>>()?;
        Ok(Self { rx, tx: std::iter::repeat_with(tx).take(count).collect() })
    }

    /// Queue pairs that there are slots for.
    pub(crate) const fn count(&self) -> usize {
        self.rx.len()
    }

    /// What workers sleep on, for each receive queue: for its [`Waiter`](super::wait::Waiter).
    pub(crate) fn waits(&self) -> Vec<Arc<Epoll>> {
        self.rx.iter().map(|slot| Arc::clone(&slot.wait)).collect()
    }

    /// The queues for the workers; to be called once.
    pub(crate) fn queues(&self, state: &Arc<LinkState>) -> (Vec<RxQueue>, Vec<TxQueue>) {
        let stats = || Arc::new(QueueStats::default());
        let rx = |slot| {
            let driver = SlotRx { slot, held: None, none: FrameBatch::with_segments(0) };
            RxQueue::new(Box::new(driver), stats())
        };
        let tx = |slot| {
            let driver = SlotTx { slot, state: Arc::clone(state) };
            TxQueue::new(Box::new(driver), stats())
        };
        (self.rx.iter().cloned().map(rx).collect(), self.tx.iter().cloned().map(tx).collect())
    }

    /// Puts queues into the slots; slots that there is no queue for stay empty. Receive queues
    /// are armed, as their [`Waiter`](super::wait::Waiter)s are from the start, so that the first
    /// frame wakes a worker that sleeps on an empty slot.
    pub(crate) fn fill(&self, rx: Vec<R>, tx: Vec<T>) {
        for (slot, queue) in self.rx.iter().zip(rx) {
            slot.queue.replace(Some(Box::new(Held { queue, fresh: true })));
        }
        for (slot, queue) in self.tx.iter().zip(tx) {
            slot.takes.store(queue.takes().bits(), Relaxed);
            slot.queue.replace(Some(Box::new(queue)));
            slot.filled.store(true, Relaxed);
        }
    }

    /// Empties the slots, which ends what the workers are at with these queues.
    pub(crate) fn clear(&self) {
        for slot in &self.tx {
            slot.filled.store(false, Relaxed);
            drop(slot.queue.take());
        }
        self.rx.iter().for_each(|slot| drop(slot.queue.take()));
    }
}

/// The receive side of a queue pair: receives from what is in the slot.
#[derive(Debug)]
struct SlotRx<R> {
    slot: Arc<RxSlot<R>>,
    /// The queue, while there are frames of a burst.
    held: Option<Loan<Box<Held<R>>>>,
    /// The frames of an empty slot.
    none: FrameBatch,
}

impl<R: RxDriver> RxDriver for SlotRx<R> {
    fn receive(&mut self, max: usize, stats: &QueueStats) {
        self.release();
        let Some(mut held) = self.slot.queue.check_out() else { return };
        if held.fresh {
            held.fresh = false;
            held.queue.disarm();
        }
        held.queue.receive(max, stats);
        if held.queue.batch().frames().is_empty() {
            self.slot.queue.check_in(held);
        } else {
            self.held = Some(held);
        }
    }

    fn batch(&self) -> &FrameBatch {
        self.held.as_ref().map_or(&self.none, |held| held.queue.batch())
    }

    fn batch_mut(&mut self) -> &mut FrameBatch {
        match &mut self.held {
            Some(held) => held.queue.batch_mut(),
            None => &mut self.none,
        }
    }

    fn release(&mut self) {
        if let Some(mut held) = self.held.take() {
            held.queue.release();
            self.slot.queue.check_in(held);
        }
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.slot.wait.as_fd())
    }

    /// An empty slot has no frames: whoever fills it has the first one wake the worker.
    fn arm(&mut self) -> bool {
        self.release();
        let Some(mut slot) = self.slot.queue.try_lock() else { return false };
        slot.as_mut().is_none_or(|held| held.queue.arm())
    }

    fn disarm(&mut self) {
        // What stays armed because the slot is being changed costs a little until the next sleep.
        if let Some(mut slot) = self.slot.queue.try_lock()
            && let Some(held) = slot.as_mut()
        {
            held.queue.disarm();
        }
    }
}

/// The transmit side of a queue pair: sends by what is in the slot.
#[derive(Debug)]
struct SlotTx<T> {
    slot: Arc<TxSlot<T>>,
    state: Arc<LinkState>,
}

impl<T: TxDriver> TxDriver for SlotTx<T> {
    fn transmit(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        let Some(mut slot) = self.slot.queue.try_lock() else { return Sent::NONE };
        slot.as_mut().map_or(Sent::NONE, |queue| queue.transmit(frames, stats))
    }

    fn takes(&self) -> Capabilities {
        Capabilities::from_bits_truncate(self.slot.takes.load(Relaxed))
    }

    fn transmit_offloaded(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        let Some(mut slot) = self.slot.queue.try_lock() else { return Sent::NONE };
        slot.as_mut().map_or(Sent::NONE, |queue| queue.transmit_offloaded(frames, stats))
    }

    fn is_ready(&self) -> bool {
        self.state.is_alive() && self.slot.filled.load(Relaxed)
    }

    fn flush(&mut self) -> bool {
        let Some(mut slot) = self.slot.queue.try_lock() else { return true };
        slot.as_mut().is_some_and(|queue| queue.flush())
    }
}
