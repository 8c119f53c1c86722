//! What the processes are started as. The starter waits until there is something to do, starts a worker,
//! and another one should that die: what the switch has given up by then it cannot do itself.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use eal::companion;
use eal::sandbox;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Signal;

use crate::worker::Worker;

/// The first argument of both processes, by which `ps` tells them from others.
const ARGUMENT: &str = "tls";
/// The variable that says which of the two it is.
const ROLE: &str = "RINGWAY_TLS";
const STARTER: &str = "starter";
const WORKER: &str = "worker";

/// How long it is waited until another worker is started in place of one that has died.
const PAUSE: Duration = Duration::from_secs(1);

/// Memory of its own that a worker may have, in bytes: 1,024 connections take a fifth of it.
const MEMORY: u64 = 512 << 20;

/// Does the work of a process that a [`Speaker`](crate::Speaker) has started, and ends it; comes back at
/// once in any other. The first thing that `main` has to do, before it starts threads.
pub fn serve_if_asked() {
    if std::env::args_os().nth(1).is_none_or(|argument| argument != ARGUMENT) {
        return;
    }
    let Some((role, socket)) = companion::asked(ROLE) else { return };
    let done = if role == STARTER { start_workers(&socket) } else { work(&socket) };
    std::process::exit(done.is_err().into());
}

/// Starts the starter: the process, and the socket for what it is to do.
pub fn start() -> std::io::Result<(OwnedFd, Child)> {
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)?;
    Ok((ours, launch(STARTER, theirs)?))
}

/// Starts this program once more, with `socket` for its standard input. It keeps nothing open that others wait for the
/// end of, as a script does for what a process in the background says; and what a terminal sends to the
/// switch and its like is not for it.
fn launch(role: &str, socket: OwnedFd) -> std::io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(ARGUMENT).process_group(0).stderr(Stdio::null());
    companion::launch(command, ROLE, role, socket)
}

/// Has a worker serve what comes, whenever something comes, until nothing will come any more.
fn start_workers(socket: &OwnedFd) -> std::io::Result<()> {
    loop {
        rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(socket, PollFlags::IN)], None))?;
        // There may be too many processes for a while.
        let worker = socket.try_clone().and_then(|socket| launch(WORKER, socket));
        if worker.and_then(|mut worker| worker.wait()).is_ok_and(|ended| ended.success()) {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Serves connections, without anything but the sockets that come.
fn work(socket: &OwnedFd) -> std::io::Result<()> {
    // If the process that watches over it goes, so does this one.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    confined()?.serve(socket)
}

/// A worker in a process, this one, that can do nothing else any more.
pub fn confined() -> std::io::Result<Worker> {
    // Nobody else of this user is to see the keys.
    companion::keep_to_itself(MEMORY)?;
    let worker = Worker::new()?;
    sandbox::enter_to_sockets().map_err(std::io::Error::other)?;
    Ok(worker)
}
