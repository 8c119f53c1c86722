//! Controllers that we connect to: tried again, ever more rarely, as long as they are not there.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::sockopt::socket_error;

use super::sockets;
use super::target::Target;

/// The first wait before a controller is tried again; each one is twice the one before.
const FIRST: Duration = Duration::from_secs(1);

/// How long an attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Where an attempt is.
#[derive(Debug)]
enum Stage {
    /// To be tried at this moment.
    Waits(Instant),
    /// Under way since.
    Tries(OwnedFd, Instant),
    /// There is a connection.
    Has,
}

/// A controller that we connect to.
#[derive(Debug)]
pub struct Dial {
    target: Target,
    stage: Stage,
    /// The wait before the next attempt but one.
    backoff: Duration,
    most: Duration,
    /// Why there was no connection the last time.
    last_error: Option<String>,
}

impl Dial {
    /// One that is tried at once.
    pub fn new(target: Target, most: Duration) -> Self {
        Self { target, stage: Stage::Waits(Instant::now()), backoff: FIRST, most, last_error: None }
    }

    /// The descriptor that can be written to when an attempt has come to something.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        if let Stage::Tries(socket, _) = &self.stage { Some(socket.as_fd()) } else { None }
    }

    /// When it has to be looked at although nothing happens.
    pub fn due(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Waits(until) => Some(*until),
            Stage::Tries(_, since) => since.checked_add(ATTEMPT),
            Stage::Has => None,
        }
    }

    /// Goes on: gives the connection once there is one. `is_ready` says whether its descriptor can
    /// be written to.
    pub fn step(&mut self, is_ready: bool) -> Option<OwnedFd> {
        let now = Instant::now();
        match std::mem::replace(&mut self.stage, Stage::Has) {
            Stage::Waits(until) if now >= until => match sockets::begin(&self.target) {
                Ok(Some(socket)) => self.stage = Stage::Tries(socket, now),
                Ok(None) => {}
                Err(error) => self.fail(&error),
            },
            Stage::Tries(socket, _) if is_ready => {
                let error = socket_error(&socket);
                match error.and_then(|error| error) {
                    Ok(()) => return Some(socket),
                    Err(error) => self.fail(&error.to_string()),
                }
            }
            Stage::Tries(_, since) if now.saturating_duration_since(since) >= ATTEMPT => {
                self.fail("it takes too long");
            }
            other => self.stage = other,
        }
        None
    }

    /// The connection has ended, and why. One that never came to HELLO has not worked: it is tried more and
    /// more rarely.
    pub fn lost(&mut self, why: &str, has_worked: bool) {
        if has_worked {
            self.backoff = FIRST;
        }
        self.last_error = Some(why.to_owned());
        self.wait();
    }

    /// What it failed by may be otherwise now: one that waits is tried at once.
    pub fn hurry(&mut self) {
        self.backoff = FIRST;
        if let Stage::Waits(until) = &mut self.stage {
            *until = Instant::now();
        }
    }

    /// What is done, in the words of Open vSwitch. It is the same between one attempt and the next.
    pub const fn state(&self) -> &'static str {
        match (&self.stage, &self.last_error) {
            (Stage::Has, _) => "ACTIVE",
            (_, None) => "CONNECTING",
            (_, Some(_)) => "BACKOFF",
        }
    }

    /// Why there was no connection the last time.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    fn fail(&mut self, why: &str) {
        tracing::info!("{}: connection attempt failed ({why})", self.target);
        self.last_error = Some(why.to_owned());
        self.wait();
    }

    fn wait(&mut self) {
        let until = Instant::now().checked_add(self.backoff).unwrap_or_else(Instant::now);
        self.stage = Stage::Waits(until);
        self.backoff = (self.backoff * 2).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_there_is_tried_more_and_more_rarely() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::Unix(folder.path().join("nobody"));
        let mut dial = Dial::new(target, Duration::from_secs(3));
        // How many seconds after one moment during `act` it is tried again.
        let waits = |dial: &mut Dial, act: &dyn Fn(&mut Dial), seconds| {
            let before = Instant::now();
            act(dial);
            let (due, wait) = (dial.due().unwrap(), Duration::from_secs(seconds));
            assert!((before + wait..=Instant::now() + wait).contains(&due), "{due:?}");
        };
        let fails = |dial: &mut Dial| assert!(dial.step(false).is_none());
        waits(&mut dial, &fails, 1);
        dial.stage = Stage::Waits(Instant::now());
        waits(&mut dial, &fails, 2);
        for _ in 0..3 {
            waits(&mut dial, &|dial: &mut Dial| dial.lost("it was refused", false), 3);
        }
        waits(&mut dial, &|dial: &mut Dial| dial.lost("it went", true), 1);
        assert_eq!((dial.state(), dial.last_error()), ("BACKOFF", Some("it went")));
        waits(&mut dial, &Dial::hurry, 0);
        waits(&mut dial, &fails, 1);
    }

    #[test]
    fn who_is_there_is_connected_to() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::Tcp(listener.local_addr().unwrap());
        let mut dial = Dial::new(target, FIRST);
        assert!(dial.step(false).is_none());
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(
            dial.fd().unwrap(),
            rustix::event::PollFlags::OUT,
        )];
        rustix::event::poll(&mut fds, None).unwrap();
        assert!(dial.step(true).is_some());
        assert!(dial.due().is_none());
    }
}
