//! The ways of packets: which path one takes that an entry has, and which one a packet that has none.

use std::collections::HashMap;
use std::sync::Arc;

use super::effort::Effort;
use super::paths::{Broken, MAX_BYTES, MAX_PATHS, NONE, Paths, Renewed};
use crate::frozen::Frozen;
use crate::key::{Key, slot};
use crate::path::{Op, Way};
use crate::pipeline::Pipeline;
use crate::walk::guide::Guide;
use crate::walk::room::Room;
use crate::walk::{Start, find_way};

/// What each round weighs at least, so that there are no more than paths.
const LEAST_ROUND: usize = MAX_BYTES / MAX_PATHS;

/// What tracked packets go on with, by number, the first of which is 1.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    all: Vec<Arc<Frozen>>,
    numbers: HashMap<Arc<Frozen>, u32>,
    /// About how many bytes these are.
    weight: usize,
}

impl Rounds {
    /// What has this number.
    pub(super) fn get(&self, round: u32) -> Option<&Arc<Frozen>> {
        self.all.get(round.checked_sub(1)? as usize)
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are so many that all have to be forgotten.
    pub(super) const fn are_too_many(&self) -> bool {
        self.weight > MAX_BYTES
    }

    /// The number of what tracked packets go on with.
    fn number(&mut self, next: &Arc<Frozen>) -> u32 {
        let Self { all, numbers, weight } = self;
        *numbers.entry(Arc::clone(next)).or_insert_with(|| {
            all.push(Arc::clone(next));
            *weight += LEAST_ROUND.max(next.weight());
            u32::try_from(all.len()).unwrap_or(u32::MAX)
        })
    }

    /// Has operations of a way say the numbers of what goes on there.
    fn note(&mut self, way: &mut Way<'_>) {
        for op in &mut way.ops {
            match op {
                Op::Track(track, round) => {
                    *round = track.next.as_ref().map_or(0, |next| self.number(next));
                }
                Op::Again(next, round) => *round = self.number(next),
                _ => {}
            }
        }
    }
}

/// The paths of packets, and what decides about them.
#[derive(Debug)]
pub(super) struct Ways {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) paths: Paths,
    pub(super) rounds: Rounds,
    /// How many packets went through the tables, and how many of these for the sake of an entry that there was.
    pub(super) walks: u64,
    pub(super) mended: u64,
    room: Room,
}

impl Ways {
    /// None yet.
    pub(super) fn new(pipeline: Arc<Pipeline>, seed: u64) -> Self {
        let paths = Paths::new(seed, pipeline.tables.look_ups().clone());
        let (rounds, room) = Default::default();
        Self { pipeline, paths, rounds, walks: 0, mended: 0, room }
    }

    /// Another pipeline decides from now on. Returns whether it is known what is different.
    pub(super) fn update(&mut self, pipeline: Arc<Pipeline>) -> bool {
        self.paths.count_in(pipeline.tables.look_ups());
        let before = std::mem::replace(&mut self.pipeline, pipeline);
        self.paths.update(&self.pipeline, &before)
    }

    /// Mends what the last change of rules has broken, as far as that is little.
    pub(super) fn exchange(&mut self) {
        self.paths.exchange_all(&self.pipeline.tables);
    }

    /// Forgets all, whose rules are told before. Returns whether numbers begin anew.
    pub(super) fn forget(&mut self) -> bool {
        self.rounds = Rounds::default();
        self.paths.forget()
    }

    /// The path that a packet takes by an entry with this number: that one, or another one.
    #[inline]
    pub(super) fn judge(&mut self, id: u32, key: impl FnOnce() -> Key) -> Option<u32> {
        if self.paths.stands(id) {
            return Some(id);
        }
        self.renew(id, key)
    }

    /// The same where tables have changed since it was last asked for.
    #[cold]
    fn renew(&mut self, id: u32, key: impl FnOnce() -> Key) -> Option<u32> {
        match self.paths.renew(id, key) {
            Renewed::Stands(id) => Some(id),
            Renewed::Breaks => self.mend(id),
            Renewed::Gone => None,
        }
    }

    /// The only packet that takes a path may take another way: it goes through the tables, as far as it has to, if at
    /// all.
    fn mend(&mut self, id: u32) -> Option<u32> {
        let Self { pipeline, paths, rounds, walks, mended, room } = self;
        paths.fetch_all(id);
        if paths.try_exchange(id, &pipeline.tables, &mut Effort::of_path()) {
            return Some(id);
        }
        let Broken { path, key, gone, .. } = paths.broken(id, &mut Effort::of_path())?;
        (*walks, *mended) = (*walks + 1, *mended + 1);
        let frozen = rounds.get(key.get_u32(slot::RECIRC_ID)).cloned();
        let start = frozen.as_deref().map_or(Start::Table, Start::Frozen);
        let guide = gone.and_then(|gone| Guide::new(path, key, gone));
        let mut way = find_way(pipeline, key, &start, (true, guide), room);
        rounds.note(&mut way);
        if way.tells_connection() && !path.tells_connection() {
            // An entry with its number is that of packets of other connections, too.
            room.take_back(way);
            paths.remove(id);
            return None;
        }
        let renewal = way.renewal_of(path, paths.seed(), room);
        paths.mend(id, renewal, room)
    }

    /// The way of a packet is not known: it goes through the tables.
    #[cold]
    pub(super) fn find(&mut self, key: &Key, start: &Start<'_>) -> u32 {
        let Self { pipeline, paths, rounds, walks, room, .. } = self;
        *walks += 1;
        // Where rules change, it is noted what tells packets from those that a change is about.
        let traces = paths.take_traces();
        let mut way = find_way(pipeline, key, start, (traces, None), room);
        rounds.note(&mut way);
        // There are more numbers than packets of a burst can need.
        paths.intern(way, key, room).unwrap_or(NONE)
    }
}
