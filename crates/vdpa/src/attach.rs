//! A device on a vhost-user socket.

use std::path::Path;

use vhost::control::{ControlError, ControlHandle, SocketHandle, SocketOptions};

use crate::attachment::Attachment;
use crate::backend::{Shared, VdpaBackend};
use crate::device::{Statistic, VdpaDevice};

/// What can be chosen about the socket of a device.
#[derive(Debug, Default)]
pub struct AttachOptions {
    /// Connects to the socket instead of listening there, and again when the connection is lost.
    pub client: bool,
    /// Permissions of a listening socket, and who hears of its events.
    pub socket: SocketOptions,
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
}

/// A device that is attached to a socket. Dropping this detaches it.
#[derive(Debug)]
pub struct Attached {
    /// First, so that it goes first: the rings are stopped then.
    socket: SocketHandle,
    shared: Shared,
}

/// Attaches `device` to the socket at `path`: front-ends, one at a time, get it as their device,
/// with the features that both it and this library have.
///
/// # Errors
/// When the path cannot be used, or the control thread has ended. The device is closed then.
pub fn attach(
    control: &ControlHandle,
    path: impl AsRef<Path>,
    options: AttachOptions,
    device: Box<dyn VdpaDevice>,
) -> Result<Attached, ControlError> {
    let shared = Shared::new(Attachment::new(device));
    let backend = Box::new(VdpaBackend::new(shared.clone()));
    let socket = if options.client {
        control.add_client(path, options.socket, backend)?
    } else {
        control.add_server(path, options.socket, backend)?
    };
    Ok(Attached { socket, shared })
}

impl Attached {
    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.socket.path()
    }

    /// The device's name.
    #[must_use]
    pub fn device(&self) -> String {
        self.shared.lock().device().name().to_owned()
    }

    /// Number of queue pairs of the device.
    #[must_use]
    pub fn queue_pairs(&self) -> u16 {
        self.shared.lock().device().queue_pairs()
    }

    /// The virtio feature bits that front-ends are offered.
    #[must_use]
    pub fn offered_features(&self) -> u64 {
        self.shared.lock().offered()
    }

    /// The virtio feature bits that the present front-end has accepted; 0 before it has.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.shared.lock().negotiated()
    }

    /// What it is at.
    #[must_use]
    pub fn state(&self) -> State {
        let attachment = self.shared.lock();
        match attachment.failure() {
            Some(reason) => State::Failed(reason.to_owned()),
            None if !attachment.served().is_empty() && !attachment.device().is_running() => {
                State::Failed("the device has stopped by itself".into())
            }
            None if !attachment.served().is_empty() => State::Running,
            None if attachment.is_connected() => State::Connected,
            None => State::Waiting,
        }
    }

    /// Indexes of the rings that the device serves now.
    #[must_use]
    pub fn rings(&self) -> Vec<u16> {
        self.shared.lock().served()
    }

    /// Indexes of the rings whose doorbell the guest writes itself, as far as the front-end tells.
    /// Kicks of others are relayed.
    #[must_use]
    pub fn mapped_doorbells(&self) -> Vec<u16> {
        self.shared.lock().outbox.used()
    }

    /// What the device has counted.
    #[must_use]
    pub fn statistics(&self) -> Vec<Statistic> {
        self.shared.lock().device().statistics()
    }

    /// Sets the device's counters to zero.
    pub fn reset_statistics(&self) {
        self.shared.lock().device_mut().reset_statistics();
    }

    /// Takes the device from the socket. When this returns, the device is stopped and closed, the
    /// front-end is disconnected and the socket's file is gone.
    pub fn detach(self) {
        drop(self);
    }
}
