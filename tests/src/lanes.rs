use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Calls `play` for every item, `at_once` of them at the same time: for cases that wait most of the
/// time and have nothing in common.
///
/// # Panics
/// When a case does; the others come to their ends first.
pub fn side_by_side<T: Sync>(at_once: usize, items: &[T], play: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    play(item);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, Mutex};

    use super::*;

    #[test]
    fn every_item_is_played_once_and_as_many_at_a_time_as_asked_for() {
        // Each two of them end together.
        let (both, seen) = (Barrier::new(2), Mutex::new(Vec::new()));
        side_by_side(2, &[1, 2, 3, 4], |item| {
            both.wait();
            seen.lock().unwrap().push(*item);
        });
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3, 4]);
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_case_that_fails_fails_the_test() {
        side_by_side(2, &[1, 2, 3], |item| assert_ne!(*item, 2));
    }
}
