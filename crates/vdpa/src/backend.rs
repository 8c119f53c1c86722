//! A vDPA device as the back-end of a vhost-user session: each message goes to the
//! [`Attachment`], which the application looks at, too.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use eal::PeerEvent;
use vhost::backend::{Backend, BackendError};
use vhost::control::{Watch, Watcher};
use vhost::protocol::BackendMessage;
use vhost::{Call, ProtocolFeatures, RingSetup};
use virtio::{DirtyLog, GuestMemory};

use crate::attachment::Attachment;

/// How long somebody sleeps who must not wait for a device for long.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// An attachment that the control thread changes and the application reads. Whoever holds it
/// waits for nobody but the device.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<Attachment>>);

impl Shared {
    pub(crate) fn new(attachment: Attachment) -> Self {
        Self(Arc::new(Mutex::new(attachment)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Attachment> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for those who must not wait for the device: `None` when it has not answered
    /// within `limit`.
    pub(crate) fn lock_within(&self, limit: Duration) -> Option<MutexGuard<'_, Attachment>> {
        let begin = Instant::now();
        loop {
            match self.0.try_lock() {
                Ok(attachment) => return Some(attachment),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if begin.elapsed() >= limit => return None,
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_AGAIN),
            }
        }
    }
}

/// The control thread's side of an attachment.
#[derive(Debug)]
pub(crate) struct VdpaBackend {
    shared: Shared,
    /// The device's file for changes of its configuration.
    watch: Option<Watch>,
}

impl VdpaBackend {
    pub(crate) const fn new(shared: Shared) -> Self {
        Self { shared, watch: None }
    }

    fn lock(&self) -> MutexGuard<'_, Attachment> {
        self.shared.lock()
    }
}

impl Backend for VdpaBackend {
    fn attached(&mut self, watcher: Watcher) {
        let attachment = self.shared.lock();
        let Some(file) = attachment.device().config_changed() else { return };
        match watcher.watch(file, 0) {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => {
                let device = attachment.device().name();
                tracing::warn!(device, %error, "changes of the configuration go unnoticed");
            }
        }
    }

    fn features(&self) -> u64 {
        self.lock().offered()
    }

    fn protocol_features(&self) -> ProtocolFeatures {
        let log = match self.lock().device().can_log() {
            true => ProtocolFeatures::LOG_SHMFD,
            false => ProtocolFeatures::empty(),
        };
        log | ProtocolFeatures::MQ
            | ProtocolFeatures::REPLY_ACK
            | ProtocolFeatures::RESET_DEVICE
            | ProtocolFeatures::CONFIGURE_MEM_SLOTS
            | ProtocolFeatures::STATUS
            | ProtocolFeatures::RARP
            | ProtocolFeatures::CONFIG
            | ProtocolFeatures::BACKEND_REQ
            | ProtocolFeatures::BACKEND_SEND_FD
            | ProtocolFeatures::HOST_NOTIFIER
    }

    fn queue_pairs(&self) -> u16 {
        self.lock().device().queue_pairs()
    }

    fn ring_count(&self) -> u16 {
        self.queue_pairs().saturating_mul(2)
    }

    fn connected(&mut self) {
        self.lock().connect();
    }

    fn disconnected(&mut self) {
        self.lock().disconnect();
    }

    fn set_protocol_features(&mut self, features: ProtocolFeatures) {
        self.lock().set_protocol(features);
    }

    fn set_features(&mut self, features: u64) -> Result<(), BackendError> {
        self.lock().set_features(features);
        Ok(())
    }

    fn set_memory(&mut self, memory: Arc<GuestMemory>) -> Result<(), BackendError> {
        Ok(self.lock().set_memory(memory)?)
    }

    fn start_ring(&mut self, index: u16, setup: RingSetup) -> Result<(), BackendError> {
        Ok(self.lock().start_ring(index, setup)?)
    }

    fn stop_ring(&mut self, index: u16) -> u32 {
        self.lock().stop_ring(index)
    }

    fn set_ring_enabled(&mut self, index: u16, enabled: bool) -> Result<(), BackendError> {
        Ok(self.lock().set_ring_enabled(index, enabled)?)
    }

    fn set_ring_kick(&mut self, index: u16, kick: Option<PeerEvent>) {
        self.lock().set_ring_kick(index, kick);
    }

    fn set_ring_call(&mut self, index: u16, call: Option<Call>) {
        self.lock().set_ring_call(index, call);
    }

    fn set_ring_err(&mut self, index: u16, err: Option<Call>) {
        self.lock().set_ring_err(index, err);
    }

    fn set_log(&mut self, log: Option<Arc<DirtyLog>>) {
        self.lock().set_log(log);
    }

    fn set_status(&mut self, status: u8) -> Result<(), BackendError> {
        Ok(self.lock().set_status(status)?)
    }

    fn status(&self) -> u8 {
        self.lock().status()
    }

    fn reset_device(&mut self) {
        self.lock().reset();
    }

    fn read_config(&self, offset: u32, bytes: &mut [u8]) -> Result<(), BackendError> {
        Ok(self.lock().device().read_config(offset, bytes)?)
    }

    fn write_config(
        &mut self,
        offset: u32,
        bytes: &[u8],
        _migration: bool,
    ) -> Result<(), BackendError> {
        Ok(self.lock().device_mut().write_config(offset, bytes)?)
    }

    fn announce_guest(&mut self, _mac: [u8; 6]) {
        self.lock().device_mut().migration_done();
    }

    fn next_message(&mut self) -> Option<BackendMessage<OwnedFd>> {
        self.lock().next_message()
    }

    fn notifier_answered(&mut self, index: u8, used: bool) {
        self.lock().outbox.answered(index, used);
    }

    fn kicked(&mut self, _token: u16) {
        self.lock().notice_config();
    }
}
