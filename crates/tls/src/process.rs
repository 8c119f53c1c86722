//! What the processes are started as.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use eal::companion;
use eal::sandbox;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Signal;

use crate::starter;
use crate::worker::Worker;

/// The variable that says which of the two it is. The same is in the place of the program's name, by which `ps`
/// tells them from others.
const ROLE: &str = "RINGWAY_TLS";
const STARTER: &str = "ringway-tls: starter";
const WORKER: &str = "ringway-tls: worker";

/// Memory of its own that a worker may have, in bytes: 1,024 connections take a fifth of it.
const MEMORY: u64 = 512 << 20;

/// Does the work of a process that a [`Speaker`](crate::Speaker) has started, and ends it; comes back at
/// once in any other. The first thing that `main` has to do, before it starts threads.
pub fn serve_if_asked() {
    let name = std::env::args_os().next();
    if name.is_none_or(|name| name != STARTER && name != WORKER) {
        return;
    }
    let Some((role, socket)) = companion::asked(ROLE) else { return };
    // Where `ps` shows no arguments. The system's own name for it is that of the file, which is `exe`.
    let _ = rustix::thread::set_name(c"ringway-tls");
    let done = if role == STARTER { starter::serve(&socket) } else { work(&socket) };
    std::process::exit(done.is_err().into());
}

/// Starts the starter: the socket for what it is to do, and the one for what it says; and the process, which has a
/// group of its own, with all that it starts: what a terminal sends to the switch and its like is not for them.
pub fn start() -> std::io::Result<(OwnedFd, OwnedFd, Child)> {
    let pair =
        |flags| rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    let (orders, theirs) = pair(SocketFlags::CLOEXEC)?;
    let (news, says) = pair(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let mut command = command(STARTER, says);
    command.process_group(0);
    Ok((orders, news, companion::launch(command, ROLE, STARTER, theirs)?))
}

/// Starts a worker, which has `error` for its standard error.
pub fn start_worker(orders: OwnedFd, error: OwnedFd) -> std::io::Result<Child> {
    companion::launch(command(WORKER, error), ROLE, WORKER, orders)
}

/// This program once more. It keeps nothing open that others wait for the end of, as a script does for what a
/// process in the background says.
fn command(name: &str, error: OwnedFd) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).stderr(error);
    command
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
