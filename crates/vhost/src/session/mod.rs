//! The state machine of one connection: what each message of the front-end means, and what
//! answer it gets (QEMU docs/interop/vhost-user.rst; where DPDK differs, the specification).
//!
//! - `device_state`: moving the state of the device to another back-end
//! - [`error`]: why a message is refused
//! - `extras`: configuration space, announcements, the channel of the back-end
//! - `grace`: rings that run before it is known whether they are enabled
//! - `inband`: notifications as messages
//! - `inflight`: the region in which chains in flight are recorded
//! - `iotlb`: translations for devices behind an IOMMU
//! - `log`: the log of written pages
//! - `memory`: the memory table
//! - `postcopy`: memory of which pages are still missing
//! - `ring`: what is known about one ring
//! - `rings`: the messages about rings

mod device_state;
pub mod error;
mod extras;
mod grace;
mod inband;
mod inflight;
mod iotlb;
mod log;
mod memory;
mod postcopy;
mod ring;
mod rings;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use eal::PeerFd;
use eal::time::Time;
use virtio::Features;

pub use error::SessionError;
pub use memory::{MAX_MEMORY, MAX_SLOTS};

use self::device_state::Transfer;
use self::inflight::InflightState;
use self::log::{LOG_ALL, LogState};
use self::memory::MemoryTable;
use self::postcopy::Postcopy;
use self::ring::RingState;
use crate::backend::{Backend, Event, EventSink};
use crate::connection::Message;
use crate::inband::Notifications;
use crate::protocol::{
    ConfigSpace, FrontendMessage, FrontendRequest, InflightRegion, LogBase, MemoryRegion,
    ProtocolError, ProtocolFeatures, StateTransfer, VringState,
};

/// The bit that says that protocol features can be negotiated.
const PROTOCOL_FEATURES: u64 = Features::VHOST_USER_PROTOCOL.bits();

/// The protocol features that a session implements.
pub const IMPLEMENTED: ProtocolFeatures = ProtocolFeatures::MQ
    .union(extras::IMPLEMENTED)
    .union(ProtocolFeatures::LOG_SHMFD)
    .union(ProtocolFeatures::INFLIGHT_SHMFD)
    .union(ProtocolFeatures::REPLY_ACK)
    .union(ProtocolFeatures::MTU)
    .union(ProtocolFeatures::RESET_DEVICE)
    .union(ProtocolFeatures::CONFIGURE_MEM_SLOTS)
    .union(ProtocolFeatures::STATUS)
    .union(ProtocolFeatures::DEVICE_STATE);

/// Those of them that few devices offer, since they exclude another or cost more than they bring.
pub const OPTIONAL: ProtocolFeatures =
    ProtocolFeatures::PAGEFAULT.union(ProtocolFeatures::INBAND_NOTIFICATIONS);

/// Smallest MTU that IPv4 allows, in bytes (RFC 791).
const MIN_MTU: u64 = 68;

/// The bit of the device status byte by which the driver says that it is ready.
const DRIVER_OK: u8 = 4;

/// A reply's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A number.
    U64(u64),
    /// A ring and a number.
    VringState(VringState),
    /// A part of configuration space.
    Config(Box<ConfigSpace>),
    /// None, which says that the part of configuration space cannot be read.
    Empty,
    /// A log.
    LogBase(LogBase),
    /// A region for records of chains in flight.
    Inflight(InflightRegion),
    /// The file over which the front-end serves page faults, which is [attached](Answer::attached).
    Userfault,
    /// The memory table, with this process's addresses of the regions.
    MemTable(Vec<MemoryRegion>),
}

/// What comes of a message that does not end the connection.
#[derive(Debug, Default)]
pub struct Answer {
    /// The reply to be sent.
    pub reply: Option<Reply>,
    /// A descriptor that goes with the reply.
    pub attached: Option<OwnedFd>,
    /// Why the message was refused, if it was and the reply says so.
    pub refused: Option<SessionError>,
    /// The front-end's new channel for messages of the back-end, which replaces the old one: a
    /// Unix stream socket.
    pub channel: Option<PeerFd>,
}

/// A device and the application that wants to hear of it.
pub struct Device {
    /// The device.
    pub backend: Box<dyn Backend>,
    /// Where its events go.
    pub events: EventSink,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").finish_non_exhaustive()
    }
}

/// One connection's state. Hand it every message, and [`close`](Self::close) it in the end.
#[derive(Debug)]
pub struct Session {
    /// What SET_FEATURES said, if it came.
    features: Option<u64>,
    /// Features were accepted once, which a reset does not change.
    was_in_use: bool,
    protocol_features: ProtocolFeatures,
    memory: MemoryTable,
    log: LogState,
    inflight: InflightState,
    postcopy: Postcopy,
    /// The state of the device on its way.
    transfer: Option<Transfer>,
    /// Where notifications are messages.
    notifications: Option<Arc<Notifications>>,
    rings: Vec<RingState>,
    /// When rings have waited long enough to hear whether they are enabled.
    grace: Option<Instant>,
    /// By which they wait.
    time: Time,
    ready: bool,
    /// A channel that the message at hand has brought.
    channel: Option<PeerFd>,
    /// A descriptor to go with the reply to the message at hand.
    attached: Option<OwnedFd>,
}

impl Session {
    /// The session of a front-end that has just connected.
    #[must_use]
    pub fn open(device: &mut Device) -> Self {
        let rings = usize::from(device.backend.ring_count());
        device.backend.connected();
        (device.events)(Event::Connected);
        Self {
            features: None,
            was_in_use: false,
            protocol_features: ProtocolFeatures::empty(),
            memory: MemoryTable::default(),
            log: LogState::default(),
            inflight: InflightState::default(),
            postcopy: Postcopy::default(),
            transfer: None,
            notifications: None,
            rings: std::iter::repeat_with(RingState::default).take(rings).collect(),
            grace: None,
            time: Time::system(),
            ready: false,
            channel: None,
            attached: None,
        }
    }

    /// The same with a clock of its own, by which it [waits](Self::deadline).
    #[must_use]
    pub fn with_time(self, time: Time) -> Self {
        Self { time, ..self }
    }

    /// The protocol features that are negotiated.
    #[must_use]
    pub const fn protocol_features(&self) -> ProtocolFeatures {
        self.protocol_features
    }

    /// Whether the front-end has ever accepted features, also where it has reset the device since.
    #[must_use]
    pub const fn was_in_use(&self) -> bool {
        self.was_in_use
    }

    /// Stops everything: the front-end has gone.
    pub fn close(mut self, device: &mut Device) {
        self.stop_all(device);
        self.close_log(device);
        self.tell_readiness(device);
        device.backend.disconnected();
        (device.events)(Event::Gone);
    }

    /// Does what `message` asks for.
    ///
    /// # Errors
    /// When it is refused and there is no way to tell the front-end so, because it did not ask
    /// for an acknowledgement, or waits for a reply that there is none for: then the connection
    /// is to be closed.
    pub fn handle(
        &mut self,
        device: &mut Device,
        message: Message<'_>,
    ) -> Result<Answer, SessionError> {
        let Message { header, payload, fds } = message;
        let request = FrontendRequest::try_from(header.request);
        let done = if header.is_reply() {
            let request = request.map_or("unknown request", FrontendRequest::name);
            Err(ProtocolError::Direction { request, flags: header.flags }.into())
        } else {
            FrontendMessage::decode(header.request, payload, fds)
                .map_err(SessionError::from)
                .and_then(|message| self.dispatch(device, message, header.needs_reply()))
        };
        self.tell_readiness(device);
        let owed = self.postcopy.take_owed_acknowledgement();
        let wanted = header.needs_reply() || owed;
        let acknowledge = wanted && self.protocol_features.contains(ProtocolFeatures::REPLY_ACK);
        let (channel, attached) = (self.channel.take(), self.attached.take());
        let answer = |reply, refused| Ok(Answer { reply, attached, refused, channel });
        match done {
            Ok(None) if acknowledge => answer(Some(Reply::U64(0)), None),
            Ok(reply) => answer(reply, None),
            Err(error) => {
                let refusal = request.ok().filter(|_| !header.is_reply());
                if let Some(refusal) = refusal.and_then(|request| self.refusal(request)) {
                    return answer(Some(refusal), Some(error));
                }
                // An acknowledgement would be taken for the reply that these always get.
                let has_reply = request.is_ok_and(FrontendRequest::has_reply);
                if !acknowledge || has_reply || header.is_reply() {
                    return Err(error);
                }
                answer(Some(Reply::U64(1)), Some(error))
            }
        }
    }

    /// The reply by which `request` is refused, where its reply has a way to say no.
    fn refusal(&self, request: FrontendRequest) -> Option<Reply> {
        let no_state = StateTransfer::NO_FILE | 1;
        let (needed, reply) = match request {
            FrontendRequest::GetConfig => (ProtocolFeatures::CONFIG, Reply::Empty),
            FrontendRequest::PostcopyAdvise => (ProtocolFeatures::PAGEFAULT, Reply::Empty),
            FrontendRequest::SetDeviceStateFd => {
                (ProtocolFeatures::DEVICE_STATE, Reply::U64(no_state))
            }
            FrontendRequest::CheckDeviceState => (ProtocolFeatures::DEVICE_STATE, Reply::U64(1)),
            _ => return None,
        };
        self.protocol_features.contains(needed).then_some(reply)
    }

    fn dispatch(
        &mut self,
        device: &mut Device,
        message: FrontendMessage<PeerFd>,
        needs_reply: bool,
    ) -> Result<Option<Reply>, SessionError> {
        use FrontendMessage as M;
        let request = message.request();
        self.check_negotiated(request)?;
        self.postcopy.check_turn(&message)?;
        let reply = |value: u64| Ok(Some(Reply::U64(value)));
        match message {
            M::GetFeatures => return reply(device.backend.features()),
            M::GetProtocolFeatures => return reply(offered(device).bits()),
            M::GetQueueNum => return reply(device.backend.queue_pairs().into()),
            M::GetMaxMemSlots => return reply(u64::try_from(MAX_SLOTS).unwrap_or(u64::MAX)),
            M::GetStatus => return reply(device.backend.status().into()),
            M::GetVringBase(state) => return self.get_base(device, state).map(Some),
            M::GetInflightFd(region) => return self.get_inflight(region).map(Some),
            M::GetConfig(part) => return extras::get_config(device, part).map(Some),
            M::SetFeatures(features) => self.set_features(device, features),
            M::SetProtocolFeatures(features) => self.set_protocol_features(device, features),
            // A session has one front-end, so there is no ownership to take. RESET_OWNER is
            // deprecated and ignored, as the specification recommends: front-ends of the time
            // when it meant something sent it where they wanted to stop rings.
            M::SetOwner | M::ResetOwner => Ok(()),
            M::SetLogBase(base, fd) => return self.set_log_base(device, base, &fd).map(Some),
            M::SetLogFd(fd) => self.set_log_fd(device, fd),
            M::SetMemTable(regions) if self.postcopy.is_under_way() => {
                return self.set_missing_memory(device, &regions, needs_reply);
            }
            M::SetMemTable(regions) => {
                let kinds = device.backend.memory_kinds();
                let table = MemoryTable::of(request.name(), &regions, kinds)?;
                self.set_memory(device, request, table)
            }
            M::AddMemReg(region, fd) => {
                let kinds = device.backend.memory_kinds();
                let table = self.memory.with(request.name(), &region, &fd, kinds)?;
                self.set_memory(device, request, table)
            }
            M::RemMemReg(region) => {
                let table = self.memory.without(&region)?;
                self.set_memory(device, request, table)
            }
            M::SetVringNum(state) => self.set_size(state),
            M::SetVringAddr(addr) => self.set_addr(device, &addr),
            M::SetVringBase(state) => self.set_base(state),
            M::SetVringKick(file) => self.set_kick(device, file),
            M::VringKick(state) => self.kick(device, state),
            M::SetVringCall(file) => self.set_call(device, file),
            M::SetVringErr(file) => self.set_err(device, file),
            M::SetVringEnable(state) => self.set_enable(device, state),
            M::NetSetMtu(mtu) => set_mtu(device, mtu),
            M::SendRarp(mac) => {
                extras::send_rarp(device, mac);
                Ok(())
            }
            M::SetBackendReqFd(fd) => self.set_channel(fd),
            M::SetInflightFd(region, fd) => self.set_inflight(region, &fd),
            M::IotlbMsg(message) => self.iotlb(device, message),
            M::SetConfig(part) => extras::set_config(device, &part),
            M::SetStatus(status) => self.set_status(device, status),
            M::PostcopyAdvise => return self.advise(device).map(Some),
            M::PostcopyListen => self.listen(),
            M::PostcopyEnd => return self.end_postcopy(device).map(Some),
            M::SetDeviceStateFd(transfer, _) => {
                return self.begin_transfer(device, transfer).map(Some);
            }
            M::CheckDeviceState => return self.check_transfer(device).map(Some),
            M::ResetDevice => {
                self.reset(device);
                Ok(())
            }
        }?;
        Ok(None)
    }

    /// Refuses messages whose protocol feature has not been negotiated.
    fn check_negotiated(&self, request: FrontendRequest) -> Result<(), SessionError> {
        use FrontendRequest as R;
        let (needed, feature) = match request {
            R::GetQueueNum => (ProtocolFeatures::MQ, "MQ"),
            R::SetLogBase => (ProtocolFeatures::LOG_SHMFD, "LOG_SHMFD"),
            R::GetInflightFd | R::SetInflightFd => {
                (ProtocolFeatures::INFLIGHT_SHMFD, "INFLIGHT_SHMFD")
            }
            R::PostcopyAdvise | R::PostcopyListen | R::PostcopyEnd => {
                (ProtocolFeatures::PAGEFAULT, "PAGEFAULT")
            }
            R::NetSetMtu => (ProtocolFeatures::MTU, "MTU"),
            R::ResetDevice => (ProtocolFeatures::RESET_DEVICE, "RESET_DEVICE"),
            R::GetMaxMemSlots | R::AddMemReg | R::RemMemReg => {
                (ProtocolFeatures::CONFIGURE_MEM_SLOTS, "CONFIGURE_MEM_SLOTS")
            }
            R::SendRarp => (ProtocolFeatures::RARP, "RARP"),
            R::SetBackendReqFd => (ProtocolFeatures::BACKEND_REQ, "BACKEND_REQ"),
            R::GetConfig | R::SetConfig => (ProtocolFeatures::CONFIG, "CONFIG"),
            R::VringKick => (ProtocolFeatures::INBAND_NOTIFICATIONS, "INBAND_NOTIFICATIONS"),
            R::SetStatus | R::GetStatus => (ProtocolFeatures::STATUS, "STATUS"),
            R::SetDeviceStateFd | R::CheckDeviceState => {
                (ProtocolFeatures::DEVICE_STATE, "DEVICE_STATE")
            }
            _ => return Ok(()),
        };
        if self.protocol_features.contains(needed) {
            return Ok(());
        }
        Err(SessionError::NotNegotiated { request: request.name(), feature })
    }

    fn set_features(&mut self, device: &mut Device, new: u64) -> Result<(), SessionError> {
        let request = FrontendRequest::SetFeatures.name();
        let unknown = new & !device.backend.features();
        if unknown != 0 {
            return Err(SessionError::Features { request, unknown });
        }
        let old = self.features.unwrap_or(0);
        // Logging starts and ends while rings run; all else must be known when they start.
        if (new ^ old) & !LOG_ALL != 0 && self.rings.iter().any(|ring| ring.started) {
            return Err(SessionError::FeaturesInUse { old, new });
        }
        self.check_log_features(new)?;
        let set = device.backend.set_features(new & !LOG_ALL);
        set.map_err(|source| SessionError::Backend { request, source })?;
        self.was_in_use = true;
        let before = self.features.replace(new);
        self.switch_log(device, before);
        Ok(())
    }

    fn set_protocol_features(
        &mut self,
        device: &mut Device,
        features: u64,
    ) -> Result<(), SessionError> {
        let unknown = features & !offered(device).bits();
        if unknown != 0 {
            let request = FrontendRequest::SetProtocolFeatures.name();
            return Err(SessionError::Features { request, unknown });
        }
        let features = ProtocolFeatures::from_bits_truncate(features);
        self.set_inband(features)?;
        self.protocol_features = features;
        device.backend.set_protocol_features(self.protocol_features);
        Ok(())
    }

    /// Replaces the memory, unless the device refuses.
    fn set_memory(
        &mut self,
        device: &mut Device,
        request: FrontendRequest,
        table: MemoryTable,
    ) -> Result<(), SessionError> {
        self.check_log_memory(request, table.end())?;
        let request = request.name();
        let set = device.backend.set_memory(table.memory(request)?);
        set.map_err(|source| SessionError::Backend { request, source })?;
        self.memory = table;
        Ok(())
    }

    fn set_status(&mut self, device: &mut Device, status: u64) -> Result<(), SessionError> {
        let Ok(status) = u8::try_from(status) else {
            return Err(SessionError::Value {
                request: FrontendRequest::SetStatus.name(),
                what: "the device status",
                value: status,
                expected: "a byte",
            });
        };
        if status == 0 {
            self.stop_all(device);
            self.forget_inflight();
        }
        let set = device.backend.set_status(status);
        let request = FrontendRequest::SetStatus.name();
        set.map_err(|source| SessionError::Backend { request, source })
    }

    /// To the state after power-on, but for the connection, the memory and the rings' files
    /// (RESET_DEVICE).
    fn reset(&mut self, device: &mut Device) {
        self.stop_all(device);
        self.forget_inflight();
        self.rings.iter_mut().for_each(RingState::reset);
        let before = self.features.take();
        self.switch_log(device, before);
        device.backend.reset_device();
    }

    /// Tells the application when frames can be exchanged, and when no longer.
    fn tell_readiness(&mut self, device: &mut Device) {
        let always = self.features.unwrap_or(0) & PROTOCOL_FEATURES == 0;
        let run = !self.rings.is_empty()
            && self.rings.iter().take(2).all(|ring| ring.started && (ring.enable || always));
        let has_status = self.protocol_features.contains(ProtocolFeatures::STATUS);
        let ready = run && (!has_status || device.backend.status() & DRIVER_OK != 0);
        if ready != self.ready {
            self.ready = ready;
            (device.events)(if ready { Event::Ready } else { Event::Suspended });
        }
    }
}

/// The protocol features that both the device offers and a session implements. Front-ends must not
/// use post-copy together with memory that comes region by region (chapter "Protocol features"), and
/// QEMU takes both where it finds both: so it finds one.
fn offered(device: &Device) -> ProtocolFeatures {
    let offered = device.backend.protocol_features() & IMPLEMENTED.union(OPTIONAL);
    if offered.contains(ProtocolFeatures::PAGEFAULT) {
        return offered - ProtocolFeatures::CONFIGURE_MEM_SLOTS;
    }
    offered
}

fn set_mtu(device: &mut Device, mtu: u64) -> Result<(), SessionError> {
    match u16::try_from(mtu) {
        Ok(valid) if mtu >= MIN_MTU => {
            device.backend.set_mtu(valid);
            Ok(())
        }
        _ => Err(SessionError::Value {
            request: FrontendRequest::NetSetMtu.name(),
            what: "the MTU",
            value: mtu,
            expected: "68 to 65535 bytes",
        }),
    }
}
