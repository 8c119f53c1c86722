//! What workers have sampled, for a thread that takes its time.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use datapath::sample::{Room, Sample, SampleLoss};

use crate::switch::Control;

/// One for each worker, and for each that there was until what it has left is taken.
pub(super) type Rooms = Arc<Mutex<Vec<Arc<Room>>>>;

/// Reads what is sampled. Dropping it ends the sampling.
#[derive(Debug)]
pub struct SampleReader {
    id: u64,
    control: Weak<Mutex<Control>>,
    rooms: Rooms,
    /// What workers lost that are gone.
    ended: SampleLoss,
    /// Memory to be exchanged for what workers have written.
    spare: Vec<Sample>,
}

impl SampleReader {
    pub(crate) const fn new(id: u64, control: Weak<Mutex<Control>>, rooms: Rooms) -> Self {
        Self { id, control, rooms, ended: SampleLoss { samples: 0, frames: 0 }, spare: Vec::new() }
    }

    /// Hands each frame that was sampled since the last call to `take`, worker by worker; waits for nobody.
    pub fn read(&mut self, mut take: impl FnMut(&Sample)) {
        for room in self.take_ended() {
            room.take(&mut self.spare, &mut take);
            self.ended = self.ended.and(room.lost());
        }
        for room in self.rooms() {
            room.take(&mut self.spare, &mut take);
        }
    }

    /// What was lost, since it came faster than it was read.
    #[must_use]
    pub fn lost(&self) -> SampleLoss {
        self.rooms().iter().fold(self.ended, |lost, room| lost.and(room.lost()))
    }

    /// Takes the rooms away into which nobody writes any more.
    fn take_ended(&self) -> Vec<Room> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ended = Vec::new();
        for room in std::mem::take(&mut *rooms) {
            match Arc::try_unwrap(room) {
                Ok(room) => ended.push(room),
                Err(room) => rooms.push(room),
            }
        }
        ended
    }

    fn rooms(&self) -> Vec<Arc<Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for SampleReader {
    fn drop(&mut self) {
        if let Some(control) = self.control.upgrade() {
            let mut control = control.lock().unwrap_or_else(PoisonError::into_inner);
            control.end_sampling(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use datapath::sample::{Sampled, Samplers, Sampling, Seen, Sides};
    use packet::Frame;

    use super::super::Wanted;
    use super::*;

    /// Has so many frames come, each of which is sampled.
    fn come(samplers: &Samplers, frames: usize) {
        for _ in 0..frames {
            assert_eq!(samplers.next(1), Some(0));
            samplers.end(&samplers.begin((1, 0), &Frame::from_bytes(&[0; 60])), &Seen::default());
        }
    }

    #[test]
    fn memory_of_workers_that_are_gone_is_let_go() {
        let what = Sampled::Frames { rate: 1, sides: Sides::IN };
        let sampling = Sampling { bridge: "x".to_owned(), what, bytes: 60 };
        let mut wanted = Wanted::default();
        let (id, rooms) = wanted.add(&sampling, 2).unwrap();
        let mut reader = SampleReader::new(id, Weak::new(), Arc::clone(&rooms));
        let mut read = 0;
        for _ in 0..5 {
            let samplers = wanted.samplers("x", 0, 7);
            come(&samplers, 2_000);
            wanted.restart(2);
            reader.read(|_| read += 1);
            // The old worker may go on as long as it has that.
            assert_eq!(rooms.lock().unwrap().len(), 3);
            come(&samplers, 10);
        }
        reader.read(|_| read += 1);
        assert_eq!(rooms.lock().unwrap().len(), 2);
        let lost = 5 * (2_000 - 1_024);
        assert_eq!((read, reader.lost()), (5 * 1_034, SampleLoss { samples: lost, frames: lost }));
    }
}
