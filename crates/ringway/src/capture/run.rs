//! `ringway capture`: asks a switch for frames, and writes them down.

use std::io::Write as _;
use std::io::{self, BufReader, BufWriter, Cursor, ErrorKind, IsTerminal as _, Read as _, Stdout};
use std::os::unix::net::UnixStream;
use std::path::Path;

use ::capture::bpf;
use ::capture::files::{Files, Turns};
use ::capture::libpcap::{self, Libpcap};
use ::capture::pcapng::{Block, Blocks, Direction, Packet};
use eal::signals::Signals;
use serde_json::{Value, json};

use super::line::{summary, time_of_day};
use super::source::{Source, end};
use crate::admin::connect;
use crate::cli::{CaptureArgs, Way};
use crate::control::protocol::{CaptureWay, Request};
use crate::exit::Failure;
use crate::output;

/// How a comment begins that tells why a frame was dropped.
const DROPPED: &str = "dropped: ";

/// `ringway capture`.
pub fn run(args: &CaptureArgs) -> Result<(), Failure> {
    let (request, name) = request(args)?;
    check(args)?;
    let mut client = connect(args.control.control.as_deref())?;
    let signals = Signals::install().map_err(Failure::runtime)?;
    let _: Value = client.ask(&request)?;
    // Only now is it sure that there is something to write.
    let mut out = Out::open(args)?;
    let (began, connection) = client.into_stream()?;
    eprintln!("capturing on {name}; Ctrl-C ends it");
    let mut tally = Tally::default();
    let ended = copy(args.count, began, connection, signals, &mut out, &mut tally);
    let written = ended.and_then(|()| out.finish().map_err(Failure::runtime));
    eprintln!("{}", tally.text(&out));
    written
}

/// What is asked of the switch, and the ports in words.
fn request(args: &CaptureArgs) -> Result<(Request, String), Failure> {
    let expression = args.filter.join(" ");
    let filter = match expression.is_empty() {
        true => None,
        false => Some(compile(&expression)?),
    };
    let ports: Vec<&str> = args.ports.split(',').filter(|port| !port.is_empty()).collect();
    let is_all = ports.contains(&"all");
    if is_all && ports.len() > 1 {
        return Err(Failure::usage("'all' stands for all ports: leave the others out"));
    }
    if ports.is_empty() {
        return Err(Failure::usage("no port: name some, as in vm1,vm2, or all"));
    }
    let (ports, name) = match is_all {
        true => (Vec::new(), "all ports".to_owned()),
        false => (ports.iter().map(|port| (*port).to_owned()).collect(), ports.join(", ")),
    };
    let direction = match args.direction {
        Way::In => Some(CaptureWay::In),
        Way::Out => Some(CaptureWay::Out),
        Way::Both => None,
    };
    let expression = filter.is_some().then_some(expression);
    let (dropped, snaplen, buffer) = (args.dropped, args.snaplen, args.buffer);
    Ok((Request::Capture { ports, direction, dropped, snaplen, filter, expression, buffer }, name))
}

fn compile(expression: &str) -> Result<String, Failure> {
    let compiled = Libpcap::load().and_then(|libpcap| libpcap.compile(expression));
    let instructions = compiled.map_err(|error| match error {
        libpcap::Error::Missing(_) => Failure::runtime(error),
        libpcap::Error::Filter { .. } => Failure::usage(error),
    })?;
    Ok(bpf::to_text(&instructions))
}

/// Writes down what comes, to the end.
fn copy(
    count: Option<u64>,
    began: Vec<u8>,
    connection: UnixStream,
    signals: Signals,
    out: &mut Out,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let broken = |error: &dyn std::fmt::Display| Failure::runtime(format!("capture: {error}"));
    let ending = connection.try_clone().map_err(Failure::runtime)?;
    let source = Cursor::new(began).chain(Source::new(connection, signals));
    let mut blocks = Blocks::new(BufReader::with_capacity(1 << 18, source));
    let mut names: Vec<String> = Vec::new();
    let mut is_enough = false;
    loop {
        // Nobody waits for a frame that is here already.
        if blocks.get_ref().buffer().is_empty() && !out.flush()? {
            is_enough = true;
            end(&ending);
        }
        let Some((bytes, block)) = blocks.next_block().map_err(|error| broken(&error))? else {
            return Ok(());
        };
        match block {
            Block::Packet(_) if is_enough => continue,
            Block::Packet(ref packet) => {
                tally.add(packet);
                let name = usize::try_from(packet.interface).ok().and_then(|at| names.get(at));
                out.frame(bytes, packet, name.map_or("?", String::as_str))?;
                if count.is_some_and(|count| tally.captured >= count) {
                    is_enough = true;
                    end(&ending);
                }
            }
            Block::Interface(name) => {
                names.push(name.to_owned());
                out.head(bytes)?;
            }
            Block::Section => out.head(bytes)?,
            Block::Statistics(statistics) => {
                tally.counted = Some(tally.counted.unwrap_or(0).saturating_add(statistics.missed));
                out.rest(bytes)?;
            }
            Block::Other => out.rest(bytes)?,
        }
    }
}

/// What was counted.
#[derive(Debug, Default)]
struct Tally {
    captured: u64,
    dropped: u64,
    /// Missed, as told between frames, and as told at the end.
    lost: u64,
    counted: Option<u64>,
}

impl Tally {
    fn add(&mut self, packet: &Packet<'_>) {
        self.captured = self.captured.saturating_add(1);
        self.lost = self.lost.saturating_add(packet.lost);
        if reason(packet).is_some() {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    fn text(&self, out: &Out) -> String {
        let Self { captured, dropped, lost, counted } = self;
        let missed = counted.unwrap_or(*lost);
        let hint = match missed {
            0 => "",
            _ => ": they came faster than they were read (a filter, -s or --buffer helps)",
        };
        let place = out.place().map(|place| format!("{place}: ")).unwrap_or_default();
        format!(
            "{place}{captured} frames captured, {dropped} of them dropped by the switch; {missed} missed{hint}"
        )
    }
}

/// Why a frame was dropped, if it was.
fn reason<'p>(packet: &Packet<'p>) -> Option<&'p str> {
    let rest = packet.comment?.strip_prefix(DROPPED)?;
    Some(rest.split_once(';').map_or(rest, |(reason, _)| reason))
}

fn is_pipe(path: &Path) -> bool {
    path == Path::new("-")
}

/// When to begin another file.
fn turns(args: &CaptureArgs) -> Turns {
    Turns {
        size: args.file_size.map(|millions| millions.saturating_mul(1_000_000)),
        time: args.file_seconds.map(|seconds| seconds.saturating_mul(1_000_000_000)),
        files: args.files,
    }
}

/// Checks what is said of files, before anything is asked or written.
fn check(args: &CaptureArgs) -> Result<(), Failure> {
    let turns = turns(args);
    if args.write.as_deref().is_some_and(is_pipe) {
        if turns != Turns::default() {
            return Err(Failure::usage("-C, -G and -W are for files: leave them out with -w -"));
        }
        if io::stdout().is_terminal() {
            let message = "-w - writes a capture file, which is not for a terminal: pipe it into a \
                           program, or leave -w out for lines";
            return Err(Failure::usage(message));
        }
    }
    if turns.files.is_some() && turns.size.is_none() && turns.time.is_none() {
        return Err(Failure::usage("-W without -C or -G: there is one file only"));
    }
    Ok(())
}

/// Where frames go.
#[derive(Debug)]
enum Out {
    Lines { ethernet: bool },
    Json,
    Pipe(BufWriter<Stdout>),
    Files(Box<Files>),
}

impl Out {
    /// Begins to write.
    fn open(args: &CaptureArgs) -> Result<Self, Failure> {
        let Some(path) = &args.write else {
            return Ok(match args.json {
                true => Self::Json,
                false => Self::Lines { ethernet: args.ethernet },
            });
        };
        if is_pipe(path) {
            return Ok(Self::Pipe(BufWriter::with_capacity(1 << 16, io::stdout())));
        }
        let failed = |error| Failure::runtime(format!("cannot write {}: {error}", path.display()));
        Files::create(path, turns(args)).map(|files| Self::Files(Box::new(files))).map_err(failed)
    }

    /// What a file begins with.
    fn head(&mut self, block: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Files(files) => files.write_head(block).map_err(Failure::runtime),
            _ => self.rest(block),
        }
    }

    fn frame(&mut self, block: &[u8], packet: &Packet<'_>, port: &str) -> Result<(), Failure> {
        match self {
            Self::Lines { ethernet } => {
                output::line(&line(packet, port, *ethernet));
                Ok(())
            }
            Self::Json => {
                output::json_line(&object(packet, port));
                Ok(())
            }
            Self::Files(files) => files.write_frame(block, packet.time).map_err(Failure::runtime),
            Self::Pipe(_) => self.rest(block),
        }
    }

    /// Any other block, which is for files alone.
    fn rest(&mut self, block: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Lines { .. } | Self::Json => Ok(()),
            Self::Files(files) => files.write(block).map_err(Failure::runtime),
            Self::Pipe(pipe) => read_on(pipe.write_all(block)).map(drop).map_err(Failure::runtime),
        }
    }

    /// Writes what is buffered; returns whether somebody reads on.
    fn flush(&mut self) -> Result<bool, Failure> {
        match self {
            Self::Lines { .. } | Self::Json => Ok(!output::is_closed()),
            Self::Files(files) => files.flush().map(|()| true).map_err(Failure::runtime),
            Self::Pipe(pipe) => read_on(pipe.flush()).map_err(Failure::runtime),
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.flush().map(drop)
    }

    /// The file, in words.
    fn place(&self) -> Option<String> {
        let Self::Files(files) = self else { return None };
        let name = files.name().display();
        Some(match files.count() {
            1 => name.to_string(),
            count => format!("{name}, the last of {count} files"),
        })
    }
}

/// Whether somebody reads on: that a reader goes away is no error.
fn read_on(written: io::Result<()>) -> io::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

const fn way(direction: Option<Direction>) -> &'static str {
    match direction {
        Some(Direction::In) => "in",
        Some(Direction::Out) => "out",
        None => "?",
    }
}

fn line(packet: &Packet<'_>, port: &str, ethernet: bool) -> String {
    let (time, way) = (time_of_day(packet.time), way(packet.direction));
    let lost = match packet.lost {
        0 => String::new(),
        count => format!("({count} missed) "),
    };
    let comment = packet.comment.map(|comment| format!(" [{comment}]")).unwrap_or_default();
    let text = summary(packet.bytes, ethernet);
    format!("{lost}{time} {port} {way} {text} length {}{comment}", packet.len)
}

fn object(packet: &Packet<'_>, port: &str) -> Value {
    json!({
        "time_ns": packet.time,
        "port": port,
        "direction": way(packet.direction),
        "length": packet.len,
        "dropped": reason(packet),
        "comment": packet.comment,
        "missed_before": packet.lost,
        "summary": summary(packet.bytes, true),
    })
}
