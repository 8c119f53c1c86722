//! Limits of ports on the data path.

use ethdev::DropReason::{LinkDown, RateLimited};

use super::tests::{BROADCAST, Bench, frame, station};
use crate::limit::Direction;
use crate::limit::{Frames, Rate};
use crate::vlan::PortVlan;

impl Bench {
    /// Lets 64 frames through at once, and one each second of a million cycles.
    pub(super) fn limit(&mut self, port: u16, direction: Direction) {
        let packet_rate = Some(Frames(1));
        let rate = Rate { packet_rate, packet_burst: Some(Frames(64)), ..Rate::default() };
        let limiter = rate.limiters(1, 1_000_000, 0).remove(0).map(Box::new);
        self.path.set_limit(port, direction, limiter);
    }

    /// Bursts of `counts` broadcasts into `port`; how many came out of each other port.
    fn came(&mut self, port: u16, counts: &[usize]) -> Vec<usize> {
        let sent = counts.iter().map(|count| {
            let frames = vec![frame(BROADCAST, station(u64::from(port))); *count];
            self.send(port, &frames).iter().map(Vec::len).collect::<Vec<_>>()
        });
        let sum =
            |all: Vec<usize>, more: Vec<usize>| all.iter().zip(more).map(|(a, b)| a + b).collect();
        sent.reduce(sum).unwrap()
    }
}

#[test]
fn what_comes_in_beyond_the_limit_is_a_drop_of_the_sender() {
    let mut bench = Bench::new(3);
    bench.limit(0, Direction::Rx);
    assert_eq!(bench.came(0, &[32, 31, 20]), [0, 64, 64]);
    assert_eq!((bench.dropped(RateLimited), bench.dropped(LinkDown)), (19, 0));
    // What the others send is not limited, nor what goes to the port.
    assert_eq!(bench.came(1, &[32, 32, 32]), [96, 0, 96]);
    assert_eq!(bench.dropped(RateLimited), 19);
    bench.path.set_limit(0, Direction::Rx, None);
    assert_eq!(bench.came(0, &[32]), [0, 32, 32]);
    assert!(bench.path.limits.is_empty());
}

#[test]
fn an_address_of_which_all_frames_are_dropped_is_not_learnt() {
    let mut bench = Bench::new(2);
    bench.limit(0, Direction::Rx);
    bench.came(0, &[32, 32]);
    assert_eq!(bench.send(0, &[frame(BROADCAST, station(9))])[1].len(), 0);
    assert_eq!(bench.bridge().fdb.len(), 1);
}

#[test]
fn what_goes_out_beyond_the_limit_is_a_drop_of_that_port_alone() {
    let mut bench = Bench::new(4);
    bench.limit(1, Direction::Tx);
    assert_eq!(bench.came(0, &[32, 31]), [0, 63, 63, 63]);
    assert_eq!(bench.came(2, &[32]), [32, 1, 0, 32]);
    assert_eq!((bench.dropped_to(1, RateLimited), bench.dropped(RateLimited)), (31, 0));
    // To one port alone, of which nothing goes out any more.
    bench.path.set_limit(1, Direction::Tx, None);
    bench.send(1, &[frame(BROADCAST, station(1))]);
    bench.limit(1, Direction::Tx);
    let to_it = vec![frame(station(1), station(2)); 32];
    let count = (0..3).map(|_| bench.send(2, &to_it)[1].len()).sum::<usize>();
    assert_eq!((count, bench.dropped_to(1, RateLimited)), (64, 63));
    assert_eq!(bench.send(2, &to_it).concat().len(), 0);
    assert_eq!(bench.came(2, &[5]), [5, 0, 0, 5]);
}

#[test]
fn in_vlans_the_frames_that_are_left_keep_their_edits() {
    let mut bench = Bench::with_vlans(
        &[Some(5), None, Some(5)].map(|tag| PortVlan { tag, ..PortVlan::default() }),
    );
    bench.limit(1, Direction::Tx);
    for _ in 0..2 {
        let got = bench.send(0, &vec![frame(BROADCAST, station(1)); 32]);
        assert_eq!([got[1].len(), got[2].len()], [32, 32]);
    }
    bench.limit(1, Direction::Tx);
    bench.came(0, &[32, 30]);
    let got = bench.send(0, &vec![frame(BROADCAST, station(1)); 3]);
    assert_eq!((got[1].len(), got[2].len()), (2, 3));
    assert!(got[1].iter().all(|frame| frame[12..16] == [0x81, 0, 0, 5]));
    assert!(got[2].iter().all(|bytes| *bytes == frame(BROADCAST, station(1))));
}
