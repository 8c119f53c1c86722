//! Large segments that have to be cut on their way, since what they go through is not for such.

use arrayvec::ArrayVec;
use packet::segmentation::{Parts, SCRATCH};
use packet::{BURST, Capabilities, Frame};

/// Whether a frame is a large segment, which is still to be cut.
pub(crate) fn is_large(frame: &Frame<'_>) -> bool {
    frame.offload().gso().is_some()
}

/// Gives the frames that one becomes to `take`, some at a time, in order; they are in `memory`. Returns whether those
/// were all: not if somebody has changed its headers since its offload was checked.
#[cold]
#[inline(never)]
pub(crate) fn cut(
    frame: &Frame<'_>,
    memory: &mut Vec<u8>,
    mut take: impl FnMut(&[Frame<'_>]),
) -> bool {
    memory.resize(SCRATCH, 0);
    let Ok(mut parts) = Parts::new(frame, Capabilities::CSUM) else { return false };
    loop {
        let (mut left, mut burst) = (memory.as_mut_slice(), ArrayVec::<_, BURST>::new());
        let is_all = parts.fill(&mut left, &mut burst);
        if !burst.is_empty() {
            take(&burst);
        }
        if is_all || burst.is_empty() {
            return is_all;
        }
    }
}
