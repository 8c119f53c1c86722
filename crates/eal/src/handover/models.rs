//! Every order in which a worker and control threads can get at a slot (`cargo xtask loom`).

use loom::thread;

use super::*;
use crate::sync::check_all;

/// Runs `worker` and `control` on a slot that holds 0, in every order; gives it to `check` then.
fn model(
    worker: impl Fn(&Handover<u32>) + Copy + Send + Sync + 'static,
    control: impl Fn(&Handover<u32>) + Copy + Send + Sync + 'static,
    check: impl Fn(Option<u32>) + Copy + Send + Sync + 'static,
) {
    check_all(move || {
        let slot = Arc::new(Handover::new(Some(0)));
        let other = Arc::clone(&slot);
        let polling = thread::spawn(move || worker(&other));
        control(&slot);
        polling.join().unwrap();
        check(slot.take());
    });
}

fn burst(slot: &Handover<u32>) {
    if let Some(mut loan) = slot.check_out() {
        *loan += 1;
        slot.check_in(loan);
    }
}

#[test]
fn what_one_side_has_done_the_other_one_sees() {
    let edit = |slot: &Handover<u32>| {
        let mut guard = slot.lock();
        let value = guard.as_mut().unwrap();
        assert!(*value <= 2, "bursts before");
        *value += 10;
    };
    let bursts = |slot: &Handover<u32>| {
        burst(slot);
        burst(slot);
    };
    // A burst gives way while the control thread has the slot or waits for it.
    model(bursts, edit, |value| assert!(matches!(value, Some(10..=12)), "{value:?}"));
}

#[test]
fn a_slot_that_was_emptied_is_left_alone() {
    let take = |slot: &Handover<u32>| {
        let taken = slot.take();
        assert!(matches!(taken, Some(0..=2)), "{taken:?}");
    };
    let bursts = |slot: &Handover<u32>| {
        burst(slot);
        burst(slot);
    };
    model(bursts, take, |value| assert_eq!(value, None));
}

#[test]
fn a_loan_that_gets_lost_unlocks_the_slot() {
    let lose = |slot: &Handover<u32>| drop(slot.check_out());
    let replace = |slot: &Handover<u32>| {
        assert!(matches!(slot.replace(Some(7)), None | Some(0)));
    };
    model(lose, replace, |value| assert!(matches!(value, None | Some(7)), "{value:?}"));
}

#[test]
fn two_control_threads_take_turns() {
    check_all(|| {
        let slot = Arc::new(Handover::new(Some(0)));
        let threads = [1, 2].map(|add| {
            let slot = Arc::clone(&slot);
            thread::spawn(move || *slot.lock().as_mut().unwrap() += add)
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(slot.take(), Some(3));
    });
}
