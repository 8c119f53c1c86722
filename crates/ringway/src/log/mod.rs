//! The log on standard error: for people on a terminal, with priorities for the journal.

/// When that was.
mod date;
/// What is logged.
mod filter;
/// What lines look like, and where they go.
mod lines;

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ordered::Gather as _;
use tracing::Level;
use tracing::level_filters::LevelFilter;

use self::filter::Filter;
use self::lines::{Form, Lines, usual, write_line};
use crate::cli::{Cli, Command};
use crate::control::protocol::LogLevels;
use crate::exit::Failure;
use crate::ovs::vlog::Vlog;

pub use self::date::now;
pub use self::lines::Told;

/// The variable that comes before the options.
const VARIABLE: &str = "RUST_LOG";

/// What is logged: nothing, before the log has started.
static FILTER: Mutex<Filter> = Mutex::new(Filter::all(LevelFilter::OFF));

/// Whether the log has started.
static STARTED: AtomicBool = AtomicBool::new(false);

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
    let lines = Vlog::default();
    begin(level, false, Box::new(move |told| lines.line(told)));
}

/// Starts the log at `level`, unless the environment says otherwise.
fn start_at(level: LevelFilter) {
    let colour = io::stderr().is_terminal();
    begin(
        level,
        colour,
        match is_journal() {
            // The journal has its own time, and its own priorities.
            true => Box::new(|told| told.text.to_owned()),
            false => Box::new(move |told| usual(&now(6), told, colour)),
        },
    );
}

fn begin(level: LevelFilter, colour: bool, form: Form) {
    let wanted = std::env::var(VARIABLE).ok().and_then(|wanted| Filter::parse(&wanted));
    *current() = wanted.unwrap_or_else(|| Filter::all(level));
    let lines = Lines { form, journal: is_journal(), colour };
    // There is one log: if there is one already, it stays.
    let started = tracing::subscriber::set_global_default(lines).is_ok();
    STARTED.fetch_or(started, Relaxed);
}

fn current() -> MutexGuard<'static, Filter> {
    FILTER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Changes what is logged: a level, or a filter as RUST_LOG has it.
///
/// # Errors
/// When it is no filter; says what was expected.
pub fn set(filter: &str) -> Result<(), String> {
    let expected = "expected error, warn, info, debug or trace, or a filter as in RUST_LOG";
    let wrong = || format!("log '{filter}': {expected}");
    let parsed = Filter::parse(filter).ok_or_else(wrong)?;
    // A word alone is a level.
    if !filter.contains(['=', ',']) && filter.parse::<Level>().is_err() {
        return Err(wrong());
    }
    parsed.targets().try_for_each(|(target, _)| check_target(target))?;
    replace(parsed);
    Ok(())
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
        level => Some(
            filter::level(level).ok_or_else(|| format!("log '{target}={level}': {expected}"))?,
        ),
    };
    let mut filter = current().clone();
    filter.set(target, level);
    replace(filter);
    Ok(())
}

/// Whether something is logged as `target`.
pub fn has(target: &str) -> bool {
    check_target(target).is_ok()
}

/// What is logged.
pub fn levels() -> LogLevels {
    let filter = current().clone();
    let text = |level: LevelFilter| level.to_string().to_lowercase();
    LogLevels {
        level: text(filter.default_level()),
        targets: filter.targets().map(|(target, level)| (target.to_owned(), text(level))).gather(),
    }
}

fn replace(filter: Filter) {
    *current() = filter;
    // Each place that tells something knows whether it is heard, and has to be told anew. Without a log of
    // all threads that would ask the one of this thread, and have others' lose what they are told.
    if STARTED.load(Relaxed) {
        tracing::callsite::rebuild_interest_cache();
    }
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
    let level = is_journal().then_some(Level::ERROR);
    // There is nobody left to tell.
    let _ = write_line(&mut io::stderr(), level, &format!("ringway: {failure}"));
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

#[cfg(test)]
mod tests {
    use super::*;

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
