//! Sockets of controllers: listening, accepting, connecting. Nothing of it waits.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use eal::Access;
use eal::unix::{Listener, connect};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_reuseaddr, set_tcp_nodelay};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, accept_with, bind, getpeername, listen, socket_with,
};

use super::target::Target;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Only the user of this process may connect to a bridge's socket.
const OWNER: Access = Access { group: None, mode: Some(0o600) };

/// What sockets are opened with.
const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Listens at a socket of a bridge in the run folder: `BRIDGE.mgmt`, where it is asked, or `BRIDGE.snoop`,
/// where others listen.
///
/// # Errors
/// The bridge's name cannot be that of a file, or the socket is taken or cannot be made.
pub fn of_bridge(run: &Path, bridge: &str, kind: &str) -> Result<Listener, String> {
    if bridge.contains('/') {
        return Err("its name has a slash, so that it can have no socket".to_owned());
    }
    let path = run.join(format!("{bridge}.{kind}"));
    Listener::bind(&path, OWNER, BACKLOG).map_err(|error| error.to_string())
}

/// A socket that controllers connect to.
#[derive(Debug)]
pub enum Door {
    /// A file.
    Unix(Arc<Listener>),
    /// An address, and how who comes there is called.
    Tcp(OwnedFd, &'static str),
}

impl Door {
    /// Listens at a target, if that is one to be listened at.
    ///
    /// # Errors
    /// It is taken, or the system refuses.
    pub fn open(target: &Target) -> Result<Option<Self>, String> {
        match target {
            Target::Unix(_) | Target::Tcp(_) | Target::Ssl(_) => Ok(None),
            Target::ListenUnix(path) => {
                let listener = Listener::bind(path, OWNER, BACKLOG);
                listener
                    .map(|listener| Some(Self::Unix(Arc::new(listener))))
                    .map_err(|error| error.to_string())
            }
            Target::ListenTcp(address) | Target::ListenSsl(address) => {
                let kind = if target.secured().is_some() { "ssl" } else { "tcp" };
                let listener = listen_tcp(*address);
                listener
                    .map(|listener| Some(Self::Tcp(listener, kind)))
                    .map_err(|error| format!("cannot listen at {address}: {error}"))
            }
        }
    }

    /// The descriptor, readable when somebody waits.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(socket, _) => socket.as_fd(),
        }
    }

    /// The next one that waits, and who that is.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn accept(&self) -> Result<Option<(OwnedFd, String)>, Errno> {
        match self {
            Self::Unix(listener) => Ok(listener.accept()?.map(|fd| (fd, "unix".to_owned()))),
            Self::Tcp(socket, kind) => match accept_with(socket, FLAGS) {
                Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
                Err(error) => Err(error),
                Ok(fd) => {
                    let _ = set_tcp_nodelay(&fd, true);
                    let peer =
                        getpeername(&fd).ok().and_then(|peer| SocketAddr::try_from(peer?).ok());
                    let name =
                        peer.map_or_else(|| (*kind).to_owned(), |peer| format!("{kind}:{peer}"));
                    Ok(Some((fd, name)))
                }
            },
        }
    }
}

const fn family(address: &SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}

fn listen_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket_with(family(&address), SocketType::STREAM, FLAGS, None)?;
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Begins to connect to a target, if that is one to connect to: the socket can be written to when
/// it has come to something.
///
/// # Errors
/// Nobody is there, or the system refuses.
pub fn begin(target: &Target) -> Result<Option<OwnedFd>, String> {
    match target {
        Target::ListenUnix(_) | Target::ListenTcp(_) | Target::ListenSsl(_) => Ok(None),
        Target::Unix(path) => connect(path).map(Some).map_err(|error| error.to_string()),
        Target::Tcp(address) | Target::Ssl(address) => {
            let socket = socket_with(family(address), SocketType::STREAM, FLAGS, None);
            let socket = socket.map_err(|error| error.to_string())?;
            let _ = set_tcp_nodelay(&socket, true);
            match rustix::net::connect(&socket, address) {
                Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(Some(socket)),
                Err(error) => Err(error.to_string()),
            }
        }
    }
}
