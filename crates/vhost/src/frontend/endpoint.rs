//! How a front-end finds its back-end: it connects to a socket, or listens on one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use eal::Access;
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::error::FrontendError;

/// Longest socket path in bytes: what `sockaddr_un` has room for.
const MAX_PATH: usize = 107;

/// One side of a Unix socket path. No call ever waits.
#[derive(Debug)]
pub struct Endpoint {
    path: String,
    address: SocketAddrUnix,
    /// There in server mode only.
    listener: Option<Listener>,
}

/// A listening socket, and the file that goes with it.
#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    /// Device and inode of the file, to remove no other one in its place.
    file: Option<(u64, u64)>,
}

impl Endpoint {
    /// The side that connects to the back-end's socket at `path`.
    ///
    /// # Errors
    /// When the path is too long.
    pub fn client(path: &str) -> Result<Self, FrontendError> {
        let address = Some(path)
            .filter(|path| (1..=MAX_PATH).contains(&path.len()))
            .and_then(|path| SocketAddrUnix::new(path).ok());
        let address = address.ok_or_else(|| {
            let (socket, len) = (path.to_owned(), path.len());
            FrontendError::Path { socket, len }
        })?;
        Ok(Self { path: path.to_owned(), address, listener: None })
    }

    /// The side that listens at `path`, for a back-end that `access` lets in to connect. A socket file that nobody
    /// listens on any more is replaced; the file is removed in the end.
    ///
    /// # Errors
    /// When the path is too long, taken by a live process, or cannot be made or given its group.
    pub fn server(path: &str, access: Access) -> Result<Self, FrontendError> {
        let mut endpoint = Self::client(path)?;
        let socket = endpoint.socket("create a socket")?;
        let permissions = |errno| endpoint.error("set its permissions", errno);
        access.prepare(&socket).map_err(permissions)?;
        match rustix::net::bind(&socket, &endpoint.address) {
            Err(Errno::ADDRINUSE) => {
                endpoint.remove_stale()?;
                rustix::net::bind(&socket, &endpoint.address)
            }
            other => other,
        }
        .map_err(|errno| endpoint.error("listen", errno))?;
        let granted = access.apply(Path::new(path)).map_err(permissions)?;
        rustix::net::listen(&socket, 1).map_err(|errno| endpoint.error("listen", errno))?;
        tracing::info!(socket = path, may_connect = %granted, "listening");
        let file = identity(&endpoint.path);
        endpoint.listener = Some(Listener { socket, file });
        Ok(endpoint)
    }

    /// The socket's path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What becomes readable when a back-end connects, in server mode.
    #[must_use]
    pub fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(|listener| listener.socket.as_fd())
    }

    /// A connection to a back-end; `None` in server mode while none has come.
    ///
    /// # Errors
    /// In client mode when there is nobody to connect to; try again later.
    pub fn open(&self) -> Result<Option<OwnedFd>, FrontendError> {
        let Some(listener) = &self.listener else { return self.connect().map(Some) };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match rustix::net::accept_with(&listener.socket, flags) {
            Ok(stream) => Ok(Some(stream)),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(errno) => Err(self.error("accept a connection", errno)),
        }
    }

    fn connect(&self) -> Result<OwnedFd, FrontendError> {
        let socket = self.socket("create a socket")?;
        // A Unix socket connects at once or not at all: EAGAIN means that the backlog is full.
        rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &self.address))
            .map_err(|errno| self.error("connect", errno))?;
        Ok(socket)
    }

    fn socket(&self, step: &'static str) -> Result<OwnedFd, FrontendError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|errno| self.error(step, errno))
    }

    /// Removes a socket file that nobody listens on.
    fn remove_stale(&self) -> Result<(), FrontendError> {
        let socket = self.socket("create a socket")?;
        match rustix::net::connect(&socket, &self.address) {
            Err(Errno::CONNREFUSED) if self.is_socket() => rustix::fs::unlink(self.path.as_str())
                .map_err(|errno| self.error("remove the old socket", errno)),
            _ => Err(self.error("listen", Errno::ADDRINUSE)),
        }
    }

    /// Whether the file is a socket: a connection is refused by any other file, too.
    fn is_socket(&self) -> bool {
        rustix::fs::lstat(self.path.as_str())
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
    }

    fn error(&self, step: &'static str, source: Errno) -> FrontendError {
        let server = self.listener.is_some() || step == "listen";
        let hint = match source {
            Errno::NOENT if server => "; create the folder first",
            Errno::NOENT | Errno::CONNREFUSED => "; is the back-end running?",
            Errno::PERM if step == "set its permissions" => {
                "; have the switch's user be in the group, or choose another with group="
            }
            Errno::ACCESS | Errno::PERM => "; check the permissions of the socket and its folder",
            Errno::ADDRINUSE => {
                "; a live process listens there, or it is no socket: use another path"
            }
            Errno::AGAIN => "; the back-end does not accept connections",
            _ => "",
        };
        FrontendError::Endpoint { socket: self.path.clone(), step, source, hint }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener
            && listener.file.is_some()
            && identity(&self.path) == listener.file
        {
            let _ = rustix::fs::unlink(self.path.as_str());
        }
    }
}

/// Device and inode of the file at `path`.
fn identity(path: &str) -> Option<(u64, u64)> {
    let stat = rustix::fs::lstat(path).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(folder: &tempfile::TempDir, name: &str) -> String {
        folder.path().join(name).to_str().unwrap().to_owned()
    }

    #[test]
    fn a_client_finds_a_server_and_the_file_goes_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder, "sock");
        let client = Endpoint::client(&path).unwrap();
        let error = client.open().unwrap_err().to_string();
        assert!(error.contains(&path) && error.contains("is the back-end running"), "{error}");

        let server = Endpoint::server(&path, Access::default()).unwrap();
        assert!(server.open().unwrap().is_none());
        let _stream = client.open().unwrap().unwrap();
        assert!(server.open().unwrap().is_some());
        drop(server);
        assert!(!Path::new(&path).exists());
    }

    #[test]
    fn a_live_socket_is_respected_and_a_dead_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder, "sock");
        let live = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = Endpoint::server(&path, Access::default()).unwrap_err().to_string();
        assert!(error.contains("a live process"), "{error}");
        drop(live);
        assert!(Path::new(&path).exists());
        Endpoint::server(&path, Access::default()).unwrap();
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder, "file");
        std::fs::write(&path, "precious").unwrap();
        // connect(2) says ECONNREFUSED for an ordinary file too.
        let result = Endpoint::server(&path, Access::default());
        assert!(result.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn paths_that_cannot_be_are_refused() {
        for path in [String::new(), "x".repeat(108), "a\0b".to_owned()] {
            let error = Endpoint::client(&path).unwrap_err().to_string();
            assert!(error.contains("expected 1 to 107"), "{error}");
        }
    }
}
