//! A device on a vhost-user socket.

use std::path::Path;
use std::time::Duration;

use eal::time::Time;
use vhost::ControlThread;
use vhost::control::{ControlError, ControlHandle, SocketHandle, SocketOptions};

use crate::attachment::Attachment;
use crate::backend::{Shared, VdpaBackend};
use crate::device::{Statistic, VdpaDevice};

/// How long [`Attached::status`] waits for a device that is being asked for something.
const PATIENCE: Duration = Duration::from_millis(100);

/// What can be chosen about the socket of a device.
#[derive(Debug, Default)]
pub struct AttachOptions {
    /// Connects to the socket instead of listening there, and again when the connection is lost.
    pub client: bool,
    /// Permissions of a listening socket, and who hears of its events.
    pub socket: SocketOptions,
    /// The clock by which it connects again.
    pub time: Time,
}

/// What a device on a socket is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No front-end is there.
    Waiting,
    /// A front-end is there, and has not started the rings or not all of the first pair.
    Connected,
    /// The device serves the guest's rings.
    Running,
    /// It does not, though it should: the reason.
    Failed(String),
    /// It was asked for something and has not answered yet, so that nothing else is known.
    Busy,
}

/// A device that is attached to a socket, and what it was at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is at.
    pub state: State,
    /// Indexes of the rings that the device serves.
    pub rings: Vec<u16>,
    /// Indexes of the rings whose doorbell the guest writes itself, as far as the front-end tells.
    /// Kicks of others are relayed.
    pub mapped_doorbells: Vec<u16>,
    /// The virtio feature bits that the present front-end has accepted; 0 before it has.
    pub features: u64,
    /// What the device has counted.
    pub statistics: Vec<Statistic>,
}

/// A device that is attached to a socket. Dropping this detaches it: then the device is stopped
/// and closed, the front-end is disconnected and the socket's file is gone. That waits for the
/// device, which may take as long as its kernel driver lets it.
#[derive(Debug)]
pub struct Attached {
    /// First, so that it goes first: the rings are stopped then.
    socket: SocketHandle,
    #[expect(dead_code, reason = "its thread ends with it")]
    control: ControlHandle,
    shared: Shared,
    queue_pairs: u16,
    offered: u64,
}

/// Attaches `device` to the socket at `path`: front-ends, one at a time, get it as their device,
/// with the features that both it and this library have.
///
/// The device gets a thread of its own: one that does not answer, such as a program behind VDUSE
/// that hangs, holds up nobody but its own front-end.
///
/// # Errors
/// When the path cannot be used, or there can be no more threads. The device is closed then.
pub fn attach(
    path: impl AsRef<Path>,
    options: AttachOptions,
    device: Box<dyn VdpaDevice>,
) -> Result<Attached, ControlError> {
    let control = ControlThread::start_with(options.time)?;
    let attachment = Attachment::new(device);
    let (queue_pairs, offered) = (attachment.device().queue_pairs(), attachment.offered());
    let shared = Shared::new(attachment);
    let backend = Box::new(VdpaBackend::new(shared.clone()));
    let socket = if options.client {
        control.add_client(path, options.socket, backend)?
    } else {
        control.add_server(path, options.socket, backend)?
    };
    Ok(Attached { socket, control, shared, queue_pairs, offered })
}

impl Attached {
    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.socket.path()
    }

    /// Number of queue pairs of the device.
    #[must_use]
    pub const fn queue_pairs(&self) -> u16 {
        self.queue_pairs
    }

    /// The virtio feature bits that front-ends are offered.
    #[must_use]
    pub const fn offered_features(&self) -> u64 {
        self.offered
    }

    /// What it is at. Waits a tenth of a second at most for a device that is being asked for
    /// something.
    #[must_use]
    pub fn status(&self) -> Status {
        let Some(attachment) = self.shared.lock_within(PATIENCE) else {
            return Status {
                state: State::Busy,
                rings: Vec::new(),
                mapped_doorbells: Vec::new(),
                features: 0,
                statistics: Vec::new(),
            };
        };
        Status {
            state: state(&attachment),
            rings: attachment.served(),
            mapped_doorbells: attachment.outbox.used(),
            features: attachment.negotiated(),
            statistics: attachment.device().statistics(),
        }
    }
}

fn state(attachment: &Attachment) -> State {
    let serves = !attachment.served().is_empty();
    match attachment.failure() {
        Some(reason) => State::Failed(reason.to_owned()),
        None if serves && !attachment.device().is_running() => {
            State::Failed("the device has stopped by itself".into())
        }
        None if serves => State::Running,
        None if attachment.is_connected() => State::Connected,
        None => State::Waiting,
    }
}
