//! One session with a back-end: from the handshake to the last ring.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use eal::{EventFd, SharedMemory};
use ethdev::Error;
use packet::MacAddr;
use vhost::frontend::{Frontend, FrontendError, Offer, Ring};
use vhost::protocol::MemoryRegion;
use virtio::Features;
use virtio::driver::{DriverQueue, DriverRing};

use super::control_queue::{self, Command, CommandError, ControlQueue};
use super::lane::Lane;
use super::memory::{DEVICE_BASE, SessionMemory, Slots, rounded};
use super::options::{Options, TRANSMIT_ROOM, receive_room};
use super::receive::RxRing;
use super::transmit::{Tables, TxRing};

/// How long the back-end may take for a message.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// How long it may take for a command on the control queue.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(500);

/// How long it may take for each message when the session ends anyway.
const STOP_TIMEOUT: Duration = Duration::from_millis(200);

/// The queues of a port, for the port's thread.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) rx: Vec<Arc<Lane<RxRing>>>,
    pub(super) tx: Vec<Arc<Lane<TxRing>>>,
}

/// What a port wants of every session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes {
    pub(super) mac: MacAddr,
    pub(super) mtu: u16,
    pub(super) promiscuous: bool,
}

/// A session whose rings run.
#[derive(Debug)]
pub(super) struct Session {
    frontend: Frontend,
    offer: Offer,
    features: Features,
    /// Queue pairs in use.
    pairs: u16,
    control: Option<ControlQueue>,
    /// Bytes of a frame that the receive buffers hold, together.
    receive_limit: usize,
    memory: Arc<SharedMemory>,
}

/// The rings of a queue pair, ready to be started.
type Pair = (RxRing, EventFd, TxRing, EventFd);

impl Session {
    /// Starts a session over `stream` and hands its rings to the workers.
    pub(super) fn start(
        name: &str,
        options: &Options,
        wishes: &Wishes,
        stream: OwnedFd,
        cancel: Option<OwnedFd>,
        lanes: &Lanes,
    ) -> Result<Self, Error> {
        let mut frontend =
            Frontend::new(stream, &options.path, TIMEOUT, cancel).map_err(device_error)?;
        let offer = frontend.handshake().map_err(device_error)?;
        let plan = Plan::new(options, &offer, wishes)?;
        let mut memory = SessionMemory::allocate(name, plan.bytes())?;
        let pairs = (0..plan.pairs)
            .map(|_| plan.pair(&mut memory).ok_or_else(|| no_room(name)))
            .collect::<Result<Vec<Pair>, Error>>()?;
        let control = plan.control_queue(&mut memory).map_err(|source| system(name, &source))?;
        let mut session = Self {
            frontend,
            offer,
            features: plan.features,
            pairs: plan.pairs,
            control,
            receive_limit: plan.receive_limit(),
            memory: Arc::clone(memory.shared()),
        };
        session.run(&pairs, &plan, wishes, lanes).map_err(device_error)?;
        session.set_up_device(options, wishes);
        for ((rx, _, tx, _), (rx_lane, tx_lane)) in
            pairs.into_iter().zip(lanes.rx.iter().zip(&lanes.tx))
        {
            // A kick for each ring that starts: some back-ends wait for it.
            rx.kick();
            tx.kick();
            rx_lane.install(rx);
            tx_lane.install(tx);
        }
        Ok(session)
    }

    /// The messages that bring the back-end from the handshake to running rings.
    fn run(
        &mut self,
        pairs: &[Pair],
        plan: &Plan,
        wishes: &Wishes,
        lanes: &Lanes,
    ) -> Result<(), FrontendError> {
        self.frontend.set_features(self.features)?;
        if self.features.contains(Features::MTU) {
            self.frontend.set_mtu(wishes.mtu)?;
        }
        let region = MemoryRegion {
            guest_addr: DEVICE_BASE,
            size: self.memory.len() as u64,
            user_addr: DEVICE_BASE,
            mmap_offset: 0,
        };
        self.frontend.share_memory(&[(region, self.memory.fd())])?;

        for (index, ((rx, rx_kick, tx, tx_kick), (rx_lane, tx_lane))) in
            (0..=u8::MAX).step_by(2).zip(pairs.iter().zip(lanes.rx.iter().zip(&lanes.tx)))
        {
            self.frontend.start_ring(&ring(index, rx.queue(), rx_kick, &rx_lane.call))?;
            self.frontend.start_ring(&ring(index | 1, tx.queue(), tx_kick, &tx_lane.call))?;
        }
        if let Some((control, index)) = self.control.as_ref().zip(plan.control_index) {
            self.frontend.start_ring(&ring(
                index,
                control.queue(),
                control.kick(),
                control.call(),
            ))?;
        }
        if self.features.contains(Features::VHOST_USER_PROTOCOL) {
            for index in self.ring_indexes().chain(plan.control_index) {
                self.frontend.enable_ring(index, true)?;
            }
        }
        self.frontend.driver_ok()
    }

    /// Indexes of the rings that carry frames.
    fn ring_indexes(&self) -> impl Iterator<Item = u8> + use<> {
        (0..=u8::MAX).take(2 * usize::from(self.pairs))
    }

    /// Tells a device with a control queue what it needs to know. A device that does not do it
    /// still carries frames, so that is no error.
    fn set_up_device(&mut self, options: &Options, wishes: &Wishes) {
        let mut commands = Vec::new();
        if self.features.contains(Features::MQ) {
            commands.push(Command::QueuePairs(self.pairs));
        }
        // The mode first: an address makes the device filter, should it not be promiscuous.
        if self.features.contains(Features::CTRL_RX) {
            commands.push(Command::Promiscuous(wishes.promiscuous));
        }
        if self.features.contains(Features::CTRL_MAC_ADDR) {
            commands.push(Command::Mac(wishes.mac));
        }
        if self.features.contains(Features::CTRL_VLAN) {
            commands.extend(options.vlans.iter().map(|id| Command::AddVlan(*id)));
        }
        for command in commands {
            match self.command(command) {
                None | Some(Ok(()) | Err(CommandError::GivenUp)) => {}
                Some(Err(error)) => tracing::warn!("{}: {error}", options.path),
            }
        }
    }

    /// Has the device carry out a command; `None` without a control queue.
    pub(super) fn command(&mut self, command: Command) -> Option<Result<(), CommandError>> {
        Some(self.control.as_mut()?.run(command, COMMAND_TIMEOUT))
    }

    /// Tells the back-end another MTU.
    pub(super) fn set_mtu(&mut self, mtu: u16) -> Result<(), FrontendError> {
        if self.features.contains(Features::MTU) { self.frontend.set_mtu(mtu) } else { Ok(()) }
    }

    /// Bytes of a frame that the receive buffers hold.
    pub(super) const fn receive_limit(&self) -> usize {
        self.receive_limit
    }

    /// Negotiated features.
    pub(super) const fn features(&self) -> Features {
        self.features
    }

    /// Looks why the socket became readable.
    pub(super) fn check(&mut self) -> Result<(), FrontendError> {
        self.frontend.check()
    }

    /// Facts for people.
    pub(super) fn details(&self) -> Vec<(String, String)> {
        let names = |all: Vec<&str>| all.join(" ").to_lowercase();
        let features = names(self.features.iter_names().map(|(name, _)| name).collect());
        let protocol = names(self.offer.protocol.iter_names().map(|(name, _)| name).collect());
        let pairs = format!("{} of the {} offered", self.pairs, self.offer.queue_pairs);
        let control = if self.control.is_some() { "in use" } else { "none" };
        let facts = [
            ("features", features),
            ("protocol_features", protocol),
            ("queue_pairs", pairs),
            ("control_queue", control.to_owned()),
            ("memory", format!("{} bytes, {:?} pages", self.memory.len(), self.memory.backing())),
        ];
        facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Ends the session: takes the rings from the workers, and tells the back-end where it still
    /// listens.
    pub(super) fn stop(mut self, lanes: &Lanes) {
        withdraw(lanes);
        // Whoever wants us to stop has made `cancel` readable, which must not stop the stopping.
        self.frontend.set_limits(STOP_TIMEOUT, None);
        for index in self.ring_indexes() {
            if self.frontend.stop_ring(index).is_err() {
                return;
            }
        }
    }
}

impl AsFd for Session {
    /// What becomes readable when the back-end goes away.
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.frontend.as_fd()
    }
}

/// Takes all rings from the workers.
pub(super) fn withdraw(lanes: &Lanes) {
    for lane in &lanes.rx {
        drop(lane.remove());
    }
    for lane in &lanes.tx {
        drop(lane.remove());
    }
}

fn ring<'fd>(index: u8, queue: &DriverQueue, kick: &'fd EventFd, call: &'fd EventFd) -> Ring<'fd> {
    let (size, base) = (queue.entries(), queue.first_base());
    let addresses = queue.device_addresses();
    Ring { index, size, base, addresses, kick: kick.as_fd(), call: call.as_fd() }
}

/// What a session will be like.
struct Plan {
    features: Features,
    pairs: u16,
    size: u16,
    receive_room: usize,
    control_index: Option<u8>,
}

impl Plan {
    fn new(options: &Options, offer: &Offer, wishes: &Wishes) -> Result<Self, Error> {
        let mut features = options.choose(offer.features);
        // Header and frame share a descriptor here, which legacy devices may not understand.
        if !features.intersects(Features::VERSION_1 | Features::ANY_LAYOUT) {
            return Err(device_error(FrontendError::Missing {
                socket: options.path.clone(),
                offered: offer.features,
                missing: "VERSION_1 (or ANY_LAYOUT)",
            }));
        }
        // The sizes that each format allows differ, so there is no falling back.
        if options.features.contains(Features::RING_PACKED)
            && !features.contains(Features::RING_PACKED)
        {
            return Err(device_error(FrontendError::Missing {
                socket: options.path.clone(),
                offered: offer.features,
                missing: "RING_PACKED (or say packed=off)",
            }));
        }
        let control = options.choose_control(offer.features);
        let with_control = features | control;
        // virtio 1.3 section 5.1.2: behind all pairs that the device has, used or not.
        let pairs_before = if with_control.contains(Features::MQ) { offer.queue_pairs } else { 1 };
        let control_index = pairs_before
            .checked_mul(2)
            .and_then(|index| u8::try_from(index).ok())
            .filter(|_| control.contains(Features::CTRL_VQ));
        if control_index.is_some() {
            features = with_control;
        }
        let offered = u16::try_from(offer.queue_pairs).unwrap_or(u16::MAX).max(1);
        let pairs = if features.contains(Features::MQ) { options.queues.min(offered) } else { 1 };
        if pairs < options.queues {
            tracing::warn!(
                "{}: the back-end has {pairs} queue pairs, fewer than the {} asked for; the \
                 others carry nothing",
                options.path,
                options.queues
            );
        }
        let receive_room = receive_room(features, wishes.mtu);
        Ok(Self { features, pairs, size: options.queue_size, receive_room, control_index })
    }

    /// Bytes of a frame that the receive ring holds.
    fn receive_limit(&self) -> usize {
        if self.features.contains(Features::MRG_RXBUF) {
            self.receive_room.saturating_mul(self.size.into())
        } else {
            self.receive_room
        }
    }

    fn bytes(&self) -> usize {
        let size = self.size;
        let pair = 2 * rounded(DriverQueue::bytes(size, self.features))
            + rounded(Slots::bytes(size, self.receive_room))
            + rounded(Slots::bytes(size, TRANSMIT_ROOM))
            + rounded(Tables::bytes(size));
        let control = rounded(DriverQueue::bytes(control_queue::SIZE, self.features))
            + rounded(control_queue::BUFFER);
        pair.saturating_mul(self.pairs.into()).saturating_add(control)
    }

    fn pair(&self, memory: &mut SessionMemory) -> Option<Pair> {
        let (rx_kick, tx_kick) = (EventFd::new().ok()?, EventFd::new().ok()?);
        let shared = Arc::clone(memory.shared());
        let header = self.features.net_header_len();
        let size = self.size;

        let slots = Slots::new(memory, size, self.receive_room)?;
        let mergeable = self.features.contains(Features::MRG_RXBUF);
        let (queue, kick) = (self.queue(memory, self.size)?, rx_kick.try_clone().ok()?);
        let takes = self.features.guest_takes();
        let rx = RxRing::new(queue, slots, header, mergeable, takes, kick, Arc::clone(&shared));

        let slots = Slots::new(memory, size, TRANSMIT_ROOM)?;
        let tables = memory.take(Tables::bytes(size))?;
        let indirect = self.features.contains(Features::INDIRECT_DESC);
        let tables = indirect.then_some(Tables::new(tables));
        let (queue, kick) = (self.queue(memory, self.size)?, tx_kick.try_clone().ok()?);
        let tx =
            TxRing::new(queue, slots, header, tables, self.features.host_takes(), kick, shared);
        Some((rx, rx_kick, tx, tx_kick))
    }

    fn queue(&self, memory: &mut SessionMemory, size: u16) -> Option<DriverQueue> {
        let part = memory.take(DriverQueue::bytes(size, self.features))?;
        DriverQueue::new(part, size, self.features)
    }

    fn control_queue(&self, memory: &mut SessionMemory) -> std::io::Result<Option<ControlQueue>> {
        let size = control_queue::SIZE;
        let Some(queue) = self.control_index.and_then(|_| self.queue(memory, size)) else {
            return Ok(None);
        };
        let Some(buffer) = memory.take(control_queue::BUFFER) else { return Ok(None) };
        ControlQueue::new(queue, buffer).map(Some)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn device_error(error: FrontendError) -> Error {
    // The socket's path is the first thing in each message.
    Error::Device { what: "virtio-user".to_owned(), reason: error.to_string() }
}

fn no_room(name: &str) -> Error {
    let reason = "cannot make the rings: too many open files?".to_owned();
    Error::Device { what: format!("port {name}"), reason }
}

fn system(name: &str, source: &std::io::Error) -> Error {
    Error::Device { what: format!("port {name}"), reason: source.to_string() }
}
