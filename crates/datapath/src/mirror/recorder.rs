//! A worker's part in mirrors whose copies go to files: it copies frames into memory of its own, once a burst,
//! from which a thread of the mirror writes them. What finds no room there is missed and counted: no worker waits.

use std::sync::Arc;

use eal::Counter;
use packet::Frame;

use crate::capture::{Direction, Draft, Room, append, low};

/// A worker's way to the file of a mirror.
#[derive(Clone, Debug)]
pub struct Recorder {
    room: Arc<Room>,
    missed: Arc<Counter>,
}

impl Recorder {
    /// One that writes into this memory, of one port.
    pub fn new(room: Arc<Room>) -> Self {
        let missed = room.missed(0);
        Self { room, missed }
    }

    /// Writes down `count` frames, `snaplen` bytes of each at most, which came at `cycles`. Neither
    /// waits nor allocates.
    pub(crate) fn record<'f>(
        &self,
        frames: impl Iterator<Item = &'f Frame<'f>>,
        count: u64,
        snaplen: usize,
        cycles: u64,
    ) {
        let missed = low(self.missed.get());
        let (port, direction, copy) = (0, Direction::In, None);
        let draft = Draft { port, cycles, direction, missed, snaplen, copy };
        let mut written = 0_u64;
        self.room.write(|records| {
            let fits = frames.filter(|frame| append(records, frame, &draft).is_some());
            written = fits.count() as u64;
        });
        if written < count {
            self.missed.add(count.saturating_sub(written));
        }
    }
}
