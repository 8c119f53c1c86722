//! Capture files that take turns: each is a whole file, which begins with all interfaces so far.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// When to begin another file, and how many to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// Bytes from which on a file is full.
    pub size: Option<u64>,
    /// Nanoseconds that the frames of a file are apart at most.
    pub time: Option<u64>,
    /// How many files are kept.
    pub files: Option<usize>,
}

impl Turns {
    /// Whether there may be more than one file.
    const fn is_many(&self) -> bool {
        self.size.is_some() || self.time.is_some()
    }
}

/// The files of a capture. What is in them is for their owner alone: frames are private.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    turns: Turns,
    /// What each file begins with.
    head: Vec<u8>,
    file: BufWriter<File>,
    written: u64,
    /// When the first frame of the file came.
    first: Option<u64>,
    /// Those that are there, oldest first.
    names: VecDeque<PathBuf>,
    count: u64,
}

impl Files {
    /// Begins the first file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path, turns: Turns) -> io::Result<Self> {
        let name = if turns.is_many() { numbered(path, 1) } else { path.to_owned() };
        let file = open(&name)?;
        Ok(Self {
            path: path.to_owned(),
            turns,
            head: Vec::new(),
            file,
            written: 0,
            first: None,
            names: [name].into(),
            count: 1,
        })
    }

    /// Writes a block that each file needs.
    ///
    /// # Errors
    /// When the system does not write it.
    pub fn write_head(&mut self, block: &[u8]) -> io::Result<()> {
        self.head.extend_from_slice(block);
        self.write(block)
    }

    /// Writes a frame that came at `time`, in another file if this one has had its turn.
    ///
    /// # Errors
    /// When the system does not write it.
    pub fn write_frame(&mut self, block: &[u8], time: u64) -> io::Result<()> {
        let first = *self.first.get_or_insert(time);
        let is_full = self.turns.size.is_some_and(|size| self.written >= size);
        let is_old = self.turns.time.is_some_and(|span| time.saturating_sub(first) >= span);
        if is_full || is_old {
            self.next()?;
            self.first = Some(time);
        }
        self.write(block)
    }

    /// Writes any other block.
    ///
    /// # Errors
    /// When the system does not write it.
    pub fn write(&mut self, block: &[u8]) -> io::Result<()> {
        self.written = self.written.saturating_add(block.len() as u64);
        self.file.write_all(block)
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// When the system does not.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    /// The file that is written now.
    pub fn name(&self) -> &Path {
        self.names.back().unwrap_or(&self.path)
    }

    /// How many files there were.
    pub const fn count(&self) -> u64 {
        self.count
    }

    fn next(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.count = self.count.saturating_add(1);
        let name = numbered(&self.path, self.count);
        self.file = open(&name)?;
        self.file.write_all(&self.head)?;
        self.written = self.head.len() as u64;
        self.names.push_back(name);
        while self.turns.files.is_some_and(|kept| self.names.len() > kept) {
            let Some(oldest) = self.names.pop_front() else { break };
            match fs::remove_file(&oldest) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<BufWriter<File>> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(BufWriter::with_capacity(1 << 16, file))
}

/// `name_00001.pcapng` for `name.pcapng`.
fn numbered(path: &Path, number: u64) -> PathBuf {
    let mut name = path.file_stem().map(OsString::from).unwrap_or_default();
    name.push(format!("_{number:05}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<(String, String)> {
        let read = |entry: io::Result<fs::DirEntry>| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        };
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(read).collect();
        names.sort();
        names
    }

    fn written(turns: Turns) -> Vec<(String, String)> {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::create(&dir.path().join("a.b.pcapng"), turns).unwrap();
        files.write_head(b"H").unwrap();
        for time in 0..4 {
            files.write_frame(format!("{time}{time}").as_bytes(), time).unwrap();
            if time == 1 {
                files.write_head(b"I").unwrap();
            }
        }
        files.write(b"E").unwrap();
        files.flush().unwrap();
        assert!(files.name().exists());
        names(dir.path())
    }

    fn of(names: &[(&str, &str)]) -> Vec<(String, String)> {
        names.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn files_take_turns_and_each_is_whole() {
        assert_eq!(written(Turns::default()), of(&[("a.b.pcapng", "H0011I2233E")]));
        let size = Turns { size: Some(5), ..Turns::default() };
        let expected = of(&[("a.b_00001.pcapng", "H0011I"), ("a.b_00002.pcapng", "HI2233E")]);
        assert_eq!(written(size), expected);
        let time = Turns { time: Some(2), ..Turns::default() };
        assert_eq!(written(time), expected);
        let kept = Turns { time: Some(1), files: Some(2), ..Turns::default() };
        let expected = of(&[("a.b_00003.pcapng", "HI22"), ("a.b_00004.pcapng", "HI33E")]);
        assert_eq!(written(kept), expected);
    }
}
