//! Decisions of the peer, from bytes. When the bytes are used up, all that follow are 0.

use std::fmt;

use arbitrary::{Arbitrary, Unstructured};

/// Input that is not used up yet.
pub struct Input<'a>(Unstructured<'a>);

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("left", &self.0.len()).finish()
    }
}

impl<'a> Input<'a> {
    /// All of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    /// Whether it is used up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A number, little-endian.
    pub fn number<N: Arbitrary<'a>>(&mut self) -> N {
        N::arbitrary(&mut self.0).expect("numbers can be had of no bytes, too")
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.number()
    }

    /// A number from 0 to `count` - 1, of one byte.
    pub fn below(&mut self, count: u8) -> u8 {
        self.byte() % count
    }

    /// Yes or no.
    pub fn yes(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// One of `choices`, which are not empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    /// A number that is often one of `likely`, and else any.
    pub fn likely(&mut self, likely: &[u64]) -> u64 {
        match usize::from(self.byte()) {
            index if index < 4 * likely.len() => likely[index % likely.len()],
            index if index < 0xf0 => index as u64 - 4 * likely.len() as u64,
            _ => self.number(),
        }
    }

    /// The same of 32 bits: what is larger is the largest.
    pub fn likely_u32(&mut self, likely: &[u64]) -> u32 {
        u32::try_from(self.likely(likely)).unwrap_or(u32::MAX)
    }

    /// Milliseconds until something happens again: often as long as a neighbour may be silent, and hours at most.
    pub fn pause(&mut self) -> u64 {
        self.likely(&[0, 1, 100, 1_000, 60_000]) & 0xFF_FFFF
    }

    /// Has a frame be what nobody makes: one of its bytes is another one, and its end is missing.
    pub fn spoil(&mut self, frame: &mut Vec<u8>, (changes, cuts): (bool, bool)) {
        if changes {
            let (at, value) = (usize::from(self.byte()), self.byte());
            frame.iter_mut().skip(at).take(1).for_each(|byte| *byte = value);
        }
        if cuts {
            frame.truncate(self.byte().into());
        }
    }

    /// Up to 255 bytes.
    pub fn bytes(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte());
        self.exactly(count)
    }

    /// `count` bytes, or what is left.
    pub fn exactly(&mut self, count: usize) -> &'a [u8] {
        let count = count.min(self.0.len());
        self.0.bytes(count).expect("there are as many")
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.exactly(usize::MAX)
    }
}
