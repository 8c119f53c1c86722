//! Mirrors whose copies go to files: a worker copies frames into memory of its own, once a burst,
//! and a thread of each mirror writes what it finds there. What finds no room, since the disk is
//! slow or full, is missed and counted: no worker waits, and nothing ends for it.

use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use ::capture::calendar::Calendar;
use ::capture::files::{Files, Turns};
use ::capture::pcapng::{self, Interface, Packet};
use datapath::capture::{Captured, Room};
use datapath::mirror::recorder::Recorder;
use eal::channel::{Receiver, Sender, channel};
use eal::time::Time;

use crate::capture::{CaptureReader, CapturedPort, Shared};
use crate::error::Error;

/// Bytes that each worker has for frames that are not written yet.
const ROOM: usize = 4 << 20;

/// How often to look for frames while there are few: a worker does not wake anybody for one.
const PAUSE: Duration = Duration::from_millis(10);

/// How long after a file could not be written it is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// How often to look whether the file is still there.
const LOOK: Duration = Duration::from_secs(1);

/// How long to wait at the end until what there is has been written.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where copies are written, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) turns: Turns,
    /// The most bytes of a frame.
    pub(crate) snaplen: u32,
}

/// What the thread tells.
#[derive(Debug, Default)]
struct Told {
    /// Why nothing can be written now.
    trouble: Option<String>,
    /// Frames that were read and not written.
    lost: u64,
}

/// The file of a mirror: its thread, and the memory of the workers. Dropping it ends the thread,
/// once it has written what there is, if that does not take long.
#[derive(Debug)]
pub(crate) struct File {
    place: Place,
    shared: Arc<Shared>,
    /// Those of the present workers.
    rooms: Vec<Arc<Room>>,
    told: Arc<Mutex<Told>>,
    /// Dropped for the thread to end.
    ends: Option<Sender<()>>,
    ended: Receiver<()>,
}

impl File {
    /// Begins to write the copies of mirror `name`, which so many workers make. By `time` it looks
    /// whether the file is there, and tries again.
    pub(crate) fn start(
        name: &str,
        place: &Place,
        workers: usize,
        time: Time,
    ) -> Result<Self, Error> {
        let device = format!("mirror to {}", place.path.display());
        let shared = Arc::new(Shared::of(CapturedPort { name: name.to_owned(), device }));
        let told = Arc::<Mutex<Told>>::default();
        let (ends, end) = channel();
        let (done, ended) = channel();
        let writer = Writer {
            name: name.to_owned(),
            place: place.clone(),
            reader: CaptureReader::new(0, Weak::new(), &shared),
            calendar: Calendar::now(),
            files: None,
            try_at: None,
            looked: time.now(),
            time,
            told: Arc::clone(&told),
        };
        let thread = std::thread::Builder::new().name("mirror".to_owned());
        let spawned = eal::thread::spawn(thread, move || {
            writer.run(&end);
            // An error says that nobody waits any more.
            let _ = done.send(());
        });
        spawned.map_err(|source| Error::System { action: "start a thread", source })?;
        let (place, rooms) = (place.clone(), Vec::new());
        let mut file = Self { place, shared, rooms, told, ends: Some(ends), ended };
        file.restart(workers);
        Ok(file)
    }

    /// Where it is.
    pub(crate) const fn place(&self) -> &Place {
        &self.place
    }

    /// There are others, so many workers from now on.
    pub(crate) fn restart(&mut self, workers: usize) {
        self.rooms = (0..workers).map(|_| Arc::new(Room::new(ROOM))).collect();
        self.shared.add_rooms(&self.rooms);
    }

    /// The way of worker `worker` to it.
    pub(crate) fn recorder(&self, worker: usize) -> Option<Recorder> {
        let room = self.rooms.get(worker)?;
        Some(Recorder::new(Arc::clone(room)))
    }

    /// Why nothing can be written now, and how many frames are not in the files.
    pub(crate) fn report(&self) -> (Option<String>, u64) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        (told.trouble.clone(), told.lost.saturating_add(self.shared.missed(0)))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.ends = None;
        if self.ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let file = self.place.path.display();
            tracing::warn!(%file, "writing the last frames of a mirror takes long: nobody waits");
        }
    }
}

/// The thread of a mirror.
struct Writer {
    name: String,
    place: Place,
    reader: CaptureReader,
    calendar: Calendar,
    files: Option<Files>,
    /// When to try again to open one.
    try_at: Option<Instant>,
    /// When it was looked whether it is there.
    looked: Instant,
    time: Time,
    told: Arc<Mutex<Told>>,
}

impl Writer {
    /// Writes until the other end of `end` is gone.
    fn run(mut self, end: &Receiver<()>) {
        let mut pause = PAUSE;
        while end.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            pause = if self.turn() > 0 { Duration::ZERO } else { PAUSE };
        }
        self.turn();
    }

    /// Writes what there is; returns how many frames that were.
    fn turn(&mut self) -> usize {
        self.calendar.keep();
        self.look();
        let mut result = self.open();
        let Self { reader, calendar, files, .. } = self;
        let mut block = Vec::new();
        let mut lost = 0_usize;
        let count = reader.read(|captured| match (files.as_mut(), &result) {
            (Some(files), Ok(())) => {
                block.clear();
                let time = add(&mut block, captured, calendar);
                result = files.write_frame(&block, time);
            }
            _ => lost = lost.saturating_add(1),
        });
        if let (Some(files), Ok(())) = (files.as_mut(), &result) {
            result = files.flush();
        }
        if result.is_err() {
            // Whatever is in the file by now is cut away with what is there of it in part.
            lost = count;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.lost = told.lost.saturating_add(lost as u64);
        drop(told);
        if let Err(error) = result {
            self.give_up(&error);
        }
        count
    }

    /// Gives a file up that was removed, or whose folder was.
    fn look(&mut self) {
        if self.time.now().saturating_duration_since(self.looked) < LOOK {
            return;
        }
        self.looked = self.time.now();
        if self.files.as_ref().is_some_and(|files| !files.is_there()) {
            self.files = None;
        }
    }

    /// Opens the file, if there is none and it is time to.
    fn open(&mut self) -> std::io::Result<()> {
        let is_due = self.try_at.is_none_or(|at| at <= self.time.now());
        if self.files.is_some() || !is_due {
            return Ok(());
        }
        let Place { path, turns, snaplen } = &self.place;
        let mut files = Files::resume(path, *turns)?;
        let mut head = Vec::new();
        pcapng::section(&mut head, concat!("ringway ", env!("CARGO_PKG_VERSION")));
        let about =
            Interface { name: &self.name, description: "mirror", filter: None, snaplen: *snaplen };
        pcapng::interface(&mut head, &about);
        if let Err(error) = files.write_head(&head).and_then(|()| files.flush()) {
            give_up(&self.name, files);
            return Err(error);
        }
        let (mirror, file) = (self.name.as_str(), files.name().display());
        tracing::info!(mirror, %file, "copies are written");
        self.files = Some(files);
        self.try_at = None;
        self.tell(None);
        Ok(())
    }

    /// Nothing can be written: tells it once, and tries again after a while.
    fn give_up(&mut self, error: &std::io::Error) {
        if let Some(files) = self.files.take() {
            give_up(&self.name, files);
        }
        self.try_at = self.time.now().checked_add(AGAIN);
        let text = error.to_string();
        if self.tell(Some(text)) {
            let (mirror, file) = (self.name.as_str(), self.place.path.display());
            tracing::warn!(mirror, %file, %error, "copies cannot be written; it is tried again");
        }
    }

    /// Notes what is wrong; returns whether something was wrong and was not before.
    fn tell(&self, trouble: Option<String>) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = told.trouble.is_none() && trouble.is_some();
        told.trouble = trouble;
        is_new
    }
}

fn give_up(mirror: &str, files: Files) {
    if let Err(error) = files.give_up() {
        tracing::debug!(mirror, %error, "a file keeps a part of a frame at its end");
    }
}

/// Adds the block of a frame; returns its time.
fn add(block: &mut Vec<u8>, captured: &Captured<'_>, calendar: &Calendar) -> u64 {
    let (time, comment) = (calendar.time(captured.cycles), captured.note.text());
    let packet = Packet {
        interface: 0,
        time,
        bytes: captured.bytes,
        len: captured.len,
        // It may have come in here and gone out there.
        direction: None,
        lost: captured.missed.into(),
        comment: comment.as_deref(),
    };
    pcapng::packet(block, &packet);
    time
}

/// Whether a path names a file wherever a program is that is told it.
pub(super) fn check(path: &Path) -> Result<(), String> {
    match path.is_absolute() && path.file_name().is_some() {
        true => Ok(()),
        false => Err(format!("output-file '{}': expected an absolute path", path.display())),
    }
}
