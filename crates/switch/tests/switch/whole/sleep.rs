//! Workers that sleep, and what wakes them up.

use super::*;

/// No further frame comes that would have the worker look.
#[test]
fn what_a_device_has_not_taken_is_sent_while_the_worker_sleeps() {
    let switch = start(1);
    let (a, b) = (add(&switch, "a", 1), add(&switch, "b", 1));
    b.unfinished.store(200, SeqCst);
    a.send(0, [frame(BROADCAST, mac(0), 0)]);
    wait_until("all is sent", || b.unfinished.load(SeqCst) == 0);
    wait_until("the worker sleeps", || a.is_armed(0) && b.is_armed(0));
}

#[test]
fn sleeping_workers_wake_up_for_the_first_frame() {
    let switch = start(2);
    let (a, b) = (add(&switch, "a", 1), add(&switch, "b", 2));
    for round in 0..20 {
        wait_until("all workers sleep", || a.is_armed(0) && b.is_armed(0) && b.is_armed(1));
        b.send(1, [frame(BROADCAST, mac(1), round)]);
        assert_eq!(number(&a.receive(1)[0]), round);
    }
    assert_eq!((a.calls(), b.calls()), (0, 20));
    let packets = || switch.workers().iter().map(|worker| worker.packets).sum::<u64>();
    wait_until("the last frame is counted", || packets() == 20);
    // A sleep is counted when it ends; that of a worker without frames may still be its first.
    let slept = || switch.workers().iter().all(|worker| worker.sleeps > 0);
    wait_until("every worker has slept", slept);
    let workers = switch.workers();
    assert!(workers.iter().all(|worker| worker.alive));
    assert!(workers.iter().all(|w| w.busy_cycles + w.sleep_cycles <= w.total_cycles));
}

#[test]
fn queues_that_cannot_wake_a_worker_are_looked_at_anyway() {
    let switch = start(1);
    let (open, polled) = crate::common::polled_port("polled");
    switch.add_port(open, &PortOptions::default()).unwrap();
    let other = add(&switch, "other", 1);
    for round in 0..5 {
        wait_until("the worker has slept", || switch.workers()[0].sleeps > u64::from(round));
        polled.send(0, [frame(BROADCAST, mac(1), round)]);
        assert_eq!(number(&other.receive(1)[0]), round);
    }
}

#[test]
fn busy_polling_never_sleeps() {
    let config = SwitchConfig { busy_poll: true, ..SwitchConfig::default() };
    let switch = Switch::start(&config).unwrap();
    let (a, b) = (add(&switch, "a", 1), add(&switch, "b", 1));
    a.send(0, [frame(BROADCAST, mac(1), 7)]);
    b.receive(1);
    let polls = switch.workers()[0].polls;
    wait_until("it polled some more", || switch.workers()[0].polls > polls + 100_000);
    assert_eq!((switch.workers()[0].sleeps, a.calls()), (0, 0));
}

#[test]
fn workers_sleep_or_not_as_they_are_told_meanwhile() {
    let switch = start(2);
    let (a, b) = (add(&switch, "a", 1), add(&switch, "b", 1));
    let sleeps = || switch.workers().iter().map(|worker| worker.sleeps).sum::<u64>();
    let polls = || switch.workers().iter().map(|worker| worker.polls).min().unwrap();
    let wait_polls = |more| {
        let before = polls();
        wait_until("they poll", || polls() > before + more);
    };
    for round in 0..3 {
        wait_until("both wait", || a.is_armed(0) && b.is_armed(0));
        switch.set_idle(true, Duration::ZERO);
        // A sleep that was under way is over.
        wait_polls(10);
        let before = sleeps();
        wait_polls(20_000);
        assert_eq!(sleeps(), before);
        a.send(0, [frame(BROADCAST, mac(0), round)]);
        assert_eq!(number(&b.receive(1)[0]), round);
        switch.set_idle(false, Duration::from_micros(50));
    }
}
