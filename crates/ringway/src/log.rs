//! The log on standard error: for people on a terminal, with priorities for the journal.

use std::fmt;
use std::io::{self, IsTerminal as _, Stderr, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use ordered::Gather as _;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

use crate::cli::{Cli, Command};
use crate::control::protocol::LogLevels;
use crate::exit::Failure;
use crate::ovs::vlog::Vlog;

/// The variable that comes before the options.
const VARIABLE: &str = "RUST_LOG";

/// Replaces the filter; returns what is wrong with it.
type Replace = Box<dyn Fn(Targets) -> Result<(), String> + Send + Sync>;

/// How to change what is logged, once the log has started.
static REPLACE: OnceLock<Replace> = OnceLock::new();

/// What is logged.
static FILTER: Mutex<Option<Targets>> = Mutex::new(None);

/// What a target is the beginning of: our crates, as lines of the log name them.
pub const CRATES: [&str; 23] = [
    "ringway",
    "ovs",
    "ofproto",
    "vconn",
    "connmgr",
    "ofp_flow",
    "ct_dpif",
    "dpif",
    "dpif_netdev",
    "daemon",
    "switch",
    "vdpa",
    "ovsdb",
    "drivers",
    "virtio_net",
    "vhost_net",
    "vhost",
    "igb",
    "host",
    "ethdev",
    "virtio",
    "packet",
    "eal",
];

/// Starts the log; only what runs for long has much to say unasked.
pub fn start(cli: &Cli) {
    let level = match (cli.quiet, cli.verbose, &cli.command) {
        (true, ..) => Level::ERROR,
        (false, 0, Command::Switch(_) | Command::L2fwd(_) | Command::Vdpa(_)) => Level::INFO,
        (false, 0, _) => Level::WARN,
        (false, 1, _) => Level::DEBUG,
        (false, ..) => Level::TRACE,
    };
    start_at(level.into());
}

/// Starts the log at `level`, unless the environment says otherwise, with lines as Open vSwitch
/// writes them.
pub fn start_lines(level: LevelFilter) {
    let (filter, replace) = filter(level);
    let _ = REPLACE.set(replace);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Lines { journal: is_journal() })
        .with_ansi(false)
        .event_format(Vlog::default());
    tracing_subscriber::registry().with(filter).with(lines).init();
}

/// Starts the log at `level`, unless the environment says otherwise.
fn start_at(level: LevelFilter) {
    let (filter, replace) = filter(level);
    let _ = REPLACE.set(replace);
    let journal = is_journal();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Lines { journal })
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    let lines = match journal {
        // The journal has its own time, and its own priorities.
        true => lines.without_time().with_level(false).boxed(),
        false => lines.boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
}

/// What is logged at first, and how to change that.
fn filter(level: LevelFilter) -> (reload::Layer<Targets, Registry>, Replace) {
    let wanted = std::env::var(VARIABLE).ok().filter(|wanted| !wanted.is_empty());
    let wanted = wanted.and_then(|wanted| wanted.parse().ok());
    let filter = wanted.unwrap_or_else(|| Targets::new().with_default(level));
    *current() = Some(filter.clone());
    let (filter, handle) = reload::Layer::new(filter);
    (filter, Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())))
}

fn current() -> MutexGuard<'static, Option<Targets>> {
    FILTER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Changes what is logged: a level, or a filter as RUST_LOG has it.
///
/// # Errors
/// When it is no filter; says what was expected.
pub fn set(filter: &str) -> Result<(), String> {
    let expected = "expected error, warn, info, debug or trace, or a filter as in RUST_LOG";
    let parsed: Targets = filter.parse().map_err(|_| format!("log '{filter}': {expected}"))?;
    let is_word = !filter.contains(['=', ',', '[']);
    if is_word && filter.parse::<Level>().is_err() {
        return Err(format!("log '{filter}': {expected}"));
    }
    parsed.iter().try_for_each(|(target, _)| check_target(target))?;
    replace(parsed)
}

/// Changes what is logged of one crate or module; `default` is what is logged of all.
///
/// # Errors
/// When there is no such crate, or it is no level; says what was expected.
pub fn set_target(target: &str, level: &str) -> Result<(), String> {
    check_target(target)?;
    let expected = "expected off, error, warn, info, debug, trace or default";
    let level: Option<LevelFilter> = match level {
        "default" => None,
        level => Some(level.parse().map_err(|_| format!("log '{target}={level}': {expected}"))?),
    };
    let before = current().clone().unwrap_or_default();
    let others = before.iter().filter(|(other, _)| *other != target);
    let all = others.map(|(other, level)| (other.to_owned(), level));
    let all = all.chain(level.map(|level| (target.to_owned(), level)));
    let filter = Targets::new().with_targets(all.collect::<Vec<_>>());
    replace(filter.with_default(before.default_level().unwrap_or(LevelFilter::OFF)))
}

/// Whether something is logged as `target`.
pub fn has(target: &str) -> bool {
    check_target(target).is_ok()
}

/// What is logged.
pub fn levels() -> LogLevels {
    let filter = current().clone().unwrap_or_default();
    let text = |level: LevelFilter| level.to_string().to_lowercase();
    LogLevels {
        level: text(filter.default_level().unwrap_or(LevelFilter::OFF)),
        targets: filter.iter().map(|(target, level)| (target.to_owned(), text(level))).gather(),
    }
}

fn replace(filter: Targets) -> Result<(), String> {
    REPLACE.get().map_or(Ok(()), |replace| replace(filter.clone()))?;
    *current() = Some(filter);
    Ok(())
}

/// A target that is the beginning of nothing is a slip of the pen.
fn check_target(target: &str) -> Result<(), String> {
    let name = target.split("::").next().unwrap_or_default();
    if CRATES.contains(&name) {
        return Ok(());
    }
    let hint = ethdev::hint(name, CRATES);
    Err(format!("log: nothing is logged as '{target}'{hint}; there are: {}", CRATES.join(", ")))
}

/// Tells why the program ends: its own line, with or without a log.
pub fn last_words(failure: &Failure) {
    let prefix = is_journal().then(|| priority(Level::ERROR));
    let mut line = Line { out: io::stderr(), prefix };
    // There is nobody left to tell.
    let _ = line.write_all(format!("ringway: {failure}\n").as_bytes());
}

/// Whether standard error goes to the journal of systemd: JOURNAL_STREAM has its device and inode
/// (systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    is_stream(&stream, io::stderr())
}

fn is_stream(stream: &str, file: impl AsFd) -> bool {
    let Ok(stat) = rustix::fs::fstat(file) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

/// Makes the writer of each line.
#[derive(Clone, Copy, Debug)]
struct Lines {
    journal: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { out: io::stderr(), prefix: None }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        let prefix = self.journal.then(|| priority(*metadata.level()));
        Line { out: io::stderr(), prefix }
    }
}

/// What stands before a line for the journal (sd-daemon(3)).
const fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// One line; what is in it that would begin another is replaced.
struct Line<W> {
    out: W,
    prefix: Option<&'static str>,
}

impl<W> fmt::Debug for Line<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let Some(prefix) = self.prefix else { return self.out.write(text) };
        // In one go: others write to the journal, too.
        let mut line = prefix.as_bytes().to_vec();
        let body = text.strip_suffix(b"\n").unwrap_or(text);
        line.extend(body.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }));
        line.push(b'\n');
        self.out.write_all(&line)?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_the_journal_have_priorities_and_stay_one() {
        let mut out = Vec::new();
        let mut line = Line { out: &mut out, prefix: Some(priority(Level::WARN)) };
        line.write_all(b"a\n<0>b\n").unwrap();
        assert_eq!(out, b"<4>a <0>b\n");
        let mut out = Vec::new();
        Line { out: &mut out, prefix: None }.write_all(b"a\n").unwrap();
        assert_eq!(out, b"a\n");
    }

    #[test]
    fn the_journal_is_known_by_its_file() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        assert!(is_stream(&format!("{}:{}", stat.st_dev, stat.st_ino), &file));
        assert!(!is_stream("8:1", &file) && !is_stream("", &file));
    }

    #[test]
    fn only_levels_and_filters_are_taken() {
        for good in ["debug", "ERROR", "info,vhost=debug"] {
            assert!(set(good).is_ok(), "{good}");
        }
        for bad in ["loud", "a=b=c", ""] {
            assert!(set(bad).unwrap_err().contains("expected error, warn"), "{bad}");
        }
        assert!(set("info,vhots=debug").unwrap_err().contains("did you mean 'vhost'?"));
        // One target after the other; the rest stays.
        set("warn,vhost::control=trace").unwrap();
        set_target("switch", "debug").unwrap();
        set_target("igb", "off").unwrap();
        set_target("vhost::control", "default").unwrap();
        let targets = [("igb", "off"), ("switch", "debug")];
        let targets = targets.map(|(target, level)| (target.to_owned(), level.to_owned()));
        assert_eq!(levels(), LogLevels { level: "warn".to_owned(), targets: targets.into() });
        assert!(set_target("switch", "loud").unwrap_err().contains("expected off, error"));
        assert!(set_target("swich", "debug").unwrap_err().contains("did you mean 'switch'?"));
    }
}
