//! Ports that talk to each other.

use std::time::{Duration, Instant};

use packet::MacAddr;

use super::LldpMode::{self, Both, Off, Receive, Transmit};
use super::agent::{Agent, MAX_NEIGHBOURS, TTL};
use super::frame::Unit;
use super::frame::tests::sample;

const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

fn said(number: u8, ttl: u16) -> Vec<u8> {
    Unit { ttl, ..sample(number) }.frame(OWN)
}

/// A port and its clock.
struct Bench {
    agent: Agent,
    start: Instant,
    seconds: u64,
}

impl Bench {
    fn new() -> Self {
        Self { agent: Agent::default(), start: Instant::now(), seconds: 0 }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.seconds)
    }

    fn run(&mut self, mode: LldpMode, is_up: bool) -> Option<u16> {
        self.agent.run(mode, is_up, self.now())
    }

    fn hear(&mut self, frame: &[u8]) {
        self.agent.hear(frame, self.now());
    }

    /// The seconds of the next `count` in which something is sent.
    fn sent(&mut self, mode: LldpMode, count: u64) -> Vec<u64> {
        let mut seconds = Vec::new();
        for _ in 0..count {
            if self.run(mode, true).is_some() {
                seconds.push(self.seconds);
            }
            self.seconds += 1;
        }
        seconds
    }

    fn known(&self) -> usize {
        self.agent.neighbours(self.now()).count()
    }
}

#[test]
fn neighbours_are_told_every_half_minute_and_new_ones_soon() {
    let mut bench = Bench::new();
    assert_eq!(bench.sent(Both, 61), [0, 30, 60]);
    bench.hear(&said(1, 120));
    assert_eq!(bench.sent(Both, 39), [62, 63, 64, 65, 66, 96]);
    bench.hear(&said(1, 120));
    assert_eq!(bench.sent(Both, 30), [126], "it is no new one");
    assert_eq!(bench.run(Receive, true), Some(0), "they are told that it is over");
    assert_eq!(bench.sent(Receive, 99).len(), 0);
    assert_eq!(bench.run(Transmit, true), Some(TTL));
    assert_eq!(bench.run(Transmit, false), None, "nobody would hear it");
    assert_eq!(bench.run(Transmit, true), Some(TTL), "at once when the link is up again");
}

#[test]
fn neighbours_are_kept_as_long_as_they_say() {
    let mut bench = Bench::new();
    bench.run(Receive, true);
    bench.hear(&said(1, 120));
    bench.hear(&said(2, 10));
    assert_eq!(bench.known(), 2);
    let due = bench.now() + Duration::from_secs(10);
    assert_eq!(bench.agent.due(), Some(due));
    bench.seconds = 9;
    bench.run(Receive, true);
    let left = bench.agent.neighbours(bench.now()).find(|one| one.chassis.1.ends_with('2'));
    assert_eq!(left.unwrap().left, Duration::from_secs(1));
    bench.seconds = 10;
    bench.run(Receive, true);
    assert_eq!((bench.known(), bench.agent.counts.aged), (1, 1));
    bench.hear(&said(1, 0));
    assert_eq!((bench.known(), bench.agent.counts.aged), (0, 1), "it said so");
    bench.hear(&said(3, 120));
    bench.run(Receive, false);
    assert_eq!((bench.known(), bench.agent.due()), (0, None), "the link is down");
    bench.hear(&said(3, 120));
    assert_eq!(bench.known(), 0, "nobody listens");
}

#[test]
fn a_flood_of_neighbours_is_bounded() {
    let mut bench = Bench::new();
    bench.run(Both, true);
    for number in 0..100 {
        bench.hear(&said(number, 65_535));
    }
    assert_eq!(bench.known(), MAX_NEIGHBOURS);
    let counts = bench.agent.counts;
    assert_eq!((counts.received, counts.ignored), (100, 100 - MAX_NEIGHBOURS as u64));
    bench.hear(&said(0, 0));
    bench.hear(&said(77, 120));
    assert_eq!(bench.known(), MAX_NEIGHBOURS, "there is room for another again");
    bench.hear(&[0; 60]);
    assert_eq!(bench.agent.counts.bad, 1);
    bench.run(Off, true);
    assert_eq!(bench.known(), 0);
}
