//! Makes a TAP interface, or finds one that exists, and opens its queues.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use packet::Capabilities;

use super::{Config, sys};
use crate::interfaces::Interfaces;

/// The character device that TAP interfaces are made with.
const DEVICE: &str = "/dev/net/tun";

/// The open queues of an interface.
#[derive(Debug)]
pub(super) struct Attached {
    /// A descriptor per queue.
    pub(super) fds: Vec<Arc<OwnedFd>>,
    /// What they and the kernel leave to each other.
    pub(super) offloads: Capabilities,
    /// The interface exists without us.
    pub(super) is_persistent: bool,
}

impl Attached {
    /// Opens all queues of the interface; the error is the reason.
    pub(super) fn open(config: &Config, interfaces: &Interfaces) -> Result<Self, String> {
        let name = &config.interface;
        let existed = interfaces.exists(name);
        let had_carrier = existed && interfaces.has_carrier(name).unwrap_or(false);
        let mut attached =
            Self { fds: Vec::new(), offloads: Capabilities::empty(), is_persistent: false };
        for queue in 0..config.queues {
            let file = open_device()?;
            attach(&file, config, existed, queue)?;
            if queue == 0 {
                attached.is_persistent = refuse_if_in_use(&file, name, existed, had_carrier)?;
                attached.offloads =
                    sys::set_offloads(file.as_fd(), config.offloads).map_err(|cause| {
                        format!("cannot set its offloads: {cause}; try offloads=off")
                    })?;
            }
            attached.fds.push(Arc::new(OwnedFd::from(file)));
        }
        Ok(attached)
    }
}

fn open_device() -> Result<File, String> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
    options.open(DEVICE).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => {
            format!("{DEVICE} does not exist; load the kernel's 'tun' module (modprobe tun)")
        }
        io::ErrorKind::PermissionDenied => {
            format!("no permission to open {DEVICE}; give this user read and write access to it")
        }
        _ => format!("cannot open {DEVICE}: {cause}"),
    })
}

fn attach(file: &File, config: &Config, existed: bool, queue: usize) -> Result<(), String> {
    let name = &config.interface;
    let mut result = sys::attach(file.as_fd(), name, true, config.offloads);
    let invalid = |result: &io::Result<()>| {
        result.as_ref().is_err_and(|cause| cause.raw_os_error() == Some(libc::EINVAL))
    };
    if invalid(&result) && config.queues == 1 {
        // It may have been made for a single queue.
        result = sys::attach(file.as_fd(), name, false, config.offloads);
    }
    let Err(cause) = result else { return Ok(()) };
    let create = format!("ip tuntap add dev {name} mode tap multi_queue user USER");
    Err(match cause.raw_os_error() {
        Some(libc::EPERM) if existed => format!(
            "it belongs to another user; run with CAP_NET_ADMIN, or make it anew for this user: \
             {create}"
        ),
        Some(libc::EPERM) => format!(
            "making it needs CAP_NET_ADMIN; run as root, or let root make it once for this user: \
             {create}"
        ),
        Some(libc::EBUSY) => "it is in use by another process".to_owned(),
        Some(libc::EINVAL) if existed && config.queues > 1 => format!(
            "it exists and is no TAP interface with several queues; delete it, or make it with: \
             {create}"
        ),
        Some(libc::EINVAL) if existed => {
            "an interface of this name exists and is no TAP interface; choose another name"
                .to_owned()
        }
        _ => format!("cannot open queue {queue}: {cause}"),
    })
}

/// Several processes may open one interface with several queues, and then each gets some of
/// the frames, which nobody wants: refuses that. An interface that existed before us is in use
/// if it does not outlive its last user (so it has one), or if it has a carrier. Returns whether
/// it outlives its users.
fn refuse_if_in_use(
    file: &File,
    name: &str,
    existed: bool,
    had_carrier: bool,
) -> Result<bool, String> {
    let (_, persistent) = sys::attached_to(file.as_fd())
        .map_err(|cause| format!("cannot ask the kernel about {name}: {cause}"))?;
    if existed && (!persistent || had_carrier) {
        return Err("it is in use by another process; choose another name".to_owned());
    }
    Ok(persistent)
}
