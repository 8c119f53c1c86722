//! Capture files as a port: frames of one file are received, frames sent are written to
//! another.
//!
//! Files are read and written by the worker itself, in blocks of some 100 KiB, so this is a
//! port for tests, for replaying traffic and for recording some.

mod reader;
mod recording;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eal::sandbox::{Needs, Reach};
use ethdev::{
    DeviceSpec, DriverInfo, DropReason, Error, OpenPort, OptionInfo, QueueStats, RxDriver, RxQueue,
    Sent, TxDriver, TxQueue,
};
use packet::{BURST, ETHERNET_HEADER_LEN, Frame, FrameBatch, MAX_FRAME_LEN};

use self::reader::{CaptureReader, Step};
use self::recording::Recording;
use self::writer::CaptureWriter;
use crate::control::{OpenFlag, PlainControl};
use packet::slots::{MAX_SLOT_LEN, SlotBatch};

/// About this driver.
pub const INFO: DriverInfo = DriverInfo {
    name: "pcap",
    syntax: "pcap:[RXFILE][,rx=FILE][,tx=FILE][,loop=N|on][,snaplen=N]",
    summary: "capture files: receives what is in one file, writes what is sent to another",
    options: &[
        OptionInfo {
            name: "rx",
            value: "FILE",
            help: "pcap or pcapng file to receive frames from, as fast as polled",
        },
        OptionInfo {
            name: "tx",
            value: "FILE",
            help: "pcap file to write frames to, made anew (default: they are swallowed)",
        },
        OptionInfo {
            name: "loop",
            value: "N|on",
            help: "receive the file N times or for ever (default 1); up to 256 MiB",
        },
        OptionInfo {
            name: "snaplen",
            value: "BYTES",
            help: "write no more than that of each frame (default: all of it)",
        },
    ],
};

/// Options of a pcap port, parsed.
#[derive(Debug)]
pub(crate) struct Config {
    rx: Option<String>,
    tx: Option<String>,
    /// How often to replay `rx`; `None`: for ever.
    times: Option<u64>,
    snaplen: usize,
}

impl Config {
    pub(crate) fn parse(mut spec: DeviceSpec) -> Result<Self, Error> {
        spec.allow_option_as_target(&["rx", "tx", "loop", "snaplen"])?;
        let mut rx = spec.take("rx");
        if !spec.target().is_empty() {
            if rx.is_some() {
                return Err(spec.error("the file to receive from is given twice"));
            }
            rx = Some(spec.target().to_owned());
        }
        let times = match spec.take("loop").as_deref() {
            None | Some("off") => Some(1),
            Some("on") => None,
            Some(text) => match text.parse() {
                Ok(times @ 1..) => Some(times),
                _ => return Err(spec.error(format!("loop={text}: expected on, or how often"))),
            },
        };
        let snaplen =
            spec.take_number("snaplen", MAX_FRAME_LEN, &(ETHERNET_HEADER_LEN..=MAX_FRAME_LEN))?;
        let config = Self { rx, tx: spec.take("tx"), times, snaplen };
        let no_file = spec.error("expected a file to receive from, or tx=FILE to write to");
        spec.finish(&INFO.option_names())?;
        if config.rx.is_none() && config.tx.is_none() {
            return Err(no_file);
        }
        Ok(config)
    }
}

/// Reads a device string and opens nothing.
///
/// # Errors
/// Options that make no sense.
pub fn check(spec: DeviceSpec) -> Result<(), Error> {
    Config::parse(spec).map(drop)
}

/// What such a port needs of the system.
#[must_use]
pub fn needs(spec: &mut DeviceSpec) -> Needs {
    if spec.allow_option_as_target(&["rx", "tx", "loop", "snaplen"]).is_err() {
        return Needs::new();
    }
    let (target, rx, tx) = (spec.target().to_owned(), spec.take("rx"), spec.take("tx"));
    let rx = rx.or(Some(target)).filter(|path| !path.is_empty());
    let needs = rx.into_iter().fold(Needs::new(), |needs, path| needs.path(path, Reach::READ));
    tx.into_iter().fold(needs, |needs, path| needs.folder_of(path, Reach::FILES))
}

/// Opens a pcap port: one queue pair.
///
/// # Errors
/// Options that make no sense; a file that cannot be opened or is no capture of Ethernet frames.
pub fn open(name: &str, spec: DeviceSpec) -> Result<OpenPort, Error> {
    let device = spec.text().to_owned();
    let config = Config::parse(spec)?;
    let source = config.rx.as_deref().map(|path| open_source(path, config.times)).transpose()?;
    let sink = config.tx.as_deref().map(|path| open_other(path, &config)).transpose()?;

    let files = [("rx file", &config.rx), ("tx file", &config.tx)];
    let details = files
        .into_iter()
        .filter_map(|(name, path)| path.as_ref().map(|path| (name.to_owned(), path.clone())));
    let control = PlainControl::new(INFO.name, 1, details.collect());
    let slots = SlotBatch::new(if source.is_some() { MAX_SLOT_LEN } else { 0 });
    let rx = PcapRx { source, slots, open: control.open_flag() };
    let tx = PcapTx { sink, open: control.open_flag() };
    let rx = RxQueue::new(Box::new(rx), Arc::new(QueueStats::default()));
    let tx = TxQueue::new(Box::new(tx), Arc::new(QueueStats::default()));
    Ok(OpenPort::new(name, &device, Box::new(control), vec![rx], vec![tx]))
}

fn file_error(path: &str, reason: impl Into<String>) -> Error {
    Error::Device { what: format!("capture file '{path}'"), reason: reason.into() }
}

fn open_source(path: &str, times: Option<u64>) -> Result<Source, Error> {
    let error = |reason: String| file_error(path, reason);
    let file = File::open(path).map_err(|cause| error(format!("cannot open it: {cause}")))?;
    let reader = CaptureReader::new(path, file).map_err(error)?;
    if times == Some(1) {
        return Ok(Source::File(reader));
    }
    Ok(Source::Memory(Recording::new(reader, times).map_err(error)?))
}

fn open_other(path: &str, config: &Config) -> Result<Sink, Error> {
    if config.rx.as_deref().is_some_and(|rx| is_same_file(rx, path)) {
        return Err(file_error(path, "it cannot be both received from and written to"));
    }
    open_sink(path, config.snaplen)
}

/// Makes a file to write frames to, each no longer than `snaplen`.
pub(crate) fn open_sink(path: &str, snaplen: usize) -> Result<Sink, Error> {
    let writer = File::create(path).and_then(|file| CaptureWriter::new(file, snaplen));
    let writer =
        writer.map_err(|cause| file_error(path, format!("cannot write to it: {cause}")))?;
    Ok(Sink { writer, path: path.to_owned(), failed: false })
}

/// Whether two paths lead to one file that exists.
fn is_same_file(one: &str, other: &str) -> bool {
    match (std::fs::metadata(one), std::fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Where received frames come from.
#[derive(Debug)]
enum Source {
    File(CaptureReader),
    Memory(Recording),
}

impl Source {
    /// Puts the next frame, if it is one, into `slot`.
    fn step(&mut self, slot: &mut [u8]) -> Step {
        match self {
            Self::File(reader) => reader.step(slot),
            Self::Memory(recording) => {
                let Some(frame) = recording.next_frame() else { return Step::End };
                match slot.get_mut(..frame.len()) {
                    Some(to) => to.copy_from_slice(frame),
                    None => return Step::TooLong,
                }
                Step::Frame(frame.len())
            }
        }
    }
}

/// Receives what is in a file.
struct PcapRx {
    source: Option<Source>,
    slots: SlotBatch,
    open: OpenFlag,
}

impl RxDriver for PcapRx {
    fn receive(&mut self, max: usize, stats: &QueueStats) {
        self.slots.clear();
        let Some(source) = self.source.as_mut().filter(|_| self.open.is_open()) else { return };
        // Records that are no frames count too, so that a file full of them does not keep the
        // worker from its other ports.
        for _ in 0..max.min(BURST) {
            let Some(slot) = self.slots.next_slot() else { break };
            match source.step(slot) {
                Step::Frame(len) if len < ETHERNET_HEADER_LEN => {
                    stats.count_drops(DropReason::TooShort, 1);
                }
                Step::Frame(len) => {
                    if !self.slots.commit(len) {
                        stats.count_drops(DropReason::TooLong, 1);
                    }
                }
                Step::TooLong => stats.count_drops(DropReason::TooLong, 1),
                Step::Other => {}
                Step::End => break,
            }
        }
    }

    fn batch(&self) -> &FrameBatch {
        self.slots.batch()
    }

    fn batch_mut(&mut self) -> &mut FrameBatch {
        self.slots.batch_mut()
    }

    fn release(&mut self) {
        self.slots.clear();
    }
}

/// Where sent frames go.
#[derive(Debug)]
pub(crate) struct Sink {
    writer: CaptureWriter<File>,
    path: String,
    /// A write has failed; what comes after it would not be readable.
    failed: bool,
}

impl Sink {
    fn check(&mut self, result: &io::Result<()>) -> bool {
        if let Err(cause) = result
            && !self.failed
        {
            let path = &self.path;
            tracing::error!("capture file '{path}' cannot be written any further: {cause}");
            self.failed = true;
        }
        result.is_ok()
    }

    pub(crate) fn write(&mut self, time: Duration, frame: &Frame<'_>) -> bool {
        if self.failed {
            return false;
        }
        let result = self.writer.write(time, frame);
        self.check(&result)
    }

    pub(crate) fn flush(&mut self) {
        if !self.failed {
            let result = self.writer.flush();
            self.check(&result);
        }
    }

    /// Makes the file anew if somebody has taken it away: what is written to it so far is gone. Where that cannot be
    /// done, it stays as it is.
    pub(crate) fn renew(&mut self, snaplen: usize) {
        if !std::fs::exists(&self.path).is_ok_and(|is_there| !is_there) {
            return;
        }
        match open_sink(&self.path, snaplen) {
            Ok(sink) => *self = sink,
            Err(error) => tracing::warn!("a capture file that was taken away stays so: {error}"),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Writes what is sent to a file, or swallows it where there is none.
struct PcapTx {
    sink: Option<Sink>,
    open: OpenFlag,
}

impl TxDriver for PcapTx {
    fn transmit(&mut self, frames: &[Frame<'_>], stats: &QueueStats) -> Sent {
        if !self.open.is_open() {
            return Sent::NONE;
        }
        let Some(sink) = &mut self.sink else { return Sent::first(frames.len()) };
        // One time for the burst: its frames were handed over together.
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut sent = Sent::NONE;
        for frame in frames {
            if sink.write(time, frame) {
                sent.add_sent();
            } else {
                sent.add_dropped(stats, DropReason::DeviceError);
            }
        }
        sent
    }

    fn is_ready(&self) -> bool {
        self.open.is_open()
    }

    fn flush(&mut self) -> bool {
        if let Some(sink) = &mut self.sink {
            sink.flush();
        }
        false
    }
}
