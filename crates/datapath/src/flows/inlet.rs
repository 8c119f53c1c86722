//! Packets on their way from workers to controllers. It is bounded in every way: whoever sends packets
//! that no rule is for may send as many as he likes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use eal::clock;
use flow::{Change, PacketIn, slot};
use packet::Frame;

/// The most packets that a worker hands over within a period.
const MOST: u32 = 1_000;

/// Bytes of a header of Ethernet.
pub(super) const ETHERNET_LEN: usize = 14;

/// Periods in a second.
const PERIODS: u64 = 10;

/// What a worker has to tell control threads.
#[derive(Clone, Debug)]
pub enum FlowEvent {
    /// A packet for controllers.
    Packet(FlowPacket),
    /// A rule that is made of a packet: once for each second in which there are such packets.
    Learn(Arc<Change>),
}

/// A packet for controllers.
#[derive(Clone, Debug)]
pub struct FlowPacket {
    /// What they are told about it, and where it came in.
    pub about: Arc<PacketIn>,
    /// All of it, as far as it could be read.
    pub bytes: Vec<u8>,
    /// The length of all of it.
    pub len: usize,
    /// If it stops there: mirrors that have a copy of it already, a bit for each.
    pub mirrors: u32,
}

/// Where a worker puts what it has to tell. Putting one in never waits.
#[derive(Clone)]
pub struct FlowInlet {
    queue: SyncSender<FlowEvent>,
    /// Has somebody look; it is quick.
    notify: Arc<dyn Fn() + Send + Sync>,
    /// What there was no room for.
    lost: Arc<AtomicU64>,
    /// When the present period began, in clock cycles, how long one is, and what was taken in it.
    since: u64,
    period: u64,
    taken: u32,
}

impl fmt::Debug for FlowInlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowInlet").field("taken", &self.taken).finish_non_exhaustive()
    }
}

/// A queue where `room` packets and rules wait at most, and where they are read. `notify` is
/// called by a worker when one has come, and must not wait for anything.
#[must_use]
pub fn flow_queue(
    room: usize,
    notify: impl Fn() + Send + Sync + 'static,
) -> (FlowInlet, Receiver<FlowEvent>) {
    let (queue, packets) = sync_channel(room);
    let period = (clock::hz() / PERIODS).max(1);
    let (notify, lost) = (Arc::new(notify), Arc::default());
    (FlowInlet { queue, notify, lost, since: 0, period, taken: 0 }, packets)
}

impl FlowInlet {
    /// How many packets and rules there was no room for so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Takes a frame that came in on no wire.
    pub fn offer_packet(&mut self, about: &Arc<PacketIn>, frame: &[u8]) {
        self.put((about, 0), &Frame::from_bytes(frame), clock::now());
    }

    /// Takes a rule that is made of one.
    pub fn offer_rule(&mut self, change: &Arc<Change>) {
        self.learn(change, clock::now());
    }

    /// Takes a packet at time `now`, in clock cycles.
    #[cold]
    pub(crate) fn put(
        &mut self,
        (about, mirrors): (&Arc<PacketIn>, u32),
        frame: &Frame<'_>,
        now: u64,
    ) {
        self.tell(now, || {
            // The place of a header that the packet does not have is nothing of it.
            let skipped = match about.key.get_u32(slot::PACKET_TYPE) {
                0 => 0,
                _ => ETHERNET_LEN.min(frame.len()),
            };
            let len = frame.len() - skipped;
            // Nothing of it is kept here that could be asked for, so all of it goes, whatever the rule says
            // (OpenFlow 1.3, 7.4.1).
            let mut bytes = vec![0; frame.len()];
            let count = frame.copy_to(&mut bytes);
            bytes.truncate(count);
            bytes.drain(..skipped.min(count));
            FlowEvent::Packet(FlowPacket { about: Arc::clone(about), bytes, len, mirrors })
        });
    }

    /// Takes a rule that is made of a packet.
    #[cold]
    pub(crate) fn learn(&mut self, change: &Arc<Change>, now: u64) {
        self.tell(now, || FlowEvent::Learn(Arc::clone(change)));
    }

    fn tell(&mut self, now: u64, event: impl FnOnce() -> FlowEvent) {
        if now.wrapping_sub(self.since) >= self.period {
            (self.since, self.taken) = (now, 0);
        }
        let has_room = self.taken < MOST;
        self.taken += u32::from(has_room);
        if has_room && self.queue.try_send(event()).is_ok() {
            (self.notify)();
        } else {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}
