use std::fmt::Debug;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;

/// Waits until `path` exists, for `limit` at most, and only as long as the process behind
/// `maker`, a pidfd, lives.
///
/// # Errors
/// When the time is over, the process has ended, or the directory that is to hold `path`
/// cannot be watched.
pub fn for_path(path: &Path, maker: Option<BorrowedFd<'_>>, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    let dir = path.parent().context("a path without a directory")?;
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watch, dir, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO)
        .with_context(|| format!("cannot watch {}", dir.display()))?;
    let mut ended = false;
    // The watch is set before the look, so that a file made in between is not missed.
    while fs::symlink_metadata(path).is_err() {
        let left = deadline.saturating_duration_since(Instant::now());
        if ended || left.is_zero() {
            let why = if ended { "its maker has ended" } else { "the time is over" };
            bail!("{} did not appear: {why} ({limit:?})", path.display());
        }
        let fds = [Some(watch.as_fd()), maker];
        let mut fds: Vec<_> = fds
            .into_iter()
            .flatten()
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        poll(&mut fds, Some(&left.try_into()?))?;
        ended = fds.get(1).is_some_and(|maker| !maker.revents().is_empty());
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&watch, &mut buffer);
        while events.next().is_ok() {}
    }
    Ok(())
}

/// Calls `probe` until it gives a value, every `pause`, for `limit` at most.
/// For states that can only be asked for, such as a counter of another process.
///
/// # Errors
/// When the time is over (`what` names what was waited for), or when `probe` fails.
pub fn until<T>(
    what: &str,
    limit: Duration,
    pause: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(pause);
    }
}

/// Calls `probe` until it succeeds, every `pause`, for `limit` at most: for what is refused or not
/// answered until others have come so far.
///
/// # Errors
/// When the time is over: what the last call failed by, and `what` was waited for.
pub fn until_ok<T>(
    what: &str,
    limit: Duration,
    pause: Duration,
    mut probe: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut last = None;
    let succeeded =
        until(what, limit, pause, || Ok(probe().map_err(|error| last = Some(error)).ok()));
    succeeded.map_err(|over| match last {
        Some(error) => error.context(over),
        None => over,
    })
}

/// Takes a measure again and again until it is good enough, `tries` times at most: for what a machine
/// with other work may spoil now and then, and a fault always does. Gives all that it took.
///
/// # Errors
/// When none was good enough; the message has all of them.
pub fn until_good<T: Debug>(
    what: &str,
    tries: usize,
    mut measure: impl FnMut() -> T,
    is_good: impl Fn(&T) -> bool,
) -> Result<Vec<T>> {
    let mut all = Vec::new();
    while all.len() < tries {
        all.push(measure());
        if all.last().is_some_and(&is_good) {
            return Ok(all);
        }
    }
    bail!("{what}: {all:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_appears_later_ends_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("late");
        std::thread::scope(|scope| {
            scope.spawn(|| for_path(&path, None, Duration::from_secs(60)).unwrap());
            fs::write(&path, "").unwrap();
        });
        assert!(for_path(&dir.path().join("never"), None, Duration::from_millis(20)).is_err());
    }

    #[test]
    fn what_is_refused_for_long_is_told_with_the_reason() {
        let mut answers = [Err("refused"), Ok(1)].into_iter();
        let mut probe = || answers.next().unwrap().map_err(anyhow::Error::msg);
        let limit = Duration::from_secs(10);
        assert_eq!(until_ok("an answer", limit, Duration::ZERO, &mut probe).unwrap(), 1);
        let refused = || -> Result<()> { bail!("refused") };
        let error = until_ok("an answer", Duration::ZERO, Duration::ZERO, refused).unwrap_err();
        assert_eq!(format!("{error:#}"), "an answer: not within 0ns: refused");
    }

    #[test]
    fn a_measure_is_taken_until_it_is_good() {
        let mut numbers = 5..;
        let all = until_good("small", 4, || numbers.next().unwrap(), |number| *number > 6);
        assert_eq!(all.unwrap(), [5, 6, 7]);
        let error = until_good("small", 2, || numbers.next().unwrap(), |number| *number < 6);
        assert_eq!(error.unwrap_err().to_string(), "small: [8, 9]");
    }
}
