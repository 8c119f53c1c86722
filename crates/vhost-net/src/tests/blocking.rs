//! A front-end that has made its files block, after it handed them over, and filled or emptied
//! their counters: neither the worker nor the control thread waits for it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::fs::{MemfdFlags, OFlags};
use virtio::DirtyLog;
use virtio::device::RingLog;

use super::*;
use crate::device::NetDevice;
use testkit::wait_for;
use vhost::backend::Backend;
use vhost::call::Call;

/// Has the file block, which holds for everybody who has it.
fn block(file: BorrowedFd<'_>) {
    rustix::fs::fcntl_setfl(file, OFlags::empty()).unwrap();
}

/// Has it block, and fills it as far as a write(2) can: the next one would wait.
fn fill(file: BorrowedFd<'_>) {
    rustix::io::write(file, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    block(file);
}

/// Runs `act` on a thread of its own; fails if it does not come back.
fn in_time<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, ended) = channel();
    let thread = std::thread::spawn(move || sender.send(act()).unwrap());
    let done = ended.recv_timeout(Duration::from_secs(60)).expect("it waits for a front-end");
    thread.join().unwrap();
    done
}

#[test]
fn full_counters_hold_up_no_worker() {
    let mut guest = Guest::new(Features::empty());
    let err = PeerEvent::new().unwrap();
    let log = PeerEvent::new().unwrap();
    for event in [&guest.call, &guest.kick, &err, &log] {
        fill(event.as_fd());
    }
    let file = rustix::fs::memfd_create("log", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, 1 << 20).unwrap();
    let map = Arc::new(Mapping::map(file.as_fd(), 0, 1 << 20).unwrap());
    let log = RingLog::new(Arc::new(DirtyLog::new(map, Some(log))), None);
    guest.slot.edit(|ring| {
        let ring = ring.as_mut().unwrap();
        ring.set_err(Some(err.clone().into()));
        ring.queue.set_log(Some(log));
    });
    guest.post(&Guest::frame(&pattern(60)), &[]);
    guest.offer(&[128]);
    let _ = guest.ring.publish();
    let (slot, stats) = (Arc::clone(&guest.slot), QueueStats::default());
    let calls = in_time(move || {
        let mut receiver = NetReceiver::new(Arc::clone(&slot));
        // One frame from the guest and one to it, a sleep, and a broken ring.
        receiver.receive(1, &stats);
        assert_eq!(receiver.batch().frames().len(), 1);
        receiver.release();
        let frame = pattern(60);
        let sent =
            NetTransmitter::new(Arc::clone(&slot)).transmit(&[Frame::from_bytes(&frame)], &stats);
        assert_eq!(sent, Sent::first(1));
        assert!(receiver.arm());
        receiver.disarm();
        slot.edit(|ring| slot.break_ring(ring.as_mut().unwrap(), RingError::MemoryGone));
        slot.calls.get()
    });
    assert_eq!(calls, 2);
    // They were signalled, to their very end.
    for event in [&guest.call, &err] {
        wait_for("a signal", || event.drain().unwrap());
    }
}

#[test]
fn empty_counters_hold_up_no_worker() {
    let guest = Guest::new(Features::empty());
    block(guest.kick.as_fd());
    block(guest.call.as_fd());
    let slot = Arc::clone(&guest.slot);
    in_time(move || {
        let mut receiver = NetReceiver::new(slot);
        for _ in 0..3 {
            assert!(receiver.arm());
            receiver.disarm();
        }
    });
}

#[test]
fn full_counters_hold_up_no_control_thread() {
    let guest = Guest::new(Features::empty());
    let running = guest.slot.edit(Option::take).unwrap();
    let [call, kick] = [(); 2].map(|()| PeerEvent::new().unwrap());
    fill(call.as_fd());
    fill(kick.as_fd());
    in_time(move || {
        let mut device = NetDevice::new("test", 1).unwrap();
        device.slots()[0].edit(|ring| *ring = Some(running));
        device.set_ring_kick(0, Some(kick.clone()));
        device.set_ring_call(0, Some(Call::Event(call.clone())));
        device.set_ring_kick(0, None);
        device.stop_ring(0);
    });
}
