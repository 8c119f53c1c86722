//! Where metrics are read: a Unix socket, or an address of TCP.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use daemon::metrics::{Endpoint, Metrics};
use eal::unix;
use rustix::io::Errno;
use rustix::net::SocketFlags;

use crate::exit::Failure;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// In the file system.
    Unix(unix::Listener),
    /// At an address.
    Tcp(TcpListener),
}

impl Listener {
    /// Listens where `metrics` says, if it says where.
    pub fn bind(metrics: &Metrics) -> Result<Option<Self>, Failure> {
        let Some(endpoint) = &metrics.address else { return Ok(None) };
        let failed = |error: &dyn std::fmt::Display| {
            Failure::runtime(format!("metrics at {endpoint}: {error} (--metrics)"))
        };
        match endpoint {
            Endpoint::Unix(path) => {
                let listener = unix::Listener::bind(path, metrics.access(), BACKLOG);
                Ok(Some(Self::Unix(listener.map_err(|error| failed(&error))?)))
            }
            Endpoint::Tcp(address) => {
                let listener = tcp(*address).map_err(|error| failed(&error))?;
                let at = listener.local_addr().map_err(|error| failed(&error))?;
                tracing::info!(address = %at, "metrics can be read");
                Ok(Some(Self::Tcp(listener)))
            }
        }
    }

    /// The next connection, which does not block; `None` while nobody waits.
    pub fn accept(&self) -> Result<Option<OwnedFd>, Errno> {
        match self {
            Self::Unix(listener) => listener.accept(),
            Self::Tcp(listener) => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                match rustix::net::accept_with(listener, flags) {
                    // Also what became of a connection before anybody took it (accept(2)).
                    Err(
                        Errno::AGAIN
                        | Errno::INTR
                        | Errno::CONNABORTED
                        | Errno::PROTO
                        | Errno::NETDOWN
                        | Errno::HOSTDOWN
                        | Errno::HOSTUNREACH
                        | Errno::NETUNREACH,
                    ) => Ok(None),
                    other => other.map(Some),
                }
            }
        }
    }
}

fn tcp(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl AsFd for Listener {
    /// Readable when somebody waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}
