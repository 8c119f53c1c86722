use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use e2e::{frames, wait};
use ethdev::OpenPort;
use packet::{BURST, Frame};

/// Frames that are on their way at most, fewer than a ring holds: nobody has to drop one.
const WINDOW: u64 = 128;

/// How long a frame may be missing, where some get lost, before others are sent after it.
const PATIENCE: Duration = Duration::from_millis(20);

/// For how long none may come in the end, where some get lost, before the others are.
const QUIET: Duration = Duration::from_millis(500);

const LIMIT: Duration = Duration::from_secs(60);

/// What may become of frames that a ring has taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All of them come, if late: no more are sent than fit into a ring, however long that takes.
    None,
    /// Some are missing: others are sent after them.
    Some,
}

/// Numbered frames out of one port and into another, or into the same one, on a thread.
pub struct Stream {
    shared: Arc<Shared>,
    thread: JoinHandle<Outcome>,
}

#[derive(Default)]
struct Shared {
    received: AtomicU64,
    /// The longest time without a frame since it was asked for, in nanoseconds.
    gap: AtomicU64,
    stop: AtomicBool,
}

/// What became of the frames that were taken by a ring.
#[derive(Debug)]
#[expect(dead_code, reason = "shown as a whole")]
pub struct Outcome {
    pub sent: u64,
    pub missing: u64,
    pub doubled: u64,
}

/// The thread's side.
struct Pump {
    loss: Loss,
    ports: Vec<OpenPort>,
    shared: Arc<Shared>,
    /// How often each frame has come.
    seen: Vec<u8>,
    /// How many frames have come, each counted once.
    distinct: u64,
    next: u64,
    sent_at: Instant,
    received_at: Instant,
}

impl Stream {
    /// Starts it: out of the first of these ports, into the last of them.
    pub fn start(ports: Vec<OpenPort>, loss: Loss) -> Self {
        let shared = Arc::new(Shared::default());
        let now = Instant::now();
        let theirs = Arc::clone(&shared);
        let mut pump = Pump {
            loss,
            ports,
            shared: theirs,
            seen: Vec::new(),
            distinct: 0,
            next: 0,
            sent_at: now,
            received_at: now,
        };
        Self { shared, thread: std::thread::spawn(move || pump.run()) }
    }

    /// Waits until `count` more frames have come; gives the longest time without one meanwhile.
    pub fn flows(&self, count: u64) -> anyhow::Result<Duration> {
        let received = || self.shared.received.load(Ordering::Relaxed);
        let goal = received() + count;
        wait::until("frames", LIMIT, Duration::from_millis(1), || {
            Ok((received() >= goal).then_some(()))
        })?;
        Ok(Duration::from_nanos(self.shared.gap.swap(0, Ordering::Relaxed)))
    }

    /// Ends it.
    pub fn finish(self) -> Outcome {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

impl Pump {
    fn run(&mut self) -> Outcome {
        while !self.shared.stop.load(Ordering::Relaxed) {
            if self.has_room() {
                self.send();
            }
            self.receive();
        }
        while self.expects_more() {
            self.receive();
        }
        self.seen.resize(usize::try_from(self.next).unwrap(), 0);
        let more = |count: &u8| u64::from(count.saturating_sub(1));
        Outcome {
            sent: self.next,
            missing: self.seen.iter().filter(|count| **count == 0).count() as u64,
            doubled: self.seen.iter().map(more).sum(),
        }
    }

    fn has_room(&self) -> bool {
        let is_late = || self.loss == Loss::Some && self.sent_at.elapsed() > PATIENCE;
        self.next.saturating_sub(self.arrived()) < WINDOW || is_late()
    }

    /// Where none may be lost, as many as came; where some may, those up to the last that came.
    fn arrived(&self) -> u64 {
        match self.loss {
            Loss::None => self.distinct,
            Loss::Some => self.seen.len() as u64,
        }
    }

    /// Whether frames may be on their way when nothing is sent any more.
    fn expects_more(&self) -> bool {
        match self.loss {
            Loss::None => self.distinct < self.next && self.received_at.elapsed() < LIMIT,
            Loss::Some => self.received_at.elapsed() < QUIET,
        }
    }

    fn send(&mut self) {
        let port = &mut self.ports[0];
        if !port.tx[0].is_ready() {
            return;
        }
        let number = |number: u64| u32::try_from(number).unwrap();
        let frame = |n| {
            let len = 60 + usize::try_from(n * 31 % 1400).unwrap();
            frames::frame([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1], len, number(n))
        };
        let frames: Vec<_> = (self.next..self.next + 8).map(frame).collect();
        let burst: Vec<_> = frames.iter().map(|frame| Frame::from_bytes(frame)).collect();
        // What was dropped, for the link went down just now, was not taken by the ring.
        let before = port.port.tx_queue_stats()[0].packets;
        port.tx[0].tx_burst(&burst);
        self.next += port.port.tx_queue_stats()[0].packets - before;
        self.sent_at = Instant::now();
    }

    fn receive(&mut self) {
        let port = self.ports.last_mut().unwrap();
        let burst = port.rx[0].rx_burst(BURST);
        let mut count = 0;
        for frame in burst.frames() {
            let bytes = frame.to_vec();
            let seed = u32::from_be_bytes(bytes[14..18].try_into().unwrap());
            let sent = frames::frame([0; 6], [0; 6], bytes.len(), seed);
            assert_eq!(bytes[12..], sent[12..], "frame {seed}");
            let place = usize::try_from(seed).unwrap();
            if place >= self.seen.len() {
                self.seen.resize(place + 1, 0);
            }
            self.distinct += u64::from(self.seen[place] == 0);
            self.seen[place] += 1;
            count += 1;
        }
        if count > 0 {
            let now = Instant::now();
            let gap = now.duration_since(self.received_at).as_nanos();
            self.shared.gap.fetch_max(u64::try_from(gap).unwrap(), Ordering::Relaxed);
            self.shared.received.fetch_add(count, Ordering::Relaxed);
            self.received_at = now;
        }
    }
}
