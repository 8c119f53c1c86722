//! Capture files that take turns: each is a whole file, which begins with all interfaces so far.
//!
//! ```
//! use capture::files::{Files, Turns};
//! use capture::pcapng;
//!
//! let dir = tempfile::tempdir()?;
//! let turns = Turns { size: Some(1 << 20), files: Some(8), ..Turns::default() };
//! let mut files = Files::create(&dir.path().join("a.pcapng"), turns)?;
//! let mut head = Vec::new();
//! pcapng::section(&mut head, "an example");
//! files.write_head(&head)?;
//! files.flush()?;
//! assert!(files.name().ends_with("a_00001.pcapng"));
//! # Ok::<(), std::io::Error>(())
//! ```

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

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
    /// How many of them are in the file, to the end of a block.
    good: u64,
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
            good: 0,
            first: None,
            names: [name].into(),
            count: 1,
        })
    }

    /// Goes on where files of the same name are: with the number behind the last one, and those that
    /// are there count among those that are kept; a file alone is written on at its end.
    ///
    /// # Errors
    /// When it cannot be written, or is no file in a file system.
    pub fn resume(path: &Path, turns: Turns) -> io::Result<Self> {
        let (before, last) = if turns.is_many() { earlier(path) } else { Default::default() };
        let count = last.saturating_add(1);
        let name = if turns.is_many() { numbered(path, count) } else { path.to_owned() };
        // Whoever has put something else there must not have us wait for a reader.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let mut options = OpenOptions::new();
        let file =
            options.create(true).append(true).mode(PRIVATE).custom_flags(flags).open(&name)?;
        let about = file.metadata()?;
        if !about.is_file() {
            let reason = format!("{} is no file in a file system", name.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let mut names = before;
        names.push_back(name);
        let file = BufWriter::with_capacity(BUFFER, file);
        let (head, path, written) = (Vec::new(), path.to_owned(), about.len());
        let good = written;
        Ok(Self { path, turns, head, file, written, good, first: None, names, count })
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
        self.file.flush()?;
        self.good = self.written;
        // Not before this one has something in it.
        self.drop_oldest()
    }

    /// Gives up after an error: the file ends with the last block that was
    /// [written](Self::flush) whole, and goes if there is none.
    ///
    /// # Errors
    /// When the system does not cut or remove it.
    pub fn give_up(self) -> io::Result<()> {
        let name = self.name().to_owned();
        let (file, _) = self.file.into_parts();
        if self.good == 0 { fs::remove_file(name) } else { file.set_len(self.good) }
    }

    /// Whether the file that is written now is still in a folder: one that was removed takes what is
    /// written, and nobody finds it.
    pub fn is_there(&self) -> bool {
        self.file.get_ref().metadata().is_ok_and(|about| about.nlink() > 0)
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
        self.good = 0;
        self.file.write_all(&self.head)?;
        self.written = self.head.len() as u64;
        self.names.push_back(name);
        self.drop_oldest()
    }

    fn drop_oldest(&mut self) -> io::Result<()> {
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

/// Frames are private.
const PRIVATE: u32 = 0o600;

/// Bytes that are written at once.
const BUFFER: usize = 1 << 16;

fn open(path: &Path) -> io::Result<BufWriter<File>> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(PRIVATE).open(path)?;
    Ok(BufWriter::with_capacity(BUFFER, file))
}

/// The files that there are of those that take turns at `path`, oldest first, and the number of the
/// last one. A folder that cannot be read has none.
fn earlier(path: &Path) -> (VecDeque<PathBuf>, u64) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = fs::read_dir(folder.unwrap_or(Path::new("."))).into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| {
        let name = PathBuf::from(entry.file_name());
        let stem = name.file_stem()?.to_str()?;
        let (_, digits) = stem.rsplit_once('_')?;
        let number = digits.parse().ok()?;
        (numbered(path, number).file_name() == Some(name.as_os_str())).then_some(number)
    };
    let mut numbers: Vec<u64> = entries.filter_map(number).collect();
    numbers.sort_unstable();
    let last = numbers.last().copied().unwrap_or(0);
    (numbers.into_iter().map(|number| numbered(path, number)).collect(), last)
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

    /// Writes a frame as somebody who comes later does.
    fn go_on(dir: &Path, turns: Turns, text: &str) -> Vec<(String, String)> {
        let mut files = Files::resume(&dir.join("a.pcapng"), turns).unwrap();
        files.write_head(b"H").unwrap();
        files.write_frame(text.as_bytes(), 0).unwrap();
        files.flush().unwrap();
        names(dir)
    }

    #[test]
    fn what_was_written_before_stays() {
        let dir = tempfile::tempdir().unwrap();
        go_on(dir.path(), Turns::default(), "1");
        assert_eq!(go_on(dir.path(), Turns::default(), "2"), of(&[("a.pcapng", "H1H2")]));
        let turns = Turns { size: Some(100), files: Some(2), ..Turns::default() };
        for number in 1..=3 {
            go_on(dir.path(), turns, &number.to_string());
        }
        // Others are nobody's of ours.
        fs::write(dir.path().join("a_7.pcapng"), "").unwrap();
        fs::write(dir.path().join("ab_00009.pcapng"), "").unwrap();
        let expected = of(&[
            ("a.pcapng", "H1H2"),
            ("a_00003.pcapng", "H3"),
            ("a_00004.pcapng", "H4"),
            ("a_7.pcapng", ""),
            ("ab_00009.pcapng", ""),
        ]);
        assert_eq!(go_on(dir.path(), turns, "4"), expected);
    }

    #[test]
    fn what_is_given_up_ends_with_a_whole_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pcapng");
        fs::write(&path, "before").unwrap();
        let mut files = Files::resume(&path, Turns::default()).unwrap();
        files.write_head(b"H").unwrap();
        files.flush().unwrap();
        files.write_frame(&[b'x'; 100_000], 0).unwrap();
        assert!(fs::metadata(&path).unwrap().len() > 50_000, "it is not in the buffer alone");
        files.give_up().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "beforeH");
        // One that takes turns takes nothing away from those before until it has something.
        let turns = Turns { size: Some(100), files: Some(1), ..Turns::default() };
        go_on(dir.path(), turns, "1");
        let mut files = Files::resume(&path, turns).unwrap();
        files.write_head(b"H").unwrap();
        files.give_up().unwrap();
        let expected = of(&[("a.pcapng", "beforeH"), ("a_00001.pcapng", "H1")]);
        assert_eq!(names(dir.path()), expected);
    }

    #[test]
    fn a_file_that_was_removed_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::resume(&dir.path().join("a.pcapng"), Turns::default()).unwrap();
        assert!(files.is_there());
        fs::remove_file(files.name()).unwrap();
        assert!(!files.is_there());
    }

    #[test]
    fn only_files_are_written_on() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        assert!(Files::resume(&pipe, Turns::default()).is_err(), "nobody waits for a reader");
        let null = Files::resume(Path::new("/dev/null"), Turns::default()).unwrap_err();
        assert!(null.to_string().contains("/dev/null is no file"), "{null}");
    }
}
