//! A vDPA device as the back-end of a vhost-user session: each message goes to the
//! [`Attachment`], which the application looks at, too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use eal::EventFd;
use vhost::backend::{Backend, BackendError};
use vhost::{Call, ProtocolFeatures, RingSetup};
use virtio::GuestMemory;

use crate::attachment::Attachment;

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
}

impl Backend for Shared {
    fn features(&self) -> u64 {
        self.lock().offered()
    }

    fn protocol_features(&self) -> ProtocolFeatures {
        ProtocolFeatures::MQ
            | ProtocolFeatures::REPLY_ACK
            | ProtocolFeatures::RESET_DEVICE
            | ProtocolFeatures::CONFIGURE_MEM_SLOTS
            | ProtocolFeatures::STATUS
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

    fn set_ring_kick(&mut self, index: u16, kick: Option<EventFd>) {
        self.lock().set_ring_kick(index, kick);
    }

    fn set_ring_call(&mut self, index: u16, call: Option<Call>) {
        self.lock().set_ring_call(index, call);
    }

    fn set_ring_err(&mut self, index: u16, err: Option<EventFd>) {
        self.lock().set_ring_err(index, err);
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
}
