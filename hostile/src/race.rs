//! The thread that changes descriptors, indexes and buffers while the back-end reads them.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

use crate::frontend::{Frontend, SPARE, TX_BUFFERS};
use crate::memory::Memory;
use crate::random::Random;
use crate::ring::{Format, Layout, Ring, kick};

/// What a lie may have written to: the rings, the first buffers, and the spare room.
const AREAS: [(usize, usize); 3] =
    [(0, 3 * Layout::STRIDE), (TX_BUFFERS, 0x1_0000), (SPARE, 0x1_0000)];

/// Numbers that checks get wrong.
const ODD: [u64; 16] = [
    0,
    1,
    11,
    12,
    0x7f,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x70_0000,
    0x7f_fff0,
    0x7fff_ffff,
    0xffff_ffff,
    0xffff_ffff_0000_0000,
    u64::MAX,
];

/// What the memory has in the places that lies are told in.
pub fn snapshot(memory: &Memory) -> Vec<Vec<u8>> {
    AREAS.iter().map(|(at, len)| memory.read(*at, *len)).collect()
}

/// One 16-bit word that a lie has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    at: usize,
    values: [u16; 2],
}

/// A ring that is turned on while its descriptors change.
#[derive(Debug)]
struct Turning {
    format: Format,
    at: Layout,
    size: u16,
    kick: OwnedFd,
    idx: u16,
    place: (u16, bool),
}

/// See the module.
#[derive(Debug)]
pub struct Racer {
    memory: Arc<Memory>,
    changes: Vec<Change>,
    rings: Vec<Turning>,
    seed: u64,
    stop: AtomicBool,
}

impl Racer {
    /// A racer between what `before` has and what the memory has now.
    pub fn new(frontend: &Frontend, before: &[Vec<u8>], seed: u64) -> Result<Self> {
        let memory = Arc::clone(&frontend.memory);
        let after = snapshot(&memory);
        let changes = AREAS
            .iter()
            .zip(before.iter().zip(&after))
            .flat_map(|((at, _), (before, after))| differences(*at, before, after))
            .collect();
        let turning = |ring: &Ring| {
            Ok(Turning {
                format: ring.format,
                at: ring.at,
                size: ring.size,
                kick: ring.kick.try_clone()?,
                idx: ring.idx(),
                place: ring.place(),
            })
        };
        let rings = frontend.rings.iter().map(turning).collect::<Result<_>>()?;
        Ok(Self { memory, changes, rings, seed, stop: AtomicBool::new(false) })
    }

    /// Ends [`run`](Self::run).
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Changes what it can until it is stopped.
    pub fn run(&self) {
        let mut random = Random::new(self.seed);
        let mut places: Vec<_> = self.rings.iter().map(|ring| (ring.idx, ring.place)).collect();
        while !self.stop.load(Ordering::Relaxed) {
            for _ in 0..64 {
                if let Some(change) = random.pick(&self.changes) {
                    self.memory.publish(change.at, change.values[random.below(2)]);
                }
            }
            for (ring, place) in self.rings.iter().zip(&mut places) {
                if random.below(4) == 0 {
                    self.spoil(ring, &mut random);
                }
                self.turn(ring, place);
                kick(&ring.kick);
            }
        }
    }

    /// Writes an odd number into a field of one of the first descriptors.
    fn spoil(&self, ring: &Turning, random: &mut Random) {
        let slot = random.below(usize::from(ring.size).min(32));
        let value = random.pick(&ODD).copied().unwrap_or(0).to_le_bytes();
        let (field, len) = [(0, 8), (8, 4), (12, 2), (14, 2)][random.below(4)];
        self.memory.write(ring.at.desc + 16 * slot + field, &value[..len]);
    }

    /// Makes one more descriptor available.
    fn turn(&self, ring: &Turning, (idx, (slot, wrap)): &mut (u16, (u16, bool))) {
        match ring.format {
            Format::Split => {
                *idx = idx.wrapping_add(1);
                self.memory.publish(ring.at.avail + 2, idx.to_le());
            }
            Format::Packed => {
                let at = ring.at.desc + 16 * usize::from(*slot) + 14;
                let flags =
                    self.memory.look(at) & !(Ring::available(true) | Ring::available(false));
                self.memory.publish(at, flags | Ring::available(*wrap));
                *slot += 1;
                if *slot >= ring.size {
                    (*slot, *wrap) = (0, !*wrap);
                }
            }
        }
    }
}

/// The words in which two states of an area that begins at `at` differ.
fn differences(at: usize, before: &[u8], after: &[u8]) -> Vec<Change> {
    let words = before.chunks_exact(2).zip(after.chunks_exact(2)).enumerate();
    let changed = words.filter(|(_, (before, after))| before != after);
    let value = |bytes: &[u8]| u16::from_ne_bytes([bytes[0], bytes[1]]);
    changed
        .map(|(i, (before, after))| Change {
            at: at + 2 * i,
            values: [value(before), value(after)],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_lie_changed_is_found() {
        let found = differences(0x100, &[0, 0, 1, 2, 3, 4], &[0, 0, 1, 2, 9, 4]);
        let values = [u16::from_ne_bytes([3, 4]), u16::from_ne_bytes([9, 4])];
        assert_eq!(found, [Change { at: 0x104, values }]);
    }
}
