//! Lines of standard input, read when they come.

use std::os::fd::AsFd;

use rustix::io::Errno;

/// Longest line in bytes; of a longer one nothing is taken for a command.
const MAX_LINE: usize = 4096;

/// What has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// Whole lines, without their ends.
    Lines(Vec<String>),
    /// There will be no more.
    End,
}

/// Bytes that are no whole line yet.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// The line is too long already; the rest of it is skipped.
    skipping: bool,
}

impl Lines {
    /// Reads once from `file`, which is readable.
    pub fn read(&mut self, file: impl AsFd) -> Input {
        let mut chunk = [0; 1024];
        match rustix::io::read(file, &mut chunk) {
            Ok(0) => Input::End,
            Ok(count) => Input::Lines(self.take(chunk.get(..count).unwrap_or_default())),
            Err(Errno::INTR | Errno::AGAIN) => Input::Lines(Vec::new()),
            Err(_) => Input::End,
        }
    }

    fn take(&mut self, chunk: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in chunk {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.bytes);
                if !std::mem::take(&mut self.skipping) {
                    lines.push(String::from_utf8_lossy(&line).trim().to_owned());
                }
            } else if self.bytes.len() < MAX_LINE {
                self.bytes.push(*byte);
            } else {
                self.skipping = true;
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn lines_come_whole_and_not_too_long() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"li"), [""; 0]);
        assert_eq!(lines.take(b"st\r\n\n help \nqu"), ["list", "", "help"]);
        assert_eq!(lines.take(&[b'x'; 5000]), [""; 0]);
        assert_eq!(lines.take(b"\nquit\n"), ["quit"]);
    }

    #[test]
    fn the_end_is_told() {
        let (mut writer, reader) = std::os::unix::net::UnixStream::pair().unwrap();
        writer.write_all(b"a\n").unwrap();
        let mut lines = Lines::default();
        assert_eq!(lines.read(&reader), Input::Lines(vec!["a".to_owned()]));
        drop(writer);
        assert_eq!(lines.read(&reader), Input::End);
    }
}
