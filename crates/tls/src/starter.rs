//! The starter: waits until there is something to do, has a worker do it, and has another one should that die.
//! The switch has given up to start processes by then, and could start no other starter either. So there is one
//! in reserve from the begin, which takes the place of one that dies, and has one in reserve in its turn. All
//! of them end with the switch.

use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::process;

/// Has workers serve what comes, until nothing will come any more.
pub fn serve(orders: &OwnedFd) -> std::io::Result<()> {
    let mut starter = Starter {
        orders,
        worker: None,
        reserve: None,
        worker_pause: Pause::default(),
        reserve_pause: Pause::default(),
    };
    while starter.turn()? {}
    Ok(())
}

struct Starter<'o> {
    orders: &'o OwnedFd,
    worker: Option<Relative>,
    reserve: Option<Relative>,
    worker_pause: Pause,
    reserve_pause: Pause,
}

impl Starter<'_> {
    /// Waits for something and sees to it; gives whether the switch is still there.
    fn turn(&mut self) -> std::io::Result<bool> {
        let now = Instant::now();
        if self.reserve.is_none() && self.reserve_pause.is_over(now) {
            return self.have_reserve(now);
        }
        let can_start = self.worker.is_none() && self.worker_pause.is_over(now);
        self.wait(can_start, now)?;
        if has_ended(self.orders) {
            return Ok(false);
        }
        if let Some(reserve) = self.reserve.take_if(|reserve| has_ended(&reserve.line)) {
            reserve.bury();
            self.reserve_pause.begin(now);
        }
        if let Some(worker) = self.worker.take_if(|worker| has_ended(&worker.line)) {
            let status = worker.bury();
            say(&format!(
                "the process that speaks TLS has ended ({status}), and with it its connections"
            ));
            self.worker_pause.begin(now);
        }
        if can_start && look(self.orders, PollFlags::IN).contains(PollFlags::IN) {
            self.start_worker(now);
        }
        Ok(true)
    }

    /// Waits until one of the others ends or a pause is over, and, where a worker can be started, for an order.
    fn wait(&self, can_start: bool, now: Instant) -> std::io::Result<()> {
        let for_orders = if can_start { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(self.orders, for_orders)];
        let others = self.worker.iter().chain(&self.reserve);
        fds.extend(others.map(|other| PollFd::new(&other.line, PollFlags::empty())));
        let pauses = [(&self.worker, &self.worker_pause), (&self.reserve, &self.reserve_pause)];
        let missing = pauses.iter().filter(|(other, _)| other.is_none());
        let rest = missing.filter_map(|(_, pause)| pause.rest(now)).min();
        let timeout = rest.and_then(|rest| Timespec::try_from(rest).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn start_worker(&mut self, now: Instant) {
        let started = UnixStream::pair().and_then(|(line, theirs)| {
            let worker = process::start_worker(self.orders.try_clone()?, theirs.into())?;
            Ok(Relative { process: Pid::from_child(&worker), line })
        });
        match started {
            Ok(worker) => self.worker = Some(worker),
            // There may be too many processes for a while.
            Err(error) => {
                say(&format!("the process that speaks TLS cannot be started: {error}"));
                self.worker_pause.begin(now);
            }
        }
    }

    /// Splits in two, of which one is in reserve until the other is gone.
    fn have_reserve(&mut self, now: Instant) -> std::io::Result<bool> {
        let Ok((line, theirs)) = UnixStream::pair() else {
            self.reserve_pause.begin(now);
            return Ok(true);
        };
        // SAFETY: this process has one thread, so that nothing is in the middle of something in the copy of it.
        let forked = unsafe { libc::fork() };
        match Pid::from_raw(forked) {
            _ if forked < 0 => self.reserve_pause.begin(now),
            Some(process) => self.reserve = Some(Relative { process, line }),
            None => {
                // The other's end is the other's alone, and so are those that it has started.
                drop(line);
                self.worker = None;
                return self.stand_by(&theirs);
            }
        }
        Ok(true)
    }

    /// Waits until the one before is gone, whose other end of `line` is closed then.
    fn stand_by(&mut self, line: &UnixStream) -> std::io::Result<bool> {
        let none = PollFlags::empty();
        let mut fds = [PollFd::new(self.orders, none), PollFd::new(line, none)];
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        if has_ended(self.orders) {
            return Ok(false);
        }
        say(
            "the process that starts the one that speaks TLS has ended; another one is in its place",
        );
        // What has ended that one may end this one, too.
        self.worker_pause.begin(Instant::now());
        Ok(true)
    }
}

/// A process that this one has started, and a socket of which it has the other end, as long as it is there.
struct Relative {
    process: Pid,
    line: UnixStream,
}

impl Relative {
    /// Takes notice of its end, which has come unless it has closed the socket by itself.
    fn bury(self) -> String {
        let _ = kill_process(self.process, Signal::KILL);
        match rustix::io::retry_on_intr(|| waitpid(Some(self.process), WaitOptions::empty())) {
            Ok(Some((_, status))) => ExitStatus::from_raw(status.as_raw()).to_string(),
            _ => "nobody knows why".to_owned(),
        }
    }
}

/// What there is at a socket.
fn look(socket: impl AsFd, what: PollFlags) -> PollFlags {
    let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), what)];
    let _ = poll(&mut fds, Some(&Timespec::default()));
    let [fd] = &fds;
    fd.revents()
}

/// Whether the other end of a socket is closed.
fn has_ended(socket: impl AsFd) -> bool {
    look(socket, PollFlags::empty()).contains(PollFlags::HUP)
}

/// Tells the switch, which has the other end of standard error; one message, and nobody waits for it to be heard.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// How long it is waited with the next one after one has died: twice as long each time.
#[derive(Debug, Default)]
struct Pause {
    length: Duration,
    until: Option<Instant>,
}

impl Pause {
    const FIRST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(32);
    /// After so long without one, the next one is a first one.
    const CALM: Duration = Duration::from_secs(60);

    fn begin(&mut self, now: Instant) {
        let is_calm = self.until.is_none_or(|until| now >= until + Self::CALM);
        self.length = if is_calm { Self::FIRST } else { Self::MOST.min(self.length * 2) };
        self.until = now.checked_add(self.length);
    }

    fn rest(&self, now: Instant) -> Option<Duration> {
        self.until?.checked_duration_since(now).filter(|rest| !rest.is_zero())
    }

    fn is_over(&self, now: Instant) -> bool {
        self.rest(now).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_grows_until_all_is_calm() {
        let (mut now, mut pause) = (Instant::now(), Pause::default());
        assert!(pause.is_over(now));
        for seconds in [1, 2, 4, 8, 16, 32, 32] {
            pause.begin(now);
            assert_eq!(pause.rest(now), Some(Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
            assert!(pause.is_over(now));
        }
        now += Duration::from_secs(59);
        pause.begin(now);
        assert_eq!(pause.rest(now), Some(Duration::from_secs(32)));
        now += Duration::from_secs(92);
        pause.begin(now);
        assert_eq!(pause.rest(now), Some(Duration::from_secs(1)));
    }
}
