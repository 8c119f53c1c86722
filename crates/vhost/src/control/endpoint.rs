//! Unix sockets in the file system: listening without waiting, and connecting without waiting.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use eal::{Access, PeerFd};
use rustix::fs::Stat;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Longest path of a socket in bytes (unix(7): `sun_path` has 108, the last is 0).
pub const MAX_PATH_LEN: usize = 107;

/// Connections that wait to be accepted; further ones are told to try again.
const BACKLOG: i32 = 16;

/// Why a socket cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The path is too long for a socket address.
    #[error(
        "socket path '{path}' has {len} bytes, at most {MAX_PATH_LEN} can be used; choose a \
         shorter directory"
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// The path cannot be a socket's.
    #[error("socket path '{path}' is empty or has a zero byte")]
    Invalid {
        /// The path.
        path: PathBuf,
    },
    /// Another process listens there.
    #[error("socket '{path}' is taken by a live process; end it or choose another path")]
    Taken {
        /// The path.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("'{path}' exists and is no socket; remove it or choose another path")]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// The directory is missing.
    #[error("socket '{path}': its directory does not exist; create it")]
    NoDirectory {
        /// The path.
        path: PathBuf,
    },
    /// Not allowed.
    #[error(
        "socket '{path}': no permission to {action}; run as a user who may, or choose another path"
    )]
    Permission {
        /// The path.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
    },
    /// Its file cannot be given to the group.
    #[error(
        "socket '{path}': no permission to give it to group {group}; have the switch's user be in \
         that group, or choose another with group="
    )]
    Group {
        /// The path.
        path: PathBuf,
        /// The number of the group.
        group: u32,
    },
    /// Anything else.
    #[error("socket '{path}': cannot {action}: {source}")]
    System {
        /// The path.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

/// A listening socket. Dropping it removes the file, if it is still its own.
#[derive(Debug)]
pub(super) struct Listener {
    /// Closing it closes whatever is queued in connections that nobody has accepted.
    socket: PeerFd,
    path: PathBuf,
    /// Device and inode of the file.
    file: Option<(u64, u64)>,
}

impl Listener {
    /// Listens at `path` for those whom `access` lets in. A file that a dead process left there is
    /// replaced.
    pub(super) fn bind(path: &Path, access: Access) -> Result<Self, EndpointError> {
        let address = address(path)?;
        let failed = |action| move |errno| system(path, action, errno);
        let socket = stream().map_err(failed("open a socket"))?;
        access.prepare(&socket).map_err(failed("prepare its permissions"))?;
        match rustix::net::bind(&socket, &address) {
            Err(Errno::ADDRINUSE) => {
                remove_stale(path, &address)?;
                rustix::net::bind(&socket, &address).map_err(failed("create it"))?;
            }
            other => other.map_err(failed("create it"))?,
        }
        let file = rustix::fs::lstat(path).ok().map(|stat| identity(&stat));
        let listener = Self { socket: socket.into(), path: path.to_owned(), file };
        let granted = access.apply(path).map_err(|errno| match (errno, access.group) {
            (Errno::PERM, Some(group)) => EndpointError::Group { path: path.to_owned(), group },
            _ => system(path, "set its permissions", errno),
        })?;
        rustix::net::listen(listener.socket.as_fd(), BACKLOG).map_err(failed("listen"))?;
        // A VMM that may not connect waits without a word, and nothing of it is seen here.
        tracing::info!(socket = %path.display(), may_connect = %granted, "listening");
        Ok(listener)
    }

    /// The next connection, if one waits.
    pub(super) fn accept(&self) -> Result<Option<OwnedFd>, Errno> {
        match rustix::net::accept_with(self.as_fd(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            // The peer has gone already, or it is nobody's turn.
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
            other => other.map(Some),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let now = rustix::fs::lstat(&self.path).ok().map(|stat| identity(&stat));
        if now.is_some() && now == self.file {
            // A file that cannot be removed is replaced by the next start.
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

/// Connects to `path`; `None` when nobody accepts connections there at the moment.
pub(super) fn connect(path: &Path) -> Result<Option<OwnedFd>, EndpointError> {
    let address = address(path)?;
    let socket = stream().map_err(|errno| system(path, "open a socket", errno))?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(Some(socket)),
        Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(system(path, "connect", errno)),
    }
}

/// Checks that `path` can be a socket's.
pub(super) fn check_path(path: &Path) -> Result<(), EndpointError> {
    address(path).map(drop)
}

fn address(path: &Path) -> Result<SocketAddrUnix, EndpointError> {
    let path = || path.to_owned();
    let len = path().as_os_str().len();
    if len > MAX_PATH_LEN {
        return Err(EndpointError::TooLong { path: path(), len });
    }
    if len == 0 {
        return Err(EndpointError::Invalid { path: path() });
    }
    SocketAddrUnix::new(path()).map_err(|_| EndpointError::Invalid { path: path() })
}

fn stream() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Removes the socket file of a process that has ended without removing it.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), EndpointError> {
    let stat = rustix::fs::lstat(path).map_err(|errno| system(path, "look at it", errno))?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Socket {
        return Err(EndpointError::NoSocket { path: path.to_owned() });
    }
    // A datagram socket cannot connect to a stream socket, so this asks whether somebody is
    // there without being noticed: EPROTOTYPE says yes, ECONNREFUSED no (unix(7)).
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)
        .map_err(|errno| system(path, "open a socket", errno))?;
    match rustix::net::connect(&probe, address) {
        Err(Errno::CONNREFUSED) => match rustix::fs::unlink(path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(system(path, "replace what a dead process left", errno)),
        },
        Err(Errno::NOENT) => Ok(()),
        Ok(()) | Err(Errno::PROTOTYPE | Errno::AGAIN) => {
            Err(EndpointError::Taken { path: path.to_owned() })
        }
        Err(errno) => Err(system(path, "see whether it is in use", errno)),
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn system(path: &Path, action: &'static str, errno: Errno) -> EndpointError {
    let path = path.to_owned();
    match errno {
        Errno::ACCESS | Errno::PERM | Errno::ROFS => EndpointError::Permission { path, action },
        Errno::NOENT | Errno::NOTDIR => EndpointError::NoDirectory { path },
        Errno::ADDRINUSE => EndpointError::Taken { path },
        _ => EndpointError::System { path, action, source: eal::files::explain(errno) },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_file_comes_and_goes_with_the_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = Listener::bind(&path, Access { group: None, mode: Some(0o620) }).unwrap();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        assert!(meta.file_type().is_socket());
        assert_eq!(meta.permissions().mode() & 0o777, 0o620);
        assert!(listener.accept().unwrap().is_none());
        let client = connect(&path).unwrap();
        assert!(client.is_some());
        assert!(listener.accept().unwrap().is_some());
        drop(listener);
        assert!(!path.exists());
        assert!(connect(&path).unwrap().is_none());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let live = UnixListener::bind(&path).unwrap();
        let error = Listener::bind(&path, Access::default()).unwrap_err();
        assert!(matches!(error, EndpointError::Taken { .. }));
        assert!(error.to_string().contains("taken by a live process"));
        live.set_nonblocking(true).unwrap();
        assert!(live.accept().is_err(), "the live process noticed");
        drop(live);
        assert!(path.exists());
        drop(Listener::bind(&path, Access::default()).unwrap());
    }

    #[test]
    fn a_file_that_somebody_else_made_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = Listener::bind(&path, Access::default()).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "not ours").unwrap();
        drop(listener);
        assert!(path.exists());
        let error = Listener::bind(&path, Access::default()).unwrap_err();
        assert!(matches!(error, EndpointError::NoSocket { .. }), "{error}");
        assert!(path.exists());
    }

    #[test]
    fn impossible_paths_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let bind = |path: &Path| Listener::bind(path, Access::default()).unwrap_err();
        let long = dir.path().join("x".repeat(108 - dir.path().as_os_str().len() - 1));
        assert_eq!(long.as_os_str().len(), 108);
        assert!(bind(&long).to_string().contains("108 bytes, at most 107"));
        let fits = dir.path().join("x".repeat(107 - dir.path().as_os_str().len() - 1));
        drop(Listener::bind(&fits, Access::default()).unwrap());
        assert!(matches!(bind(&dir.path().join("no/s")), EndpointError::NoDirectory { .. }));
        assert!(matches!(bind(Path::new("")), EndpointError::Invalid { .. }));
        assert!(matches!(bind(Path::new("a\0b")), EndpointError::Invalid { .. }));
    }

    #[test]
    fn missing_permission_is_told() {
        let error = system(Path::new("/p"), "create it", Errno::ACCESS);
        assert!(error.to_string().contains("'/p': no permission to create it"), "{error}");
    }
}
