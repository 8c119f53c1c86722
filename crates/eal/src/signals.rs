//! Signals as file descriptors, for a main loop to wait on with everything else.
//!
//! | Signal | What it does |
//! |---|---|
//! | INT, TERM, PWR, XCPU | the wish to end, once; see [`Signals`] |
//! | HUP | the same where there was a terminal at the start; else [`Signals::hung_up`] |
//! | WINCH | [`resizes`], where that is asked for |
//! | USR1, USR2, ALRM, VTALRM, PROF, IO, STKFLT, XFSZ | nothing, instead of killing |
//!
//! QUIT and the signals of faults are left as they are: they are for a process that is to leave a
//! core. The reasons are in `docs/decisions/0009-signals.md`.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use libc::c_int;

use crate::event::EventFd;

/// How long the clean-up that follows a first signal has the process for itself. It takes well
/// below a second where nothing is stuck.
pub const FORCE_AFTER: Duration = Duration::from_secs(5);

/// The first signal received that is a wish to end, or 0.
static RECEIVED: AtomicI32 = AtomicI32::new(0);
/// When another one ends the process at once, in ms of `CLOCK_MONOTONIC`; never before the first.
static FORCE_AT: AtomicI64 = AtomicI64::new(i64::MAX);
/// [`FORCE_AFTER`], in ms.
static GRACE: AtomicI64 = AtomicI64::new(0);
/// The descriptor of [`Installed::end`] for the handler, or -1.
static END: AtomicI32 = AtomicI32::new(-1);
/// The descriptor of [`Installed::hangup`] for the handler, or -1: a hang-up is a wish to end.
static HANGUP: AtomicI32 = AtomicI32::new(-1);
/// The events, which live as long as the process: the handler may run at any time.
static INSTALLED: Mutex<Option<&'static Installed>> = Mutex::new(None);

/// The descriptor of [`RESIZES`] for the handler, or -1.
static RESIZED: AtomicI32 = AtomicI32::new(-1);
/// See [`resizes`]; lives as long as the process, as the handler does.
static RESIZES: OnceLock<EventFd> = OnceLock::new();

/// What ends a process on its own if it is not caught, and that nobody sends who means that.
const IGNORED: [c_int; 8] = [
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGSTKFLT,
    // The write that was too long fails with EFBIG then.
    libc::SIGXFSZ,
];

#[derive(Debug)]
struct Installed {
    end: EventFd,
    hangup: EventFd,
}

/// The wish to end the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// `kill`, or the service manager.
    Terminate,
    /// The terminal was closed.
    HangUp,
    /// The power fails, or the limit of processor time is reached.
    Resources,
}

/// The signals, caught. The first wish to end makes it readable, for good. More of them change
/// nothing, so that no clean-up is cut short; but one that comes [`FORCE_AFTER`] the first or later
/// ends the process at once, for impatient users of a program that is stuck.
#[derive(Clone, Copy, Debug)]
pub struct Signals(&'static Installed);

impl Signals {
    /// Catches the signals from now on, in whichever thread they arrive. A second call gives the
    /// same descriptors.
    ///
    /// SIGHUP is left ignored if it is, as under nohup(1).
    ///
    /// # Errors
    ///
    /// When the process has too many file descriptors open.
    pub fn install() -> io::Result<Self> {
        Self::install_with(FORCE_AFTER)
    }

    fn install_with(grace: Duration) -> io::Result<Self> {
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(installed) = *installed {
            return Ok(Self(installed));
        }
        let events: &'static Installed =
            Box::leak(Box::new(Installed { end: EventFd::new()?, hangup: EventFd::new()? }));
        GRACE.store(i64::try_from(grace.as_millis()).unwrap_or(i64::MAX), Relaxed);
        END.store(events.end.as_fd().as_raw_fd(), Relaxed);
        if !has_terminal() {
            HANGUP.store(events.hangup.as_fd().as_raw_fd(), Relaxed);
        }
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGPWR, libc::SIGXCPU] {
            catch(signal, handle)?;
        }
        if !is_ignored(libc::SIGHUP)? {
            catch(libc::SIGHUP, handle)?;
        }
        for signal in IGNORED {
            // A handler and not SIG_IGN, which programs that are started from here would inherit.
            catch(signal, ignore)?;
        }
        *installed = Some(events);
        Ok(Self(events))
    }

    /// The first signal received that is a wish to end, if any.
    #[must_use]
    pub fn received(&self) -> Option<Signal> {
        match RECEIVED.load(Relaxed) {
            0 => None,
            libc::SIGINT => Some(Signal::Interrupt),
            libc::SIGHUP => Some(Signal::HangUp),
            libc::SIGPWR | libc::SIGXCPU => Some(Signal::Resources),
            _ => Some(Signal::Terminate),
        }
    }

    /// Signalled by a SIGHUP to a process that had no terminal when it started, a service as a
    /// rule: it comes from a program or a person, and means anything but "end".
    #[must_use]
    pub const fn hung_up(&self) -> &EventFd {
        &self.0.hangup
    }
}

impl AsFd for Signals {
    /// Readable once a wish to end has arrived, and ever after: do not drain it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.end.as_fd()
    }
}

/// An event that is signalled whenever the size of the process's terminal changes (SIGWINCH), from
/// now on.
///
/// # Errors
///
/// When the process has too many file descriptors open.
pub fn resizes() -> io::Result<&'static EventFd> {
    let event = match RESIZES.get() {
        Some(event) => event,
        // Of two threads that come here at once one loses its own.
        None => RESIZES.get_or_init({
            let new = EventFd::new()?;
            move || new
        }),
    };
    RESIZED.store(event.as_fd().as_raw_fd(), Relaxed);
    catch(libc::SIGWINCH, resized)?;
    Ok(event)
}

/// Whether the process has a controlling terminal, which sends SIGHUP when it is closed.
fn has_terminal() -> bool {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open("/dev/tty", flags, Mode::empty()).is_ok()
}

fn is_ignored(signal: c_int) -> io::Result<bool> {
    let mut current = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: sigaction is a plain C struct for which all zeroes are valid; nothing is changed.
    unsafe {
        if libc::sigaction(signal, null(), current.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(current.assume_init().sa_sigaction == libc::SIG_IGN)
    }
}

/// Has `handler` called for a signal; it must keep to what is allowed in one, as those below do.
fn catch(signal: c_int, handler: extern "C" fn(c_int)) -> io::Result<()> {
    // SAFETY: sigaction is a plain C struct for which all zeroes are valid, and the handlers
    // of this file, the only ones passed, keep to what is allowed in one.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        if libc::sigaction(signal, &raw const action, null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

extern "C" fn ignore(_signal: c_int) {}

extern "C" fn resized(_signal: c_int) {
    tell(RESIZED.load(Relaxed));
}

/// Atomics and direct system calls only (rustix does not touch errno).
extern "C" fn handle(signal: c_int) {
    if signal == libc::SIGHUP && tell(HANGUP.load(Relaxed)) {
        return;
    }
    let now = now_ms();
    if RECEIVED.compare_exchange(0, signal, Relaxed, Relaxed).is_ok() {
        FORCE_AT.store(now.saturating_add(GRACE.load(Relaxed)), Relaxed);
        tell(END.load(Relaxed));
    } else if now >= FORCE_AT.load(Relaxed) {
        // SAFETY: both calls are async-signal-safe; the signal is blocked until this handler
        // returns, and then takes its default action.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    }
}

/// Signals an event of [`Installed`]; false where there is none.
fn tell(fd: c_int) -> bool {
    if fd < 0 {
        return false;
    }
    // SAFETY: the descriptor belongs to an event that is never dropped.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let _ = rustix::io::write(fd, &1_u64.to_ne_bytes());
    true
}

/// `CLOCK_MONOTONIC` in ms, which can be asked for in a signal handler.
fn now_ms() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime is async-signal-safe and writes the timespec alone; it cannot fail
    // for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::io::{BufRead, BufReader, Write as _};
    use std::os::fd::OwnedFd;
    use std::os::unix::process::{CommandExt as _, ExitStatusExt};
    use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

    use rustix::process::Signal as Sys;
    use rustix::process::{Pid, kill_process};

    use super::*;
    use crate::event::{Epoll, Events, Interest};

    /// This test binary again, as a process that waits for signals.
    struct Waiting {
        child: Child,
        stdin: ChildStdin,
        lines: BufReader<ChildStdout>,
    }

    /// What [`Waiting`] starts with.
    enum Session {
        /// Without a terminal.
        Detached,
        /// As [`Self::Detached`], and SIGHUP ignored.
        Nohup,
        /// With this terminal.
        Terminal(OwnedFd),
    }

    impl Waiting {
        /// Starts it and waits until it says "ready".
        fn spawn(mode: &str, session: Session) -> Self {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command
                .args(["signals::tests::waits_for_signals", "--exact", "--ignored", "--nocapture"])
                .env("SIGNAL_TEST", mode)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            // SAFETY: three system calls without allocation or locks between fork and exec.
            unsafe {
                command.pre_exec(move || {
                    rustix::process::setsid()?;
                    match &session {
                        Session::Detached => {}
                        Session::Nohup => {
                            libc::signal(libc::SIGHUP, libc::SIG_IGN);
                        }
                        Session::Terminal(tty) => rustix::process::ioctl_tiocsctty(tty)?,
                    }
                    Ok(())
                });
            }
            let mut child = command.spawn().unwrap();
            let stdin = child.stdin.take().unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap());
            let mut waiting = Self { child, stdin, lines };
            waiting.wait_for("ready");
            waiting
        }

        fn wait_for(&mut self, word: &str) {
            let mut line = String::new();
            while !line.contains(word) {
                line.clear();
                assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "ended before {word:?}");
            }
        }

        fn send(&self, signal: Sys) {
            kill_process(Pid::from_child(&self.child), signal).unwrap();
        }

        /// Has it go on from where it reads a line.
        fn go_on(&mut self) {
            writeln!(self.stdin).unwrap();
        }

        fn ends_well(mut self) {
            let status = self.child.wait().unwrap();
            assert!(status.success(), "{status}");
        }
    }

    impl Drop for Waiting {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[test]
    fn a_wish_to_end_wakes_the_loop_and_is_told() {
        for (signal, name) in [
            (Sys::INT, "Interrupt"),
            (Sys::TERM, "Terminate"),
            (Sys::POWER, "Resources"),
            (Sys::XCPU, "Resources"),
        ] {
            let mut waiting = Waiting::spawn("once", Session::Detached);
            waiting.send(signal);
            waiting.wait_for(name);
            waiting.ends_well();
        }
    }

    #[test]
    fn a_change_of_the_terminals_size_is_told() {
        let event = resizes().unwrap();
        assert!(std::ptr::eq(event, resizes().unwrap()), "there is one for all");
        kill_process(rustix::process::getpid(), Sys::WINCH).unwrap();
        let mut fds = [rustix::event::PollFd::new(event, rustix::event::PollFlags::IN)];
        // Any thread may have the signal.
        while rustix::event::poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
        assert!(event.drain().unwrap() && !event.drain().unwrap());
    }

    #[test]
    fn a_second_signal_does_not_cut_the_clean_up_short() {
        for second in [Sys::INT, Sys::TERM, Sys::XCPU] {
            let mut waiting = Waiting::spawn("cleaning", Session::Detached);
            waiting.send(Sys::TERM);
            waiting.wait_for("Terminate");
            waiting.send(second);
            waiting.send(second);
            waiting.go_on();
            waiting.ends_well();
        }
    }

    #[test]
    fn a_second_signal_after_a_while_ends_a_stuck_process() {
        let mut waiting = Waiting::spawn("stuck", Session::Detached);
        waiting.send(Sys::TERM);
        waiting.wait_for("Terminate");
        waiting.send(Sys::INT);
        assert_eq!(waiting.child.wait().unwrap().signal(), Some(libc::SIGINT));
    }

    #[test]
    fn what_means_nothing_does_nothing() {
        let mut waiting = Waiting::spawn("once", Session::Detached);
        for signal in IGNORED {
            // SAFETY: the process is a child that has not been waited for.
            assert_eq!(unsafe { libc::kill(waiting.child.id().cast_signed(), signal) }, 0);
        }
        waiting.send(Sys::TERM);
        waiting.wait_for("Terminate");
        waiting.ends_well();
    }

    #[test]
    fn a_hang_up_without_a_terminal_is_told_and_ends_nothing() {
        let mut waiting = Waiting::spawn("hangup", Session::Detached);
        waiting.send(Sys::HUP);
        waiting.wait_for("hung up");
        waiting.send(Sys::TERM);
        waiting.wait_for("Terminate");
        waiting.ends_well();
    }

    #[test]
    fn a_closed_terminal_ends_the_process() {
        use rustix::pty::{OpenptFlags, grantpt, ptsname, unlockpt};
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let flags = flags | rustix::fs::OFlags::CLOEXEC;
        let tty = rustix::fs::open(&name, flags, rustix::fs::Mode::empty()).unwrap();
        let mut waiting = Waiting::spawn("once", Session::Terminal(tty));
        drop(master);
        waiting.wait_for("HangUp");
        waiting.ends_well();
    }

    #[test]
    fn a_hang_up_that_nohup_ignores_stays_ignored() {
        let mut waiting = Waiting::spawn("once", Session::Nohup);
        waiting.send(Sys::HUP);
        waiting.send(Sys::TERM);
        waiting.wait_for("Terminate");
        waiting.ends_well();
    }

    #[test]
    #[ignore = "run by the other tests, in a process of its own"]
    fn waits_for_signals() {
        let Ok(mode) = std::env::var("SIGNAL_TEST") else { return };
        let grace = if mode == "stuck" { Duration::ZERO } else { Duration::from_secs(3600) };
        let signals = Signals::install_with(grace).unwrap();
        assert!(signals.received().is_none());
        println!("ready");
        if mode == "hangup" {
            wait(signals.hung_up());
            assert!(signals.hung_up().drain().unwrap());
            println!("hung up");
        }
        wait(Signals::install().unwrap());
        println!("{:?}", signals.received().unwrap());
        match mode.as_str() {
            "cleaning" => {
                io::stdin().read_line(&mut String::new()).unwrap();
            }
            "stuck" => loop {
                std::thread::park();
            },
            _ => {}
        }
    }

    fn wait(event: impl AsFd) {
        let epoll = Epoll::new().unwrap();
        epoll.add(event, 1, Interest::READ).unwrap();
        epoll.wait(&mut Events::new(), Some(Duration::from_secs(20))).unwrap();
    }
}
