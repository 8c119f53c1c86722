//! Writing capture files: pcap with nanoseconds, in little-endian byte order.
//!
//! Format: draft-ietf-opsawg-pcap, sections 4 and 5.

use std::io::{self, BufWriter, Write};
use std::time::Duration;

use packet::{Frame, MAX_FRAME_LEN};

/// Says that times are in nanoseconds, and by its byte order which one the file has.
const MAGIC: u32 = 0xA1B2_3C4D;

/// Version 2.4 of the format.
const VERSION: [u16; 2] = [2, 4];

/// `LINKTYPE_ETHERNET`.
const ETHERNET: u32 = 1;

/// A capture file that is being written. What is still buffered is written when it is dropped.
#[derive(Debug)]
pub(crate) struct CaptureWriter<W: Write> {
    file: BufWriter<W>,
    snaplen: usize,
    /// A frame as a whole: its bytes may lie in memory that can only be copied.
    bytes: Vec<u8>,
}

impl<W: Write> CaptureWriter<W> {
    /// Writes the file's header. Of each frame the first `snaplen` bytes are kept.
    pub(crate) fn new(file: W, snaplen: usize) -> io::Result<Self> {
        let snaplen = snaplen.min(MAX_FRAME_LEN);
        let mut file = BufWriter::with_capacity(1 << 16, file);
        file.write_all(&MAGIC.to_le_bytes())?;
        for part in VERSION {
            file.write_all(&part.to_le_bytes())?;
        }
        // Two reserved fields, once for time zones.
        file.write_all(&[0; 8])?;
        file.write_all(&length(snaplen).to_le_bytes())?;
        file.write_all(&ETHERNET.to_le_bytes())?;
        Ok(Self { file, snaplen, bytes: vec![0; snaplen] })
    }

    /// Writes a frame that was sent at `time` since 1970.
    pub(crate) fn write(&mut self, time: Duration, frame: &Frame<'_>) -> io::Result<()> {
        let kept = frame.copy_to(&mut self.bytes).min(self.snaplen);
        // Seconds are modulo 2^32, until 2106.
        let [a, b, c, d, ..] = time.as_secs().to_le_bytes();
        self.file.write_all(&[a, b, c, d])?;
        self.file.write_all(&time.subsec_nanos().to_le_bytes())?;
        self.file.write_all(&length(kept).to_le_bytes())?;
        self.file.write_all(&length(frame.len()).to_le_bytes())?;
        self.file.write_all(self.bytes.get(..kept).unwrap_or_default())
    }

    /// Writes what is buffered.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A length as the format has it; none here is longer than a frame.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
