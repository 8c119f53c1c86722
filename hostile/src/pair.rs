//! The well-behaved pair: two front-ends on two other ports of the same back-end that exchange
//! frames at a steady pace, and notice every one that is lost, changed or late.
//!
//! The pace is far below what a back-end can do, so that its frames compete with nobody: what is
//! late or missing was held up. The thread that drives the pair runs before all others on its CPU
//! and does not hold the back-end to account for the time in which it did not run itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::machine;
use crate::message::request;
use crate::port::{Port, frame};
use crate::ring::Format;

/// Frames a second that each of the two sends.
pub const PACE: u32 = 10_000;
/// Descriptors of each ring.
const SIZE: u16 = 512;
/// Frames of one direction that may be on their way.
const WINDOW: u64 = 200;
/// How often the two are served.
const TICK: Duration = Duration::from_micros(200);
/// Who does not run for longer than this blames nobody for the rest.
const OWN_DELAY: Duration = Duration::from_millis(2);
/// How often the back-end is asked something.
const QUESTIONS: Duration = Duration::from_millis(5);
/// Frames that may be behind the pace without being counted as missing.
const SLACK: f64 = 64.0;
/// The first bytes of a payload.
const MAGIC: [u8; 8] = *b"ringpair";
/// The addresses of the two.
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 0x41], [2, 0, 0, 0, 0, 0x42]];

/// What the pair has seen since it began.
#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
    /// Frames that never came though a later one did.
    lost: AtomicU64,
    /// Frames that came twice, late or changed.
    wrong: AtomicU64,
    /// Frames that could not be sent at their time.
    missed: AtomicU64,
    /// Frames that were due.
    due: AtomicU64,
    /// The longest time without a frame while some were on their way, in µs. It is reset.
    pause: AtomicU64,
    /// The longest time that a question to the back-end went unanswered, likewise.
    silence: AtomicU64,
    stop: AtomicBool,
}

/// Counts between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub received: u64,
    pub lost: u64,
    pub wrong: u64,
    pub missed: u64,
    pub due: u64,
    pub pause: Duration,
    pub silence: Duration,
}

impl Tally {
    /// What of the pace was missed, in percent.
    pub fn slower(&self) -> u64 {
        (100 * self.missed).checked_div(self.due).unwrap_or(0)
    }

    fn since(self, before: Self) -> Self {
        Self {
            received: self.received - before.received,
            lost: self.lost - before.lost,
            wrong: self.wrong - before.wrong,
            missed: self.missed - before.missed,
            due: self.due - before.due,
            pause: self.pause,
            silence: self.silence,
        }
    }
}

/// The running pair.
#[derive(Debug)]
pub struct Pair {
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

impl Pair {
    /// Connects the two, one with split and one with packed rings, and has them begin.
    ///
    /// # Errors
    /// When the back-end does not take them, or no frame passes.
    pub fn start(sockets: &[PathBuf; 2]) -> Result<Self> {
        let connect = |socket, format| {
            // A back-end that has only begun may take its time.
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                match Port::start(socket, format, SIZE) {
                    Err(_) if Instant::now() < deadline => {}
                    result => break result,
                }
            }
        };
        let ports = [connect(&sockets[0], Format::Split)?, connect(&sockets[1], Format::Packed)?];
        let counters = Arc::new(Counters::default());
        let shared = Arc::clone(&counters);
        let thread = std::thread::Builder::new().name("pair".into()).spawn(move || {
            machine::go_first();
            Flow::new(ports, shared).run();
        })?;
        let pair = Self { counters, thread: Some(thread) };
        pair.wait_flow()?;
        Ok(pair)
    }

    /// Waits until a hundred frames have arrived: what is lost before, while a back-end sets up
    /// its rings, is forgotten.
    fn wait_flow(&self) -> Result<()> {
        let before = self.counters.received.load(Ordering::Relaxed);
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.counters.received.load(Ordering::Relaxed) < before + 100 {
            if Instant::now() > deadline {
                bail!("no frame passes between the two well-behaved front-ends");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn read(&self) -> Tally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally {
            received: read(&self.counters.received),
            lost: read(&self.counters.lost),
            wrong: read(&self.counters.wrong),
            missed: read(&self.counters.missed),
            due: read(&self.counters.due),
            pause: Duration::from_micros(read(&self.counters.pause)),
            silence: Duration::from_micros(read(&self.counters.silence)),
        }
    }

    /// Begins a measurement.
    pub fn begin(&self) -> Tally {
        self.counters.pause.store(0, Ordering::Relaxed);
        self.counters.silence.store(0, Ordering::Relaxed);
        self.read()
    }

    /// Ends a measurement that began with `begin`, when what is on its way has arrived or a
    /// second is over.
    pub fn end(&self, begin: Tally) -> Tally {
        let sent = self.counters.sent.load(Ordering::Relaxed);
        let deadline = Instant::now() + Duration::from_secs(1);
        let arrived = || {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            read(&self.counters.received) + read(&self.counters.lost) >= sent
        };
        while !arrived() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(500));
        }
        self.read().since(begin)
    }

    /// Whether frames pass.
    pub fn flows(&self) -> bool {
        let before = self.counters.received.load(Ordering::Relaxed);
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
            if self.counters.received.load(Ordering::Relaxed) > before {
                return true;
            }
        }
        false
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.counters.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            drop(thread.join());
        }
    }
}

/// What one of the two has sent, and how far the other has got.
#[derive(Debug, Default)]
struct Direction {
    next: u64,
    expected: u64,
    credit: f64,
    waiting_since: Option<Instant>,
    /// Whether the first frame has arrived.
    begun: bool,
}

struct Flow {
    ports: [Port; 2],
    directions: [Direction; 2],
    /// When the first of the two asked the back-end something, and whether it was answered.
    asked: Instant,
    answered: bool,
    counters: Arc<Counters>,
}

impl Flow {
    fn new(ports: [Port; 2], counters: Arc<Counters>) -> Self {
        let asked = Instant::now();
        Self { ports, directions: Default::default(), asked, answered: true, counters }
    }

    fn run(&mut self) {
        let mut last = Instant::now();
        while !self.counters.stop.load(Ordering::Relaxed) {
            std::thread::sleep(TICK);
            let now = Instant::now();
            let passed = now - last;
            last = now;
            let own_delay = passed.saturating_sub(OWN_DELAY);
            for from in 0..2 {
                self.forgive(from, own_delay);
                self.receive(from, now);
                self.send(from, passed - own_delay, now);
            }
            self.ask(own_delay, now);
        }
    }

    /// Asks the back-end a question now and then, and notes how long it takes to answer: whoever
    /// holds up the thread that does holds up all front-ends.
    fn ask(&mut self, own_delay: Duration, now: Instant) {
        let wire = &self.ports[0].frontend.wire;
        self.asked += own_delay;
        let passed = now.saturating_duration_since(self.asked);
        if !self.answered {
            let silence = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
            self.counters.silence.fetch_max(silence, Ordering::Relaxed);
            self.answered = wire.receive(Duration::ZERO).is_ok();
        } else if passed >= QUESTIONS {
            self.asked = now;
            self.answered = !wire.send(request::GET_FEATURES, &[], &[]);
        }
    }

    /// Nobody else is to blame for the time in which this thread did not run.
    fn forgive(&mut self, from: usize, delay: Duration) {
        if let Some(since) = &mut self.directions[from].waiting_since {
            *since += delay;
        }
    }

    /// Takes what has arrived from `from`.
    fn receive(&mut self, from: usize, now: Instant) {
        let direction = &mut self.directions[from];
        let mut any = false;
        while let Some(frame) = self.ports[1 - from].receive() {
            let Some(number) = number_of(&frame, from) else { continue };
            any = true;
            let as_sent = frame == pair_frame(from, number);
            if !as_sent || (direction.begun && number < direction.expected) {
                self.counters.wrong.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if !direction.begun {
                // Not counted: what was sent before the other was ready.
                self.counters.received.fetch_add(number, Ordering::Relaxed);
                direction.begun = true;
            } else {
                let lost = number - direction.expected;
                self.counters.lost.fetch_add(lost, Ordering::Relaxed);
            }
            direction.expected = number + 1;
            self.counters.received.fetch_add(1, Ordering::Relaxed);
        }
        if any {
            direction.waiting_since = None;
        }
        if direction.next == direction.expected {
            direction.waiting_since = None;
        } else {
            let since = *direction.waiting_since.get_or_insert(now);
            let pause = u64::try_from((now - since).as_micros()).unwrap_or(u64::MAX);
            self.counters.pause.fetch_max(pause, Ordering::Relaxed);
        }
    }

    /// Sends what is due.
    fn send(&mut self, from: usize, passed: Duration, now: Instant) {
        let direction = &mut self.directions[from];
        let due = passed.as_secs_f64() * f64::from(PACE);
        direction.credit += due;
        let mut sent = 0;
        // While nothing has arrived yet the other is not ready: a frame now and then will do.
        let window = if direction.begun { WINDOW } else { u64::from(SIZE) };
        if !direction.begun {
            direction.credit = direction.credit.min(1.0);
        }
        while direction.credit >= 1.0 && direction.next - direction.expected < window {
            if !self.ports[from].send(&pair_frame(from, direction.next)) {
                break;
            }
            direction.next += 1;
            direction.credit -= 1.0;
            sent += 1;
        }
        if !direction.begun && direction.next - direction.expected >= window {
            // Begin again: those were for nobody.
            direction.expected = direction.next;
        }
        if sent > 0 {
            self.ports[from].flush();
            direction.waiting_since.get_or_insert(now);
        }
        let missed = (direction.credit - SLACK).max(0.0).floor();
        direction.credit -= missed;
        self.counters.sent.fetch_add(sent, Ordering::Relaxed);
        if direction.begun {
            self.counters.missed.fetch_add(missed as u64, Ordering::Relaxed);
            self.counters.due.fetch_add(sent + missed as u64, Ordering::Relaxed);
        }
    }
}

/// Frame `number` of a direction: as long as its number says, and full of what it says.
fn pair_frame(from: usize, number: u64) -> Vec<u8> {
    let len = 60 + usize::try_from(number * 37 % 1400).unwrap_or(0);
    let mut payload = Vec::with_capacity(len);
    payload.extend(MAGIC);
    payload.push(from as u8);
    payload.extend(number.to_le_bytes());
    payload.resize_with(len, || 0);
    for (i, byte) in payload.iter_mut().enumerate().skip(17) {
        *byte = (number as u8).wrapping_add(i as u8);
    }
    frame(MACS[1 - from], MACS[from], &payload)
}

/// The number of a frame of this direction; `None` of what the pair has not sent.
fn number_of(frame: &[u8], from: usize) -> Option<u64> {
    let payload = frame.get(14..)?;
    let numbered = payload.starts_with(&MAGIC) && usize::from(*payload.get(8)?) == from;
    let number = payload.get(9..17)?.first_chunk().copied().map(u64::from_le_bytes)?;
    numbered.then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_known_by_its_number_and_every_byte() {
        let sent = pair_frame(1, 12_345);
        assert_eq!(number_of(&sent, 1), Some(12_345));
        assert_eq!(number_of(&sent, 0), None);
        assert_eq!(number_of(b"something else entirely, and long", 0), None);
        assert!((74..=1514).contains(&sent.len()));
        let lengths: std::collections::BTreeSet<_> =
            (0..1400).map(|number| pair_frame(0, number).len()).collect();
        assert_eq!(lengths.len(), 1400);
    }

    #[test]
    fn a_tally_tells_what_was_missed() {
        let before = Tally { received: 10, due: 100, ..Tally::default() };
        let after = Tally { received: 90, due: 200, missed: 7, lost: 1, ..before };
        let tally = after.since(before);
        assert_eq!((tally.received, tally.lost, tally.slower()), (80, 1, 7));
        assert_eq!(Tally::default().slower(), 0);
    }
}
