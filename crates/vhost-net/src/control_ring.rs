//! The control queue, served on the control thread.

use std::sync::Arc;

use eal::PeerEvent;
use packet::RawSegment;
use virtio::GuestMemory;
use virtio::device::{Buffers, ChainError, DeviceQueue, RingError};
use virtio::memory::Miss;

use super::command::{ACK_ERR, ACK_OK, Command, MAX_COMMAND};
use super::ring::Health;
use vhost::call::Call;

/// Commands that one wake-up serves; for more there is another, so that a driver cannot
/// keep the control thread from others.
const COMMANDS_AT_ONCE: usize = 64;

/// A running control queue.
#[derive(Debug)]
pub struct ControlRing {
    /// The virtqueue.
    pub queue: DeviceQueue,
    /// How the driver tells us of commands.
    pub kick: Option<PeerEvent>,
    /// How we tell the driver of answers.
    pub call: Option<Call>,
    /// How we tell the front-end that the ring is broken.
    err: Option<Call>,
    health: Health,
    /// What broke it, until somebody has asked.
    fault: Option<RingError>,
    buffers: Buffers,
    request: Vec<RawSegment>,
    answer: Vec<RawSegment>,
}

impl ControlRing {
    /// A control queue on `queue`, which wants to hear of the first command.
    #[must_use]
    pub fn new(queue: DeviceQueue) -> Self {
        Self {
            queue,
            kick: None,
            call: None,
            err: None,
            health: Health::Sound,
            fault: None,
            buffers: Buffers::default(),
            request: Vec::new(),
            answer: Vec::new(),
        }
    }

    /// Replaces the file by which the front-end hears that the ring is broken, which it does at
    /// once if it is.
    pub fn set_err(&mut self, err: Option<Call>) {
        self.err = err;
        if self.health == Health::Broken {
            self.tell_broken();
        }
    }

    /// As for other rings.
    pub(super) fn move_to(&mut self, memory: &Arc<GuestMemory>) {
        self.health = self.health.after_move(&mut self.queue, memory);
    }

    /// As for other rings.
    pub(super) fn awaited(&self, memory: &GuestMemory) -> Option<Miss> {
        self.health.awaited(&self.queue, memory)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.health == Health::Lost
    }

    fn tell_broken(&self) {
        if let Some(err) = &self.err {
            let _ = err.signal();
        }
    }

    /// Serves the commands that wait: `execute` says whether it carried a command out. Returns
    /// whether there are more, for after the others' turn.
    pub fn serve(&mut self, mut execute: impl FnMut(Command) -> bool) -> bool {
        if self.health != Health::Sound {
            return false;
        }
        for _ in 0..COMMANDS_AT_ONCE {
            match self.serve_one(&mut execute) {
                // Answers would be written to memory of our own.
                Ok(true) if self.queue.memory().poisoned() => {
                    return self.break_ring(RingError::MemoryGone);
                }
                Ok(true) => {}
                Ok(false) if self.queue.memory().poisoned() => {
                    return self.break_ring(RingError::MemoryGone);
                }
                Ok(false) if self.queue.awaited().is_some() || self.queue.arm() => return false,
                Ok(false) => {}
                Err(error) => return self.break_ring(error),
            }
        }
        true
    }

    /// What has broken the ring since the last time.
    pub fn take_fault(&mut self) -> Option<RingError> {
        self.fault.take()
    }

    /// Stops using a ring that makes no sense: there is no more to serve.
    fn break_ring(&mut self, error: RingError) -> bool {
        self.fault = Some(error);
        self.health = Health::Broken;
        self.tell_broken();
        false
    }

    /// Serves the next command; `false` when there is none, or it is not known yet where it lies.
    fn serve_one(&mut self, execute: &mut impl FnMut(Command) -> bool) -> Result<bool, RingError> {
        self.queue.fetch::<false>(1, &mut self.buffers)?;
        let Some(chain) = self.buffers.chains().next() else { return Ok(false) };
        let written = match self.queue.walk_request(chain, &mut self.request, &mut self.answer) {
            Ok(()) => {
                let command = Command::parse(&self.read_request());
                let done = command.is_some_and(execute);
                self.write_answer(if done { ACK_OK } else { ACK_ERR })
            }
            Err(ChainError::Untranslated) => return Ok(false),
            Err(error) => {
                tracing::debug!(%error, "control command in a bad chain");
                0
            }
        };
        self.queue.advance(&self.buffers, 1);
        self.queue.complete([(chain, written)].into_iter());
        if self.queue.needs_call()
            && let Some(call) = &self.call
        {
            // A front-end that has closed its end waits for nothing.
            let _ = call.signal();
        }
        Ok(true)
    }

    /// A private copy of the command, cut where it is longer than any command.
    fn read_request(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // SAFETY: the segments were translated from the memory that the queue holds.
        for segment in unsafe { RawSegment::get_all(&self.request) } {
            let count = segment.len().min(MAX_COMMAND - bytes.len());
            let start = bytes.len();
            bytes.resize(start + count, 0);
            if let Some(to) = bytes.get_mut(start..) {
                segment.copy_to(to);
            }
        }
        bytes
    }

    /// Writes the answer's one byte, if the driver left room for it; returns the bytes written.
    fn write_answer(&mut self, ack: u8) -> u32 {
        let Some(segment) = self.answer.iter().find(|segment| segment.len() > 0) else { return 0 };
        // SAFETY: the segment is the guest's buffer for the answer, with room for a byte, in
        // memory that the queue keeps mapped.
        unsafe { segment.as_ptr().write_volatile(ack) };
        self.queue.log_written(std::slice::from_ref(segment), 1);
        1
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::Arc;

    use eal::Mapping;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use virtio::device::RingSetup;
    use virtio::memory::{GuestMemory, Region};
    use virtio::{Features, packed};

    use super::*;
    use testkit::wait_for;

    const USER: u64 = 0x7000_0000;
    const BYTES: u64 = 1 << 16;
    const SIZE: u16 = 64;

    /// A control queue of zeroes, and the file that it lies in.
    fn ring(is_packed: bool) -> (ControlRing, std::fs::File) {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, BYTES).unwrap();
        let mapping = Arc::new(Mapping::map(file.as_fd(), 0, BYTES).unwrap());
        let region = Region { guest_addr: 0, user_addr: USER, mapping };
        let memory = Arc::new(GuestMemory::new(vec![region]).unwrap());
        let mut features = Features::VERSION_1;
        features.set(Features::RING_PACKED, is_packed);
        let base = if is_packed { packed::Position::FIRST.bits().into() } else { 0 };
        let (desc, avail, used) = (USER, USER + 0x4000, USER + 0x8000);
        let setup = RingSetup { size: SIZE, desc, avail, used, base, features };
        (ControlRing::new(DeviceQueue::new(memory, setup).unwrap()), file.into())
    }

    /// Writes what no device can make sense of.
    fn spoil(file: &std::fs::File, is_packed: bool) {
        use std::os::unix::fs::FileExt;
        if is_packed {
            // Every descriptor is available and goes on in the next one.
            let flags = (packed::AVAIL | virtio::ring::DESC_NEXT).to_le_bytes();
            (0..u64::from(SIZE)).for_each(|at| file.write_all_at(&flags, 16 * at + 14).unwrap());
        } else {
            file.write_all_at(&(SIZE + 1).to_le_bytes(), 0x4000 + 2).unwrap();
        }
    }

    #[test]
    fn whoever_wants_to_know_hears_once_that_the_ring_is_broken() {
        for (is_packed, truncate) in [(false, false), (true, false), (false, true), (true, true)] {
            let (mut ring, file) = ring(is_packed);
            let err = PeerEvent::new().unwrap();
            ring.set_err(Some(err.clone().into()));
            ring.serve(|_| true);
            assert!(!err.drain().unwrap(), "a ring that is empty is whole");
            if truncate {
                file.set_len(0).unwrap();
            } else {
                spoil(&file, is_packed);
            }
            ring.serve(|_| true);
            wait_for(&format!("told: {is_packed} {truncate}"), || err.drain().unwrap());
            ring.serve(|_| true);
            assert!(!err.drain().unwrap(), "it is left alone");
            ring.set_err(Some(err.clone().into()));
            wait_for("one that comes late", || err.drain().unwrap());
        }
    }
}
