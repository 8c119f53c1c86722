//! The program on an interface.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::bpf::{self, Hook};
use super::options::Mode;
use super::socket::patiently;
use crate::kernel::interface::{Interface, NotOpened};

/// The program on an interface, for as long as this is open.
#[derive(Debug)]
pub(super) struct Attached {
    /// Never read, but detached when closed.
    _link: OwnedFd,
    pub(super) map: OwnedFd,
    pub(super) hook: Hook,
}

/// Makes a map for the sockets of `queues` queues and loads a program that uses it; the error is
/// the reason.
pub(super) fn load(queues: u32) -> Result<(OwnedFd, OwnedFd), String> {
    let map = bpf::socket_map(queues).map_err(|cause| match cause.raw_os_error() {
        Some(libc::EPERM) => "no permission to load an XDP program; run as root, or with \
                              CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW"
            .to_owned(),
        _ => format!("cannot make a map of sockets: {cause}"),
    })?;
    let program = bpf::load(map.as_fd()).map_err(|cause| match cause.raw_os_error() {
        Some(libc::EPERM) => "no permission to load an XDP program; run as root, or with \
                              CAP_BPF and CAP_NET_ADMIN"
            .to_owned(),
        _ => format!("cannot load the XDP program: {cause}"),
    })?;
    Ok((map, program))
}

/// Puts the program on the interface, natively where that works, if the mode leaves it open.
pub(super) fn attach(
    interface: &Interface<'_>,
    mode: Mode,
    queues: u32,
    patience: Duration,
) -> Result<Attached, NotOpened> {
    let (map, program) = load(queues)?;
    let put = |hook| {
        // A process that was killed may not be all gone yet. Its program at the other hook is one that
        // exists, and not one that makes this one busy.
        let attempt = || {
            bpf::attach(program.as_fd(), interface.index, hook)
                .map_err(|cause| cause.raw_os_error().unwrap_or(libc::EIO))
        };
        patiently(patience, |cause| is_occupied(*cause), attempt)
    };
    let (link, hook) = match (mode, put(first_hook(mode))) {
        (_, Ok(link)) => (link, first_hook(mode)),
        (Mode::Auto, Err(cause)) if !is_occupied(cause) && cause != libc::ENODEV => {
            let (name, why) = (&interface.name, errno_text(cause));
            tracing::warn!(
                "the driver of interface '{name}' takes no XDP program ({why}); an AF_XDP port \
                 uses the slower generic mode"
            );
            let link = put(Hook::Generic).map_err(|cause| refused(interface, cause))?;
            (link, Hook::Generic)
        }
        (_, Err(cause)) => return Err(refused(interface, cause)),
    };
    Ok(Attached { _link: link, map, hook })
}

const fn first_hook(mode: Mode) -> Hook {
    match mode {
        Mode::Generic => Hook::Generic,
        _ => Hook::Native,
    }
}

/// Whether an error says that there is another program.
const fn is_occupied(errno: i32) -> bool {
    matches!(errno, libc::EBUSY | libc::EEXIST)
}

fn errno_text(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// Why the program cannot be put on the interface.
fn refused(interface: &Interface<'_>, errno: i32) -> NotOpened {
    let name = &interface.name;
    let cause = errno_text(errno);
    NotOpened::Refused(match errno {
        libc::ENODEV => return NotOpened::Gone,
        libc::EBUSY | libc::EEXIST => format!(
            "it has an XDP program already: end the process that uses it, or run as root: \
             ip link set dev {name} xdp off (ip link show dev {name} shows the program)"
        ),
        libc::EPERM => format!("no permission to put an XDP program on it; {RIGHTS}"),
        libc::ERANGE | libc::EINVAL => format!(
            "it takes no XDP program as it is set up: {cause}; a smaller MTU may help, as may \
             mode=generic"
        ),
        _ => format!("it takes no XDP program: {cause}; try mode=generic"),
    })
}

const RIGHTS: &str = "run as root, or with CAP_NET_ADMIN, CAP_BPF and CAP_NET_RAW";
