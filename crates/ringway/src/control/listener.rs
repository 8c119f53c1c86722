//! The control socket: where it listens, and what to do where it cannot.

use std::path::Path;

use eal::Access;
use eal::unix::{Listener, SocketError};

use crate::exit::Failure;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Makes the socket at `path` for those whom `access` lets in, in place of one that a dead process
/// left there.
pub fn listen(path: &Path, access: Access) -> Result<Listener, Failure> {
    Listener::bind(path, access, BACKLOG).map_err(|error| match error {
        SocketError::TooLong { .. } | SocketError::Invalid { .. } => {
            Failure::usage(format!("control {error} (--control)"))
        }
        SocketError::Group { .. } => Failure::runtime(format!("control {error} (--control-group)")),
        SocketError::Taken { .. } => {
            Failure::runtime(format!("control {error} (--control); it is probably another switch"))
        }
        SocketError::NoSocket { .. } => {
            Failure::runtime(format!("control socket: {error} (--control)"))
        }
        _ => Failure::runtime(format!("control {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(path: &Path) -> Failure {
        listen(path, Access::default()).unwrap_err()
    }

    #[test]
    fn what_to_do_is_told_with_the_option_that_does_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let _first = listen(&path, Access::default()).unwrap();
        let error = failure(&path).to_string();
        assert!(error.starts_with("control socket '") && error.contains("(--control)"), "{error}");
        assert!(error.contains("taken by a live process"), "{error}");
        assert!(error.ends_with("probably another switch"), "{error}");
        let file = dir.path().join("precious");
        std::fs::write(&file, "data").unwrap();
        let error = failure(&file);
        assert!(matches!(error, Failure::Runtime(_)));
        assert!(error.to_string().contains("is no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_wrong_usage() {
        let error = failure(&Path::new("/tmp").join("x".repeat(200)));
        assert!(matches!(error, Failure::Usage(_)));
        assert!(error.to_string().starts_with("control socket '/tmp/xxx"), "{error}");
        assert!(error.to_string().contains("205 bytes"), "{error}");
    }
}
