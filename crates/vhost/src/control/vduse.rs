//! One VDUSE device on the control thread: the requests of the kernel, and the deadlines and
//! kicks that its session waits for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use eal::Epoll;
use eal::event::Interest;

use super::limit::LogLimit;
use super::member::Member;
use super::watch::{Source, Watcher};
use crate::session::Device;
use crate::vduse::session::{FIRST_TOKEN, Session, VduseError};
use crate::vduse::{Kernel, Offer};

/// Requests of one device before it is the others' turn.
const BURST: usize = 16;

/// A VDUSE device with its backend.
#[derive(Debug)]
pub(super) struct VduseMember {
    path: PathBuf,
    epoll: Arc<Epoll>,
    device: Device,
    session: Session,
    /// The kernel has given it up.
    lost: bool,
    log: LogLimit,
}

impl VduseMember {
    pub(super) fn new(
        id: u32,
        path: PathBuf,
        epoll: Arc<Epoll>,
        kernel: Box<dyn Kernel>,
        offer: Offer,
        mut device: Device,
        now: Instant,
    ) -> io::Result<Self> {
        let watcher = Watcher::new(Arc::clone(&epoll), id);
        device.backend.attached(watcher.clone());
        let session = Session::open(kernel, &offer, watcher, &mut device, now);
        let mut session = session.map_err(io::Error::other)?;
        let token = Source::Connection(id).token();
        if let Err(error) = epoll.add(session.kernel(), token, Interest::READ) {
            session.close(&mut device);
            return Err(error);
        }
        Ok(Self { path, epoll, device, session, lost: false, log: LogLimit::default() })
    }

    /// Says what went wrong; a device that the kernel has given up is not listened to any longer.
    fn complain(&mut self, error: &VduseError) {
        let device = self.path.display();
        if error.is_fatal() && !self.lost {
            self.lost = true;
            tracing::error!(%device, %error, "a VDUSE device is lost");
            // Otherwise it would be readable for ever.
            let _ = self.epoll.remove(self.session.kernel());
            self.session.close(&mut self.device);
        } else if let Some(suppressed) = self.log.admit_line() {
            tracing::warn!(%device, %error, suppressed, "a VDUSE device");
        }
    }

    fn serve(&mut self, now: Instant) -> Result<(), VduseError> {
        for _ in 0..BURST {
            let failed = |call| move |source| VduseError::Kernel { call, source };
            let received = self.session.kernel().receive();
            let Some(request) = received.map_err(failed("reading a request"))? else { break };
            let (answer, error) = self.session.handle(&mut self.device, request, now);
            let answered = self.session.kernel().answer(&answer);
            if let Some(error) = error {
                self.complain(&error);
            }
            answered.map_err(failed("answering a request"))?;
        }
        Ok(())
    }
}

impl Member for VduseMember {
    fn path(&self) -> &Path {
        &self.path
    }

    fn deadline(&self) -> Option<Instant> {
        self.session.deadline()
    }

    fn on_deadline(&mut self, now: Instant) {
        if let Err(error) = self.session.on_deadline(&mut self.device, now) {
            self.complain(&error);
        }
    }

    fn on_listener(&mut self, _now: Instant) {}

    fn on_connection(&mut self, now: Instant) {
        // A device that the kernel has given up has an error pending and nothing to read.
        let alive = self.session.check_alive();
        if let Err(error) = alive.and_then(|()| self.serve(now)) {
            self.complain(&error);
        }
    }

    fn on_watch(&mut self, token: u16, _now: Instant) {
        if token < FIRST_TOKEN {
            self.device.backend.kicked(token);
        } else if let Err(error) = self.session.kicked(&mut self.device, token) {
            self.complain(&error);
        }
    }

    fn close(&mut self, _now: Instant) {
        let _ = self.epoll.remove(self.session.kernel());
        self.session.close(&mut self.device);
    }
}
