//! Unix sockets in the file system: listening for those who may connect, and connecting.
//!
//! No call waits for a peer. The file of a process that has died is replaced, that of a live one never is,
//! nor a file of another kind, nor a link. It goes with its [`Listener`], if it is still its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::access::{Access, Granted};
use crate::closer::PeerFd;

/// Longest path of a socket in bytes (unix(7): `sun_path` has 108, the last is 0).
pub const MAX_PATH_LEN: usize = 107;

/// Why a socket cannot be listened on or connected to.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path is too long for a socket address.
    #[error(
        "socket '{path}': the path has {len} bytes, at most {MAX_PATH_LEN} can be used; choose a \
         shorter one"
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
    /// No file can be made there.
    #[error("socket '{path}': its file system is read-only; choose another path")]
    ReadOnly {
        /// The path.
        path: PathBuf,
    },
    /// Its file cannot be given to the group.
    #[error(
        "socket '{path}': no permission to give it to group {group}; have this process's user be in \
         that group, or choose another"
    )]
    Group {
        /// The path.
        path: PathBuf,
        /// The number of the group.
        group: u32,
    },
    /// Nobody accepts connections there at the moment; try again later.
    #[error("socket '{path}': nobody accepts connections there ({source})")]
    Nobody {
        /// The path.
        path: PathBuf,
        /// What the system says: that there is no such file, that nobody listens, or that too
        /// many wait already.
        source: Errno,
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
pub struct Listener {
    /// Closing it closes whatever is queued in connections that nobody has accepted.
    socket: PeerFd,
    path: PathBuf,
    /// Device and inode of the file.
    file: Option<(u64, u64)>,
    granted: Option<Granted>,
}

impl Listener {
    /// Listens at `path` for those whom `access` lets in. A file that a dead process left there is
    /// replaced. Of those who connect, `backlog` wait to be accepted; further ones are told to try
    /// again.
    ///
    /// # Errors
    /// When the path cannot be a socket's, is taken, or its file cannot be made or given its group.
    pub fn bind(path: &Path, access: Access, backlog: i32) -> Result<Self, SocketError> {
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
        let socket = socket.into();
        let mut listener = Self { socket, path: path.to_owned(), file, granted: None };
        let granted = access.apply(path).map_err(|errno| match (errno, access.group) {
            (Errno::PERM, Some(group)) => SocketError::Group { path: path.to_owned(), group },
            _ => system(path, "set its permissions", errno),
        })?;
        listener.granted = Some(granted);
        rustix::net::listen(listener.socket.as_fd(), backlog).map_err(failed("listen"))?;
        // A peer that may not connect often waits without a word, and nothing of it is seen here.
        tracing::info!(socket = %path.display(), may_connect = %granted, "listening");
        Ok(listener)
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection, which does not block; `None` while nobody waits.
    ///
    /// # Errors
    /// When there is no file descriptor left, or no memory: somebody waits all the same.
    pub fn accept(&self) -> Result<Option<OwnedFd>, Errno> {
        match rustix::net::accept_with(self.as_fd(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            // The peer has gone already, or it is nobody's turn.
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
            other => other.map(Some),
        }
    }
}

impl AsFd for Listener {
    /// Readable when somebody waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let now = rustix::fs::lstat(&self.path).ok().map(|stat| identity(&stat));
        if now.is_some()
            && now == self.file
            && let Err(error) = rustix::fs::unlink(&self.path)
        {
            // It is replaced by the next start.
            tracing::warn!(socket = %self.path.display(), "cannot remove its file: {error}");
        }
    }
}

/// A connection to whoever listens at `path`, which does not block.
///
/// # Errors
/// [`SocketError::Nobody`] when that may change by itself; another one when the path cannot be a
/// socket's, or this process may not connect.
pub fn connect(path: &Path) -> Result<OwnedFd, SocketError> {
    let address = address(path)?;
    let socket = stream().map_err(|errno| system(path, "open a socket", errno))?;
    // A Unix socket connects at once or not at all: EAGAIN means that too many wait already.
    match rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &address)) {
        Ok(()) => Ok(socket),
        Err(source @ (Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN)) => {
            Err(SocketError::Nobody { path: path.to_owned(), source })
        }
        Err(errno) => Err(system(path, "connect", errno)),
    }
}

/// Checks that `path` can be a socket's.
///
/// # Errors
/// When it cannot.
pub fn check_path(path: &Path) -> Result<(), SocketError> {
    address(path).map(drop)
}

fn address(path: &Path) -> Result<SocketAddrUnix, SocketError> {
    let len = path.as_os_str().len();
    if len > MAX_PATH_LEN {
        return Err(SocketError::TooLong { path: path.to_owned(), len });
    }
    let invalid = || SocketError::Invalid { path: path.to_owned() };
    if len == 0 {
        return Err(invalid());
    }
    SocketAddrUnix::new(path).map_err(|_| invalid())
}

fn stream() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Removes the socket file of a process that has ended without removing it.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), SocketError> {
    let stat = rustix::fs::lstat(path).map_err(|errno| system(path, "look at it", errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(SocketError::NoSocket { path: path.to_owned() });
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
            Err(SocketError::Taken { path: path.to_owned() })
        }
        Err(errno) => Err(system(path, "see whether it is in use", errno)),
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn system(path: &Path, action: &'static str, errno: Errno) -> SocketError {
    let path = path.to_owned();
    match errno {
        Errno::ACCESS | Errno::PERM => SocketError::Permission { path, action },
        Errno::ROFS => SocketError::ReadOnly { path },
        Errno::NOENT | Errno::NOTDIR => SocketError::NoDirectory { path },
        Errno::ADDRINUSE => SocketError::Taken { path },
        _ => SocketError::System { path, action, source: crate::files::explain(errno) },
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::os::unix::net::UnixListener;

    use testkit::wait_for;

    use super::*;

    fn bind(path: &Path) -> Result<Listener, SocketError> {
        Listener::bind(path, Access::default(), 1)
    }

    fn is_nobody_at(path: &Path) -> bool {
        matches!(connect(path), Err(SocketError::Nobody { .. }))
    }

    #[test]
    fn the_file_comes_and_goes_with_the_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        assert!(is_nobody_at(&path));
        let access = Access { group: None, mode: Some(0o620) };
        let listener = Listener::bind(&path, access, 1).unwrap();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        assert!(meta.file_type().is_socket());
        assert_eq!(meta.permissions().mode() & 0o777, 0o620);
        assert!(listener.accept().unwrap().is_none());
        let _client = connect(&path).unwrap();
        assert!(listener.accept().unwrap().is_some());
        drop(listener);
        assert!(!path.exists());
        assert!(is_nobody_at(&path));
    }

    #[test]
    fn those_who_find_no_place_are_told_to_try_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = Listener::bind(&path, Access::default(), 0).unwrap();
        let _first = connect(&path).unwrap();
        let error = connect(&path).unwrap_err();
        assert!(matches!(error, SocketError::Nobody { source: Errno::AGAIN, .. }), "{error}");
        listener.accept().unwrap().unwrap();
        connect(&path).unwrap();
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let live = UnixListener::bind(&path).unwrap();
        let error = bind(&path).unwrap_err();
        assert!(matches!(error, SocketError::Taken { .. }));
        assert!(error.to_string().contains("taken by a live process"));
        live.set_nonblocking(true).unwrap();
        assert!(live.accept().is_err(), "the live process noticed");
        drop(live);
        // A program that another test is just starting has it, too, until it runs.
        wait_for("nobody is there", || is_nobody_at(&path));
        assert!(path.exists());
        drop(bind(&path).unwrap());
    }

    #[test]
    fn what_somebody_else_made_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        // The first inode is still in use, so that the file system cannot give it out again.
        let _other = UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let [path, link, nowhere] = ["file", "link", "nowhere"].map(|name| dir.path().join(name));
        std::fs::write(&path, "precious").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        std::os::unix::fs::symlink(dir.path().join("none"), &nowhere).unwrap();
        for taken in [&path, &link, &nowhere] {
            let error = bind(taken).unwrap_err();
            assert!(matches!(error, SocketError::NoSocket { .. }), "{error}");
            assert!(std::fs::symlink_metadata(taken).is_ok());
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn impossible_paths_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let bind = |path: &Path| bind(path).unwrap_err();
        let long = dir.path().join("x".repeat(108 - dir.path().as_os_str().len() - 1));
        assert_eq!(long.as_os_str().len(), 108);
        assert!(bind(&long).to_string().contains("108 bytes, at most 107"));
        let fits = dir.path().join("x".repeat(107 - dir.path().as_os_str().len() - 1));
        drop(Listener::bind(&fits, Access::default(), 1).unwrap());
        assert!(matches!(bind(&dir.path().join("no/s")), SocketError::NoDirectory { .. }));
        for path in [Path::new(""), Path::new("a\0b")] {
            assert!(matches!(bind(path), SocketError::Invalid { .. }));
            assert!(matches!(connect(path), Err(SocketError::Invalid { .. })));
        }
    }

    #[test]
    fn missing_permission_is_told() {
        let error = system(Path::new("/p"), "create it", Errno::ACCESS);
        assert!(error.to_string().contains("'/p': no permission to create it"), "{error}");
        let error = system(Path::new("/p"), "create it", Errno::ROFS).to_string();
        assert!(error.contains("read-only") && !error.contains("permission"), "{error}");
    }
}
