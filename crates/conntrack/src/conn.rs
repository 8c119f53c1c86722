//! A connection: what all workers share of it.
//!
//! What packets of an established connection change has one writer for each direction in most cases: the
//! worker that its packets come to. So it is loaded and stored, without a lock and without an atomic
//! operation that reads and writes. Where packets of one direction come to two workers at once, one of
//! two values stays, each of which was right; the next packet puts it right.
//!
//! What changes a state, and marks and labels, is done with a lock of the connection, and done again
//! from what is there by then.

use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::beside::{Beside, Control, Translated};
use crate::dissect::Seen;
use crate::helper::Helper;
use crate::state::{Request, State, Translation};
use crate::tcp::{self, Scale, Segment, Side, TcpState, Verdict};
use crate::timeout::{Policy, Stage};
use crate::tuple::{Tuple, halves};

/// Readers of marks and labels try so often without a lock.
const TRIES: usize = 8;

/// One side of a connection of TCP.
#[derive(Debug)]
struct SideCell {
    /// Written by packets of this side.
    low: AtomicU32,
    window: AtomicU16,
    /// Written by packets of the other one.
    high: AtomicU32,
    /// Written with the lock.
    state: AtomicU8,
    scale: AtomicU8,
}

impl SideCell {
    const fn new(side: &Side) -> Self {
        Self {
            low: AtomicU32::new(side.low),
            window: AtomicU16::new(side.window),
            high: AtomicU32::new(side.high),
            state: AtomicU8::new(side.state as u8),
            scale: AtomicU8::new(side.scale.to_byte()),
        }
    }

    fn load(&self) -> Side {
        Side {
            state: TcpState::from_number(self.state.load(Relaxed)),
            low: self.low.load(Relaxed),
            high: self.high.load(Relaxed),
            window: self.window.load(Relaxed),
            scale: Scale::from_byte(self.scale.load(Relaxed)),
        }
    }

    /// Stores what is not as it was.
    fn store(&self, before: &Side, after: &Side) {
        if before.low != after.low {
            self.low.store(after.low, Relaxed);
        }
        if before.high != after.high {
            self.high.store(after.high, Relaxed);
        }
        if before.window != after.window {
            self.window.store(after.window, Relaxed);
        }
        if (before.state, before.scale) != (after.state, after.scale) {
            self.state.store(after.state as u8, Relaxed);
            self.scale.store(after.scale.to_byte(), Relaxed);
        }
    }
}

/// What a connection has beside that, by its protocol.
#[derive(Debug)]
enum Progress {
    Tcp([SideCell; 2]),
    /// Whether it was answered.
    Icmp(AtomicBool),
    /// 0: one packet; 1: several; 2: in both directions.
    Other(AtomicU8),
}

/// Mark and label.
#[derive(Debug, Default)]
struct Labels {
    /// Odd while they are written.
    version: AtomicU32,
    mark: AtomicU32,
    label: [AtomicU64; 2],
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Of its first packet.
    pub(crate) original: Tuple,
    /// What its packets are translated to, and whom it has to do with; few have that.
    beside: Option<Box<Beside>>,
    /// When it ends if nothing more comes, in milliseconds.
    end: AtomicU64,
    /// How long it is kept.
    policy: Arc<Policy>,
    /// It has ended, and who still has it looks for another one.
    is_over: AtomicBool,
    progress: Progress,
    labels: Labels,
    lock: Mutex<()>,
}

/// What a packet is to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// This.
    State(State),
    /// The first one of another connection with the same ends.
    Anew,
}

/// What is shown of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Of its first packet; its zone is that of the connection.
    pub original: Tuple,
    /// Of the packets that go back.
    pub reply: Tuple,
    /// For how long it is kept if nothing more comes, in milliseconds.
    pub left: u64,
    /// Its mark.
    pub mark: u32,
    /// Its label.
    pub label: u128,
    /// The states of both sides, of TCP, that of the first packet first.
    pub tcp: Option<[TcpState; 2]>,
    /// Who looks at what its packets carry.
    pub helper: Option<Helper>,
    /// The first packet of the connection that has announced it, if one has.
    pub master: Option<Tuple>,
}

/// What is said of a packet by what few connections have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told<'c> {
    pub(crate) state: State,
    /// The first packet of its connection, or of that which has announced it.
    pub(crate) original: &'c Tuple,
    /// Who has to look at it.
    pub(crate) listener: Option<Helper>,
}

impl Conn {
    /// One that begins with this packet.
    pub(crate) fn new(
        seen: &Seen,
        beside: Option<Box<Beside>>,
        policy: Arc<Policy>,
        now: u64,
    ) -> Self {
        let (progress, stage) = match (&seen.segment, seen.tuple.is_icmp()) {
            (Some(segment), _) => {
                let sides = tcp::begin(segment);
                (Progress::Tcp(sides.each_ref().map(SideCell::new)), Stage::TcpFirst)
            }
            (None, true) => (Progress::Icmp(AtomicBool::new(false)), Stage::IcmpFirst),
            (None, false) => (Progress::Other(AtomicU8::new(0)), Stage::OtherFirst),
        };
        Self {
            original: seen.tuple,
            beside,
            end: AtomicU64::new(policy.end(stage, now)),
            policy,
            is_over: AtomicBool::new(false),
            progress,
            labels: Labels::default(),
            lock: Mutex::default(),
        }
    }

    /// What is translated of it.
    pub(crate) fn translated(&self) -> Option<&Translated> {
        self.beside.as_ref()?.nat.as_ref()
    }

    /// What its packets have announced, if they are looked at.
    pub(crate) fn control(&self) -> Option<MutexGuard<'_, Control>> {
        self.beside.as_ref()?.control()
    }

    /// The ends of its packets that come back.
    pub(crate) fn reply(&self) -> Tuple {
        self.translated().map_or_else(|| self.original.reversed(), |nat| nat.reply)
    }

    /// The same, if it is not found by the ends of those that go there.
    pub(crate) fn other_key(&self) -> Option<Tuple> {
        let key = self.translated()?.reply.canonical();
        (key != self.original.canonical()).then_some(key)
    }

    /// Which way a packet with these ends goes: whether it goes back. `None`: it is not of this one. Only
    /// one of which it is known that it was translated may have ends as they are then.
    #[inline]
    pub(crate) fn way(&self, tuple: &Tuple, is_translated: bool) -> Option<bool> {
        if self.original == *tuple {
            return Some(false);
        }
        match self.translated() {
            None => (self.original == tuple.reversed()).then_some(true),
            Some(nat) => self.translated_way(nat, tuple, is_translated),
        }
    }

    fn translated_way(&self, nat: &Translated, tuple: &Tuple, is_translated: bool) -> Option<bool> {
        if nat.reply == *tuple {
            return Some(true);
        }
        let other = tuple.reversed();
        match is_translated {
            true if nat.reply == other => Some(false),
            true if self.original == other => Some(true),
            _ => None,
        }
    }

    /// What is said of a packet that is this to the connection.
    #[inline]
    pub(crate) fn told(&self, state: State, request: &Request, is_reply: bool) -> Told<'_> {
        match &self.beside {
            None => Told { state, original: &self.original, listener: None },
            Some(beside) => Told {
                state: state | beside.state(state, request, is_reply),
                original: beside.master.as_deref().unwrap_or(&self.original),
                listener: beside.listener(state),
            },
        }
    }

    /// A packet with its numbers as they were sent, if those of the connection are changed on their way.
    #[inline]
    pub(crate) fn as_sent(&self, seen: &Seen, request: &Request, is_reply: bool) -> Option<Seen> {
        let beside = self.beside.as_ref()?;
        let (control, segment) = beside.control().zip(seen.segment)?;
        let segment = control.numbers.as_sent(&segment, is_reply, request.is_translated);
        Some(Seen { segment: Some(segment), ..*seen })
    }

    /// How a packet is translated, if it is to be.
    pub(crate) fn translation(
        &self,
        seen: &Seen,
        request: &Request,
        is_reply: bool,
    ) -> Option<Translation> {
        let (nat, _) = self.translated().zip(request.nat)?;
        let after = if is_reply { self.original.reversed() } else { nat.reply.reversed() };
        let before = seen.tuple;
        (before != after).then_some(Translation { before, after, is_error: seen.is_related })
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has ended by `now`.
    #[inline]
    pub(crate) fn is_over(&self, now: u64) -> bool {
        self.is_over.load(Acquire) || self.end.load(Relaxed) <= now
    }

    /// Ends it.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Release);
    }

    /// Whether packets of it have gone both ways: those of connections that nobody has answered are the
    /// first to go.
    pub(crate) fn is_answered(&self) -> bool {
        match &self.progress {
            Progress::Tcp(sides) => {
                sides.iter().all(|side| side.load().state >= TcpState::Established)
            }
            Progress::Icmp(is_answered) => is_answered.load(Relaxed),
            Progress::Other(stage) => stage.load(Relaxed) == 2,
        }
    }

    /// What a packet of it is; `is_reply` if it goes back.
    pub(crate) fn track(&self, seen: &Seen, is_reply: bool, checks: bool, now: u64) -> Outcome {
        let reply = if is_reply { State::REPLY } else { State::default() };
        if seen.is_related {
            return Outcome::State(State::RELATED | reply);
        }
        let (state, stage) = match (&self.progress, &seen.segment) {
            (Progress::Tcp(sides), Some(segment)) => {
                match self.segment(sides, segment, is_reply, checks) {
                    Verdict::Invalid => return Outcome::State(State::INVALID),
                    Verdict::Anew => return Outcome::Anew,
                    Verdict::First => (State::NEW, Some(Stage::TcpFirst)),
                    Verdict::Valid(stage) => (State::ESTABLISHED | reply, stage),
                }
            }
            (Progress::Icmp(is_answered), _) => answer(is_answered, is_reply),
            (Progress::Other(stage), _) => self.go_on(stage, is_reply),
            // A tuple's protocol does not change.
            (Progress::Tcp(_), None) => return Outcome::State(State::INVALID),
        };
        if let Some(stage) = stage {
            let end = self.policy.end(stage, now);
            if self.end.load(Relaxed) != end {
                self.end.store(end, Relaxed);
            }
        }
        let state = if state == State::ESTABLISHED { state | reply } else { state };
        Outcome::State(state)
    }

    fn segment(
        &self,
        sides: &[SideCell; 2],
        segment: &Segment,
        is_reply: bool,
        checks: bool,
    ) -> Verdict {
        let [original, reply] = sides;
        let (own, others) = if is_reply { (reply, original) } else { (original, reply) };
        let update = || {
            let before = (own.load(), others.load());
            let (mut sender, mut other) = before;
            let verdict = tcp::update(&mut sender, &mut other, segment, checks);
            (verdict, before, (sender, other))
        };
        let (verdict, before, after) = update();
        let kept = |side: &Side| (side.state, side.scale);
        if kept(&before.0) == kept(&after.0) && kept(&before.1) == kept(&after.1) {
            own.store(&before.0, &after.0);
            others.store(&before.1, &after.1);
            return verdict;
        }
        // What changes a state is found once more, by what others have left.
        let _lock = self.lock();
        let (verdict, before, after) = update();
        own.store(&before.0, &after.0);
        others.store(&before.1, &after.1);
        verdict
    }

    /// A packet of UDP, or of another protocol.
    fn go_on(&self, stage: &AtomicU8, is_reply: bool) -> (State, Option<Stage>) {
        let after = if is_reply { 2 } else { 1 };
        if stage.load(Relaxed) < after {
            let _lock = self.lock();
            stage.store(stage.load(Relaxed).max(after), Relaxed);
        }
        match stage.load(Relaxed) {
            2 => (State::ESTABLISHED, Some(Stage::OtherBidirectional)),
            _ => (State::NEW, Some(Stage::OtherMultiple)),
        }
    }

    /// Its mark and its label.
    pub(crate) fn labels(&self) -> (u32, u128) {
        let Labels { version, mark, label } = &self.labels;
        let read = || {
            let [high, low] = label.each_ref().map(|half| half.load(Relaxed));
            (mark.load(Relaxed), u128::from(high) << 64 | u128::from(low))
        };
        for _ in 0..TRIES {
            let before = version.load(Acquire);
            let values = read();
            fence(Acquire);
            if before.is_multiple_of(2) && version.load(Relaxed) == before {
                return values;
            }
        }
        let _lock = self.lock();
        read()
    }

    /// Takes over mark and label of the one that has announced it.
    pub(crate) fn inherit(&self, master: &Self) {
        let (mark, label) = master.labels();
        let all = Request {
            mark: Some((mark, u32::MAX)),
            label: Some((label, u128::MAX)),
            ..Request::default()
        };
        self.write_labels(&all);
    }

    /// Writes what is asked for; returns what mark and label are then.
    pub(crate) fn write_labels(&self, request: &Request) -> (u32, u128) {
        let write = |(mark, label): (u32, u128)| {
            let (value, mask) = request.mark.unwrap_or_default();
            let (long, long_mask) = request.label.unwrap_or_default();
            (mark & !mask | value & mask, label & !long_mask | long & long_mask)
        };
        let before = self.labels();
        if write(before) == before {
            return before;
        }
        let _lock = self.lock();
        let Labels { version, mark, label: [high, low] } = &self.labels;
        let label = u128::from(high.load(Relaxed)) << 64 | u128::from(low.load(Relaxed));
        let (new_mark, new_label) = write((mark.load(Relaxed), label));
        let count = version.load(Relaxed);
        version.store(count.wrapping_add(1), Relaxed);
        fence(Release);
        mark.store(new_mark, Relaxed);
        let [new_high, new_low] = halves(new_label);
        high.store(new_high, Relaxed);
        low.store(new_low, Relaxed);
        version.store(count.wrapping_add(2), Release);
        (new_mark, new_label)
    }

    /// What is shown of it at `now`.
    pub(crate) fn entry(&self, now: u64) -> Entry {
        let (mark, label) = self.labels();
        let tcp = match &self.progress {
            Progress::Tcp(sides) => Some(sides.each_ref().map(|side| side.load().state)),
            Progress::Icmp(_) | Progress::Other(_) => None,
        };
        let left = self.end.load(Relaxed).saturating_sub(now);
        let (helper, master) = match &self.beside {
            Some(beside) => (beside.helper, beside.master.as_deref().copied()),
            None => (None, None),
        };
        let (original, reply) = (self.original, self.reply());
        Entry { original, reply, left, mark, label, tcp, helper, master }
    }
}

/// A packet of ICMP of a connection.
fn answer(is_answered: &AtomicBool, is_reply: bool) -> (State, Option<Stage>) {
    if is_reply && !is_answered.load(Relaxed) {
        is_answered.store(true, Relaxed);
    }
    match is_answered.load(Relaxed) {
        true => (State::ESTABLISHED, Some(Stage::IcmpReply)),
        false => (State::NEW, Some(Stage::IcmpFirst)),
    }
}
