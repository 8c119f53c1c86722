use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize};

use eal::Workers;
use ethdev::{QueueStats, Sent, TxDriver};
use packet::{Burst, Frame, Pool};
use proptest::prelude::*;

use super::*;
use crate::datapath::Datapath;
use crate::output::Output;
use crate::worker::{Idle, Message, Worker};

/// The device's end of a queue.
#[derive(Debug, Default)]
struct Queue {
    ready: AtomicBool,
    /// Whether somebody is at it.
    busy: AtomicBool,
    /// The first byte of each frame: which worker sent it.
    got: Mutex<Vec<u8>>,
}

struct Driver(Arc<Queue>);

impl TxDriver for Driver {
    fn transmit(&mut self, frames: &[Frame<'_>], _stats: &QueueStats) -> Sent {
        assert!(!self.0.busy.swap(true, Relaxed), "two workers at once");
        self.0.got.lock().unwrap().extend(frames.iter().map(|frame| frame.head()[0]));
        self.0.busy.store(false, Relaxed);
        Sent::first(frames.len())
    }

    fn is_ready(&self) -> bool {
        self.0.ready.load(Relaxed)
    }
}

const PORT: u16 = 3;

/// A port, and workers that send to it when told.
struct Bench {
    queues: Vec<Arc<Queue>>,
    owners: Owners,
    mailboxes: Vec<Mailbox>,
    /// How often workers have lost their queues.
    losses: Arc<AtomicUsize>,
    threads: Workers,
}

impl Bench {
    fn new(queues: usize, workers: usize) -> Self {
        let queues: Vec<Arc<Queue>> = (0..queues).map(|_| Arc::default()).collect();
        let tx = queues.iter().map(|queue| {
            TxQueue::new(Box::new(Driver(Arc::clone(queue))), Arc::<QueueStats>::default())
        });
        let losses = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&losses);
        let notify = move || _ = count.fetch_add(1, Relaxed);
        let (owners, parts) = Owners::start(PORT, tx.collect(), workers, notify);
        let mut threads = Workers::new().unwrap();
        let mut start = |index: usize, (queues, watch)| {
            let path = Datapath::new(Pool::new("test", 1, 64).unwrap().cache());
            let idle = Idle { busy_poll: false, after: 0 };
            let (worker, mailbox) = Worker::new(path, idle).unwrap();
            threads.start("test", None, move |context| worker.run(&context)).unwrap();
            let mtu = Arc::new(AtomicU32::new(1500));
            let mut output = Output::new(Vec::new(), (index, workers), 0, mtu, 0);
            output.set_queues(queues, (index, workers), watch);
            mailbox.ask(|done| Message::AddOutput(PORT, Box::new(output), done)).unwrap();
            mailbox
        };
        let parts = parts.into_iter().enumerate();
        let mailboxes = parts.map(|(index, part)| start(index, part)).collect();
        Self { queues, owners, mailboxes, losses, threads }
    }

    fn alive(&self) -> Vec<usize> {
        (0..self.mailboxes.len()).collect()
    }

    fn look(&mut self) {
        let alive = self.alive();
        self.owners.look(&self.mailboxes, &alive);
    }

    fn toggle(&self, queue: usize) {
        self.queues[queue].ready.fetch_xor(true, Relaxed);
    }

    fn ready(&self) -> Vec<usize> {
        let ready = |queue: &usize| self.queues[*queue].ready.load(Relaxed);
        (0..self.queues.len()).filter(ready).collect()
    }

    /// Has a worker send frames of several flows; returns the queues that they came out of, once
    /// each frame has.
    fn send(&self, worker: usize) -> Option<Vec<usize>> {
        let first = u8::try_from(worker).unwrap();
        let is_ready = self.mailboxes[worker].on_output(PORT, move |output| {
            let bytes: Vec<[u8; 60]> =
                (0..8).map(|flow| [first, flow].repeat(30).try_into().unwrap()).collect();
            let frames: Vec<Frame<'_>> =
                bytes.iter().map(|bytes| Frame::from_bytes(bytes)).collect();
            output.is_ready(1) && output.send(Burst::new(&frames), 0xFF)
        });
        let got = self.queues.iter().map(|queue| std::mem::take(&mut *queue.got.lock().unwrap()));
        let got: Vec<Vec<u8>> = got.collect();
        assert!(got.iter().flatten().all(|sender| *sender == first));
        let count = got.iter().map(Vec::len).sum::<usize>();
        assert_eq!(count, if is_ready.unwrap() { 8 } else { 0 });
        let used = (0..got.len()).filter(|queue| !got[*queue].is_empty());
        is_ready.unwrap().then(|| used.collect())
    }

    /// As `send`; a worker whose queues are gone gets others. Only where no queue is ready nothing
    /// can be sent.
    fn must_send(&mut self, worker: usize) -> Vec<usize> {
        let sent = self.send(worker).or_else(|| {
            self.owners.look_at_lost(&self.mailboxes);
            self.send(worker)
        });
        assert_eq!(sent.is_some(), !self.ready().is_empty(), "{:?}", self.owners);
        let used = sent.unwrap_or_default();
        assert!(used.iter().all(|queue| self.ready().contains(queue)));
        used
    }

    /// Whether each worker has its own queues; it has them without a lock then.
    fn is_own(&self) -> bool {
        let owns = |worker: &Mailbox| worker.on_output(PORT, |output| output.is_alone()).unwrap();
        let own: Vec<bool> = self.mailboxes.iter().map(owns).collect();
        assert!(own.iter().all(|one| *one == own[0]), "{own:?}");
        assert_eq!(own[0], matches!(self.owners.state, State::Own { .. }));
        own[0]
    }

    /// Lets time pass without events, and checks what that must lead to.
    fn settle(&mut self) {
        let workers = self.mailboxes.len();
        for _ in 0..4 {
            (0..workers).for_each(|worker| _ = self.must_send(worker));
            self.look();
        }
        assert_eq!(self.is_own(), self.ready().len() >= workers, "{:?}", self.owners);
        if self.is_own() {
            let used: Vec<usize> =
                self.alive().iter().flat_map(|w| self.send(*w).unwrap()).collect();
            let mut once = used.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), used.len(), "{used:?}");
        }
    }

    fn step(&mut self, step: usize) {
        let (queues, workers) = (self.queues.len(), self.mailboxes.len());
        match step {
            _ if step < queues => self.toggle(step),
            _ if step < queues + workers => _ = self.must_send(step - queues),
            _ => self.look(),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.threads.stop();
        self.mailboxes.iter().for_each(Mailbox::wake);
    }
}

#[test]
fn workers_get_their_own_queues_once_the_same_are_ready_for_a_second() {
    let mut bench = Bench::new(4, 2);
    [0, 1, 3].iter().for_each(|queue| bench.toggle(*queue));
    assert_eq!((bench.must_send(0), bench.must_send(1)), (vec![0, 3], vec![1]));
    bench.look();
    assert!(!bench.is_own());
    bench.look();
    assert!(bench.is_own());
    assert_eq!((bench.must_send(0), bench.must_send(1)), (vec![0, 3], vec![1]));
    // One more is shared out anew, and again only after a second.
    bench.toggle(2);
    bench.look();
    assert!(!bench.is_own());
    assert_eq!((bench.must_send(0), bench.must_send(1)), (vec![0, 2], vec![1, 3]));
    (0..2).for_each(|_| bench.look());
    assert!(bench.is_own());
    // Whoever has one left is content.
    bench.toggle(0);
    assert_eq!((bench.must_send(0), bench.losses.load(Relaxed)), (vec![2], 0));
    bench.toggle(2);
    assert_eq!((bench.send(0), bench.losses.load(Relaxed)), (None, 1));
    // It is told once, however many frames there are.
    assert_eq!((bench.send(0), bench.losses.load(Relaxed)), (None, 1));
    assert_eq!((bench.must_send(0), bench.must_send(1)), (vec![1], vec![3]));
    assert!(!bench.is_own());
}

#[test]
fn queues_that_were_gone_before_they_got_an_owner_are_missed() {
    let mut bench = Bench::new(2, 2);
    (0..2).for_each(|queue| bench.toggle(queue));
    (0..2).for_each(|worker| _ = bench.must_send(worker));
    bench.look();
    // Nobody sends any more, so nobody sees this.
    bench.toggle(1);
    bench.look();
    assert!(bench.is_own());
    assert_eq!(bench.losses.load(Relaxed), 1);
    bench.look();
    assert!(!bench.is_own());
    assert_eq!((bench.must_send(0), bench.must_send(1)), (vec![0], vec![0]));
}

#[test]
fn whoever_looks_last_is_believed() {
    let mut bench = Bench::new(3, 2);
    (0..3).for_each(|queue| bench.toggle(queue));
    (0..2).for_each(|worker| _ = bench.must_send(worker));
    // One worker sees that two are gone, the other that one is back: for it nothing has changed.
    bench.toggle(1);
    bench.toggle(2);
    assert_eq!(bench.must_send(0), [0]);
    bench.toggle(1);
    assert_eq!(bench.must_send(1), [1]);
    bench.settle();
}

#[test]
fn one_worker_has_all_queues_alone_from_the_start() {
    let mut bench = Bench::new(3, 1);
    assert!(bench.is_own());
    for step in [0, 1, 3, 4, 2, 0, 3, 4, 1, 2, 3, 4] {
        bench.step(step);
        assert!(bench.is_own());
    }
    assert_eq!(bench.losses.load(Relaxed), 0);
}

#[test]
fn whatever_four_things_happen_frames_find_a_queue() {
    // Two queues, two workers, and time.
    const STEPS: usize = 5;
    let mut bench = Bench::new(2, 2);
    for sequence in 0..STEPS.pow(4) {
        for queues in [0, 2] {
            (0..2).for_each(|queue| bench.queues[queue].ready.store(queue < queues, Relaxed));
            bench.settle();
            (0..4).for_each(|place| bench.step(sequence / STEPS.pow(place) % STEPS));
            bench.settle();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_frames_find_a_queue(
        queues in 1..6_usize,
        workers in 1..5_usize,
        steps in prop::collection::vec(0..100_usize, 0..100),
    ) {
        let mut bench = Bench::new(queues, workers);
        for step in steps {
            bench.step(step % (queues + workers + 1));
        }
        if workers > 1 {
            bench.settle();
        }
    }
}
