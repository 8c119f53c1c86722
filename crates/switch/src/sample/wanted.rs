//! The samplings of a switch as control threads see them.

use std::sync::{Arc, PoisonError};

use datapath::sample::Room;
use datapath::sample::{MAX_SAMPLERS, MAX_SETS, Sampler, Samplers, SetSampler};

use super::reader::Rooms;
use super::{MAX_SAMPLINGS, Sampled, Sampling};
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
        let is_set = |sampling: &Sampling| matches!(sampling.what, Sampled::Set(_));
        let own = self.all.iter().map(|entry| &entry.sampling);
        let own =
            own.filter(|own| own.bridge == sampling.bridge && is_set(own) == is_set(sampling));
        let most = if is_set(sampling) { MAX_SETS } else { MAX_SAMPLERS };
        if own.count() >= most {
            let bridge = &sampling.bridge;
            let reason = format!("bridge '{bridge}' has {most} already, which is the most");
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
        let seed = |entry: &Entry| seed.rotate_left(32) ^ entry.id.rotate_left(16) ^ worker as u64;
        let of_frames = |(entry, room): (&Entry, &Arc<Room>)| {
            let Sampled::Frames { rate, sides } = entry.sampling.what else { return None };
            let bytes = entry.sampling.bytes;
            Some(Sampler::new((rate, sides), bytes, Arc::clone(room), seed(entry)))
        };
        let of_set = |(entry, room): (&Entry, &Arc<Room>)| {
            let Sampled::Set(set) = entry.sampling.what else { return None };
            Some(SetSampler::new(set, entry.sampling.bytes, Arc::clone(room), seed(entry)))
        };
        Samplers::new(own.clone().filter_map(of_frames)).with_sets(own.filter_map(of_set))
    }
}

impl Entry {
    fn restart(&mut self, workers: usize) {
        self.rooms = (0..workers).map(|_| Arc::<Room>::default()).collect();
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(self.rooms.iter().cloned());
    }
}
