//! A worker: polls its receive queues, sleeps when there is nothing to do, and takes queues on
//! and gives them back between two rounds.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use arrayvec::ArrayVec;
use eal::{Counter, EventFd, WorkerContext, clock};
use ethdev::{Sleeper, Slept};
use flow::PathCounts;
use packet::{BURST, Burst, Frame};

use crate::answer::{Answer, Awaited, answer};
use crate::bond::way::{Fittings, Way};
use crate::bridge::{BridgeChange, BridgeId};
use crate::capture::Captures;
use crate::datapath::Datapath;
use crate::datapath::trace::{Decided, Trace};
use crate::flows::PacketOut;
use crate::guard::Guard;
use crate::inputs::{Input, Inputs};
use crate::limit::{Direction, Limiter};
use crate::output::Output;
use crate::patch::Patch;
use crate::record::{Record, Recording};
use crate::trap::Trap;
use crate::tunnel::Tunnels;

/// How long a worker sleeps at most while a device has not taken all that was sent to it.
const PENDING_NAP: Duration = Duration::from_millis(1);

/// What a worker is asked to do. It answers when it is done; if it is gone, the answer
/// is dropped.
#[derive(Debug)]
pub enum Message {
    /// Send to a port from now on.
    AddOutput(u16, Box<Output>, Answer<()>),
    /// Change a bridge.
    Bridge(BridgeId, Box<BridgeChange>, Answer<()>),
    /// Take a port for a patch port that leads to another bridge; `None`: to nowhere.
    SetPatch(u16, Option<Patch>, Answer<()>),
    /// Have there be these tunnels; `None`: none.
    SetTunnels(Option<Box<Tunnels>>, Answer<()>),
    /// Poll a queue from now on.
    AddInput(Box<Input>, Answer<()>),
    /// Give all receive queues of a port back.
    TakeInputs(u16, Answer<Vec<Input>>),
    /// Give the transmit queues of a port back.
    TakeOutput(u16, Answer<Option<Output>>),
    /// Do something with the way to a port, if there is one.
    OnOutput(u16, Act),
    /// Try so often to send to a port although it takes nothing.
    SetRetries(u16, u32, Answer<()>),
    /// Behave like this without frames from now on.
    SetIdle(Idle, Answer<()>),
    /// Stop working.
    End(Answer<()>),
    /// Let so much of a port through in one direction; `None`: all.
    SetLimit(u16, Direction, Option<Box<Limiter>>, Answer<()>),
    /// Take a port for a bond; `None`: no more.
    SetBond(u16, Option<Box<(Way, Fittings)>>, Answer<()>),
    /// Send frames of the switch's own to a port, [`BURST`] at most; the answer is whether it takes
    /// any now.
    Send(u16, Vec<Vec<u8>>, Answer<bool>),
    /// Let a port send this only; `None`: everything.
    SetGuard(u16, Option<Box<Guard>>, Answer<()>),
    /// Take what neighbours say to the switch itself on a port out of what comes in there; `None`:
    /// nobody listens.
    SetTrap(u16, Option<Box<Trap>>, Answer<()>),
    /// Capture this from now on.
    Capture(Option<Box<Captures>>, Answer<()>),
    /// Record this from now on.
    Record(Record, Answer<()>),
    /// Give away what was recorded.
    TakeRecording(Answer<(Recording, Vec<(BridgeId, Recording)>)>),
    /// Take frames, [`BURST`] at most, for what has come in on a port, at this one of its queues; the
    /// answer is whether this worker polls it.
    Receive((u16, usize), Vec<Vec<u8>>, Answer<bool>),
    /// Tell what would become of a frame that comes in on a port, and learn its source if asked to;
    /// the answer is `None` where this worker does not poll the port.
    Trace(u16, Vec<u8>, bool, Answer<Option<Trace>>),
    /// Tell what a plain bridge does with a frame that seems to come in on a port, and learn its
    /// source if asked to.
    Decide(BridgeId, u16, Vec<u8>, bool, Answer<Decided>),
    /// Tell which copies the mirror of this number makes of a frame that has come in on a port.
    Copies(BridgeId, u16, usize, Vec<u8>, Answer<Vec<(u16, Vec<u8>)>>),
    /// Do with a packet what a controller says.
    PacketOut(BridgeId, Box<PacketOut>, Answer<()>),
    /// Only answer: what was received before is dealt with then.
    Answer(Answer<()>),
}

/// What a worker is to do with an [`Output`].
pub struct Act(Box<dyn FnOnce(&mut Output) + Send>);

impl fmt::Debug for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Act(..)")
    }
}

/// What a worker counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// How often it has polled all its queues.
    pub polls: Counter,
    /// How often there were frames.
    pub busy_polls: Counter,
    /// Frames.
    pub packets: Counter,
    /// Clock cycles for rounds with frames.
    pub busy_cycles: Counter,
    /// How often it has slept.
    pub sleeps: Counter,
    /// How long.
    pub asleep: Asleep,
    /// How often it has looked up what is done with frames, as last told: entries that it found, ways through the
    /// tables, and those of both of frames that it had looked up before.
    hits: Counter,
    misses: Counter,
    again: Counter,
}

impl Counters {
    fn add(&self, look_ups: PathCounts) {
        let PathCounts { hits, misses, again } = look_ups;
        self.hits.add(hits);
        self.misses.add(misses);
        self.again.add(again);
    }

    /// How often it has looked up what is done with frames, as last told.
    pub fn look_ups(&self) -> PathCounts {
        let [hits, misses, again] = [&self.hits, &self.misses, &self.again].map(Counter::get);
        PathCounts { hits, misses, again }
    }
}

/// Clock cycles asleep, with the sleep that goes on: in one word, so that whoever reads it never
/// sees time go back. While asleep, with [`SLEEPS`](Self::SLEEPS), when it would have fallen asleep
/// if this had been its only sleep.
#[derive(Debug, Default)]
pub struct Asleep(Counter);

impl Asleep {
    /// The clock gets there after a hundred years.
    const SLEEPS: u64 = 1 << 63;

    /// It falls asleep at `now`.
    fn begin(&self, now: u64) {
        self.0.set(now.saturating_sub(self.until(now)) | Self::SLEEPS);
    }

    /// It has woken up at `now`.
    fn end(&self, now: u64) {
        self.0.set(self.until(now));
    }

    /// Whether it is asleep.
    pub fn is_now(&self) -> bool {
        self.0.get() & Self::SLEEPS != 0
    }

    /// Cycles asleep until `now`.
    pub fn until(&self, now: u64) -> u64 {
        let word = self.0.get();
        let since = word & !Self::SLEEPS;
        if word & Self::SLEEPS == 0 { word } else { now.saturating_sub(since) }
    }
}

/// The way to a worker. Clones lead to the same one.
#[derive(Clone, Debug)]
pub struct Mailbox {
    messages: Sender<Message>,
    /// Number of messages sent, so that a worker finds out with one load that there is nothing.
    sent: Arc<AtomicUsize>,
    wake: Arc<EventFd>,
    /// What the worker counts.
    pub counters: Arc<Counters>,
}

impl Mailbox {
    /// Sends a message, of which `message` makes the question from the way to answer, and waits
    /// for the answer; `None` if the worker is gone.
    pub fn ask<T>(&self, message: impl FnOnce(Answer<T>) -> Message) -> Option<T> {
        self.begin(message)?.wait()
    }

    /// Sends such a message; gives where the answer comes.
    pub fn begin<T>(&self, message: impl FnOnce(Answer<T>) -> Message) -> Option<Awaited<T>> {
        let (answer, awaited) = answer();
        self.messages.send(message(answer)).ok()?;
        self.sent.fetch_add(1, Release);
        self.wake();
        Some(awaited)
    }

    /// Has the worker do something with its way to `port`, between two bursts, and waits for the
    /// outcome; `None` if it has none, or is gone.
    pub fn on_output<T: Send + 'static>(
        &self,
        port: u16,
        act: impl FnOnce(&mut Output) -> T + Send + 'static,
    ) -> Option<T> {
        self.ask(|answer| {
            let act = move |output: &mut Output| answer.give(act(output));
            Message::OnOutput(port, Act(Box::new(act)))
        })
    }

    /// Whether both lead to the same worker.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.sent, &other.sent)
    }

    /// Ends the worker's sleep.
    pub fn wake(&self) {
        if let Err(error) = self.wake.signal() {
            tracing::warn!(%error, "a worker cannot be woken up; it will wake up by itself");
        }
    }
}

/// How a worker behaves without frames.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// Whether it never sleeps.
    pub busy_poll: bool,
    /// How long it polls before it sleeps, in clock cycles.
    pub after: u64,
}

impl Idle {
    /// As settings say it.
    pub fn new(busy_poll: bool, after: Duration) -> Self {
        Self { busy_poll, after: clock::cycles(after) }
    }
}

/// A worker, as its own thread sees it.
#[derive(Debug)]
pub struct Worker {
    inputs: Inputs,
    path: Datapath,
    idle: Idle,
    messages: Receiver<Message>,
    sent: Arc<AtomicUsize>,
    seen: usize,
    wake: Arc<EventFd>,
    sleeper: Sleeper,
    counters: Arc<Counters>,
    /// It was told to stop working.
    has_ended: bool,
}

impl Worker {
    /// A worker without queues, and the way to it.
    pub fn new(path: Datapath, idle: Idle) -> io::Result<(Self, Mailbox)> {
        let (sender, messages) = mpsc::channel();
        let sent = Arc::new(AtomicUsize::new(0));
        let wake = Arc::new(EventFd::new()?);
        let counters = Arc::<Counters>::default();
        let sleeper = Sleeper::new(wake.as_fd())?;
        let mailbox = Mailbox {
            messages: sender,
            sent: Arc::clone(&sent),
            wake: Arc::clone(&wake),
            counters: Arc::clone(&counters),
        };
        let worker = Self {
            inputs: Inputs::new(clock::hz()),
            path,
            idle,
            messages,
            sent,
            seen: 0,
            wake,
            sleeper,
            counters,
            has_ended: false,
        };
        Ok((worker, mailbox))
    }

    /// Waits for the next message, in place of working, for tests of those who send them; `None`: nobody
    /// can send any more.
    #[doc(hidden)]
    #[must_use]
    pub fn next_message(&self) -> Option<Message> {
        self.messages.recv().ok()
    }

    /// Works until asked to stop, by its group's wish or by a message.
    pub fn run(mut self, context: &WorkerContext) {
        let mut last = clock::now();
        let mut idle_since = last;
        // A device has not taken all that was sent to it.
        let mut pending = false;
        while !context.should_stop() {
            pending |= self.take_messages();
            if self.has_ended {
                return;
            }
            let packets = self.poll(last);
            let now = clock::now();
            self.counters.polls.add(1);
            if packets > 0 || pending {
                pending = self.path.flush();
            }
            if packets > 0 {
                self.counters.busy_polls.add(1);
                self.counters.packets.add(packets as u64);
                self.counters.busy_cycles.add(now.wrapping_sub(last));
                idle_since = now;
            } else if self.may_sleep(now.wrapping_sub(idle_since)) && self.sleep(now, pending) {
                idle_since = clock::now();
                last = idle_since;
                continue;
            }
            last = now;
        }
    }

    /// One round over the queues; returns the number of frames.
    #[inline]
    fn poll(&mut self, now: u64) -> usize {
        let path = &mut self.path;
        self.inputs.poll(now, |burst, source| path.forward_burst(burst, source))
    }

    const fn may_sleep(&self, idle: u64) -> bool {
        !self.idle.busy_poll && idle >= self.idle.after
    }

    /// Sleeps until a frame or a message comes, or for a limited time: a short one where something
    /// is `pending`. Returns whether to poll for a while before the next sleep.
    fn sleep(&mut self, now: u64, pending: bool) -> bool {
        self.path.sleeps(now);
        self.counters.asleep.begin(now);
        // A message that came after `take_messages` has signalled the eventfd, so it ends the
        // sleep at once.
        let inputs = self.inputs.as_mut_slice();
        let due = pending.then(|| now.wrapping_add(clock::cycles(PENDING_NAP)));
        let slept = self.sleeper.sleep(inputs, |input| &mut input.rx, due);
        self.counters.asleep.end(clock::now());
        if slept == Slept::UntilWoken {
            let _ = self.wake.drain();
        }
        if slept != Slept::Not {
            self.counters.sleeps.add(1);
        }
        slept != Slept::ToTheEnd
    }

    /// Does what messages ask; returns whether a device has not taken all that was sent for that.
    #[inline]
    fn take_messages(&mut self) -> bool {
        self.sent.load(Relaxed) != self.seen && self.take_all()
    }

    #[cold]
    fn take_all(&mut self) -> bool {
        self.seen = self.sent.load(Acquire);
        while let Ok(message) = self.messages.try_recv() {
            self.take(message);
        }
        self.path.flush()
    }

    /// Sends frames of the switch's own; returns whether the port takes any.
    fn send_own(&mut self, port: u16, frames: &[Vec<u8>]) -> bool {
        let frames = frames.iter().take(BURST).map(|bytes| Frame::from_bytes(bytes));
        let frames: ArrayVec<Frame<'_>, BURST> = frames.collect();
        self.path.send_own(port, &frames, clock::now())
    }

    /// Takes frames for what has come in on a port's queue; returns whether that is polled here.
    fn receive(&mut self, input: (u16, usize), frames: &[Vec<u8>]) -> bool {
        let frames = frames.iter().take(BURST).map(|bytes| Frame::from_bytes(bytes));
        let frames: ArrayVec<Frame<'_>, BURST> = frames.collect();
        let (path, counters) = (&mut self.path, &self.counters);
        self.inputs.receive(input, &frames, clock::now(), |source| {
            counters.packets.add(frames.len() as u64);
            path.forward(Burst::new(&frames), source, false);
        })
    }

    /// Does what a message asks.
    #[cold]
    fn take(&mut self, message: Message) {
        match message {
            Message::AddOutput(port, output, done) => {
                self.path.set_output(port, Some(*output));
                done.give(());
            }
            Message::Bridge(id, change, done) => {
                // What was decided so may be gone then.
                self.counters.add(self.path.take_look_ups());
                self.path.change_bridge(id, *change);
                done.give(());
            }
            Message::SetPatch(port, patch, done) => {
                self.path.set_patch(port, patch);
                done.give(());
            }
            Message::SetTunnels(tunnels, done) => {
                self.path.set_tunnels(tunnels);
                done.give(());
            }
            Message::AddInput(input, done) => {
                self.sleeper.watch(&input.rx);
                self.inputs.push(*input);
                done.give(());
            }
            Message::TakeInputs(port, inputs) => {
                let taken = self.inputs.take(port);
                taken.iter().for_each(|input| self.sleeper.unwatch(&input.rx));
                inputs.give(taken);
            }
            Message::TakeOutput(port, output) => {
                output.give(self.path.set_output(port, None));
            }
            Message::OnOutput(port, Act(act)) => self.path.on_output(port, act),
            Message::SetRetries(port, retries, done) => {
                self.path.set_retries(port, retries);
                done.give(());
            }
            Message::SetIdle(idle, done) => {
                self.idle = idle;
                done.give(());
            }
            Message::End(done) => {
                self.has_ended = true;
                done.give(());
            }
            Message::SetLimit(port, direction, limiter, done) => {
                self.path.set_limit(port, direction, limiter);
                done.give(());
            }
            Message::SetBond(port, bond, done) => {
                self.path.set_bond(port, bond.map(|bond| *bond));
                done.give(());
            }
            Message::Send(port, frames, done) => {
                done.give(self.send_own(port, &frames));
            }
            Message::SetGuard(port, guard, done) => {
                self.path.set_guard(port, guard);
                done.give(());
            }
            Message::SetTrap(port, trap, done) => {
                self.path.set_trap(port, trap);
                done.give(());
            }
            Message::Capture(captures, done) => {
                self.path.set_captures(captures);
                done.give(());
            }
            Message::Record(record, done) => {
                self.path.set_recording(record, clock::now());
                done.give(());
            }
            Message::TakeRecording(recording) => recording.give(self.path.take_recording()),
            Message::Receive(input, frames, done) => {
                done.give(self.receive(input, &frames));
            }
            Message::Trace(port, frame, learns, done) => {
                let home = self.inputs.home(port);
                self.counters.add(self.path.take_look_ups());
                let trace =
                    home.map(|home| self.path.trace((home, port), &frame, learns, clock::now()));
                // No frame has come in.
                self.path.take_look_ups();
                done.give(trace);
            }
            Message::Decide(id, port, frame, learns, done) => {
                let decided = self.path.decide((id, port), &frame, learns, clock::now());
                done.give(decided);
            }
            Message::Copies(id, port, index, frame, done) => {
                done.give(self.path.copies((id, port), index, &frame, clock::now()));
            }
            Message::PacketOut(id, packet, done) => {
                self.path.packet_out(id, &packet, clock::now());
                done.give(());
            }
            Message::Answer(done) => {
                done.give(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_asleep_never_goes_back() {
        let asleep = Asleep::default();
        let mut last = 0;
        for (now, sleeps, expected) in
            [(100, true, 0), (150, true, 50), (170, false, 70), (900, false, 70), (1_000, true, 70)]
        {
            match (sleeps, asleep.0.get() & Asleep::SLEEPS != 0) {
                (true, false) => asleep.begin(now),
                (false, true) => asleep.end(now),
                _ => {}
            }
            assert_eq!(asleep.until(now), expected);
            assert!(asleep.until(now) >= last);
            last = asleep.until(now);
        }
        asleep.end(1_030);
        assert_eq!(asleep.until(2_000), 100);
    }
}
