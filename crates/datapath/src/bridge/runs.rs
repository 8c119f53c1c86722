//! A burst in runs of neighbouring frames that are alike.

use arrayvec::ArrayVec;
use ethdev::{DropReason, QueueStats};
use packet::{BURST, Burst, Frame};

use crate::header::{self, Addresses};
use crate::marks::all_of;
use crate::stage::Stage;

/// Neighbouring frames with the same addresses and tags.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<K> {
    pub(super) addresses: Addresses,
    pub(super) key: K,
    /// The frames: bit 0 is the first of the burst.
    pub(super) mask: u32,
}

/// Divides a burst into runs; frames without Ethernet header are dropped.
#[inline]
pub(super) fn gather<S: Stage>(
    frames: Burst<'_, '_>,
    stats: &QueueStats,
    runs: &mut ArrayVec<Run<S::Key>, BURST>,
) {
    match only_run::<S>(frames) {
        Some(run) => _ = runs.try_push(run),
        None => gather_each::<S>(&frames, stats, runs),
    }
}

/// All frames of a burst, if they are surely one run.
#[inline(always)]
fn only_run<S: Stage>(frames: Burst<'_, '_>) -> Option<Run<S::Key>> {
    frames.alike()?;
    let [first, .., last] = frames.as_slice() else { return None };
    let addresses = Addresses::of(first)?;
    let (key, glance) = S::read(first);
    // Where it is not so, the last is mostly another one, too.
    if !S::is_alike(last, addresses, &glance)
        || !header::have_same_start(frames, S::telling(&glance))
    {
        return None;
    }
    Some(Run { addresses, key, mask: all_of(frames.len()) })
}

/// The same one by one.
///
/// Nearly every frame is like the one before at a glance; only what is not is read, and starts
/// another run if that is really different.
#[inline]
fn gather_each<S: Stage>(
    frames: &[Frame<'_>],
    stats: &QueueStats,
    runs: &mut ArrayVec<Run<S::Key>, BURST>,
) {
    // Frames as bits, of which there may be one behind the last: the first of the run at hand, whose
    // frames are those from there to before another, and the next one.
    let (mut start, mut behind) = (1_u64, 1_u64);
    let (mut addresses, mut key) = (Addresses::default(), S::Key::default());
    let mut glance = S::Glance::default();
    for frame in frames {
        let at = behind;
        behind = at.wrapping_add(at);
        if S::is_alike(frame, addresses, &glance) {
            continue;
        }
        let Some(own) = Addresses::of(frame) else {
            push_run(runs, addresses, key, at.wrapping_sub(start));
            start = behind;
            stats.count_drops(DropReason::TooShort, 1);
            continue;
        };
        let mut own_key = key;
        if !S::has_key_of(frame, &glance) {
            (own_key, glance) = S::read(frame);
        }
        if own != addresses || own_key != key {
            push_run(runs, addresses, key, at.wrapping_sub(start));
            (addresses, key, start) = (own, own_key, at);
        }
    }
    push_run(runs, addresses, key, behind.wrapping_sub(start));
}

#[inline(always)]
fn push_run<K: Copy>(
    runs: &mut ArrayVec<Run<K>, BURST>,
    addresses: Addresses,
    key: K,
    frames: u64,
) {
    #[allow(clippy::cast_possible_truncation, reason = "as many as a burst has")]
    let mask = frames as u32;
    if mask != 0 {
        // There are no more runs than frames.
        let _ = runs.try_push(Run { addresses, key, mask });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stage::{Plain, Vlans};
    use crate::vlan::tags::Tags;

    /// A run by definition: what each frame has of its own is compared with what the one before has.
    fn model(frames: &[Vec<u8>], key: impl Fn(&Frame<'_>) -> Tags) -> Vec<(Addresses, Tags, u32)> {
        let mut runs: Vec<(Addresses, Tags, u32)> = Vec::new();
        let mut last = None;
        for (index, bytes) in frames.iter().enumerate() {
            let frame = Frame::from_bytes(bytes);
            let own = Addresses::of(&frame).map(|addresses| (addresses, key(&frame)));
            match (own, runs.last_mut()) {
                (Some(own), Some(run)) if last == Some(own) => run.2 |= 1 << index,
                (Some((addresses, tags)), _) => runs.push((addresses, tags, 1 << index)),
                (None, _) => {}
            }
            last = own;
        }
        runs
    }

    /// A run: addresses, key and frames.
    type Found<K> = (Addresses, K, u32);

    /// The runs of a burst, and how many frames were dropped.
    fn runs<S: Stage>(frames: Burst<'_, '_>) -> (Vec<Found<S::Key>>, u64) {
        let (stats, mut runs) = (QueueStats::default(), ArrayVec::new());
        gather::<S>(frames, &stats, &mut runs);
        let runs = runs.iter().map(|run| (run.addresses, run.key, run.mask)).collect();
        (runs, stats.dropped())
    }

    /// Frames of few kinds, so that neighbours are often alike: few addresses, with tags and without,
    /// that end anywhere.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            Just([0x81_u8, 0]),
            Just([0x88, 0xA8]),
            Just([8, 0]),
            Just([0, 5]),
            Just([0x20, 5]),
        ];
        let words = prop::collection::vec(word, 5);
        let len = prop_oneof![4 => Just(64), 2 => 14..26_usize, 1 => 0..14_usize];
        (0..2_u8, 0..2_u8, words, len).prop_map(|(to, from, words, len)| {
            let mut bytes = vec![0; 64];
            (bytes[5], bytes[11]) = (to, from);
            bytes[12..22].copy_from_slice(words.as_flattened());
            bytes.truncate(len);
            bytes
        })
    }

    proptest! {
        #[test]
        fn runs_are_those_of_a_model(
            kinds in prop::collection::vec(frame(), 1..4),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 0..=BURST),
        ) {
            let all: Vec<Vec<u8>> = picks.iter().map(|pick| pick.get(&kinds).clone()).collect();
            let frames: Vec<_> = all.iter().map(|bytes| Frame::from_bytes(bytes)).collect();
            let short = all.iter().filter(|bytes| bytes.len() < 14).count() as u64;
            let frames = Burst::new(&frames).compared();
            let tagged = runs::<Vlans<'_>>(frames);
            prop_assert_eq!(tagged, (model(&all, Tags::of), short));
            let (plain, _) = runs::<Plain>(frames);
            let plain: Vec<_> = plain.iter().map(|(addresses, (), mask)| (*addresses, *mask)).collect();
            let expected = model(&all, |_| Tags::default());
            let expected: Vec<_> = expected.iter().map(|run| (run.0, run.2)).collect();
            prop_assert_eq!(plain, expected);
        }
    }
}
