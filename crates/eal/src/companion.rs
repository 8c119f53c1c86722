//! Processes beside this one: the same program, started once more with a socket for its standard input. They do what
//! this process is not to have in its own address space, or can no longer do once it has given up
//! privileges.
//!
//! What a process is started as is said by a variable of its environment, which whoever starts it has a name
//! for. `main` has to ask for it ([`asked`]) before it does anything else.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};

use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// Starts `command` as `role`, with `socket`, of type `SOCK_SEQPACKET`, for its standard input. Of this process it
/// has standard error at most, if the command does not say otherwise.
///
/// # Errors
/// The system's, when it cannot be started.
pub fn launch(
    mut command: Command,
    variable: &str,
    role: &str,
    socket: OwnedFd,
) -> io::Result<Child> {
    command.env_clear().env(variable, role).current_dir("/").stdin(socket).stdout(Stdio::null());
    command.spawn()
}

/// What this process was started as by [`launch`], and its socket; `None` where it was started otherwise, as by hand.
#[must_use]
pub fn asked(variable: &str) -> Option<(OsString, OwnedFd)> {
    let role = std::env::var_os(variable)?;
    let socket = io::stdin().as_fd().try_clone_to_owned().ok()?;
    (socket_type(&socket) == Ok(SocketType::SEQPACKET)).then_some((role, socket))
}

/// Has nobody else of this user see what this process has in memory, nor a file keep it; and bounds its own
/// memory, in bytes.
///
/// # Errors
/// The system's.
pub fn keep_to_itself(memory: u64) -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    for (resource, most) in [(Resource::Core, 0), (Resource::Fsize, 0), (Resource::Data, memory)] {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        rustix::process::setrlimit(resource, limit)?;
    }
    Ok(())
}
