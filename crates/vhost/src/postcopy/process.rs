//! What the processes do: the one that starts pagers, and the pagers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};

use arrayvec::ArrayVec;
use eal::companion;
use eal::userfault::{FaultMap, Userfault};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal};
use rustix::thread::CapabilitySet;

use super::wire::{self, MAP, MAPPED, READY, START, TOUCH, TOUCHED};
use crate::protocol::MAX_TABLE_REGIONS;

/// The first argument of both processes, by which `ps` tells them from others.
pub(super) const ARGUMENT: &str = "postcopy-pager";
/// The variable that says which of the two it is: [`STARTER`] or [`PAGER`].
pub(super) const ROLE: &str = "RINGWAY_POSTCOPY_PAGER";
/// It starts pagers.
pub(super) const STARTER: &str = "starter";
/// It is one.
pub(super) const PAGER: &str = "pager";

/// Whether this program can be started as either of the two.
static PREPARED: AtomicBool = AtomicBool::new(false);

/// Threads of a pager: as many pages can be waited for at once.
const THREADS: usize = 4;

/// Memory of its own that a pager may have, in bytes, with the stacks of its threads.
const MEMORY: u64 = 64 << 20;

/// The regions that are mapped.
type Maps = ArrayVec<Arc<FaultMap>, MAX_TABLE_REGIONS>;

/// Does the work of a process that [`Pagers`](super::Pagers) has started, and ends it; comes back
/// at once in any other. The first thing that `main` has to do, before it starts threads.
pub fn serve_if_asked() {
    PREPARED.store(true, Ordering::Relaxed);
    if std::env::args_os().nth(1).is_some_and(|argument| argument == ARGUMENT) {
        serve();
    }
}

/// Whether [`serve_if_asked`] was called, so that this program may be started once more.
pub(super) fn is_prepared() -> bool {
    PREPARED.load(Ordering::Relaxed)
}

/// Does the work of the process, and ends it; comes back where it was started by hand.
pub(crate) fn serve() {
    let Some((role, socket)) = companion::asked(ROLE) else { return };
    end(if role == STARTER { start_pagers(&socket) } else { page(&socket) });
}

/// Ends the process.
fn end(done: std::io::Result<()>) -> ! {
    let Err(error) = done else { std::process::exit(0) };
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        std::process::exit(0); // The other side has gone in the middle.
    }
    eprintln!("ringway: {ARGUMENT}: {error}");
    std::process::exit(1);
}

/// Starts a pager for each socket that comes, until whoever sends them is gone.
fn start_pagers(socket: &OwnedFd) -> std::io::Result<()> {
    let mut children: Vec<Child> = Vec::new();
    loop {
        let (words, mut fds) = wire::receive(socket, true)?;
        children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        match (words.first(), fds.pop()) {
            (None, _) => return Ok(()),
            (Some(&START), Some(theirs)) => children.push(start(PAGER, theirs)?),
            _ => {}
        }
    }
}

/// Starts this program once more, with these very arguments.
fn start(role: &str, socket: OwnedFd) -> std::io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1));
    companion::launch(command, ROLE, role, socket)
}

/// Touches what it is told to, until whoever tells it is gone.
fn page(socket: &OwnedFd) -> std::io::Result<()> {
    // If the process that watches over it goes, so does this one, whatever it waits for.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let userfault = Userfault::new()?;
    let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    give_up_privileges()?;
    let maps = Mutex::new(Maps::new());
    let (started, confined) = (Barrier::new(THREADS), Barrier::new(THREADS));
    // The first to end, ends all: the others may wait for a page.
    let serve = || end(serve_requests(socket, &userfault, &maps));
    std::thread::scope(|scope| {
        for _ in 1..THREADS {
            scope.spawn(|| {
                started.wait();
                confined.wait();
                serve()
            });
        }
        // What starts a thread is over; the front-end comes after.
        started.wait();
        let files: [BorrowedFd<'_>; 2] = [userfault.as_fd(), own.as_fd()];
        let confine = eal::confine::to_touching_pages();
        if let Err(error) = confine.and_then(|()| Ok(wire::send(socket, &[READY], &files, true)?)) {
            // Not by returning: the others wait for this one.
            end(Err(error));
        }
        confined.wait();
        serve()
    })
}

/// Keeps nothing that is of use to a front-end that makes this process its own.
fn give_up_privileges() -> std::io::Result<()> {
    let none = CapabilitySet::empty();
    let sets =
        rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_no_new_privs(true)?;
    rustix::thread::set_capabilities(None, sets)?;
    companion::keep_to_itself(MEMORY)
}

fn serve_requests(
    socket: &OwnedFd,
    userfault: &Userfault,
    maps: &Mutex<Maps>,
) -> std::io::Result<()> {
    loop {
        let (words, fds) = wire::receive(socket, true)?;
        match words.as_slice() {
            [] => return Ok(()),
            [MAP, places @ ..] => {
                // The old ones first: they are of another guest's start.
                maps.lock().unwrap_or_else(PoisonError::into_inner).clear();
                let (places, _) = places.as_chunks::<3>();
                let map = |(&[at, offset, len], file): (&[u64; 3], &OwnedFd)| {
                    userfault.map(file.as_fd(), at, offset, len).map(Arc::new)
                };
                let new = places.iter().zip(&fds).map(map).collect::<std::io::Result<_>>()?;
                *maps.lock().unwrap_or_else(PoisonError::into_inner) = new;
                wire::send(socket, &[MAPPED], &[], true)?;
            }
            &[TOUCH, at] => {
                // A copy, so that others need not wait while this one does.
                let maps = maps.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if maps.iter().any(|map| map.touch(at)) {
                    wire::send(socket, &[TOUCHED, at], &[], true)?;
                }
            }
            _ => return Err(Errno::PROTO.into()),
        }
    }
}
