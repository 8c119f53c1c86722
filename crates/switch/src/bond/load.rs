//! How much each part of a bond's traffic is, as one worker counts it.

use eal::Counter;

use super::way::BUCKETS;

/// Bytes sent, by part.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Load([Counter; BUCKETS]);

impl Default for Load {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Load {
    /// Counts a frame.
    #[inline]
    pub(crate) fn add(&self, bucket: usize, bytes: usize) {
        if let Some(counter) = self.0.get(bucket) {
            counter.add(bytes as u64);
        }
    }

    /// Bytes so far.
    pub(crate) fn get(&self) -> [u64; BUCKETS] {
        self.0.each_ref().map(Counter::get)
    }
}
