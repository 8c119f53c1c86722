//! Hashes of paths, by which those that are the same are found.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::{Edit, Op, Way};
use crate::pattern::{finish, mix};

impl Way<'_> {
    /// A hash of it.
    pub(crate) fn hash(&self, seed: u64) -> u64 {
        let mut hasher = Mixer(seed);
        let mut written = 0_u64;
        for (at, op) in self.ops.iter().enumerate() {
            match op {
                Op::Edit(Edit::Set { word, mask, value }) => {
                    hasher.write_u64(*mask);
                    hasher.write_u64((*word).into());
                    written = written.wrapping_add(hash_written(seed, at, *value));
                }
                op => op.hash(&mut hasher),
            }
        }
        for change in &self.learns {
            change.hash(&mut hasher);
        }
        hasher.write_u64(self.trail);
        self.groups.iter().for_each(|stats| Arc::as_ptr(stats).hash(&mut hasher));
        (self.basis, self.lost).hash(&mut hasher);
        hasher.finish().wrapping_add(written)
    }
}

/// What is added to the hash of a path for a value that an operation writes: where that is another one, so is the
/// hash, without a look at all of the path.
pub(super) fn hash_written(seed: u64, at: usize, value: u64) -> u64 {
    finish(mix(mix(seed, at as u64), value))
}

/// A hash that is quick for words.
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        finish(self.0)
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = mix(self.0, word);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::key::Key;
    use crate::pipeline::Pipeline;
    use crate::walk::room::Room;
    use crate::walk::{Start, find_way};

    /// The hash of a way that does this, and nothing else.
    fn hash(ops: Vec<Op>) -> u64 {
        let (pipeline, mut room) = (Pipeline::default(), Room::default());
        let mut way = find_way(&pipeline, &Key::default(), &Start::Table, (false, None), &mut room);
        way.ops = ops;
        way.hash(7)
    }

    /// Also where a word and its mask are what another word is with another mask, in all of their bits at once.
    #[test]
    fn paths_that_write_elsewhere_have_other_hashes() {
        let all = (0..16_u8).flat_map(|word| (0..16_u64).map(move |mask| (word, mask)));
        let set = |(word, mask)| Op::Edit(Edit::Set { word, mask, value: 0 });
        let one: HashSet<u64> = all.clone().map(|of| hash(vec![set(of)])).collect();
        assert_eq!(one.len(), 256);
        // What is written counts by its place.
        let two = [(1, 2), (2, 1), (3, 3)].map(|(first, second)| {
            let set = |word, value| Op::Edit(Edit::Set { word, mask: 3, value });
            hash(vec![set(4, first), set(5, second)])
        });
        assert_eq!(HashSet::from(two).len(), 3);
    }
}
