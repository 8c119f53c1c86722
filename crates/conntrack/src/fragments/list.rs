//! The fragments of one packet that are there so far.

use std::sync::Arc;

use super::Way;
use super::part::{Part, Whole};

/// A fragment that waits for the others.
#[derive(Debug)]
struct Kept {
    start: usize,
    end: usize,
    frame: Vec<u8>,
}

/// Fragments of one packet.
#[derive(Debug)]
pub(super) struct List {
    pub(super) whole: Whole,
    pub(super) way: Arc<dyn Way>,
    /// When they are given up, in milliseconds.
    pub(super) end: u64,
    /// In order of their places; none is over another.
    kept: Vec<Kept>,
    /// How long the payload is, once the last one is there.
    len: Option<usize>,
    /// Bytes of their frames.
    pub(super) bytes: usize,
    /// Some were over each other: none of the packet goes on (RFC 5722).
    is_refused: bool,
    /// Where IP begins in the frame of the first one, and how many bytes are before its payload.
    first: Option<(usize, usize)>,
}

/// What a further fragment is to those that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// The others are still to come.
    Kept,
    /// All are there.
    Complete,
    /// It is over another one, or behind the end; or others of the packet were.
    Overlaps,
    /// It is there already.
    Again,
}

/// How far a packet has come, in Open vSwitch's words.
const STATES: [&str; 4] = ["other frag", "first frag", "last frag", "first/last frag"];

impl List {
    pub(super) const fn new(whole: Whole, way: Arc<dyn Way>, end: u64) -> Self {
        Self {
            whole,
            way,
            end,
            kept: Vec::new(),
            len: None,
            bytes: 0,
            is_refused: false,
            first: None,
        }
    }

    /// How many there are, of which each takes a place; at least one.
    pub(super) fn count(&self) -> usize {
        self.kept.len().max(1)
    }

    /// How many bytes all of the packet has from the header of IP on, as the first fragment begins; 0 without
    /// that one, or without the last one.
    pub(super) fn total(&self) -> usize {
        self.first.zip(self.len).map_or(0, |((_, before), len)| before + len)
    }

    pub(super) fn state(&self) -> &'static str {
        let at = usize::from(self.first.is_some()) + 2 * usize::from(self.len.is_some());
        match self.is_refused {
            true => "reassemble fail",
            false => STATES.get(at).copied().unwrap_or_default(),
        }
    }

    /// Adds a fragment, of which IP begins at `network` in its frame.
    pub(super) fn add(&mut self, part: &Part, (network, frame): (usize, &mut Vec<u8>)) -> Fit {
        let fit = self.fit(part);
        match fit {
            Fit::Again => {}
            Fit::Overlaps => {
                // Nobody can know which of them is meant: what comes of this packet is of no use any more.
                self.is_refused = true;
                (self.kept, self.bytes) = (Vec::new(), 0);
            }
            Fit::Kept | Fit::Complete => self.keep(part, network, std::mem::take(frame)),
        }
        match (fit, self.is_complete()) {
            (Fit::Kept, true) => Fit::Complete,
            _ => fit,
        }
    }

    fn fit(&self, part: &Part) -> Fit {
        let Part { start, end, has_more, .. } = *part;
        let at = self.kept.partition_point(|kept| kept.start < start);
        let (before, behind) = self.kept.split_at_checked(at).unwrap_or_default();
        let next = behind.first();
        if next.is_some_and(|next| next.start == start && next.end == end) {
            return Fit::Again;
        }
        let is_over = before.last().is_some_and(|kept| kept.end > start)
            || next.is_some_and(|next| next.start < end);
        // The last one is the last one, and there is no other.
        let is_behind = self.len.is_some_and(|len| end > len || !has_more);
        let is_short = !has_more && self.kept.last().is_some_and(|kept| kept.end > end);
        if self.is_refused || is_over || is_behind || is_short { Fit::Overlaps } else { Fit::Kept }
    }

    fn keep(&mut self, part: &Part, network: usize, frame: Vec<u8>) {
        let Part { start, end, has_more, before, .. } = *part;
        if start == 0 {
            self.first = Some((network, before));
        }
        if !has_more {
            self.len = Some(end);
        }
        self.bytes += frame.len();
        let at = self.kept.partition_point(|kept| kept.start < start);
        self.kept.insert(at, Kept { start, end, frame });
    }

    /// Whether all are there: they are not over each other, so they have as many bytes as all has.
    fn is_complete(&self) -> bool {
        let there: usize = self.kept.iter().map(|kept| kept.end - kept.start).sum();
        self.len == Some(there)
    }

    /// The first one, from the header of IP on.
    pub(super) fn head(&self) -> Option<&[u8]> {
        let (network, _) = self.first?;
        self.kept.first()?.frame.get(network..)
    }

    /// All of their frames, in order.
    pub(super) fn into_frames(self) -> Vec<Vec<u8>> {
        self.kept.into_iter().map(|kept| kept.frame).collect()
    }
}
