//! What a switch sends to a client that captures: a capture file that ends when the client has
//! enough. A thread of its own does that, so that neither workers nor other clients wait for a
//! client that is slow; what it does not take is missed, and counted.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use ::capture::bpf::Program;
use ::capture::calendar::Calendar;
use ::capture::pcapng::{self, Direction, Interface, Packet, Statistics};
use eal::clock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use switch::{Capture, CaptureReader, Captured};

use crate::control::protocol::{CaptureWay, Request};

/// How often to look for frames while there are few: a worker does not wake anybody for one.
const PAUSE: Duration = Duration::from_millis(10);

/// A capture and the connection that it goes to.
#[derive(Debug)]
pub struct Stream {
    reader: CaptureReader,
    /// What is told of each interface beside its name.
    filter: Option<String>,
    snaplen: u32,
    calendar: Calendar,
    /// Frames sent, by port; there is an interface for each.
    sent: Vec<u64>,
    out: Vec<u8>,
}

impl Stream {
    /// What `reader` reads, `snaplen` bytes of each frame at most, which have passed `filter`.
    pub fn new(reader: CaptureReader, filter: Option<String>, snaplen: usize) -> Self {
        let snaplen = u32::try_from(snaplen).unwrap_or(u32::MAX);
        let (sent, out) = Default::default();
        Self { reader, filter, snaplen, calendar: Calendar::now(), sent, out }
    }

    /// Sends on a thread of its own, to the end.
    pub fn start(self, connection: UnixStream) {
        let thread = std::thread::Builder::new().name("capture".to_owned());
        let spawned = eal::thread::spawn(thread, move || {
            if let Err(error) = self.run(&connection) {
                tracing::debug!("capture: {error}");
            }
        });
        if let Err(error) = spawned {
            tracing::warn!("capture: cannot start a thread: {error}");
        }
    }

    fn run(mut self, connection: &UnixStream) -> io::Result<()> {
        connection.set_nonblocking(true)?;
        pcapng::section(&mut self.out, concat!("ringway ", env!("CARGO_PKG_VERSION")));
        self.read();
        self.flush(connection)?;
        let mut pause = PAUSE;
        while !is_enough(connection, pause)? {
            pause = if self.read() > 0 { Duration::ZERO } else { PAUSE };
            self.flush(connection)?;
        }
        self.reader.stop();
        self.read();
        let time = self.calendar.time(clock::now());
        for (port, captured) in self.sent.iter().enumerate() {
            let interface = u32::try_from(port).unwrap_or(u32::MAX);
            let (captured, missed) = (*captured, self.reader.missed(port));
            let counted = Statistics { interface, time, captured, missed };
            pcapng::statistics(&mut self.out, &counted);
        }
        self.flush(connection)
    }

    /// Makes blocks of what was captured; returns how many frames there were.
    fn read(&mut self) -> usize {
        self.calendar.keep();
        let Self { reader, filter, snaplen, calendar, sent, out } = self;
        // Before the frames, which have no other ports.
        let count = read_frames(
            reader,
            |reader_ports, frames| {
                for port in reader_ports.iter().skip(sent.len()) {
                    let (name, description) = (port.name.as_str(), port.device.as_str());
                    let filter = filter.as_deref();
                    pcapng::interface(
                        out,
                        &Interface { name, description, filter, snaplen: *snaplen },
                    );
                }
                sent.resize(sent.len().max(reader_ports.len()), 0);
                out.extend_from_slice(frames);
            },
            calendar,
        );
        for (total, new) in self.sent.iter_mut().zip(count.by_port) {
            *total = total.saturating_add(new);
        }
        count.all
    }

    /// Writes what there is; waits until the client has taken it.
    fn flush(&mut self, mut connection: &UnixStream) -> io::Result<()> {
        let mut rest = self.out.as_slice();
        while !rest.is_empty() {
            match connection.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(connection, PollFlags::OUT)];
                    ready(poll(&mut fds, None))?;
                }
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        Ok(())
    }
}

/// What is to be captured, and the expression that its filter was made of. Whatever the client has
/// made of it, the filter is checked here.
pub fn wanted(request: Request) -> Result<(Capture, Option<String>), String> {
    let Request::Capture { ports, direction, dropped, snaplen, filter, expression, buffer } =
        request
    else {
        return Err("this is no capture".to_owned());
    };
    let filter = filter.map(|filter| filter.parse::<Program>()).transpose();
    let filter = filter.map_err(|error| format!("capture: {error}"))?;
    let direction = direction.map(|direction| match direction {
        CaptureWay::In => switch::capture::Direction::In,
        CaptureWay::Out => switch::capture::Direction::Out,
    });
    let all = Capture::default();
    let capture = Capture {
        ports: (!ports.is_empty()).then_some(ports),
        direction,
        dropped,
        // Longer than any frame is no mistake.
        snaplen: snaplen.unwrap_or(all.snaplen).min(all.snaplen),
        filter: filter.map(Arc::new),
        buffer: buffer.unwrap_or(all.buffer),
    };
    Ok((capture, expression))
}

/// What was read at once.
#[derive(Debug, Default)]
struct Read {
    all: usize,
    by_port: Vec<u64>,
}

/// Reads frames and makes blocks of them; hands them to `take`, with all ports that there are.
fn read_frames(
    reader: &mut CaptureReader,
    take: impl FnOnce(&[switch::CapturedPort], &[u8]),
    calendar: &Calendar,
) -> Read {
    let (mut blocks, mut by_port) = (Vec::new(), Vec::<u64>::new());
    let all = reader.read(|captured| {
        if by_port.len() <= captured.port {
            by_port.resize(captured.port.saturating_add(1), 0);
        }
        if let Some(count) = by_port.get_mut(captured.port) {
            *count = count.saturating_add(1);
        }
        add(&mut blocks, captured, calendar);
    });
    // Ports are known before a worker captures anything of them.
    take(&reader.ports(), &blocks);
    Read { all, by_port }
}

fn add(blocks: &mut Vec<u8>, captured: &Captured<'_>, calendar: &Calendar) {
    let comment = comment(captured);
    let packet = Packet {
        interface: u32::try_from(captured.port).unwrap_or(u32::MAX),
        time: calendar.time(captured.cycles),
        bytes: captured.bytes,
        len: captured.len,
        direction: Some(match captured.direction {
            switch::capture::Direction::In => Direction::In,
            switch::capture::Direction::Out => Direction::Out,
        }),
        lost: captured.missed.into(),
        comment: comment.as_deref(),
    };
    pcapng::packet(blocks, &packet);
}

/// What is said of a frame.
fn comment(captured: &Captured<'_>) -> Option<Cow<'static, str>> {
    let note = captured.note.text();
    let Some(reason) = captured.dropped else { return note };
    let dropped = format!("dropped: {}", reason.name());
    Some(note.map_or_else(|| dropped.clone(), |note| format!("{dropped}; {note}")).into())
}

/// Waits so long for the client to say that it has enough: by closing its side of the connection.
fn is_enough(mut connection: &UnixStream, pause: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::new(connection, PollFlags::IN)];
    let pause = Timespec::try_from(pause).map_err(io::Error::other)?;
    ready(poll(&mut fds, Some(&pause)))?;
    if fds.iter().all(|fd| fd.revents().is_empty()) {
        return Ok(false);
    }
    let mut ignored = [0; 256];
    match connection.read(&mut ignored) {
        Ok(count) => Ok(count == 0),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// A wait that a signal has ended is one as well.
fn ready(polled: rustix::io::Result<usize>) -> io::Result<()> {
    match polled {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
