//! Who has the transmit queues of a port.
//!
//! A worker that has a queue alone takes no lock for it, and finds its cache lines where it left
//! them. So where as many queues are ready as there are workers, each worker gets its own
//! ([`Owners::look`]). Otherwise any worker may use any queue that is ready, in turns, with a lock
//! per burst: that is right whatever comes and goes, and so it is the way from one division of
//! the queues to the next, on which no frame is lost.
//!
//! A guest may enable and disable its queues as often as it likes. What that costs is bounded: queues
//! get owners once the same ones have been ready for a second, so there is one change to and fro
//! per second at most. Until then a worker does what it always did.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use ethdev::{SharedTxQueue, TxQueue};
use litemap::LiteMap;
use ordered::Gather as _;

use crate::output::Output;
use crate::worker::Mailbox;

/// Whom a worker tells what it finds out about the queues of a port.
#[derive(Clone, Debug)]
pub enum Watch {
    /// There is nothing to be done about it.
    Nobody,
    /// It uses queues in turns with others: which are ready.
    Ready(Arc<Ready>),
    /// It has queues of its own: none is ready any more.
    Lost(Arc<Lost>),
}

impl Watch {
    /// The queues in these places are ready, which come in order, and no others.
    pub(crate) fn tell(&self, mut ready: impl Iterator<Item = usize>) {
        match self {
            Self::Nobody => {}
            Self::Ready(all) => all.set(ready),
            Self::Lost(lost) => {
                if ready.next().is_none() {
                    lost.tell();
                }
            }
        }
    }
}

/// Which queues are ready, by their places, as the worker that looked last has seen it. Nothing but the choice of
/// the next owners depends on it: where it is wrong, they find out.
#[derive(Debug)]
pub struct Ready(Box<[AtomicBool]>);

impl Ready {
    fn none(queues: usize) -> Arc<Self> {
        Arc::new(Self((0..queues).map(|_| AtomicBool::new(false)).collect()))
    }

    fn set(&self, ready: impl Iterator<Item = usize>) {
        let mut ready = ready.peekable();
        for (queue, place) in self.0.iter().enumerate() {
            let is_ready = ready.next_if_eq(&queue).is_some();
            // Mostly nothing changes, and the line stays with all who look.
            if place.load(Relaxed) != is_ready {
                place.store(is_ready, Relaxed);
            }
        }
    }

    fn list(&self) -> Vec<bool> {
        self.0.iter().map(|place| place.load(Relaxed)).collect()
    }
}

/// Where workers tell that they can send nothing any more.
pub struct Lost {
    is: AtomicBool,
    /// Has somebody look after the port; it is quick.
    notify: Box<dyn Fn() + Send + Sync>,
}

impl Lost {
    fn tell(&self) {
        if !self.is.load(Relaxed) && !self.is.swap(true, Relaxed) {
            (self.notify)();
        }
    }
}

impl fmt::Debug for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lost").field("is", &self.is).finish_non_exhaustive()
    }
}

/// Queues by number.
type Queues = LiteMap<usize, SharedTxQueue>;

#[derive(Debug)]
enum State {
    /// All workers use all queues.
    InTurns {
        queues: Queues,
        ready: Arc<Ready>,
        /// What was ready at the last look.
        before: Vec<bool>,
    },
    /// Each worker uses its own, the numbers of which are here.
    Own {
        owners: Vec<(usize, Vec<usize>)>,
        /// Those that were not ready, which nobody uses.
        spare: Queues,
    },
}

/// Who has the transmit queues of a port.
#[derive(Debug)]
pub struct Owners {
    /// The port's number.
    port: u16,
    workers: usize,
    state: State,
    lost: Arc<Lost>,
}

impl Owners {
    /// For the queues of port `port`, which was just opened: returns those of each of so many
    /// workers, and whom that one tells about them. `notify` is called when a worker that has
    /// its own queues can use none of them any more; then it is time for
    /// [`look_at_lost`](Self::look_at_lost).
    pub fn start(
        port: u16,
        queues: Vec<TxQueue>,
        workers: usize,
        notify: impl Fn() + Send + Sync + 'static,
    ) -> (Self, Vec<(Vec<TxQueue>, Watch)>) {
        let lost = Arc::new(Lost { is: AtomicBool::new(false), notify: Box::new(notify) });
        if workers <= 1 {
            let owners = vec![(0, (0..queues.len()).collect())];
            let state = State::Own { owners, spare: Queues::new() };
            return (Self { port, workers, state, lost }, vec![(queues, Watch::Nobody)]);
        }
        let queues = queues.into_iter().map(SharedTxQueue::new).enumerate().gather();
        let (state, parts) = in_turns(queues, workers);
        (Self { port, workers, state, lost }, parts)
    }

    /// For so many workers other than before, to whom the queues are divided as by
    /// [`start`](Self::start). `shared` makes those that a worker of before has its own such that
    /// others can use them too.
    pub fn restart(
        &mut self,
        workers: usize,
        shared: impl FnMut(usize) -> Option<Vec<SharedTxQueue>>,
    ) -> Vec<(Vec<TxQueue>, Watch)> {
        let queues = self.collect(shared);
        self.workers = workers;
        let (state, parts) = in_turns(queues, workers);
        self.state = state;
        self.lost.is.store(false, Relaxed);
        parts
    }

    /// To be called once a second: gives each worker its own queues when it is time, and shares all
    /// of them when others have become ready. `alive` are the workers that run.
    pub fn look(&mut self, workers: &[Mailbox], alive: &[usize]) {
        match &mut self.state {
            State::InTurns { ready, before, .. } => {
                let now = ready.list();
                let is_steady = now == *before;
                let count = now.iter().filter(|ready| **ready).count();
                if alive.len() == 1 || is_steady && count >= alive.len() && count > 0 {
                    self.give_out(&now, workers, alive);
                } else {
                    *before = now;
                }
            }
            State::Own { spare, .. } => {
                if spare.values().any(SharedTxQueue::is_ready) {
                    self.share(workers);
                } else {
                    self.look_at_lost(workers);
                }
            }
        }
    }

    /// To be called when a worker has lost its queues: it uses those of others then.
    pub fn look_at_lost(&mut self, workers: &[Mailbox]) {
        if self.lost.is.load(Relaxed) {
            self.share(workers);
        }
    }

    /// Gives the `ready` queues to the `alive` workers, in turn, for each to have its own. One that
    /// is alone gets all there are, once and for all.
    fn give_out(&mut self, ready: &[bool], workers: &[Mailbox], alive: &[usize]) {
        let State::InTurns { queues, .. } = &mut self.state else { return };
        let is_alone = alive.len() == 1;
        let numbers = queues.keys().zip(ready).filter(|(_, ready)| **ready || is_alone);
        let numbers: Vec<usize> = numbers.map(|(number, _)| *number).collect();
        let mut owners = Vec::new();
        for (turn, index) in alive.iter().copied().enumerate() {
            let Some(worker) = workers.get(index) else { continue };
            let its: Vec<usize> = numbers.iter().copied().skip(turn).step_by(alive.len()).collect();
            let own = its.iter().filter_map(|number| queues.get(number)).cloned();
            let own: Vec<TxQueue> = own.map(TxQueue::from).collect();
            let lost = || Watch::Lost(Arc::clone(&self.lost));
            let watch = if is_alone { Watch::Nobody } else { lost() };
            let set = worker.on_output(self.port, move |output| {
                output.set_queues(own, (0, 1), watch);
            });
            if set.is_some() {
                owners.push((index, its));
            }
        }
        // Nobody uses others' queues any more. What is not kept here is with its owner alone.
        let given: Vec<usize> = owners.iter().flat_map(|(_, its)| its.iter().copied()).collect();
        queues.retain(|number, _| !given.contains(number));
        let spare = std::mem::take(queues);
        for worker in owners.iter().filter_map(|(index, _)| workers.get(*index)) {
            worker.on_output(self.port, Output::own_queues);
        }
        tracing::debug!(port = self.port, ?owners, "workers have transmit queues of their own");
        self.state = State::Own { owners, spare };
    }

    /// Lets every worker use all queues.
    pub(crate) fn share(&mut self, workers: &[Mailbox]) {
        if matches!(self.state, State::InTurns { .. }) {
            return;
        }
        let (port, count) = (self.port, self.workers);
        let shared = |index: usize| workers.get(index)?.on_output(port, Output::share_queues);
        let parts = self.restart(count, shared);
        for ((index, worker), (all, watch)) in workers.iter().enumerate().zip(parts) {
            worker.on_output(port, move |output| output.set_queues(all, (index, count), watch));
        }
        // Whoever has told it meanwhile is helped.
        self.lost.is.store(false, Relaxed);
        tracing::debug!(port, "workers use transmit queues in turns");
    }

    /// Takes handles of all queues from whoever has them.
    fn collect(&mut self, mut shared: impl FnMut(usize) -> Option<Vec<SharedTxQueue>>) -> Queues {
        match &mut self.state {
            State::InTurns { queues, .. } => std::mem::take(queues),
            State::Own { owners, spare } => {
                let mut queues = std::mem::take(spare);
                for (index, numbers) in owners.drain(..) {
                    // A worker that has ended has taken its queues along.
                    for (number, queue) in
                        numbers.into_iter().zip(shared(index).into_iter().flatten())
                    {
                        queues.insert(number, queue);
                    }
                }
                queues
            }
        }
    }
}

/// The state in which so many workers use the queues in turns, and the part of each.
fn in_turns(queues: Queues, workers: usize) -> (State, Vec<(Vec<TxQueue>, Watch)>) {
    let ready = Ready::none(queues.len());
    let part = |_| (handles(&queues), Watch::Ready(Arc::clone(&ready)));
    let parts = (0..workers).map(part).collect();
    (State::InTurns { queues, ready, before: Vec::new() }, parts)
}

/// A handle of each queue.
fn handles(queues: &Queues) -> Vec<TxQueue> {
    queues.values().cloned().map(TxQueue::from).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]
mod tests;
