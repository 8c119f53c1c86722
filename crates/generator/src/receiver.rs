//! Checks what arrives: damage, order, loss, latency.

use eal::clock::Clock;
use ethdev::RxBurst;
use hdrhistogram::Histogram;
use packet::{Frame, MAX_FRAME_LEN};

use crate::find::{ENOUGH, Found, USUAL_PLACE, at_place, by_headers};
use crate::stamp::{MAX_FLOWS, STAMP_LEN, Seen, Stamp};
use crate::topology::Routes;

/// Longest latency that is told apart: a minute, in nanoseconds.
const MAX_LATENCY: u64 = 60_000_000_000;

/// What was received so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// All frames.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Good test frames of the run.
    pub good: u64,
    /// Test frames with a damaged stamp or pattern.
    pub corrupt: u64,
    /// Test frames that came after a later one of their flow.
    pub reordered: u64,
    /// Frames of somebody else, or of another run.
    pub foreign: u64,
    /// Test frames of the run that belong to another port: they were flooded, or went astray.
    pub misdirected: u64,
}

impl Received {
    /// Test frames, good or damaged.
    pub const fn tested(&self) -> u64 {
        self.good.wrapping_add(self.corrupt)
    }
}

impl std::ops::AddAssign for Received {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.good += other.good;
        self.corrupt += other.corrupt;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
        self.misdirected += other.misdirected;
    }
}

/// What is known of one flow.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    received: u64,
    lowest: u64,
    highest: u64,
}

impl Flow {
    /// Notes a sequence number and returns whether it is in order. Numbers have 32 bits on the
    /// wire; here they go on.
    fn see(&mut self, sequence: u32) -> bool {
        if self.received == 0 {
            // Room below, for those that were overtaken by the first one.
            let first = (1 << 32) + u64::from(sequence);
            *self = Self { received: 1, lowest: first, highest: first };
            return true;
        }
        self.received += 1;
        #[allow(clippy::cast_possible_truncation, reason = "the difference modulo 2^32")]
        let ahead = sequence.wrapping_sub(self.highest as u32).cast_signed();
        let number = self.highest.saturating_add_signed(i64::from(ahead));
        self.lowest = self.lowest.min(number);
        if ahead > 0 {
            self.highest = number;
        }
        ahead > 0
    }

    /// Frames between the lowest and the highest number that did not come.
    const fn missing(&self) -> u64 {
        if self.received == 0 {
            return 0;
        }
        (self.highest - self.lowest + 1).saturating_sub(self.received)
    }
}

/// Which run's frames are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    This(u16),
    /// The first one that comes.
    Unknown,
}

/// One thread's check of what arrives.
#[derive(Debug)]
pub struct Receiver {
    run: Run,
    flows: Vec<Flow>,
    received: Received,
    /// Where the stamp was in the frame before.
    place: usize,
    /// Where flows belong, if there are several places.
    routes: Option<Routes>,
    /// Private memory for a frame's rest, since a device's may change while one looks.
    scratch: Vec<u8>,
    latency: Option<Latency>,
}

#[derive(Debug)]
struct Latency {
    clock: Clock,
    histogram: Histogram<u64>,
}

/// An empty histogram of nanoseconds with three significant digits.
pub fn new_histogram() -> Option<Histogram<u64>> {
    Histogram::new_with_bounds(1, MAX_LATENCY, 3).ok()
}

impl Receiver {
    /// A receiver for the frames of `run`, or, for `None`, of the first run that it sees.
    pub fn new(run: Option<u16>) -> Self {
        Self {
            run: run.map_or(Run::Unknown, Run::This),
            flows: Vec::new(),
            received: Received::default(),
            place: USUAL_PLACE,
            routes: None,
            scratch: vec![0; MAX_FRAME_LEN],
            latency: None,
        }
    }

    /// Looks at where frames arrive, too.
    pub fn expect(&mut self, routes: Routes) {
        self.routes = Some(routes);
    }

    /// Measures latency, too: from the stamp's time to [`take`](Self::take)'s.
    pub fn measure_latency(&mut self) {
        let clock = Clock::get();
        self.latency = new_histogram().map(|histogram| Latency { clock, histogram });
    }

    /// Measures latency no more.
    pub fn stop_latency(&mut self) {
        self.latency = None;
    }

    /// Looks at all frames of a burst that was received at `now` on the port `port`.
    pub fn take(&mut self, burst: &RxBurst<'_>, port: usize, now: u64) {
        for frame in burst.frames() {
            self.take_frame(frame, port, now);
        }
    }

    fn take_frame(&mut self, frame: &Frame<'_>, port: usize, now: u64) {
        self.received.frames += 1;
        self.received.bytes += frame.len() as u64;
        let found = self.find(frame);
        let stamp = match found.seen {
            Seen::Stamped(stamp) => stamp,
            Seen::Foreign => {
                self.received.foreign += 1;
                return;
            }
            Seen::Damaged => {
                self.received.corrupt += 1;
                return;
            }
        };
        if self.run == Run::Unknown {
            self.run = Run::This(stamp.run);
        }
        if self.run != Run::This(stamp.run) {
            self.received.foreign += 1;
            return;
        }
        if stamp.has_pattern() && !self.pattern_is_good(frame, &found, &stamp) {
            self.received.corrupt += 1;
            return;
        }
        if self.routes.as_ref().is_some_and(|routes| !routes.leads_to(stamp.flow, port)) {
            self.received.misdirected += 1;
            return;
        }
        self.received.good += 1;
        let index = stamp.flow as usize;
        if index >= self.flows.len() {
            self.flows.resize((index + 1).next_power_of_two(), Flow::default());
        }
        if self.flows.get_mut(index).is_some_and(|flow| !flow.see(stamp.sequence)) {
            self.received.reordered += 1;
        }
        if let Some(latency) = &mut self.latency {
            let nanos = latency.clock.duration(stamp.age(now)).as_nanos();
            let nanos = u64::try_from(nanos).unwrap_or(MAX_LATENCY);
            latency.histogram.saturating_record(nanos.max(1));
        }
    }

    /// Finds the stamp: where it was before, or where the headers say that it is.
    #[inline]
    fn find(&mut self, frame: &Frame<'_>) -> Found {
        let usual = at_place(frame.head(), frame.len(), self.place);
        usual.unwrap_or_else(|| self.search(frame))
    }

    #[cold]
    fn search(&mut self, frame: &Frame<'_>) -> Found {
        let mut head = frame.head();
        if head.len() < frame.len().min(ENOUGH) {
            let room = self.scratch.get_mut(..ENOUGH).unwrap_or_default();
            let count = frame.copy_to(room);
            head = room.get(..count).unwrap_or_default();
        }
        let usual = at_place(head, frame.len(), self.place);
        let found = usual.unwrap_or_else(|| by_headers(head, frame.len()));
        if matches!(found.seen, Seen::Stamped(_)) {
            self.place = found.at;
        }
        found
    }

    fn pattern_is_good(&mut self, frame: &Frame<'_>, found: &Found, stamp: &Stamp) -> bool {
        let range = found.at + STAMP_LEN..;
        let whole = if frame.len() <= frame.head().len() {
            frame.head()
        } else {
            let count = frame.copy_to(&mut self.scratch);
            self.scratch.get(..count).unwrap_or_default()
        };
        whole.get(range).is_some_and(|rest| stamp.pattern_matches(rest))
    }

    /// What was received so far.
    pub const fn received(&self) -> Received {
        self.received
    }

    /// Takes the latencies measured since the last call.
    pub fn drain_latency(&mut self, into: &mut Histogram<u64>) {
        if let Some(latency) = &mut self.latency {
            // Both have the same bounds, so this cannot fail.
            let _ = into.add(&latency.histogram);
            latency.histogram.reset();
        }
    }

    /// Gives what is known of the flows, to be put together with other receivers'.
    pub fn into_flows(self) -> Flows {
        Flows(self.flows)
    }
}

/// What several receivers know of the flows of one run.
#[derive(Debug, Default)]
pub struct Flows(Vec<Flow>);

impl Flows {
    /// Adds what another receiver knows.
    pub fn merge(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len().min(MAX_FLOWS as usize), Flow::default());
        }
        for (flow, other) in self.0.iter_mut().zip(&other.0).filter(|(_, o)| o.received > 0) {
            if flow.received == 0 {
                *flow = *other;
            } else {
                flow.lowest = flow.lowest.min(other.lowest);
                flow.highest = flow.highest.max(other.highest);
                flow.received += other.received;
            }
        }
    }

    /// Frames that are missing between the first and the last of each flow.
    pub fn missing(&self) -> u64 {
        self.0.iter().map(Flow::missing).sum()
    }

    /// Number of flows of which a frame has come.
    pub fn count(&self) -> usize {
        self.0.iter().filter(|flow| flow.received > 0).count()
    }
}

#[cfg(test)]
mod tests {
    use packet::MacAddr;

    use super::*;
    use crate::headers::Headers;
    use crate::template::Builder;
    use crate::topology::{Topology, links};

    const RUN: u16 = 77;

    fn frame(run: u16, flow: u32, sequence: u32, time: u64) -> Vec<u8> {
        let mut bytes = vec![0; 200];
        let (dst, src) = (MacAddr([2, 0, 0, 0, 0, 2]), MacAddr([2, 0, 0, 0, 0, 1]));
        let builder = Builder::new(Headers::plain(dst, src).template(100), run, true);
        builder.begin(&mut bytes);
        builder.write(&mut bytes, flow, sequence, time);
        bytes
    }

    fn take(receiver: &mut Receiver, bytes: &[u8]) {
        receiver.take_frame(&Frame::from_bytes(bytes), 0, 0);
    }

    #[test]
    fn loss_and_order_are_told_per_flow() {
        let mut receiver = Receiver::new(Some(RUN));
        for (flow, sequence) in [(1, 0), (2, 0), (1, 1), (1, 4), (1, 3), (2, 1), (2, 5)] {
            take(&mut receiver, &frame(RUN, flow, sequence, 0));
        }
        let received = receiver.received();
        assert_eq!((received.good, received.reordered, received.corrupt), (7, 1, 0));
        let flows = receiver.into_flows();
        // Flow 1 misses 2, flow 2 misses 2, 3 and 4.
        assert_eq!((flows.missing(), flows.count()), (4, 2));
    }

    #[test]
    fn sequence_numbers_go_on_past_32_bits() {
        let mut flow = Flow::default();
        for sequence in [u32::MAX - 1, u32::MAX, 0, 2] {
            assert!(flow.see(sequence));
        }
        assert!(!flow.see(1));
        assert_eq!((flow.received, flow.missing()), (5, 0));
    }

    #[test]
    fn the_first_frame_may_have_been_overtaken() {
        let mut flow = Flow::default();
        assert!(flow.see(1));
        assert!(!flow.see(0));
        assert_eq!(flow.missing(), 0);
    }

    #[test]
    fn damage_and_strangers_are_told_apart() {
        let mut receiver = Receiver::new(None);
        take(&mut receiver, &[0; 100]);
        take(&mut receiver, &frame(RUN, 0, 0, 0));
        take(&mut receiver, &frame(RUN + 1, 0, 0, 0));
        let mut damaged = frame(RUN, 0, 1, 0);
        damaged[150] ^= 1;
        take(&mut receiver, &damaged);
        let mut stamp = frame(RUN, 0, 1, 0);
        stamp[45] ^= 1;
        take(&mut receiver, &stamp);
        let received = receiver.received();
        assert_eq!(
            (received.frames, received.good, received.corrupt, received.foreign),
            (5, 1, 2, 2)
        );
    }

    #[test]
    fn frames_that_arrive_elsewhere_are_misdirected() {
        let links = links(Topology::Mesh, 3).unwrap();
        let mut receiver = Receiver::new(Some(RUN));
        receiver.expect(Routes::new(&links, 2).unwrap());
        // Flows 2 and 3 are those from the first port to the third.
        for (flow, port) in [(2, 2), (3, 2), (3, 1), (2, 0)] {
            let bytes = frame(RUN, flow, 0, 0);
            receiver.take_frame(&Frame::from_bytes(&bytes), port, 0);
        }
        let received = receiver.received();
        assert_eq!((received.good, received.misdirected), (2, 2));
    }

    #[test]
    fn latency_runs_from_the_stamps_time() {
        let mut receiver = Receiver::new(Some(RUN));
        receiver.measure_latency();
        let millisecond = eal::clock::cycles(std::time::Duration::from_millis(1));
        let bytes = frame(RUN, 0, 0, 1000);
        receiver.take_frame(&Frame::from_bytes(&bytes), 0, 1000 + millisecond);
        let mut histogram = new_histogram().unwrap();
        receiver.drain_latency(&mut histogram);
        assert_eq!(histogram.len(), 1);
        assert!((990_000..=1_010_000).contains(&histogram.max()), "{}", histogram.max());
    }

    #[test]
    fn what_two_receivers_saw_of_a_flow_is_put_together() {
        let (mut one, mut other) = (Receiver::new(Some(RUN)), Receiver::new(Some(RUN)));
        for sequence in 0..10 {
            let receiver = if sequence % 3 == 0 { &mut one } else { &mut other };
            take(receiver, &frame(RUN, 5, sequence, 0));
        }
        let mut flows = Flows::default();
        flows.merge(&one.into_flows());
        flows.merge(&other.into_flows());
        assert_eq!((flows.missing(), flows.count()), (0, 1));
    }
}
