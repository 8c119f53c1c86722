//! Every order in which workers start, end and are stopped (`cargo xtask loom`).

use super::*;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sync::{check_all, yield_now};

/// No machine has that many.
const NO_CORE: Option<usize> = Some(1_000_000);

fn group() -> Workers {
    Workers::new().unwrap()
}

fn number() -> (Arc<AtomicU32>, Arc<AtomicU32>) {
    let number = Arc::new(AtomicU32::new(0));
    (Arc::clone(&number), number)
}

fn poll(context: &WorkerContext) {
    while !context.should_stop() {
        yield_now();
    }
}

#[test]
fn who_hears_of_the_stop_sees_what_was_done_before() {
    check_all(|| {
        let (shared, seen) = number();
        let mut workers = group();
        let work = move |context: WorkerContext| {
            poll(&context);
            assert_eq!(seen.load(Relaxed), 7);
        };
        workers.start("poller", None, work).unwrap();
        shared.store(7, Relaxed);
        workers.stop();
        assert_eq!(workers.join(), [Exit { name: "poller".into(), index: 0, panic: None }]);
    });
}

#[test]
fn who_is_woken_to_stop_finds_the_flag_set() {
    check_all(|| {
        let mut workers = group();
        let sleep = |context: WorkerContext| {
            context.stop.event.wait();
            assert!(context.should_stop());
        };
        for _ in 0..2 {
            workers.start("sleeper", None, sleep).unwrap();
        }
        workers.stop();
        assert!(workers.join().iter().all(|exit| exit.panic.is_none()));
    });
}

#[test]
fn who_hears_of_an_end_finds_out_whose_and_what_it_left() {
    check_all(|| {
        let (shared, left) = number();
        let mut workers = group();
        workers.start("poller", None, |context| poll(&context)).unwrap();
        workers.start("short", None, move |_| left.store(7, Relaxed)).unwrap();
        workers.exited.wait();
        assert!(workers.has_ended(1) && !workers.has_ended(0));
        assert_eq!(shared.load(Relaxed), 7);
        workers.stop();
        assert_eq!(workers.join().len(), 2);
    });
}

#[test]
fn a_panic_ends_one_worker_and_is_told() {
    check_all(|| {
        let mut workers = group();
        workers.start("poller", None, |context| poll(&context)).unwrap();
        // Without the message that a panic prints in each of the orders.
        let fail = |_| std::panic::resume_unwind(Box::new("broke"));
        workers.start("bad", None, fail).unwrap();
        workers.exited.wait();
        assert!(workers.has_ended(1) && !workers.has_ended(0));
        workers.stop();
        let panics = workers.join().into_iter().map(|exit| exit.panic).collect::<Vec<_>>();
        assert_eq!(panics, [None, Some("broke".to_owned())]);
    });
}

/// What a worker's work owns: its number says what became of it.
struct Owned(Arc<AtomicU32>);

const RAN: u32 = 1;
const DROPPED: u32 = 2;

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.fetch_add(DROPPED, Relaxed);
    }
}

#[test]
fn what_cannot_have_its_core_has_not_run_and_stops_nobody() {
    check_all(|| {
        let (fate, owned) = number();
        let owned = Owned(owned);
        let mut workers = group();
        workers.start("poller", None, |context| poll(&context)).unwrap();
        let work = move |_| drop(owned.0.fetch_add(RAN, Relaxed));
        let started = workers.start("lost", NO_CORE, work);
        assert!(matches!(started, Err(WorkerError::Core { .. })));
        // The thread has been waited for, so nothing of it can be left.
        assert_eq!(fate.load(Relaxed), DROPPED);
        assert!(workers.len() == 1 && !workers.has_ended(0) && !workers.has_ended(1));
        workers.stop();
        assert_eq!(workers.join().len(), 1);
    });
}

#[test]
fn a_group_that_is_dropped_at_once_has_ended_by_then() {
    check_all(|| {
        let (fate, owned) = number();
        let owned = Owned(owned);
        let mut workers = group();
        let work = move |context: WorkerContext| {
            poll(&context);
            owned.0.fetch_add(RAN, Relaxed);
        };
        workers.start("poller", None, work).unwrap();
        drop(workers);
        assert_eq!(fate.load(Relaxed), RAN + DROPPED);
    });
}
