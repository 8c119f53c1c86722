//! Messages of spanning tree from neighbours.

use l2proto::rstp::probe;

use crate::input::Input;

/// The header of a frame, but its length.
const HEADER: [u8; 12] = [1, 0x80, 0xC2, 0, 0, 0, 0x52, 0x54, 0, 0, 0, 1];

/// The LLC header, and the protocol.
const BEGIN: [u8; 5] = [0x42, 0x42, 3, 0, 0];

/// Messages at most, and the bytes of each behind the protocol.
const MOST: usize = 64;
const BODY: usize = 34;

/// Plays one input: messages, each with the port where it comes in.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut frames = Vec::new();
    while frames.len() < MOST && !input.is_empty() {
        let number = input.byte();
        let body: Vec<u8> = (0..BODY).map(|_| input.byte()).collect();
        let len = u8::try_from(BEGIN.len() + BODY).unwrap();
        frames.push((number, [&HEADER, &[0, len][..], &BEGIN, &body].concat()));
    }
    let frames: Vec<(u8, &[u8])> =
        frames.iter().map(|(number, frame)| (*number, frame.as_slice())).collect();
    let sent = probe(&frames);
    // What each of four ports may send in a second, and at the start.
    let seconds = frames.iter().filter(|(number, _)| *number >= 128).count();
    assert!(sent.iter().sum::<usize>() <= 4 * (6 + seconds), "{sent:?}");
}
