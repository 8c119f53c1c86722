//! Frames that leave something to the device: checked, and cut in software.

use arrayvec::ArrayVec;
use packet::segmentation::{Parts, SCRATCH};
use packet::{BURST, BadOffload, Capabilities, Frame, Offload, Segment};

use crate::frames::Large;
use crate::input::Input;

/// Most of a frame that a receiver keeps in private memory.
const HEAD: usize = 192;

/// Plays one input.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut large = Large::new(&mut input);
    let mut changed = false;
    while !input.is_empty() {
        changed |= change(&mut large, &mut input);
    }
    let takes = [Capabilities::empty(), Capabilities::CSUM];
    let Ok(parts) = cut(&large.bytes, &large.request, takes[0]) else {
        assert!(changed || !fits(&large), "a good segment is refused: {:?}", large.request);
        return;
    };
    let begun = cut(&large.bytes, &large.request, takes[1]).expect("it was cut before");
    assert_eq!(parts.len(), begun.len());
    if !changed {
        check(&large, &parts);
    }
}

/// Changes bytes of the headers, or the request; returns whether that makes it another.
fn change(large: &mut Large, input: &mut Input<'_>) -> bool {
    let request = &mut large.request;
    match input.below(8) {
        0 => request.gso_size = input.number(),
        1 => request.csum_start = input.number(),
        2 => request.csum_offset = input.number(),
        3 => request.needs_csum = input.yes(),
        4 => request.gso = None,
        5 => {
            let len = usize::from(input.number::<u16>()).min(large.bytes.len());
            large.bytes.truncate(len);
        }
        _ => {
            let at = usize::from(input.byte()) % large.headers;
            let Some(byte) = large.bytes.get_mut(at) else { return false };
            *byte = input.byte();
        }
    }
    true
}

/// Whether there are not too many parts.
fn fits(large: &Large) -> bool {
    large.payload().div_ceil(large.request.gso_size.into()) <= packet::offload::MAX_SEGMENTS
}

/// The frames that `bytes` become.
pub(super) fn cut(
    bytes: &[u8],
    request: &packet::OffloadRequest,
    takes: Capabilities,
) -> Result<Vec<Vec<u8>>, BadOffload> {
    let (head, rest) = bytes.split_at(bytes.len().min(HEAD));
    let body: Vec<Segment<'_>> = rest.chunks(4096).map(Segment::from_bytes).collect();
    let frame = Frame::from_parts(head, &body).expect("it is not too long");
    let offload = Offload::check_frame(request, Capabilities::all(), &frame)?;
    let frame = frame.with_offload(offload);
    let mut parts = Parts::new(&frame, takes)?;
    let mut made = Vec::new();
    loop {
        let mut room = vec![0; SCRATCH];
        let mut room = room.as_mut_slice();
        let mut frames = ArrayVec::<Frame<'_>, BURST>::new();
        let done = parts.fill(&mut room, &mut frames);
        for frame in &frames {
            let needs = frame.offload().needs();
            assert!(takes.contains(needs), "a part needs {needs:?}");
            assert!(frame.len() <= bytes.len());
            made.push(frame.to_vec());
        }
        if done {
            return Ok(made);
        }
        assert!(!frames.is_empty(), "nothing more comes");
    }
}

/// The parts have all the payload, in pieces of the size that was asked for, behind headers that
/// are right.
fn check(large: &Large, parts: &[Vec<u8>]) {
    let size = usize::from(large.request.gso_size);
    let payload = &large.bytes[large.headers..];
    assert_eq!(parts.len(), payload.len().div_ceil(size).max(1));
    let mut pieces = payload.chunks(size);
    for part in parts {
        assert_eq!(&part[large.headers..], pieces.next().unwrap_or_default());
        assert!(large.has_good_checksums(part));
        assert_eq!(part[..12], large.bytes[..12]);
        let field = if large.is_v6 { 4 } else { 2 };
        let len = part[large.network_at + field..].first_chunk().unwrap();
        let before = if large.is_v6 { 40 } else { 0 };
        let whole = usize::from(u16::from_be_bytes(*len)) + before;
        assert_eq!(whole, part.len() - large.network_at);
    }
}
