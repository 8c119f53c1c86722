//! The frames of a burst, with what is known of all of them together.
//!
//! Those of one flow are mostly as long as each other, and need the same. Whoever has looked at all of them
//! once hands that on with them, so that nobody behind him has to look at each of them again.

use std::ops::Deref;

use super::{Frame, MAX_FRAME_LEN};
use crate::copy::HALVES;
use crate::offload::Offload;
use crate::wide::{WIDE, Wide};

/// What frames have in common that are alike: as long as each other, with heads that are, too, and in as many
/// pieces; and what one needs, and what is known of it, is so of all. Heads have [`WIDE`] bytes at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alike {
    pub(super) offload: Offload,
    pub(super) len: u32,
    pub(super) head_len: u16,
    first_byte: u8,
    /// In which of the bits of their first [`WIDE`] bytes, the lowest first, any may differ from the first frame:
    /// those of eight bytes, and of the next ones.
    differences: [u64; 2],
}

impl Alike {
    /// What these have in common, if they are alike and there are any.
    #[inline]
    pub(super) fn of(frames: &[Frame<'_>]) -> Option<Self> {
        let first = frames.first().filter(|first| usize::from(first.head_len) >= WIDE)?;
        // The bits that are set in any of them, and in all.
        let (mut any, mut all) = (first.shape(), first.shape());
        for shape in frames.iter().map(Frame::shape) {
            (any, all) = (any.or(shape), all.and(shape));
        }
        if any.xor(all).number() != 0 {
            return None;
        }
        // SAFETY: all heads are as long as the first one, which has as many bytes.
        let [differ] = unsafe { differing(frames, [0], [Wide::read(first.head.as_ptr())]) };
        #[allow(clippy::cast_possible_truncation, reason = "takes a number apart")]
        let differences = [differ.number() as u64, (differ.number() >> 64) as u64];
        let first_byte = *first.head().first()?;
        let Frame { len, head_len, offload, .. } = *first;
        Some(Self { offload, len, head_len, first_byte, differences })
    }

    /// What frames have in common that were made of these, with so many bytes more, or fewer, in their heads
    /// behind the first `at`, and need nothing; `None` where they were too long.
    pub(crate) fn spliced(self, at: usize, longer: i16) -> Option<Self> {
        let len = self.len().checked_add_signed(longer.into())?;
        let head_len = self.head_len.checked_add_signed(longer)?;
        let is_long = len <= MAX_FRAME_LEN && usize::from(head_len) >= WIDE;
        // Nothing is known of what is there now.
        let behind = u32::try_from(8 * at).ok().and_then(|bits| u128::MAX.checked_shl(bits));
        let differ = self.differences() | behind.unwrap_or(0);
        #[allow(clippy::cast_possible_truncation, reason = "takes a number apart")]
        let differences = [differ as u64, (differ >> 64) as u64];
        let len = u32::try_from(len).ok().filter(|_| is_long)?;
        Some(Self { offload: Offload::NONE, len, head_len, differences, ..self })
    }

    /// Whether [`Frame::copy_near_to_ptr`] copies their heads.
    #[must_use]
    #[inline]
    pub fn have_near_heads(self) -> bool {
        HALVES.contains(&self.head_len())
    }

    /// In which bits of their first 16 bytes, the lowest first, some may differ from the first of them. None
    /// does in any other.
    #[must_use]
    #[inline]
    pub const fn differences(self) -> u128 {
        let [low, high] = self.differences;
        low as u128 | (high as u128) << 64
    }

    /// What each of them still needs, and what is known of it.
    #[must_use]
    #[inline]
    pub const fn offload(self) -> Offload {
        self.offload
    }

    /// How long each of them is.
    #[must_use]
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a frame is never empty in a useful sense")]
    pub const fn len(self) -> usize {
        self.len as usize
    }

    /// How long each of their heads is.
    #[must_use]
    #[inline]
    pub const fn head_len(self) -> usize {
        self.head_len as usize
    }

    /// Their first bytes, combined by "or".
    #[must_use]
    #[inline]
    pub const fn first_bytes(self) -> u8 {
        let [differ, ..] = self.differences().to_le_bytes();
        self.first_byte | differ
    }
}

/// In which bits any of these frames differs from these words, so many bytes from the start of its head.
///
/// # Safety
///
/// All heads must have those bytes.
#[inline(always)]
unsafe fn differing<const N: usize>(
    frames: &[Frame<'_>],
    places: [usize; N],
    words: [Wide; N],
) -> [Wide; N] {
    let mut differ = [Wide::of(0); N];
    let (fours, rest) = frames.as_chunks::<4>();
    for four in fours {
        for frame in four {
            // SAFETY: the caller says that its head has those bytes.
            unsafe { note_differing(&mut differ, frame, places, words) };
        }
    }
    for frame in rest {
        // SAFETY: as above.
        unsafe { note_differing(&mut differ, frame, places, words) };
    }
    differ
}

/// Adds the bits in which one frame differs.
///
/// # Safety
///
/// Its head must have those bytes.
#[inline(always)]
unsafe fn note_differing<const N: usize>(
    differ: &mut [Wide; N],
    frame: &Frame<'_>,
    places: [usize; N],
    words: [Wide; N],
) {
    for (differ, (place, word)) in differ.iter_mut().zip(places.iter().zip(words)) {
        // SAFETY: the caller says that its head has those bytes.
        let own = unsafe { Wide::read(frame.head.as_ptr().add(*place)) };
        *differ = differ.or(own.xor(word));
    }
}

/// What is known of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Nothing,
    /// None is longer.
    UpTo(u32),
    Alike(Alike),
}

/// Frames, with what is known of all of them together.
#[derive(Clone, Copy, Debug)]
pub struct Burst<'b, 'f> {
    frames: &'b [Frame<'f>],
    known: Known,
}

impl<'b, 'f> Burst<'b, 'f> {
    /// These, of which nothing is known.
    #[must_use]
    #[inline]
    pub const fn new(frames: &'b [Frame<'f>]) -> Self {
        Self { frames, known: Known::Nothing }
    }

    /// These, none of which is longer than `longest`.
    #[must_use]
    #[inline]
    pub fn up_to(frames: &'b [Frame<'f>], longest: usize) -> Self {
        Self { frames, known: Known::UpTo(u32::try_from(longest).unwrap_or(u32::MAX)) }
    }

    /// These, of which is known what they have in common, if it is so.
    #[inline]
    pub(crate) fn with_alike(frames: &'b [Frame<'f>], alike: Option<Alike>) -> Self {
        Self { frames, known: alike.map_or(Known::Nothing, Known::Alike) }
    }

    /// The frames alone.
    #[must_use]
    #[inline]
    pub const fn as_slice(self) -> &'b [Frame<'f>] {
        self.frames
    }

    /// Those from number `from` on, so many at most.
    #[must_use]
    #[inline]
    pub fn part(self, from: usize, count: usize) -> Self {
        let rest = self.frames.get(from..).unwrap_or_default();
        Self { frames: rest.get(..count).unwrap_or(rest), known: self.known }
    }

    /// What they have in common, if it is known that they are alike.
    #[must_use]
    #[inline]
    pub const fn alike(self) -> Option<Alike> {
        match self.known {
            Known::Alike(alike) => Some(alike),
            _ => None,
        }
    }

    /// The same frames; what they have in common is known, if they are alike.
    #[must_use]
    #[inline]
    pub fn compared(self) -> Self {
        if self.alike().is_some() {
            return self;
        }
        match Alike::of(self.frames) {
            Some(alike) => Self { known: Known::Alike(alike), ..self },
            None => self,
        }
    }

    /// A length than which none of them is longer; as a rule that of the longest.
    #[must_use]
    #[inline]
    pub fn longest(self) -> usize {
        match self.known {
            Known::Nothing => self.frames.iter().map(Frame::len).max().unwrap_or(0),
            Known::UpTo(longest) => longest as usize,
            Known::Alike(alike) => alike.len(),
        }
    }

    /// The same frames, with that known.
    #[must_use]
    #[inline]
    pub fn measured(self) -> Self {
        match self.known {
            Known::Nothing => Self::up_to(self.frames, self.longest()),
            _ => self,
        }
    }

    /// Of frames that are known to be alike, the bits in which the head of any differs from these words,
    /// whose bytes are the lowest first, and which lie so many bytes from its start; `None` where that is not
    /// known, or heads are shorter.
    #[must_use]
    #[inline(always)]
    pub fn differences<const N: usize>(
        self,
        places: [usize; N],
        words: [u128; N],
    ) -> Option<[u128; N]> {
        let end = places.iter().fold(0, |end, place| end.max(place + WIDE));
        let head_len = self.alike()?.head_len();
        if end > head_len {
            return None;
        }
        // SAFETY: all heads have `head_len` bytes, which are those that are read at least.
        let differ = unsafe { differing(self.frames, places, words.map(Wide::of)) };
        Some(differ.map(Wide::number))
    }
}

impl<'f> Deref for Burst<'_, 'f> {
    type Target = [Frame<'f>];

    #[inline]
    fn deref(&self) -> &[Frame<'f>] {
        self.frames
    }
}

impl<'b, 'f> From<&'b [Frame<'f>]> for Burst<'b, 'f> {
    #[inline]
    fn from(frames: &'b [Frame<'f>]) -> Self {
        Self::new(frames)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{BURST, FrameBatch, Segment};
    use super::*;

    /// The bytes of a frame, and how many of them are its head.
    type Bytes = (Vec<u8>, usize);

    /// Frames of few kinds: of one or two lengths, whose bytes are mostly the same.
    fn bursts() -> impl Strategy<Value = Vec<Bytes>> {
        let len = prop_oneof![9 => Just(70_usize), 1 => 60..80_usize];
        let head = prop_oneof![9 => Just(64_usize), 1 => 1..60_usize, 1 => Just(WIDE)];
        let byte = prop_oneof![6 => Just(None), 1 => (0..60_usize, any::<u8>()).prop_map(Some)];
        let frame = (len, head, byte).prop_map(|(len, head, byte)| {
            let mut bytes: Vec<u8> = (0..).take(len).collect();
            if let Some((at, value)) = byte {
                bytes[at] = value;
            }
            (bytes, head.min(len))
        });
        prop::collection::vec(frame, 0..=BURST)
    }

    fn frame<'a>((bytes, head): &'a Bytes, body: &'a Segment<'a>) -> Frame<'a> {
        Frame::from_parts(&bytes[..*head], std::slice::from_ref(body)).unwrap()
    }

    proptest! {
        /// What is known of frames together is what each of them says.
        #[test]
        fn what_is_known_of_a_burst_is_so_of_each(
            all in bursts(),
            word in any::<[u8; WIDE]>(),
            places in [0..50_usize, 0..50_usize],
            part in (0..40_usize, 0..40_usize),
            valid in prop_oneof![4 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)],
        ) {
            let bodies: Vec<_> = all.iter().map(|(bytes, head)| Segment::from_bytes(&bytes[*head..])).collect();
            let mut frames: Vec<_> = all.iter().zip(&bodies).map(|(all, body)| frame(all, body)).collect();
            if let Some(index) = valid && !frames.is_empty() {
                let at = index.index(frames.len());
                frames[at] = frames[at].with_offload(Offload::DATA_VALID);
            }
            let burst = Burst::new(&frames).compared();
            let shape = |frame: &Frame<'_>| (frame.len(), frame.head().len(), frame.offload());
            let is_alike = |own: &Frame<'_>| own.head().len() >= WIDE && shape(own) == shape(&frames[0]);
            prop_assert_eq!(burst.alike().is_some(), !frames.is_empty() && frames.iter().all(is_alike));
            let longest = frames.iter().map(Frame::len).max().unwrap_or(0);
            prop_assert_eq!((burst.longest(), burst.measured().longest()), (longest, longest));
            if let Some(alike) = burst.alike() {
                let first_bytes = frames.iter().fold(0, |all, frame| all | frame.head()[0]);
                prop_assert_eq!(alike.first_bytes(), first_bytes);
                prop_assert_eq!((alike.len(), alike.head_len(), alike.offload()), shape(&frames[0]));
            }
            let word = u128::from_le_bytes(word);
            let of = |frame: &Frame<'_>, at: usize| {
                Some(u128::from_le_bytes(*frame.head().get(at..)?.first_chunk()?))
            };
            let differ_from = |word, at| {
                frames.iter().try_fold(0, |all, frame| Some(all | of(frame, at)? ^ word))
            };
            let differ = |at| differ_from(word, at);
            if let Some(alike) = burst.alike() {
                let first = of(&frames[0], 0).unwrap();
                prop_assert_eq!(Some(alike.differences()), differ_from(first, 0));
            }
            let expected = burst.alike().and_then(|_| Some([differ(places[0])?, differ(places[1])?]));
            prop_assert_eq!(burst.differences(places, [word; 2]), expected);
            // A part is known as well as the whole.
            let (from, count) = (part.0.min(frames.len()), part.1);
            let behind = frames.len().min(from + count);
            let some = burst.part(from, count);
            prop_assert_eq!(some.len(), behind - from);
            prop_assert_eq!(some.alike(), burst.alike());
            prop_assert!(some.iter().all(|frame| frame.len() <= some.longest()));
        }
    }

    /// Whatever becomes of a batch that was compared.
    #[test]
    fn nothing_is_known_of_a_batch_that_was_changed() {
        let bytes = [7; 100];
        let push = |batch: &mut FrameBatch, len: usize| {
            // SAFETY: `bytes` outlives the batch.
            assert!(unsafe { batch.push_shared(Segment::from_bytes(&bytes[..len])) });
        };
        let changes: [&dyn Fn(&mut FrameBatch); 8] = [
            &|batch| push(batch, 64),
            // SAFETY: `bytes` outlives the batch.
            &|batch| _ = unsafe { batch.extend_shared([Segment::from_bytes(&bytes)].into_iter()) },
            // SAFETY: as above.
            &|batch| _ = unsafe { batch.push_shared_chain(&[Segment::from_bytes(&bytes)]) },
            &|batch| assert!(batch.push_copy(&bytes)),
            &|batch| batch.head_mut(1).unwrap()[0] = 1,
            &|batch| batch.for_each_head(|head| head[0] = 1),
            &FrameBatch::set_data_valid,
            &FrameBatch::clear,
        ];
        for change in changes {
            let mut batch = FrameBatch::with_segments(4);
            (0..3).for_each(|_| push(&mut batch, 64));
            assert_eq!(batch.known().alike(), None);
            assert_eq!(batch.compare().alike().map(Alike::len), Some(64));
            assert_eq!(batch.known().alike().map(Alike::len), Some(64));
            change(&mut batch);
            assert_eq!(batch.known().alike(), None);
        }
    }
}
