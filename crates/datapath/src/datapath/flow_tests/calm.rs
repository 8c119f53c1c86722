//! Frames that rules alone look at, and those that somebody else looks at beside them.

use super::super::trap_tests::{listen, lldp};
use super::*;
use crate::capture::Captures;
use crate::guard::{BpduGuard, Guard, PortGuard, Trip};
use crate::limit::{Direction, PortLimits};
use crate::record::{Record, Recording};

/// A bench whose frames all go to its port 1, and how many of a burst from port 0 do.
fn bench_to_one() -> (Bench, impl Fn(&mut Bench) -> usize) {
    let (bench, _) = bench(&[(0, Match::new(), vec![output(2)])]);
    let frames = vec![frame(BROADCAST, station(1)); BURST];
    (bench, move |bench: &mut Bench| bench.send(0, &frames)[1].len())
}

#[test]
fn limits_hold_on_bridges_with_rules_as_soon_as_they_are_set() {
    let (mut bench, sent) = bench_to_one();
    for (port, direction) in [(0, Direction::Rx), (1, Direction::Tx)] {
        assert_eq!((sent(&mut bench), bench.path.is_calm), (BURST, true));
        bench.limit(port, direction);
        let three = [(); 3].map(|()| sent(&mut bench));
        assert_eq!((three, bench.path.is_calm), ([BURST, BURST, 0], false));
        bench.path.set_limit(port, direction, None);
    }
    assert_eq!((sent(&mut bench), bench.path.is_calm), (BURST, true));
}

#[test]
fn ports_are_shut_and_listened_to_on_bridges_with_rules() {
    let (mut bench, sent) = bench_to_one();
    assert_eq!(sent(&mut bench), BURST);
    let guard = PortGuard { bpdu_guard: BpduGuard::Shut, ..PortGuard::default() };
    let trip = Arc::new(Trip::new(|| {}));
    let guard = Guard::of(&guard, &PortLimits::default(), Some(&trip), 1).remove(0);
    bench.path.set_guard(0, guard.map(Box::new));
    trip.trip();
    assert_eq!((sent(&mut bench), bench.dropped(DropReason::Bpdu)), (0, BURST as u64));
    bench.path.set_guard(0, None);
    let heard = listen(&mut bench, 0);
    assert!(bench.send(0, &[lldp()]).iter().all(Vec::is_empty));
    assert_eq!((heard.try_iter().count(), sent(&mut bench)), (1, BURST));
    bench.path.set_trap(0, None);
    assert_eq!(counts(&bench.send(0, &[lldp()])), [0, 1, 0, 0]);
    assert_eq!((heard.try_iter().count(), bench.path.is_calm), (0, true));
}

#[test]
fn frames_are_captured_and_recorded_on_bridges_with_rules() {
    let (mut bench, sent) = bench_to_one();
    bench.path.set_captures(Some(Box::new(Captures::none())));
    assert_eq!((sent(&mut bench), bench.path.is_calm), (BURST, false));
    bench.path.set_captures(None);
    bench.path.set_recording(Record::All, 1);
    assert_eq!((sent(&mut bench), bench.path.is_calm), (BURST, false));
    let (came, _) = bench.path.take_recording();
    assert_ne!(came, Recording::default());
    bench.path.set_recording(Record::Nothing, 1);
    assert_eq!((sent(&mut bench), bench.path.is_calm), (BURST, true));
}
