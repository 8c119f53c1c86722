//! The control queue, served on the control thread.

use eal::EventFd;
use packet::Segment;
use virtio::device::{Buffers, DeviceQueue, RingError};

use super::command::{ACK_ERR, ACK_OK, Command, MAX_COMMAND};
use crate::call::Call;

/// Commands that one wake-up serves; a driver that sends more wakes us again, so that it cannot
/// keep the control thread from others.
const COMMANDS_AT_ONCE: usize = 64;

/// A running control queue.
#[derive(Debug)]
pub struct ControlRing {
    /// The virtqueue.
    pub queue: DeviceQueue,
    /// How the driver tells us of commands.
    pub kick: Option<EventFd>,
    /// How we tell the driver of answers.
    pub call: Option<Call>,
    broken: bool,
    buffers: Buffers,
    request: Vec<Segment>,
    answer: Vec<Segment>,
}

impl ControlRing {
    /// A control queue on `queue`, which wants to hear of the first command.
    #[must_use]
    pub fn new(queue: DeviceQueue) -> Self {
        Self {
            queue,
            kick: None,
            call: None,
            broken: false,
            buffers: Buffers::default(),
            request: Vec::new(),
            answer: Vec::new(),
        }
    }

    /// Serves the commands that wait: `execute` says whether it carried a command out.
    pub fn serve(&mut self, mut execute: impl FnMut(Command) -> bool) {
        if self.broken {
            return;
        }
        for _ in 0..COMMANDS_AT_ONCE {
            match self.serve_one(&mut execute) {
                Ok(true) => {}
                Ok(false) if self.queue.arm() => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "the guest broke its control queue; it is stopped");
                    self.broken = true;
                    return;
                }
            }
        }
        if let Some(kick) = &self.kick {
            // More is waiting: come back after the others' turn.
            let _ = kick.signal();
        }
    }

    /// Serves the next command; `false` when there is none.
    fn serve_one(&mut self, execute: &mut impl FnMut(Command) -> bool) -> Result<bool, RingError> {
        self.queue.fetch::<false>(1, &mut self.buffers)?;
        let Some(chain) = self.buffers.chains().next() else { return Ok(false) };
        let written = match self.queue.walk_request(chain, &mut self.request, &mut self.answer) {
            Ok(()) => {
                let command = Command::parse(&self.read_request());
                let done = command.is_some_and(execute);
                self.write_answer(if done { ACK_OK } else { ACK_ERR })
            }
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
            // A driver that gave us a file we cannot write waits for nothing.
            let _ = call.signal();
        }
        Ok(true)
    }

    /// A private copy of the command, cut where it is longer than any command.
    fn read_request(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for segment in &self.request {
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
