//! SIGINT and SIGTERM as a file descriptor, for a main loop to wait on with everything else.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use libc::c_int;

use crate::event::EventFd;

/// The signal received, or 0.
static RECEIVED: AtomicI32 = AtomicI32::new(0);
/// The event's descriptor for the handler, or -1.
static FD: AtomicI32 = AtomicI32::new(-1);
/// The event itself, which lives as long as the process: the handler may run at any time.
static EVENT: Mutex<Option<&'static EventFd>> = Mutex::new(None);

/// The wish to end the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// `kill`, or the service manager.
    Terminate,
}

/// SIGINT and SIGTERM, caught. The first one makes it readable, for good; a second one, for
/// impatient users of a program that is stuck, ends the process at once.
#[derive(Clone, Copy, Debug)]
pub struct Signals(&'static EventFd);

impl Signals {
    /// Catches both signals from now on, in whichever thread they arrive. A second call gives
    /// the same descriptor.
    ///
    /// # Errors
    ///
    /// When the process has too many file descriptors open.
    pub fn install() -> io::Result<Self> {
        let mut installed = EVENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(event) = *installed {
            return Ok(Self(event));
        }
        let event: &'static EventFd = Box::leak(Box::new(EventFd::new()?));
        FD.store(event.as_fd().as_raw_fd(), Relaxed);
        catch(libc::SIGINT)?;
        catch(libc::SIGTERM)?;
        *installed = Some(event);
        Ok(Self(event))
    }

    /// The signal received, if any.
    #[must_use]
    pub fn received(&self) -> Option<Signal> {
        match RECEIVED.load(Relaxed) {
            libc::SIGINT => Some(Signal::Interrupt),
            libc::SIGTERM => Some(Signal::Terminate),
            _ => None,
        }
    }
}

impl AsFd for Signals {
    /// Readable once a signal has arrived, and ever after: do not drain it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn catch(signal: c_int) -> io::Result<()> {
    // SAFETY: sigaction is a plain C struct for which all zeroes are valid, and the handler
    // keeps to what is allowed in one.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        let handler: extern "C" fn(c_int) = handle;
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        if libc::sigaction(signal, &raw const action, null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Atomics and direct system calls only (rustix does not touch errno).
extern "C" fn handle(signal: c_int) {
    if RECEIVED.swap(signal, Relaxed) != 0 {
        // SAFETY: both calls are async-signal-safe; the signal is blocked until this handler
        // returns, and then takes its default action.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
        return;
    }
    let fd = FD.load(Relaxed);
    if fd >= 0 {
        // SAFETY: the descriptor belongs to an event that is never dropped.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let _ = rustix::io::write(fd, &1_u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use rustix::process::{Pid, kill_process};

    use super::*;
    use crate::event::{Epoll, Events, Interest};

    /// This test binary again, as a process that waits for signals; it says "ready" when it is.
    fn spawn(mode: &str) -> (Child, BufReader<std::process::ChildStdout>) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["signals::tests::waits_for_signals", "--exact", "--ignored", "--nocapture"])
            .env("SIGNAL_TEST", mode)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        wait_for(&mut lines, "ready");
        (child, lines)
    }

    fn wait_for(lines: &mut impl BufRead, word: &str) {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "ended before \"{word}\"");
        }
    }

    fn send(child: &Child, signal: rustix::process::Signal) {
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    #[test]
    fn a_signal_wakes_the_loop_and_is_told() {
        use rustix::process::Signal as Sys;
        for (signal, name) in [(Sys::INT, "Interrupt"), (Sys::TERM, "Terminate")] {
            let (mut child, mut lines) = spawn("once");
            send(&child, signal);
            wait_for(&mut lines, name);
            assert!(child.wait().unwrap().success());
        }
    }

    #[test]
    fn a_second_signal_ends_a_stuck_process() {
        let (mut child, mut lines) = spawn("stuck");
        send(&child, rustix::process::Signal::TERM);
        wait_for(&mut lines, "Terminate");
        send(&child, rustix::process::Signal::INT);
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGINT));
    }

    #[test]
    #[ignore = "run by the other tests, in a process of its own"]
    fn waits_for_signals() {
        let Ok(mode) = std::env::var("SIGNAL_TEST") else { return };
        let signals = Signals::install().unwrap();
        assert!(signals.received().is_none());
        let epoll = Epoll::new().unwrap();
        epoll.add(Signals::install().unwrap(), 1, Interest::READ).unwrap();
        println!("ready");
        let mut events = Events::new();
        epoll.wait(&mut events, Some(Duration::from_secs(20))).unwrap();
        println!("{:?}", signals.received().unwrap());
        if mode == "stuck" {
            loop {
                std::thread::park();
            }
        }
    }
}
