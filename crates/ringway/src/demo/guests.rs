//! The two guests of the demo, on one thread, so that two cores are enough for everything.
//!
//! Each guest is the driver of a virtio-net device, as a virtual machine has one. It sends
//! numbered frames with a pattern to the other and checks every byte of what it receives. It has
//! only so many frames under way: whatever is lost then was lost by the switch.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eal::clock;
use ethdev::{RxQueue, TxQueue};
use hdrhistogram::Histogram;
use packet::BURST;

use super::stage::Stage;
use crate::generate::receiver::{Received, Receiver, new_histogram};
use crate::generate::sender::Sender;

/// How often the guests tell how far they are.
const PUBLISH: Duration = Duration::from_millis(20);

/// Frames that have not come after so long are given up, so that others may follow.
const GIVE_UP: Duration = Duration::from_millis(500);

/// Rounds without a frame after which the core is offered to others: at once, since the switch
/// may need it.
const IDLE_ROUNDS: u32 = 16;

/// One guest.
#[derive(Debug)]
pub struct Guest {
    /// What it receives.
    pub rx: RxQueue,
    /// What it sends.
    pub tx: TxQueue,
    /// Makes its frames.
    pub sender: Sender,
    /// Checks the other one's.
    pub receiver: Receiver,
}

/// How far one guest is.
#[derive(Clone, Copy, Debug, Default)]
pub struct GuestProgress {
    /// Frames given to its device.
    pub given: u64,
    /// What it received and checked.
    pub received: Received,
}

/// How far both are.
#[derive(Debug, Default)]
pub struct Progress {
    /// Per guest.
    pub guests: [GuestProgress; 2],
    /// Latencies since this was last taken.
    pub latency: Option<Histogram<u64>>,
}

/// What is shared between the guests' thread and whoever watches it.
#[derive(Debug)]
pub struct Shared {
    /// Index of the stage.
    stage: AtomicUsize,
    /// 0: send; 1: send no more; 2: return.
    phase: AtomicU8,
    progress: Mutex<Progress>,
}

impl Shared {
    /// The state before the first stage.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            stage: AtomicUsize::new(0),
            phase: AtomicU8::new(0),
            progress: Mutex::default(),
        })
    }

    /// Goes on to stage `index`.
    pub fn set_stage(&self, index: usize) {
        self.stage.store(index, Relaxed);
    }

    /// Sends no more, goes on receiving.
    pub fn drain(&self) {
        self.phase.store(1, Relaxed);
    }

    /// Lets the thread end.
    pub fn stop(&self) {
        self.phase.store(2, Relaxed);
    }

    /// Looks at the progress.
    pub fn with<T>(&self, look: impl FnOnce(&mut Progress) -> T) -> T {
        look(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One direction of traffic: how many frames of it are under way.
#[derive(Clone, Copy, Debug, Default)]
struct Flight {
    /// Frames given up for lost.
    given_up: u64,
    /// Frames that had arrived when one last did, and when that was.
    arrived: u64,
    since: u64,
}

impl Flight {
    /// Frames under way of the `given` ones, of which `arrived` have arrived.
    fn count(&mut self, given: u64, arrived: u64, now: u64, patience: u64) -> u64 {
        let under_way = given.saturating_sub(arrived).saturating_sub(self.given_up);
        if arrived != self.arrived || under_way == 0 {
            (self.arrived, self.since) = (arrived, now);
        } else if now.saturating_sub(self.since) > patience {
            self.given_up = self.given_up.saturating_add(under_way);
            self.since = now;
            return 0;
        }
        under_way
    }
}

/// Runs both guests through the stages until told to stop.
pub fn run(mut guests: [Guest; 2], stages: &[Stage], shared: &Shared) {
    let (interval, patience) = (clock::cycles(PUBLISH), clock::cycles(GIVE_UP));
    let mut flights = [Flight::default(); 2];
    let mut published = clock::now();
    let (mut current, mut window) = (usize::MAX, 0);
    let mut idle = 0;
    loop {
        let phase = shared.phase.load(Relaxed);
        let stage = shared.stage.load(Relaxed);
        if stage != current
            && let Some(next) = stages.get(stage)
        {
            current = stage;
            window = next.window;
            enter(&mut guests, next);
        }
        let window = if phase == 0 { window } else { 0 };
        let busy = round(&mut guests, &mut flights, window, patience);
        idle = if busy { 0 } else { idle + 1 };
        if idle >= IDLE_ROUNDS {
            idle = 0;
            std::thread::yield_now();
        }
        let now = clock::now();
        if phase == 2 || now.saturating_sub(published) >= interval {
            published = now;
            publish(&mut guests, shared);
            if phase == 2 {
                return;
            }
        }
    }
}

/// Sets the guests up for a stage.
fn enter(guests: &mut [Guest; 2], stage: &Stage) {
    for guest in guests {
        guest.sender.set_sizes(&stage.sizes);
        if stage.latency {
            guest.receiver.measure_latency();
        } else {
            guest.receiver.stop_latency();
        }
    }
}

/// A burst in each direction; whether there was any frame. With a window of 1 there is one frame
/// under way in all, in turn from each guest.
fn round(guests: &mut [Guest; 2], flights: &mut [Flight; 2], window: u64, patience: u64) -> bool {
    let mut busy = false;
    let room = window_left(guests, flights, window, patience);
    for (guest, room) in guests.iter_mut().zip(room) {
        let now = clock::now();
        guest.sender.build(room, || Some(now));
        busy |= guest.sender.send(&mut guest.tx) > 0;
        let burst = guest.rx.rx_burst(BURST);
        if !burst.frames().is_empty() {
            busy = true;
            guest.receiver.take(&burst, 0, clock::now());
        }
    }
    if !busy {
        for guest in guests {
            guest.tx.flush();
        }
    }
    busy
}

/// How many frames each guest may send now.
fn window_left(
    guests: &[Guest; 2],
    flights: &mut [Flight; 2],
    window: u64,
    patience: u64,
) -> [u64; 2] {
    let now = clock::now();
    let [one, other] = guests;
    let [there, back] = flights;
    let arrived = |guest: &Guest| guest.receiver.received().tested();
    let there = there.count(one.sender.given(), arrived(other), now, patience);
    let back = back.count(other.sender.given(), arrived(one), now, patience);
    match (window, there + back) {
        (1, 0) if one.sender.built() <= other.sender.built() => [1, 0],
        (1, 0) => [0, 1],
        (1, _) => [0, 0],
        _ => [there, back].map(|under_way| window.saturating_sub(under_way)),
    }
}

fn publish(guests: &mut [Guest; 2], shared: &Shared) {
    shared.with(|progress| {
        if progress.latency.is_none() {
            progress.latency = new_histogram();
        }
        for (guest, told) in guests.iter_mut().zip(&mut progress.guests) {
            told.given = guest.sender.given();
            told.received = guest.receiver.received();
            if let Some(latency) = &mut progress.latency {
                guest.receiver.drain_latency(latency);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_arrive_is_given_up_after_a_while() {
        let mut flight = Flight::default();
        assert_eq!(flight.count(10, 0, 0, 100), 10);
        assert_eq!(flight.count(10, 4, 50, 100), 6);
        assert_eq!(flight.count(12, 4, 150, 100), 8);
        assert_eq!(flight.count(12, 4, 151, 100), 0);
        assert_eq!(flight.count(13, 4, 152, 100), 1);
    }
}
