//! The front-end of a vhost-user session: the side that has the rings and drives the device.
//!
//! - [`Frontend`]: the messages, each with its reply, within a time limit
//! - [`channel`]: messages of the back-end
//! - [`endpoint`]: how the two sides find each other: connect, or listen
//! - [`error`]: what can go wrong
//! - [`inband`]: notifications as messages
//! - [`iommu`]: what of the shared memory the back-end may use
//! - [`inflight`]: records of the back-end that outlive it
//!
//! Calls wait for the back-end, so they are for a control thread. None waits longer than the time
//! limit, whatever the back-end does or omits, and a cancellation ends each at once.

pub mod channel;
pub mod endpoint;
pub mod error;
pub mod inband;
pub mod inflight;
pub mod iommu;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use eal::PeerFd;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use virtio::Features;
use virtio::iotlb::Translation;

pub use endpoint::Endpoint;
pub use error::FrontendError;
pub use inflight::InflightFile;

use self::channel::{Channel, Listener};
use crate::connection::{Connection, ConnectionError};
use crate::protocol::{
    ConfigSpace, FrontendMessage, MAX_CONFIG, MAX_FDS, MAX_TABLE_REGIONS, MemoryRegion, Payload,
    ProtocolError, ProtocolFeatures, VringAddr, VringFile, VringState,
};

/// Protocol features that this front-end makes use of.
pub const WANTED: ProtocolFeatures = ProtocolFeatures::MQ
    .union(ProtocolFeatures::REPLY_ACK)
    .union(ProtocolFeatures::MTU)
    .union(ProtocolFeatures::CONFIGURE_MEM_SLOTS)
    .union(ProtocolFeatures::INFLIGHT_SHMFD)
    .union(ProtocolFeatures::STATUS)
    .union(ProtocolFeatures::CONFIG);

/// Those that a front-end makes use of which listens to messages of the back-end.
pub const LISTENING: ProtocolFeatures = ProtocolFeatures::BACKEND_REQ
    .union(ProtocolFeatures::BACKEND_SEND_FD)
    .union(ProtocolFeatures::HOST_NOTIFIER);

/// Those that a front-end makes use of which [wants](Frontend::want) them.
pub const ON_REQUEST: ProtocolFeatures = ProtocolFeatures::INBAND_NOTIFICATIONS;

/// Device status bits (virtio 1.3 section 2.1).
mod status {
    pub(super) const ACKNOWLEDGE: u64 = 1;
    pub(super) const DRIVER: u64 = 2;
    pub(super) const DRIVER_OK: u64 = 4;
    pub(super) const FEATURES_OK: u64 = 8;
}

/// Descriptors that come with a reply.
type ReplyFds = ArrayVec<PeerFd, MAX_FDS>;

/// What a back-end has to offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Feature bits; those that Ringway does not know are left out.
    pub features: Features,
    /// Protocol features that are negotiated now: offered, and of use to this front-end.
    pub protocol: ProtocolFeatures,
    /// The number of queue pairs; 1 from a back-end that cannot tell.
    pub queue_pairs: u64,
}

/// A ring to start.
#[derive(Clone, Copy, Debug)]
pub struct Ring<'fd> {
    /// Its index: `2 n` is receive queue `n`, `2 n + 1` transmit queue `n`.
    pub index: u8,
    /// Its size.
    pub size: u16,
    /// Where the device goes on. A split ring: the available index, 0 for a new ring. A packed
    /// ring: bits 0 to 15 the available position and its wrap counter, bits 16 to 31 the used
    /// one; 0x8000'8000 for a new ring (vhost-user, "Vring base for packed virtqueues").
    pub base: u32,
    /// Front-end addresses of descriptors, driver area (available ring) and device area (used
    /// ring).
    pub addresses: (u64, u64, u64),
    /// What the driver signals; `None` where it sends [messages](Frontend::kick).
    pub kick: Option<BorrowedFd<'fd>>,
    /// What the device signals; `None` where it sends messages.
    pub call: Option<BorrowedFd<'fd>>,
}

/// One session with a back-end.
pub struct Frontend {
    connection: Connection,
    socket: String,
    timeout: Duration,
    cancel: Option<OwnedFd>,
    /// Protocol features that are wanted beside the usual ones.
    wanted: ProtocolFeatures,
    protocol: ProtocolFeatures,
    /// What the back-end may use, where its addresses are translated.
    translations: Vec<Translation>,
    listener: Option<Listener>,
    /// Where messages of the back-end come from, while it keeps to the protocol.
    channel: Option<Channel>,
}

impl fmt::Debug for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Frontend");
        out.field("socket", &self.socket).field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

impl Frontend {
    /// A session over a connected `stream`. `socket` names it in errors. Each call may take up
    /// to `timeout`; once `cancel` is readable, every call fails at once.
    ///
    /// # Errors
    /// When the socket cannot be made non-blocking.
    pub fn new(
        stream: OwnedFd,
        socket: &str,
        timeout: Duration,
        cancel: Option<OwnedFd>,
    ) -> Result<Self, FrontendError> {
        let socket = socket.to_owned();
        let connection = Connection::new(stream).map_err(|source| {
            let socket = socket.clone();
            FrontendError::Connection { socket, request: "session start", source }
        })?;
        Ok(Self {
            connection,
            socket,
            timeout,
            cancel,
            wanted: ProtocolFeatures::empty(),
            protocol: ProtocolFeatures::empty(),
            translations: Vec::new(),
            listener: None,
            channel: None,
        })
    }

    /// Changes the time limit of each call and what cancels it.
    pub fn set_limits(&mut self, timeout: Duration, cancel: Option<OwnedFd>) {
        self.timeout = timeout;
        self.cancel = cancel;
    }

    /// Has `listener` called with messages of the back-end, if that has a use for them. To be
    /// called before the [`handshake`](Self::handshake).
    pub fn listen(&mut self, listener: Listener) {
        self.listener = Some(listener);
    }

    /// Starts the session: SET_OWNER, then asks what the back-end offers and negotiates the
    /// protocol features.
    ///
    /// # Errors
    /// When the back-end does not answer as it must.
    pub fn handshake(&mut self) -> Result<Offer, FrontendError> {
        self.tell(&FrontendMessage::SetOwner)?;
        let features = Features::from_bits_truncate(self.ask(&FrontendMessage::GetFeatures)?);
        let mut queue_pairs = 1;
        if features.contains(Features::VHOST_USER_PROTOCOL) {
            let offered: u64 = self.ask(&FrontendMessage::GetProtocolFeatures)?;
            let listening = self.listener.as_ref().map_or(ProtocolFeatures::empty(), |_| LISTENING);
            let wanted = WANTED | listening | self.wanted;
            let protocol =
                inband::without_lonely(ProtocolFeatures::from_bits_truncate(offered) & wanted);
            // It is acknowledged by the rules before it, so the change comes after.
            self.tell(&FrontendMessage::SetProtocolFeatures(protocol.bits()))?;
            self.protocol = protocol;
            if protocol.contains(ProtocolFeatures::MQ) {
                queue_pairs = self.ask(&FrontendMessage::GetQueueNum)?;
            }
            if protocol.contains(ProtocolFeatures::BACKEND_REQ) {
                self.open_channel()?;
            }
        }
        Ok(Offer { features, protocol: self.protocol, queue_pairs })
    }

    /// Gives the back-end a channel for its messages.
    fn open_channel(&mut self) -> Result<(), FrontendError> {
        let request = "SET_BACKEND_REQ_FD";
        let (channel, theirs) = Channel::new().map_err(|source| self.failed(request, source))?;
        self.channel = Some(channel);
        self.tell(&FrontendMessage::SetBackendReqFd(theirs.as_fd()))
    }

    /// Takes messages of the back-end that have come.
    fn serve_channel(&mut self) {
        let Some((channel, listener)) = self.channel.as_mut().zip(self.listener.as_mut()) else {
            return;
        };
        if let Err(error) = channel.serve(listener, self.protocol) {
            self.channel = None;
            let socket = &self.socket;
            tracing::debug!(%socket, %error, "the back-end's channel is closed");
        }
    }

    /// What becomes readable when the back-end has a message, if it has a channel: then call
    /// [`check`](Self::check).
    #[must_use]
    pub fn channel_fd(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(AsFd::as_fd)
    }

    /// Reads `len` bytes of the device's configuration space from `offset` on, 256 at most;
    /// `None` where the back-end has none, or not there.
    ///
    /// # Errors
    /// When the back-end does not answer as it must.
    pub fn read_config(
        &mut self,
        offset: u32,
        len: usize,
    ) -> Result<Option<ConfigSpace>, FrontendError> {
        if !self.protocol.contains(ProtocolFeatures::CONFIG) {
            return Ok(None);
        }
        let bytes = std::iter::repeat_n(0, len.clamp(1, MAX_CONFIG)).collect();
        let asked = ConfigSpace { offset, flags: 0, bytes };
        let message = FrontendMessage::GetConfig(asked.clone());
        let request = message.request().name();
        let deadline = self.send(&message, false)?;
        let decode = |payload: &[u8], _| match payload {
            [] => Ok(None),
            payload => ConfigSpace::decode(request, payload).map(Some),
        };
        let read = self.reply_with(&message, deadline, decode)?;
        match &read {
            Some(part) if part.offset != offset || part.bytes.len() != asked.bytes.len() => {
                Err(FrontendError::Reply {
                    socket: self.socket.clone(),
                    request,
                    expected: format!("{} bytes at {offset}", asked.bytes.len()),
                    got: format!("{} bytes at {}", part.bytes.len(), part.offset),
                })
            }
            _ => Ok(read),
        }
    }

    /// Sets the features that driver and device will use.
    ///
    /// # Errors
    /// When the back-end refuses them.
    pub fn set_features(&mut self, features: Features) -> Result<(), FrontendError> {
        self.tell(&FrontendMessage::SetFeatures(features.bits()))?;
        let bits = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        self.set_status(bits)?;
        if self.protocol.contains(ProtocolFeatures::STATUS) {
            let now: u64 = self.ask(&FrontendMessage::GetStatus)?;
            // virtio 1.3 section 3.1.1, step 6.
            if now & status::FEATURES_OK == 0 {
                return Err(FrontendError::Features { socket: self.socket.clone(), features });
            }
        }
        Ok(())
    }

    /// Tells the back-end the MTU, where it wants to know.
    ///
    /// # Errors
    /// When the back-end refuses it.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), FrontendError> {
        if !self.protocol.contains(ProtocolFeatures::MTU) {
            return Ok(());
        }
        self.tell(&FrontendMessage::NetSetMtu(mtu.into()))
    }

    /// Shares memory: the rings and all buffers must lie in it. At most 8 regions.
    ///
    /// # Errors
    /// When the back-end cannot map it, or there are more regions than it takes.
    pub fn share_memory(
        &mut self,
        regions: &[(MemoryRegion, BorrowedFd<'_>)],
    ) -> Result<(), FrontendError> {
        let mut most = MAX_TABLE_REGIONS as u64;
        let one_by_one = self.protocol.contains(ProtocolFeatures::CONFIGURE_MEM_SLOTS);
        if one_by_one {
            most = self.ask(&FrontendMessage::GetMaxMemSlots)?;
        }
        if regions.len() as u64 > most {
            let (socket, count) = (self.socket.clone(), regions.len());
            return Err(FrontendError::Regions { socket, count, most });
        }
        if !one_by_one {
            return self.tell(&FrontendMessage::SetMemTable(regions.iter().copied().collect()));
        }
        for (region, fd) in regions {
            self.tell(&FrontendMessage::AddMemReg(*region, *fd))?;
        }
        Ok(())
    }

    /// Starts a ring, which is then still disabled if the back-end can disable rings.
    ///
    /// # Errors
    /// When the back-end refuses one of its parameters.
    pub fn start_ring(&mut self, ring: &Ring<'_>) -> Result<(), FrontendError> {
        let index = u32::from(ring.index);
        let (desc, avail, used) = ring.addresses;
        let state = |num| VringState { index, num };
        // CALL first, since DPDK makes a ring known by it; KICK last, since it starts the ring.
        if let Some(fd) = ring.call {
            let call = VringFile { index: ring.index, fd: Some(fd) };
            self.tell(&FrontendMessage::SetVringCall(call))?;
        }
        self.tell(&FrontendMessage::SetVringNum(state(ring.size.into())))?;
        self.tell(&FrontendMessage::SetVringBase(state(ring.base)))?;
        let addr = VringAddr { index, flags: 0, desc, used, avail, log: 0 };
        self.tell(&FrontendMessage::SetVringAddr(addr))?;
        let Some(fd) = ring.kick else { return self.kick(ring.index) };
        let kick = VringFile { index: ring.index, fd: Some(fd) };
        self.tell(&FrontendMessage::SetVringKick(kick))
    }

    /// Enables or disables a ring. Only where VHOST_USER_PROTOCOL was negotiated: otherwise all
    /// rings are always enabled, and the message does not exist.
    ///
    /// # Errors
    /// When the back-end refuses.
    pub fn enable_ring(&mut self, index: u8, on: bool) -> Result<(), FrontendError> {
        let state = VringState { index: index.into(), num: on.into() };
        self.tell(&FrontendMessage::SetVringEnable(state))
    }

    /// Tells the device that the driver is ready, where the back-end wants to know.
    ///
    /// # Errors
    /// When the back-end refuses.
    pub fn driver_ok(&mut self) -> Result<(), FrontendError> {
        let before = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        self.set_status(before | status::DRIVER_OK)
    }

    fn set_status(&mut self, bits: u64) -> Result<(), FrontendError> {
        if !self.protocol.contains(ProtocolFeatures::STATUS) {
            return Ok(());
        }
        self.tell(&FrontendMessage::SetStatus(bits))
    }

    /// Stops a ring and returns where the device was in it, as in [`Ring::base`]; of a packed
    /// ring some back-ends, DPDK's for one, tell the lower half only.
    ///
    /// # Errors
    /// When the back-end does not answer, or for another ring.
    pub fn stop_ring(&mut self, index: u8) -> Result<u32, FrontendError> {
        let message = FrontendMessage::GetVringBase(VringState { index: index.into(), num: 0 });
        let state: VringState = self.ask(&message)?;
        if state.index != u32::from(index) {
            return Err(FrontendError::Reply {
                socket: self.socket.clone(),
                request: message.request().name(),
                expected: format!("ring {index}"),
                got: format!("ring {}", state.index),
            });
        }
        Ok(state.num)
    }

    /// Sends a message that changes something, and waits until the back-end has done it where it
    /// can tell.
    fn tell(&mut self, message: &FrontendMessage<BorrowedFd<'_>>) -> Result<(), FrontendError> {
        let request = message.request().name();
        let acknowledged = self.protocol.contains(ProtocolFeatures::REPLY_ACK);
        let deadline = self.send(message, acknowledged)?;
        if !acknowledged {
            return Ok(());
        }
        match self.reply::<u64>(message, deadline)? {
            0 => Ok(()),
            code => Err(FrontendError::Refused { socket: self.socket.clone(), request, code }),
        }
    }

    /// Sends a message that has a reply of its own, and returns that.
    fn ask<P: Payload>(
        &mut self,
        message: &FrontendMessage<BorrowedFd<'_>>,
    ) -> Result<P, FrontendError> {
        let deadline = self.send(message, false)?;
        self.reply(message, deadline)
    }

    /// Sends a message and returns by when its reply must be there.
    fn send(
        &mut self,
        message: &FrontendMessage<BorrowedFd<'_>>,
        need_reply: bool,
    ) -> Result<Instant, FrontendError> {
        let request = message.request().name();
        let deadline = Instant::now() + self.timeout;
        let sent = self.connection.send_request(message, need_reply);
        sent.map_err(|source| self.failed(request, source))?;
        while self.connection.wants_write() {
            self.wait(request, PollFlags::OUT, deadline)?;
            self.connection.flush().map_err(|source| self.failed(request, source))?;
        }
        Ok(deadline)
    }

    fn reply<P: Payload>(
        &mut self,
        message: &FrontendMessage<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<P, FrontendError> {
        let request = message.request().name();
        self.reply_with(message, deadline, |payload, _| P::decode(request, payload))
    }

    fn reply_with<P>(
        &mut self,
        message: &FrontendMessage<BorrowedFd<'_>>,
        deadline: Instant,
        decode: impl Fn(&[u8], ReplyFds) -> Result<P, ProtocolError>,
    ) -> Result<P, FrontendError> {
        let (request, number) = (message.request().name(), message.request().number());
        loop {
            let decoded = match self.connection.receive() {
                Ok(None) => None,
                Ok(Some(reply)) if !reply.header.is_reply() || reply.header.request != number => {
                    let kind = if reply.header.is_reply() { "reply" } else { "request" };
                    return Err(FrontendError::Reply {
                        socket: self.socket.clone(),
                        request,
                        expected: format!("reply {number}"),
                        got: format!("{kind} {}", reply.header.request),
                    });
                }
                Ok(Some(reply)) => Some(decode(reply.payload, reply.fds)),
                Err(source) => return Err(self.failed(request, source)),
            };
            match decoded {
                Some(Ok(payload)) => return Ok(payload),
                Some(Err(source)) => return Err(self.failed(request, source.into())),
                None => self.wait(request, PollFlags::IN, deadline)?,
            }
        }
    }

    /// Waits until the socket is ready for `what`, and takes messages of the back-end meanwhile.
    fn wait(
        &mut self,
        request: &'static str,
        what: PollFlags,
        deadline: Instant,
    ) -> Result<(), FrontendError> {
        let rest = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(rest).unwrap_or_default();
        let mut fds = ArrayVec::<PollFd<'_>, 3>::new();
        fds.push(PollFd::new(&self.connection, what));
        if let Some(cancel) = &self.cancel {
            fds.push(PollFd::new(cancel, PollFlags::IN));
        }
        if let Some(channel) = &self.channel {
            fds.push(PollFd::new(channel, PollFlags::IN));
        }
        let polled = rustix::event::poll(&mut fds, Some(&timeout));
        let is_ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        let (ready, second, third) = (is_ready(0), is_ready(1), is_ready(2));
        let (cancelled, channel) =
            if self.cancel.is_some() { (second, third) } else { (false, second) };
        drop(fds);
        if channel {
            self.serve_channel();
        }
        match polled {
            // A back-end that talks all the time does not make us wait longer.
            Ok(count) if count == 0 || rest.is_zero() && !ready && !cancelled => {
                Err(FrontendError::Timeout {
                    socket: self.socket.clone(),
                    request,
                    after: self.timeout,
                })
            }
            Ok(_) if cancelled => {
                Err(FrontendError::Cancelled { socket: self.socket.clone(), request })
            }
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(self.failed(request, errno.into())),
        }
    }

    fn failed(&self, request: &'static str, source: ConnectionError) -> FrontendError {
        FrontendError::Connection { socket: self.socket.clone(), request, source }
    }

    /// Looks, when the socket or the channel is readable outside of any call, what the back-end
    /// has to say, and answers it. It has nothing to say but on the channel, so this is the end of
    /// the session, or a spurious wake-up.
    ///
    /// # Errors
    /// When the back-end has closed the connection or sends what nobody asked for.
    pub fn check(&mut self) -> Result<(), FrontendError> {
        self.answer_misses()?;
        match self.connection.receive() {
            Ok(None) => Ok(()),
            Ok(Some(message)) => {
                let got = format!("message {}", message.header.request);
                Err(FrontendError::Reply {
                    socket: self.socket.clone(),
                    request: "session",
                    expected: "silence".to_owned(),
                    got,
                })
            }
            Err(source) => Err(self.failed("session", source)),
        }
    }

    /// Negotiated protocol features.
    #[must_use]
    pub const fn protocol(&self) -> ProtocolFeatures {
        self.protocol
    }
}

impl AsFd for Frontend {
    /// The socket, to wait for the end of the session on.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
