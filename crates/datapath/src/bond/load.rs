//! How much each part of a bond's traffic is, as one worker counts it.

use eal::Counter;

use super::way::BUCKETS;

/// What was sent, by part.
#[derive(Debug)]
#[repr(align(128))]
pub struct Load([Sent; BUCKETS]);

/// Frames of a part, and their bytes: beside each other, since both are counted together.
#[derive(Debug, Default)]
struct Sent {
    frames: Counter,
    bytes: Counter,
}

impl Default for Load {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Sent::default()))
    }
}

impl Load {
    /// Counts a frame.
    #[inline]
    pub(crate) fn add(&self, bucket: usize, bytes: usize) {
        if let Some(sent) = self.0.get(bucket) {
            sent.frames.add(1);
            sent.bytes.add(bytes as u64);
        }
    }

    /// Frames so far.
    pub fn frames(&self) -> [u64; BUCKETS] {
        self.0.each_ref().map(|sent| sent.frames.get())
    }

    /// Bytes so far.
    pub fn bytes(&self) -> [u64; BUCKETS] {
        self.0.each_ref().map(|sent| sent.bytes.get())
    }
}
