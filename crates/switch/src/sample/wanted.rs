//! The samplings of a switch as control threads see them.

use std::sync::{Arc, PoisonError};

use super::reader::Rooms;
use super::room::Room;
use super::sampler::{MAX_SAMPLERS, Sampler, Samplers};
use super::{MAX_SAMPLINGS, Sampling};
use crate::error::Error;

/// A sampling that is under way.
#[derive(Debug)]
struct Entry {
    id: u64,
    sampling: Sampling,
    all: Rooms,
    /// Those of the present workers.
    rooms: Vec<Arc<Room>>,
}

/// All samplings.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    all: Vec<Entry>,
    /// How many there ever were.
    count: u64,
}

impl Wanted {
    /// Adds one; the switch has so many workers. Returns its number, and what its reader needs.
    pub(crate) fn add(
        &mut self,
        sampling: &Sampling,
        workers: usize,
    ) -> Result<(u64, Rooms), Error> {
        sampling.check().map_err(|reason| Error::Sampling { reason })?;
        if self.all.len() >= MAX_SAMPLINGS {
            let reason = format!("there are {MAX_SAMPLINGS} samplings already, which is the most");
            return Err(Error::Sampling { reason });
        }
        let own = self.all.iter().filter(|entry| entry.sampling.bridge == sampling.bridge);
        if own.count() >= MAX_SAMPLERS {
            let bridge = &sampling.bridge;
            let reason = format!("bridge '{bridge}' has {MAX_SAMPLERS} already, which is the most");
            return Err(Error::Sampling { reason });
        }
        let id = self.count;
        self.count = id.saturating_add(1);
        let all = Rooms::default();
        let (rooms, sampling) = (Vec::new(), sampling.clone());
        let mut entry = Entry { id, sampling, all: Arc::clone(&all), rooms };
        entry.restart(workers);
        self.all.push(entry);
        Ok((id, all))
    }

    /// Ends one; returns its bridge, if it was there.
    pub(crate) fn remove(&mut self, id: u64) -> Option<String> {
        let place = self.all.iter().position(|entry| entry.id == id)?;
        Some(self.all.swap_remove(place).sampling.bridge)
    }

    /// There are others, so many workers from now on.
    pub(crate) fn restart(&mut self, workers: usize) {
        self.all.iter_mut().for_each(|entry| entry.restart(workers));
    }

    /// Whether frames of a bridge are sampled.
    pub(crate) fn concern(&self, bridge: &str) -> bool {
        self.all.iter().any(|entry| entry.sampling.bridge == bridge)
    }

    /// What worker `worker` is to know of the samplings of a bridge; `seed` is another one each time.
    pub(crate) fn samplers(&self, bridge: &str, worker: usize, seed: u64) -> Samplers {
        let own = self.all.iter().filter(|entry| entry.sampling.bridge == bridge);
        let own = own.filter_map(|entry| Some((entry, entry.rooms.get(worker)?)));
        let sampler = |(entry, room): (&Entry, &Arc<Room>)| {
            let seed = seed.rotate_left(32) ^ entry.id.rotate_left(16) ^ worker as u64;
            Sampler::new(&entry.sampling, Arc::clone(room), seed)
        };
        Samplers::new(own.map(sampler))
    }
}

impl Entry {
    fn restart(&mut self, workers: usize) {
        self.rooms = (0..workers).map(|_| Arc::new(Room::new())).collect();
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(self.rooms.iter().cloned());
    }
}
