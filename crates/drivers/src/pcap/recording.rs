//! A capture file in memory, for replaying it many times.

use super::reader::{CaptureReader, Step};
use packet::ETHERNET_HEADER_LEN;
use packet::slots::MAX_SLOT_LEN;

/// The largest recording, in bytes of frames. Larger files can be replayed once.
const MAX_BYTES: usize = 256 << 20;

/// Frames in memory, and how far they are replayed.
#[derive(Debug)]
pub(crate) struct Recording {
    bytes: Vec<u8>,
    /// Where each frame ends in `bytes`.
    ends: Vec<usize>,
    /// Index of the next frame.
    next: usize,
    /// How often the recording will be replayed after this time; `None`: for ever.
    repeats: Option<u64>,
}

impl Recording {
    /// Reads all frames, to be replayed `times` times, or for ever. The error is the reason.
    pub(crate) fn new(mut reader: CaptureReader, times: Option<u64>) -> Result<Self, String> {
        let mut frame = vec![0; MAX_SLOT_LEN];
        let repeats = times.map(|times| times.saturating_sub(1));
        let mut recording = Self { bytes: Vec::new(), ends: Vec::new(), next: 0, repeats };
        loop {
            match reader.step(&mut frame) {
                Step::Frame(len) if len >= ETHERNET_HEADER_LEN => {
                    recording.bytes.extend(frame.iter().take(len));
                    recording.ends.push(recording.bytes.len());
                }
                Step::End => break,
                Step::Frame(_) | Step::TooLong | Step::Other => {}
            }
            if recording.bytes.len() > MAX_BYTES {
                return Err("a file to be repeated may have up to 256 MiB".to_owned());
            }
        }
        if recording.ends.is_empty() {
            return Err("a file to be repeated must have at least one Ethernet frame".to_owned());
        }
        Ok(recording)
    }

    /// The next frame; `None` when it was replayed often enough.
    pub(crate) fn next_frame(&mut self) -> Option<&[u8]> {
        if self.next >= self.ends.len() {
            match &mut self.repeats {
                Some(0) => return None,
                Some(repeats) => *repeats -= 1,
                None => {}
            }
            self.next = 0;
        }
        let end = *self.ends.get(self.next)?;
        let start = self.next.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        self.next += 1;
        self.bytes.get(start.unwrap_or(0)..end)
    }
}
