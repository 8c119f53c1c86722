use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Bytes of a file's header, and of that of each record.
const HEAD: usize = 24;
const RECORD: usize = 16;

/// A pcap file that grows, read as far as it has been written.
#[derive(Debug)]
pub struct Capture {
    file: File,
    unread: Vec<u8>,
    has_head: bool,
}

impl Capture {
    /// Reads it from the start.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        Ok(Self { file, unread: Vec::new(), has_head: false })
    }

    /// The frames that have been written since this was asked last.
    pub fn take(&mut self) -> Result<Vec<Vec<u8>>> {
        self.file.read_to_end(&mut self.unread)?;
        let mut frames = Vec::new();
        let mut at = if self.has_head { 0 } else { HEAD };
        if self.unread.len() < at {
            return Ok(frames);
        }
        self.has_head = true;
        while let Some(header) = self.unread.get(at..at + RECORD) {
            let [_, _, kept, whole] = [0, 4, 8, 12].map(|from| number(&header[from..]));
            if kept != whole {
                bail!("a frame of {whole} bytes of which {kept} were kept");
            }
            let Some(frame) = self.unread.get(at + RECORD..at + RECORD + kept) else { break };
            frames.push(frame.to_vec());
            at += RECORD + kept;
        }
        self.unread.drain(..at);
        Ok(frames)
    }
}

/// A number of the machine that has written it, which is this one.
fn number(bytes: &[u8]) -> usize {
    bytes.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes) as usize)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn frames_are_read_when_they_are_whole() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut capture = Capture::open(file.path()).unwrap();
        assert!(capture.take().unwrap().is_empty());
        file.write_all(&[0; HEAD]).unwrap();
        let record = [[0; 4], [0; 4], 3_u32.to_ne_bytes(), 3_u32.to_ne_bytes()].concat();
        file.write_all(&record).unwrap();
        file.write_all(b"ab").unwrap();
        assert!(capture.take().unwrap().is_empty());
        file.write_all(b"c").unwrap();
        file.write_all(&record).unwrap();
        file.write_all(b"def").unwrap();
        assert_eq!(capture.take().unwrap(), [b"abc", b"def"]);
        assert!(capture.take().unwrap().is_empty());
    }
}
