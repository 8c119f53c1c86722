//! The control thread: any number of vhost-user sockets and VDUSE devices, served by one thread
//! that never waits for a peer.
//!
//! - `channel`: messages of the back-end
//! - `answers`: what front-ends answer to those, read by threads that may wait
//! - `connector`: connecting, on threads that may wait
//! - `limit`: log lines that peers cause
//! - `member`: what the thread serves
//! - `retry`: when to connect again
//! - `socket`: one socket and its front-end
//! - `vduse`: one VDUSE device and the kernel
//! - `watch`: files that devices watch on this thread

mod answers;
mod channel;
mod connector;
pub(crate) mod limit;
mod member;
mod retry;
mod socket;
#[cfg(test)]
mod tests;
mod vduse;
mod watch;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Instant;
use std::{fmt, io};

use eal::channel::{Receiver, Sender, channel};
use eal::event::{Events, Interest};
use eal::time::Time;
use eal::unix::{self, Listener, SocketError};
use eal::{Access, Epoll, EventFd};
use litemap::LiteMap;

pub use limit::SharedLimit;
pub use watch::{Watch, Watcher};

use self::connector::Connector;
use self::member::Member;
use self::socket::{Role, Socket};
use self::vduse::VduseMember;
use self::watch::Source;
use crate::backend::{Backend, EventSink};
use crate::session::Device;
use crate::vduse::{Kernel, Offer};

/// Front-ends that wait to be accepted at a socket.
const BACKLOG: i32 = 16;

/// Why a socket cannot be added, or the control thread not be started.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Its path.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The system.
    #[error("vhost-user control thread: cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// There is no control thread any more.
    #[error("the vhost-user control thread has ended")]
    Ended,
}

/// What can be chosen about a socket.
#[derive(Default)]
pub struct SocketOptions {
    /// Who may connect to a listening socket; by default the process's umask and its group decide.
    pub access: Access,
    /// Hears what happens at the socket.
    pub events: Option<EventSink>,
}

impl fmt::Debug for SocketOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketOptions").field("access", &self.access).finish_non_exhaustive()
    }
}

/// Makes a member on the control thread, of its number and the set of files to wait for.
type Make = Box<dyn FnOnce(u32, Arc<Epoll>) -> io::Result<Box<dyn Member>> + Send>;

/// What the control thread is asked to do.
enum Command {
    Add { make: Make, done: Sender<io::Result<u32>> },
    Remove { id: u32, done: Sender<()> },
    End,
}

/// How to reach the control thread.
#[derive(Debug)]
struct Mailbox {
    commands: Sender<Command>,
    wake: EventFd,
}

impl Mailbox {
    fn send(&self, command: Command) -> Result<(), ControlError> {
        self.commands.send(command).map_err(|_| ControlError::Ended)?;
        self.wake.signal().map_err(|source| ControlError::System { action: "wake it", source })
    }
}

/// A running control thread. Dropping it ends the thread: all front-ends are disconnected and
/// all sockets removed.
#[derive(Debug)]
pub struct ControlHandle {
    mailbox: Arc<Mailbox>,
    time: Time,
    connector: Arc<Connector>,
    thread: Option<JoinHandle<()>>,
}

/// A socket, or a VDUSE device, on the control thread. Dropping it removes the socket, see
/// [`remove`](Self::remove).
#[derive(Debug)]
pub struct SocketHandle {
    id: u32,
    path: PathBuf,
    /// Weak, so that the thread ends with its [`ControlHandle`].
    mailbox: Weak<Mailbox>,
    thread: std::thread::ThreadId,
    front_end: FrontEnd,
}

/// The process at the other end of a socket, as the kernel tells it.
#[derive(Clone, Debug, Default)]
struct FrontEnd(Arc<AtomicU32>);

impl FrontEnd {
    /// It is this one from now on; 0: none, or one that the kernel does not tell.
    fn set(&self, process: u32) {
        self.0.store(process, Relaxed);
    }
}

/// The control thread's own state.
#[derive(Debug)]
pub struct ControlThread {
    epoll: Arc<Epoll>,
    commands: Receiver<Command>,
    wake: EventFd,
    connector: Arc<Connector>,
    time: Time,
    members: LiteMap<u32, Box<dyn Member>>,
    next_id: u32,
}

impl ControlThread {
    /// Starts a control thread without sockets.
    ///
    /// # Errors
    /// When the process has no thread or file descriptor left.
    pub fn start() -> Result<ControlHandle, ControlError> {
        Self::start_with(Time::system())
    }

    /// The same with a clock of its own, by which it connects again and sessions wait. How long a
    /// front-end may keep the thread, and what it may cause, is counted by the system's.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(time: Time) -> Result<ControlHandle, ControlError> {
        let failed = |action| move |source| ControlError::System { action, source };
        let epoll = Epoll::new().map_err(failed("create an epoll set"))?;
        let wake = EventFd::new().map_err(failed("create an eventfd"))?;
        let ours = wake.try_clone().map_err(failed("duplicate an eventfd"))?;
        epoll.add(&ours, Source::Wake.token(), Interest::READ).map_err(failed("use epoll"))?;
        let connector = Arc::new(Connector::new().map_err(failed("create an eventfd"))?);
        let token = Source::Connector.token();
        epoll.add(connector.done(), token, Interest::READ).map_err(failed("use epoll"))?;
        let (sender, commands) = channel();
        let thread = Self {
            epoll: Arc::new(epoll),
            commands,
            wake: ours,
            connector: Arc::clone(&connector),
            time: time.clone(),
            members: LiteMap::new(),
            next_id: 0,
        };
        let name = std::thread::Builder::new().name("vhost-control".into());
        let thread = eal::thread::spawn(name, move || thread.run()).map_err(failed("start"))?;
        let mailbox = Arc::new(Mailbox { commands: sender, wake });
        let moved = Arc::downgrade(&mailbox);
        time.on_change(move || {
            moved.upgrade().is_some_and(|mailbox| mailbox.wake.signal().is_ok())
        });
        Ok(ControlHandle { mailbox, time, connector, thread: Some(thread) })
    }

    fn run(mut self) {
        let mut events = Events::new();
        loop {
            let deadline = self.members.values().filter_map(|member| member.deadline()).min();
            let timeout = deadline.and_then(|at| self.time.until(at));
            if let Err(error) = self.epoll.wait(&mut events, timeout) {
                tracing::error!(%error, "the vhost-user control thread cannot wait and ends");
                break;
            }
            let now = self.time.now();
            for event in events.iter() {
                match Source::of_token(event.token) {
                    Some(Source::Wake) | None => {}
                    Some(Source::Connector) => self.serve_connector(now),
                    Some(Source::Listener(id)) => self.with(id, |m| m.on_listener(now)),
                    Some(Source::Connection(id)) => self.with(id, |m| m.on_connection(now)),
                    Some(Source::Channel(id)) => self.with(id, |m| m.on_channel()),
                    Some(Source::Watch(id, token)) => self.with(id, |m| m.on_watch(token, now)),
                }
            }
            self.serve_deadlines(now);
            if !self.serve_commands() {
                break;
            }
        }
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.remove(id);
        }
    }

    fn serve_connector(&mut self, now: Instant) {
        for id in self.connector.ended() {
            self.with(id, |member| member.on_listener(now));
        }
    }

    fn serve_deadlines(&mut self, now: Instant) {
        let due = |member: &dyn Member| member.deadline().is_some_and(|deadline| deadline <= now);
        let members = self.members.iter().filter(|(_, member)| due(member.as_ref()));
        let due: Vec<_> = members.map(|(id, _)| *id).collect();
        for id in due {
            self.with(id, |member| member.on_deadline(now));
        }
    }

    /// Returns whether to go on.
    fn serve_commands(&mut self) -> bool {
        // It is ours and cannot fail; before the commands, so that none is slept over.
        let _ = self.wake.drain();
        while let Ok(command) = self.commands.try_recv() {
            // Nobody waits for an answer who has not got the receiver any more.
            match command {
                Command::Add { make, done } => {
                    let _ = done.send(self.add(make));
                }
                Command::Remove { id, done } => {
                    self.remove(id);
                    let _ = done.send(());
                }
                Command::End => return false,
            }
        }
        true
    }

    fn add(&mut self, make: Make) -> io::Result<u32> {
        let mut id = self.next_id;
        while self.members.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        self.next_id = id.wrapping_add(1);
        self.members.insert(id, make(id, Arc::clone(&self.epoll))?);
        Ok(id)
    }

    fn remove(&mut self, id: u32) {
        let now = self.time.now();
        self.with(id, |member| member.close(now));
        if let Some(member) = self.members.remove(&id) {
            contain(|| drop(member));
        }
    }

    /// Lets a member do something. If its device panics, it alone is lost.
    fn with(&mut self, id: u32, action: impl FnOnce(&mut dyn Member)) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if !contain(|| action(member.as_mut())) {
            let path = member.path().display();
            tracing::error!(socket = %path, "a vhost-user device failed; its socket is removed");
            if let Some(member) = self.members.remove(&id) {
                contain(|| drop(member));
            }
        }
    }
}

/// Runs `action`; returns whether it went without a panic.
fn contain(action: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(action)).is_ok()
}

impl ControlHandle {
    /// Listens at `path` for the front-ends of `backend`, one at a time: while one is connected,
    /// others are refused. The file of a process that has died is replaced.
    ///
    /// # Errors
    /// When the path cannot be used (the error says why), or the thread has ended.
    pub fn add_server(
        &self,
        path: impl AsRef<Path>,
        options: SocketOptions,
        backend: Box<dyn Backend>,
    ) -> Result<SocketHandle, ControlError> {
        let listener = Listener::bind(path.as_ref(), options.access, BACKLOG)?;
        self.add_socket(path.as_ref(), Role::server(listener), options, backend)
    }

    /// Connects to the front-end that listens at `path`, now or as soon as it does, and again
    /// whenever the connection ends: every 20 ms for 2 s, more and more rarely after that, every
    /// second in the end.
    ///
    /// # Errors
    /// When the path cannot be a socket's, or the thread has ended.
    pub fn add_client(
        &self,
        path: impl AsRef<Path>,
        options: SocketOptions,
        backend: Box<dyn Backend>,
    ) -> Result<SocketHandle, ControlError> {
        unix::check_path(path.as_ref())?;
        let role = Role::client(Arc::clone(&self.connector), self.time.now());
        self.add_socket(path.as_ref(), role, options, backend)
    }

    /// Serves the VDUSE device of which `kernel` is the open file, and which was made as `offer`
    /// says, with `backend`. `path` is its name in log lines.
    ///
    /// # Errors
    /// When the device is used by a driver to which something else was promised, the kernel has
    /// given it up, or the thread has ended.
    pub fn add_vduse(
        &self,
        path: impl AsRef<Path>,
        kernel: Box<dyn Kernel>,
        offer: Offer,
        events: Option<EventSink>,
        backend: Box<dyn Backend>,
    ) -> Result<SocketHandle, ControlError> {
        let path = path.as_ref().to_owned();
        let device = Device { backend, events: events.unwrap_or_else(|| Box::new(|_| ())) };
        let time = self.time.clone();
        self.add(path.clone(), "serve a VDUSE device", move |id, epoll| {
            let member = VduseMember::new(id, path, epoll, kernel, offer, device, time.now())?;
            Ok(Box::new(member))
        })
    }

    fn add_socket(
        &self,
        path: &Path,
        role: Role,
        options: SocketOptions,
        backend: Box<dyn Backend>,
    ) -> Result<SocketHandle, ControlError> {
        let path = path.to_owned();
        let events = options.events.unwrap_or_else(|| Box::new(|_| ()));
        let device = Device { backend, events };
        let front_end = FrontEnd::default();
        let (shared, time) = (front_end.clone(), self.time.clone());
        let mut handle = self.add(path.clone(), "add a socket", move |id, epoll| {
            Ok(Box::new(Socket::new(id, path, epoll, time, role, device, shared)?))
        })?;
        handle.front_end = front_end;
        Ok(handle)
    }

    fn add(
        &self,
        path: PathBuf,
        action: &'static str,
        make: impl FnOnce(u32, Arc<Epoll>) -> io::Result<Box<dyn Member>> + Send + 'static,
    ) -> Result<SocketHandle, ControlError> {
        let thread = self.thread.as_ref().ok_or(ControlError::Ended)?.thread().id();
        let (done, answer) = channel();
        self.mailbox.send(Command::Add { make: Box::new(make), done })?;
        let id = answer
            .recv()
            .map_err(|_| ControlError::Ended)?
            .map_err(|source| ControlError::System { action, source })?;
        let (mailbox, front_end) = (Arc::downgrade(&self.mailbox), FrontEnd::default());
        Ok(SocketHandle { id, path, mailbox, thread, front_end })
    }

    /// Ends the thread, as dropping the handle does, and waits for that.
    pub fn shut_down(self) {
        drop(self);
    }
}

impl Drop for ControlHandle {
    fn drop(&mut self) {
        // If it has ended already, there is nothing to end.
        let _ = self.mailbox.send(Command::End);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the vhost-user control thread has panicked");
        }
    }
}

impl SocketHandle {
    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the front-end's process, if there is one and the kernel knows it: none for a
    /// process of another PID namespace that ours does not contain.
    #[must_use]
    pub fn front_end(&self) -> Option<u32> {
        Some(self.front_end.0.load(Relaxed)).filter(|process| *process != 0)
    }

    /// Removes the socket. When this returns, all rings are stopped, the front-end is
    /// disconnected, the device was dropped and the socket's file is gone. (Called on the control
    /// thread, by an event, it does not wait for that.)
    pub fn remove(self) {
        drop(self);
    }
}

impl Drop for SocketHandle {
    fn drop(&mut self) {
        let Some(mailbox) = self.mailbox.upgrade() else { return };
        let (done, answer) = channel();
        if mailbox.send(Command::Remove { id: self.id, done }).is_ok()
            && std::thread::current().id() != self.thread
        {
            // An error says that the thread ended, and the socket with it.
            let _ = answer.recv();
        }
    }
}
