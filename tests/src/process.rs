use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::wait;

/// What a child has written.
#[derive(Debug, Default)]
struct Text {
    /// Its standard output. What is waited for is looked for here alone: a prompt may come
    /// byte by byte, and something on standard error between two of them.
    output: String,
    /// Standard output and error in the order of arrival, for people.
    all: String,
    /// Those of the two that are open.
    open: Vec<Pipe>,
}

/// Where a child writes.
#[derive(Debug)]
struct Pipe {
    end: Arc<OwnedFd>,
    /// How many bytes of it are in the text.
    taken: u64,
}

impl Pipe {
    /// How many bytes have been written to it so far.
    fn written(&self) -> u64 {
        // One that cannot be asked has nothing to wait for.
        self.taken + rustix::io::ioctl_fionread(&self.end).unwrap_or(0)
    }
}

/// [`Text`] that grows.
#[derive(Debug, Default)]
struct Log {
    text: Mutex<Text>,
    grown: Condvar,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Text> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies `from` into the log until it ends.
    fn follow(self: Arc<Self>, from: impl Into<OwnedFd>, is_output: bool) {
        let from = Arc::new(from.into());
        self.lock().open.push(Pipe { end: Arc::clone(&from), taken: 0 });
        thread::spawn(move || {
            while self.take(&from, is_output) {
                self.grown.notify_all();
            }
            self.lock().open.retain(|pipe| !Arc::ptr_eq(&pipe.end, &from));
            self.grown.notify_all();
        });
    }

    /// Waits until there is something in `from`, and adds it; gives whether there was.
    fn take(&self, from: &Arc<OwnedFd>, is_output: bool) -> bool {
        let mut ready = [PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN)];
        while poll(&mut ready, None) == Err(Errno::INTR) {}
        // Whoever has the lock finds what was written in the pipe or in the text, and nowhere between.
        let mut text = self.lock();
        let mut chunk = [0; 4096];
        let Ok(n @ 1..) = rustix::io::read(from, &mut chunk) else { return false };
        let new = String::from_utf8_lossy(&chunk[..n]);
        text.all.push_str(&new);
        if is_output {
            text.output.push_str(&new);
        }
        let pipe = text.open.iter_mut().find(|pipe| Arc::ptr_eq(&pipe.end, from));
        pipe.into_iter().for_each(|pipe| pipe.taken += n as u64);
        true
    }

    /// The text with all that has been written so far.
    fn whole(&self) -> MutexGuard<'_, Text> {
        let text = self.lock();
        let written = |pipe: &Pipe| (Arc::clone(&pipe.end), pipe.written());
        let goals: Vec<_> = text.open.iter().map(written).collect();
        let lacks = |pipe: &Pipe| {
            goals.iter().any(|(end, goal)| Arc::ptr_eq(end, &pipe.end) && pipe.taken < *goal)
        };
        let is_behind = |text: &mut Text| text.open.iter().any(lacks);
        self.grown.wait_while(text, is_behind).unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running child process. It gets SIGKILL when dropped, and from the kernel
/// when the test process dies.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    log: Arc<Log>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; `name` stands for it in messages.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(name: impl Into<String>, command: Command) -> Result<Self> {
        Self::start_with(name, command, &[])
    }

    /// As [`start`](Self::start), with open files that the process has under their numbers here.
    ///
    /// # Errors
    /// As there.
    pub fn start_with(
        name: impl Into<String>,
        mut command: Command,
        files: &[BorrowedFd<'_>],
    ) -> Result<Self> {
        let name = name.into();
        inherit(&mut command, files);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child =
            spawn(command).with_context(|| format!("cannot start {name} ({program})"))?;
        let log = Arc::new(Log::default());
        Arc::clone(&log).follow(child.stdout.take().context("no standard output")?, true);
        Arc::clone(&log).follow(child.stderr.take().context("no standard error")?, false);
        let stdin = child.stdin.take();
        Ok(Self { name, child, stdin, log, status: None })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything the process has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.whole().all.clone()
    }

    /// That it has made no system call that its sandbox refuses: for the end of a test.
    ///
    /// # Panics
    /// When it has, unless the test has failed already.
    pub fn assert_nothing_refused(&self) {
        let log = self.log();
        let refused = log.lines().find(|line| line.contains("refused the system call"));
        if let Some(line) = refused.filter(|_| !thread::panicking()) {
            panic!("{line}");
        }
    }

    /// How many bytes the process has written to standard output so far: a starting point for [`Self::wait_for`].
    #[must_use]
    pub fn mark(&self) -> usize {
        self.log.whole().output.len()
    }

    /// Waits until the process has written `pattern` to standard output after position `from`; gives
    /// the text in between.
    ///
    /// # Errors
    /// When the time is over or the output ends first; the message has the end of the log.
    pub fn wait_for(&self, pattern: &str, from: usize, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        let mut log = self.log.lock();
        loop {
            let new = log.output.get(from..).unwrap_or_default();
            if let Some(at) = new.find(pattern) {
                return Ok(new[..at].to_owned());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = log.open.is_empty();
            if ended || left.is_zero() {
                let why = if ended { "its output ended" } else { "the time is over" };
                let end = tail(&log.all, 4000);
                bail!("{}: waited for {pattern:?}, but {why} ({limit:?}):\n{end}", self.name);
            }
            log = self.log.grown.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the process has made the file or socket `path`.
    ///
    /// # Errors
    /// When the time is over or the process ends first; the message has the end of the log.
    pub fn wait_for_path(&self, path: &Path, limit: Duration) -> Result<()> {
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        wait::for_path(path, Some(pidfd.as_fd()), limit)
            .with_context(|| format!("{}:\n{}", self.name, tail(&self.log(), 4000)))
    }

    /// Waits until the process listens at the Unix socket `path`: its file is there a moment before.
    /// It sees a connection come and go.
    ///
    /// # Errors
    /// As for [`wait_for_path`](Self::wait_for_path), or when nobody listens until the time is over.
    pub fn wait_for_listener(&self, path: &Path, limit: Duration) -> Result<()> {
        self.wait_for_path(path, limit)?;
        let listens = || match UnixStream::connect(path) {
            Ok(_) => Ok(Some(())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        };
        let what = format!("{} at {}", self.name, path.display());
        wait::until(&what, limit, Duration::from_millis(5), listens)
    }

    /// Writes a line to the standard input of the process.
    ///
    /// # Errors
    /// When the process does not take it.
    pub fn send_line(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("standard input is closed")?;
        writeln!(stdin, "{line}")
            .and_then(|()| stdin.flush())
            .with_context(|| format!("{} takes no input: {}", self.name, tail(&self.log(), 2000)))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process has already ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // Until `wait` has been called the id cannot belong to another process.
        let pid = Pid::from_child(&self.child);
        let fd = pidfd_open(pid, PidfdFlags::empty())?;
        pidfd_send_signal(&fd, signal).with_context(|| format!("{} has ended", self.name))
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// When it goes on for longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let fd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        let mut ready = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
        if poll(&mut ready, Some(&limit.try_into()?))? == 0 {
            bail!("{} did not end within {limit:?}:\n{}", self.name, tail(&self.log(), 4000));
        }
        let status = self.child.wait()?;
        self.status = Some(status);
        Ok(status)
    }

    /// Waits until the process and its children have closed their outputs, so that the log is whole.
    ///
    /// # Errors
    /// When they have not within `limit`.
    pub fn wait_output_end(&self, limit: Duration) -> Result<()> {
        let mut log = self.log.lock();
        let deadline = Instant::now() + limit;
        while !log.open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{} keeps its output open", self.name);
            }
            let waited = self.log.grown.wait_timeout(log, left);
            log = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// How the process has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            // Kept: once it is known, the id may belong to another process.
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Sends SIGTERM, waits for `limit`, then SIGKILL. Gives the status if it ended in time.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        if self.is_running() {
            self.signal(Signal::TERM)?;
        }
        self.wait(limit).inspect_err(|_| self.kill())
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        if self.status.is_none() {
            // Both fail only for a process that is gone, which is what is wanted.
            drop(self.child.kill());
            self.status = self.child.wait().ok();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Has the process keep `files`, which are open until it has been started.
fn inherit(command: &mut Command, files: &[BorrowedFd<'_>]) {
    let numbers: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
    // SAFETY: between fork and exec only system calls are made (fcntl), for files that the caller
    // of `start_with` has open until the process has been started.
    unsafe {
        command.pre_exec(move || {
            for number in &numbers {
                let file = BorrowedFd::borrow_raw(*number);
                rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty())?;
            }
            Ok(())
        });
    }
}

/// The last `n` bytes or so of a text, from the start of a line.
#[must_use]
pub fn tail(text: &str, n: usize) -> &str {
    let start = text.len().saturating_sub(n);
    if start == 0 {
        return text;
    }
    let start =
        text.as_bytes()[start..].iter().position(|&b| b == b'\n').map_or(0, |at| start + at);
    text.get(start..).unwrap_or(text)
}

/// Runs a command to its end and gives its standard output.
///
/// # Errors
/// When it cannot be started or its status is not 0; the message has its standard error.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}: {}", output.status, tail(&text, 4000));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Shorthand for [`run`] with the words of `line`.
///
/// # Errors
/// As [`run`].
pub fn sh(line: &str) -> Result<String> {
    run(Command::new("sh").arg("-c").arg(line))
}

/// The CPU time that a process uses in a second, in ticks of 10 ms.
///
/// # Errors
/// When there is no such process.
pub fn ticks_in_a_second(pid: u32) -> Result<u64> {
    let before = cpu_ticks(pid)?;
    thread::sleep(Duration::from_secs(1)); // an interval to measure over
    Ok(cpu_ticks(pid)? - before)
}

/// The CPU time that a process has used, in ticks of 10 ms (`/proc/PID/stat`, fields 14 and 15).
fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, field 2, is in parentheses and may hold spaces.
    let fields = stat.rsplit_once(") ").context("no name in stat")?.1.split(' ');
    fields.skip(11).take(2).map(|field| Ok(field.parse::<u64>()?)).sum()
}

type Request = (Command, Sender<io::Result<Child>>);

/// Starts a child from a thread that lives as long as the test process.
///
/// The kernel sends the parent-death signal when the *thread* that made the
/// child ends, and test threads end long before the process does.
fn spawn(mut command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, inbox) = channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                // Nobody is left to ask when the receiver is gone.
                drop(answer.send(command.spawn()));
            }
        });
        requests
    });
    let parent = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe work is done: two
    // system calls (prctl, getppid) without allocation or locks.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the call took effect.
            let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
            if now.and_then(|pid| u32::try_from(pid).ok()) == Some(parent) {
                Ok(())
            } else {
                Err(io::Error::from(io::ErrorKind::NotConnected))
            }
        });
    }
    let (answer, result) = channel();
    spawner.send((command, answer)).ok().context("the spawning thread has ended")?;
    Ok(result.recv()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_waited_for_and_its_end_noticed() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; read line; echo got $line"]);
        let mut child = Process::start("shell", command).unwrap();
        let limit = Duration::from_secs(60);
        child.wait_for("one\n", 0, limit).unwrap();
        let mark = child.mark();
        child.send_line("two").unwrap();
        assert_eq!(child.wait_for(" two", mark, limit).unwrap(), "got");
        assert!(child.wait_for("three", mark, limit).is_err());
        assert!(child.wait(limit).unwrap().success());
    }

    #[test]
    fn a_line_of_standard_error_does_not_break_what_is_waited_for() {
        let mut command = Command::new("sh");
        command.args(["-c", "printf pro; read go; echo noise >&2; read go; printf mpt"]);
        let mut child = Process::start("shell", command).unwrap();
        let limit = Duration::from_secs(60);
        child.wait_for("pro", 0, limit).unwrap();
        child.send_line("").unwrap();
        wait::until("noise", limit, Duration::from_millis(1), || {
            Ok(child.log().contains("noise").then_some(()))
        })
        .unwrap();
        child.send_line("").unwrap();
        child.wait_for("prompt", 0, limit).unwrap();
    }

    #[test]
    fn the_log_has_all_that_was_written_though_nobody_has_read_it_yet() {
        let (log, (output, mut child)) = (Arc::new(Log::default()), io::pipe().unwrap());
        // Nobody follows it yet.
        log.lock().open.push(Pipe { end: Arc::new(output.into()), taken: 0 });
        let from = Arc::clone(&log.lock().open[0].end);
        child.write_all(b"one\n").unwrap();
        thread::scope(|scope| {
            let whole = scope.spawn(|| log.whole().all.clone());
            // Waits for those who are behind, and not for what comes later.
            child.write_all(b"two\n").unwrap();
            assert!(log.take(&from, true));
            log.grown.notify_all();
            assert!(whole.join().unwrap().starts_with("one\n"));
        });
        drop(child);
        assert!(!log.take(&from, true));
        assert_eq!(log.whole().output, "one\ntwo\n");
    }

    #[test]
    fn waiting_for_the_socket_of_a_process_that_ends_is_short() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such port; exit 1"]);
        let child = Process::start("shell", command).unwrap();
        let start = Instant::now();
        let path = std::env::temp_dir().join("ringway-no-such-socket");
        let error = child.wait_for_path(&path, Duration::from_secs(60)).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(30), "{error:?}");
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let child = Process::start("sleep", command).unwrap();
        let path = format!("/proc/{}", child.id());
        assert!(std::fs::exists(&path).unwrap());
        drop(child);
        assert!(!std::fs::exists(&path).unwrap());
    }

    #[test]
    fn the_tail_starts_at_a_line() {
        assert_eq!(tail("short\nlines\n", 100), "short\nlines\n");
        assert_eq!(tail("one\ntwo\nthree", 7), "\nthree");
    }
}
