//! A port whose other end is the test: what the test puts in is received, what is sent comes out.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};

use eal::EventFd;
use ethdev::{
    Error, Link, OpenPort, PortControl, PortEvent, PortEvents, PortInfo, QueueStats, RxDriver,
    RxQueue, Sent, TxDriver, TxQueue,
};
use packet::{Frame, FrameBatch, MacAddr};

pub use testkit::PATIENCE;

/// Frames on their way into a queue of the switch.
struct Wire {
    frames: Mutex<VecDeque<Vec<u8>>>,
    armed: AtomicBool,
    event: EventFd,
    /// How often it announced something.
    calls: AtomicUsize,
}

/// The test's end of a port.
pub struct Peer {
    wires: Vec<Arc<Wire>>,
    got: Mutex<Vec<Vec<u8>>>,
    arrived: Condvar,
    /// Frames that still find room.
    pub room: AtomicUsize,
    pub ready: AtomicBool,
    /// How many of the transmit queues are enabled.
    pub enabled: AtomicUsize,
    pub closed: AtomicBool,
    pub panics: AtomicBool,
    /// How many flushes it takes until all is sent.
    pub unfinished: AtomicUsize,
    /// How often the switch has asked for the port's address.
    pub mac_looks: AtomicUsize,
    mtu: AtomicU16,
    can_wait: bool,
    link_changes: AtomicUsize,
    events: PortEvents,
}

impl Peer {
    /// Takes the link down or up, and tells so.
    pub fn set_link(&self, up: bool) {
        self.ready.store(up, SeqCst);
        self.link_changes.fetch_add(1, SeqCst);
        self.events.announce(PortEvent::LinkChanged);
    }

    /// Takes the link down and up again before anybody can look.
    pub fn flap_link(&self) {
        self.link_changes.fetch_add(2, SeqCst);
        self.events.announce(PortEvent::LinkChanged);
    }

    /// Puts frames on their way into queue `queue`.
    pub fn send(&self, queue: usize, frames: impl IntoIterator<Item = Vec<u8>>) {
        let wire = &self.wires[queue];
        wire.frames.lock().unwrap().extend(frames);
        if wire.armed.swap(false, SeqCst) {
            wire.calls.fetch_add(1, SeqCst);
            wire.event.signal().unwrap();
        }
    }

    /// Frames that the switch has not taken yet.
    pub fn pending(&self) -> usize {
        self.wires.iter().map(|wire| wire.frames.lock().unwrap().len()).sum()
    }

    /// How often a sleeping worker was woken up.
    pub fn calls(&self) -> usize {
        self.wires.iter().map(|wire| wire.calls.load(SeqCst)).sum()
    }

    /// Whether the worker waits to be woken up by queue `queue`.
    pub fn is_armed(&self, queue: usize) -> bool {
        self.wires[queue].armed.load(SeqCst)
    }

    /// Waits for `count` frames and takes them, and whatever else has come.
    pub fn receive(&self, count: usize) -> Vec<Vec<u8>> {
        let got = self.got.lock().unwrap();
        let (mut got, timeout) =
            self.arrived.wait_timeout_while(got, PATIENCE, |got| got.len() < count).unwrap();
        assert!(!timeout.timed_out(), "{} of {count} frames came", got.len());
        std::mem::take(&mut *got)
    }

    /// Number of frames that came and were not taken.
    pub fn arrived(&self) -> usize {
        self.got.lock().unwrap().len()
    }
}

struct Receiver {
    /// Before `held`: its frames point there.
    batch: FrameBatch,
    held: Vec<Box<[u8]>>,
    wire: Arc<Wire>,
    peer: Arc<Peer>,
}

impl RxDriver for Receiver {
    fn receive(&mut self, max: usize, _stats: &QueueStats) {
        assert!(!self.peer.panics.load(SeqCst), "this port panics on purpose");
        self.release();
        let mut frames = self.wire.frames.lock().unwrap();
        while self.held.len() < max
            && let Some(frame) = frames.pop_front()
        {
            let frame = frame.into_boxed_slice();
            let (ptr, len) = (NonNull::from(&*frame).cast(), u16::try_from(frame.len()).unwrap());
            // SAFETY: the bytes are on the heap, owned by `held` until after the batch is
            // cleared, and nobody writes to them.
            assert!(unsafe { self.batch.push_private(ptr, len) });
            self.held.push(frame);
        }
    }

    fn batch(&self) -> &FrameBatch {
        &self.batch
    }

    fn batch_mut(&mut self) -> &mut FrameBatch {
        &mut self.batch
    }

    fn release(&mut self) {
        self.batch.clear();
        self.held.clear();
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.peer.can_wait.then(|| self.wire.event.as_fd())
    }

    fn arm(&mut self) -> bool {
        self.wire.armed.store(true, SeqCst);
        self.wire.frames.lock().unwrap().is_empty()
    }

    fn disarm(&mut self) {
        self.wire.armed.store(false, SeqCst);
        self.wire.event.drain().unwrap();
    }
}

struct Transmitter {
    peer: Arc<Peer>,
    queue: usize,
}

impl TxDriver for Transmitter {
    fn transmit(&mut self, frames: &[Frame<'_>], _stats: &QueueStats) -> Sent {
        let mut got = self.peer.got.lock().unwrap();
        let room = self.peer.room.load(SeqCst);
        let count = frames.len().min(room);
        self.peer.room.fetch_sub(count, SeqCst);
        got.extend(frames[..count].iter().map(Frame::to_vec));
        self.peer.arrived.notify_all();
        Sent::first(count)
    }

    fn is_ready(&self) -> bool {
        self.peer.ready.load(SeqCst) && self.queue < self.peer.enabled.load(SeqCst)
    }

    fn flush(&mut self) -> bool {
        let left = self.peer.unfinished.load(SeqCst).saturating_sub(1);
        self.peer.unfinished.store(left, SeqCst);
        left > 0
    }
}

struct Control {
    peer: Arc<Peer>,
    queues: usize,
}

impl PortControl for Control {
    fn info(&self) -> PortInfo {
        PortInfo { driver: "test", rx_queues: self.queues, tx_queues: self.queues, max_mtu: 9000 }
    }

    fn link(&self) -> Link {
        let changes = self.peer.link_changes.load(SeqCst) as u64;
        Link { up: self.peer.ready.load(SeqCst), speed_mbps: None, changes }
    }

    fn events(&self) -> Option<&PortEvents> {
        Some(&self.peer.events)
    }

    fn mac(&self) -> MacAddr {
        self.peer.mac_looks.fetch_add(1, SeqCst);
        MacAddr([2, 0, 0, 0, 0, 1])
    }

    fn mtu(&self) -> u16 {
        self.peer.mtu.load(SeqCst)
    }

    fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        if mtu > 9000 {
            let reason = format!("MTU {mtu}: at most 9000");
            return Err(Error::Device { what: "test".into(), reason });
        }
        self.peer.mtu.store(mtu, SeqCst);
        Ok(())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.peer.closed.store(true, SeqCst);
    }
}

/// A port with `queues` queue pairs, and the test's end of it.
pub fn port(name: &str, queues: usize) -> (OpenPort, Arc<Peer>) {
    make(name, queues, true)
}

/// A port whose queues can only be polled.
pub fn polled_port(name: &str) -> (OpenPort, Arc<Peer>) {
    make(name, 1, false)
}

fn make(name: &str, queues: usize, can_wait: bool) -> (OpenPort, Arc<Peer>) {
    let wire = || {
        Arc::new(Wire {
            frames: Mutex::default(),
            armed: AtomicBool::new(false),
            event: EventFd::new().unwrap(),
            calls: AtomicUsize::new(0),
        })
    };
    let peer = Arc::new(Peer {
        wires: (0..queues).map(|_| wire()).collect(),
        got: Mutex::default(),
        arrived: Condvar::new(),
        room: AtomicUsize::new(usize::MAX / 2),
        ready: AtomicBool::new(true),
        enabled: AtomicUsize::new(queues),
        closed: AtomicBool::new(false),
        panics: AtomicBool::new(false),
        unfinished: AtomicUsize::new(0),
        mac_looks: AtomicUsize::new(0),
        mtu: AtomicU16::new(1500),
        can_wait,
        link_changes: AtomicUsize::new(0),
        events: PortEvents::new(),
    });
    let rx = peer.wires.iter().map(|wire| {
        let (wire, peer) = (Arc::clone(wire), Arc::clone(&peer));
        let batch = FrameBatch::with_segments(0);
        RxQueue::new(Box::new(Receiver { batch, held: Vec::new(), wire, peer }), Arc::default())
    });
    let tx = (0..queues).map(|queue| {
        TxQueue::new(Box::new(Transmitter { peer: Arc::clone(&peer), queue }), Arc::default())
    });
    let control = Box::new(Control { peer: Arc::clone(&peer), queues });
    (OpenPort::new(name, "test:", control, rx.collect(), tx.collect()), peer)
}

pub const BROADCAST: MacAddr = MacAddr::BROADCAST;

/// The address of station `number`.
pub fn mac(number: u16) -> MacAddr {
    let [high, low] = number.to_be_bytes();
    MacAddr([0x52, 0x54, 0, 0, high, low])
}

/// A frame of 60 bytes with a number in it.
pub fn frame(to: MacAddr, from: MacAddr, number: u32) -> Vec<u8> {
    let mut bytes = vec![0; 60];
    bytes[..6].copy_from_slice(&to.0);
    bytes[6..12].copy_from_slice(&from.0);
    bytes[12..14].copy_from_slice(&[0x88, 0xB5]);
    bytes[14..18].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// The number in a frame.
pub fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes([frame[14], frame[15], frame[16], frame[17]])
}

/// Waits until something is so.
pub fn wait_until(what: &str, is_so: impl FnMut() -> bool) {
    testkit::wait_for(what, is_so);
}
