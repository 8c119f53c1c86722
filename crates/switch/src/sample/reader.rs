//! What workers have sampled, for a thread that takes its time.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::room::{Room, Sample, SampleLoss};
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
