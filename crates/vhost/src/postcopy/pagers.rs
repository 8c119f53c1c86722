//! Where pagers come from.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use eal::companion;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::pager::Pager;
use super::process::{ARGUMENT, ROLE, STARTER, is_prepared};
use super::wire::{self, READY, START};

/// How long a pager may take to start. It takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there are no pagers.
#[derive(Debug, thiserror::Error)]
pub enum PagersError {
    /// This program does not know how to be one of the processes.
    #[error(
        "post-copy: this program does not call vhost::postcopy::serve_if_asked when it starts, so          it cannot be started for the process that takes page faults"
    )]
    Unprepared,
    /// The process cannot be started.
    #[error(
        "post-copy: cannot start the process that takes page faults: {0}; a switch that has given \
         up its privileges cannot start any more: name the port at its start"
    )]
    Start(#[source] io::Error),
    /// It does not start a pager.
    #[error(
        "post-copy: there is no userfaultfd here, or the process that takes page faults cannot \
         run (what it says is on standard error); before Linux 5.11 it needs privileges or \
         vm.unprivileged_userfaultfd=1"
    )]
    NoPager,
    /// It was used a moment ago.
    #[error("the process that takes page faults is not there yet; try again")]
    NotYet,
    /// The system refuses.
    #[error("post-copy: {0}")]
    System(#[from] io::Error),
}

/// A process that starts pagers. It ends when this is dropped.
#[derive(Debug)]
pub struct Pagers {
    socket: OwnedFd,
    process: Mutex<Child>,
}

/// The one of this process, while it is in use.
static SHARED: Mutex<Weak<Pagers>> = Mutex::new(Weak::new());

impl Pagers {
    /// The process that starts this process's pagers: the one that runs, or a new one.
    ///
    /// # Errors
    /// When it cannot be started, or this program is not made for it.
    pub fn shared() -> Result<Arc<Self>, PagersError> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pagers) = shared.upgrade() {
            return Ok(pagers);
        }
        if !is_prepared() {
            return Err(PagersError::Unprepared);
        }
        let mut command = Command::new("/proc/self/exe");
        command.arg(ARGUMENT);
        let pagers = Arc::new(Self::start(command)?);
        *shared = Arc::downgrade(&pagers);
        Ok(pagers)
    }

    /// Starts the process and keeps it until this one ends, so that ports that come when this
    /// process cannot start any find one.
    ///
    /// # Errors
    /// As [`shared`](Self::shared).
    pub fn start_early() -> Result<(), PagersError> {
        static KEPT: OnceLock<Arc<Pagers>> = OnceLock::new();
        KEPT.get_or_init({
            let pagers = Self::shared()?;
            || pagers
        });
        Ok(())
    }

    /// Starts `command`, a program that calls [`serve_if_asked`](super::serve_if_asked).
    pub(crate) fn start(command: Command) -> Result<Self, PagersError> {
        let (ours, theirs) = pair()?;
        let process =
            companion::launch(command, ROLE, STARTER, theirs).map_err(PagersError::Start)?;
        Ok(Self { socket: ours, process: Mutex::new(process) })
    }

    /// Has a pager started, which is there a little later.
    ///
    /// # Errors
    /// When the process that starts them is gone, or this one has no file descriptor left.
    pub fn order(&self) -> Result<ComingPager, PagersError> {
        let (ours, theirs) = pair()?;
        wire::send(&self.socket, &[START], &[theirs.as_fd()], false).map_err(io::Error::from)?;
        Ok(ComingPager { socket: ours })
    }
}

impl Drop for Pagers {
    fn drop(&mut self) {
        // It holds nothing and waits for nobody but us, so it may be ended at any moment.
        let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// A pager that was ordered.
#[derive(Debug)]
pub struct ComingPager {
    socket: OwnedFd,
}

impl ComingPager {
    /// The pager, if it is there by now.
    ///
    /// # Errors
    /// When it will never be.
    pub fn arrive(&self) -> Result<Option<Pager>, PagersError> {
        let (words, fds) = match wire::receive(&self.socket, false) {
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(io::Error::from(errno).into()),
            Ok(message) => message,
        };
        match (words.as_slice(), <[OwnedFd; 2]>::try_from(fds.into_iter().collect::<Vec<_>>()).ok())
        {
            ([READY], Some([userfault, process])) => {
                let socket = self.socket.try_clone()?;
                Ok(Some(Pager::new(socket, userfault, process)))
            }
            _ => Err(PagersError::NoPager),
        }
    }

    /// Waits until [`arrive`](Self::arrive) has something to say. For the start of a port, which
    /// may take its time.
    ///
    /// # Errors
    /// When it takes too long.
    pub fn wait(&self) -> Result<(), PagersError> {
        let limit = Timespec::try_from(PATIENCE).ok();
        let mut set = [PollFd::new(&self.socket, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut set, limit.as_ref()));
        match ready.map_err(io::Error::from)? {
            0 => Err(PagersError::NoPager),
            _ => Ok(()),
        }
    }
}

/// A pair of sockets that keep messages apart.
fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}
