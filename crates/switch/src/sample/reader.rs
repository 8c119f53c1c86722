//! What workers have sampled, for a thread that takes its time.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::room::{Room, Sample};
use crate::switch::Control;

/// One for each worker that there ever was.
pub(super) type Rooms = Arc<Mutex<Vec<Arc<Room>>>>;

/// Reads what is sampled. Dropping it ends the sampling.
#[derive(Debug)]
pub struct SampleReader {
    id: u64,
    control: Weak<Mutex<Control>>,
    rooms: Rooms,
    /// Memory to be exchanged for what workers have written.
    spare: Vec<Sample>,
}

impl SampleReader {
    pub(crate) const fn new(id: u64, control: Weak<Mutex<Control>>, rooms: Rooms) -> Self {
        Self { id, control, rooms, spare: Vec::new() }
    }

    /// Hands each frame that was sampled since the last call to `take`, worker by worker; waits for nobody.
    pub fn read(&mut self, mut take: impl FnMut(&Sample)) {
        for room in self.rooms() {
            room.take(&mut self.spare, &mut take);
        }
    }

    /// How many samples were lost, since they came faster than they were read.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.rooms().iter().map(|room| room.lost()).sum()
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
