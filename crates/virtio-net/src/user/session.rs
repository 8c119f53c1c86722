//! One session with a back-end: from the handshake to the last ring.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use eal::PeerEvent;
use ethdev::Error;
use vhost::frontend::{Frontend, FrontendError, Offer, Ring};
use vhost::protocol::{MemoryRegion, ProtocolFeatures};
use virtio::Features;
use virtio::driver::{DriverQueue, DriverRing};
use virtio::iotlb::{Access, Translation};

use super::kicks::Kicks;
use super::news::{News, Pending};
use super::options::Options;
use super::rings::{Control, RingSet, Rings};
use crate::control_queue::{self, Command, CommandError};
use crate::features::{names, receive_room};
use crate::link::Wishes;
use crate::plan::RingPlan;
use virtio_queues::kick::{Doorbell, Kick};
use virtio_queues::lane::Lanes;
use virtio_queues::memory::DEVICE_BASE;
use virtio_queues::receive::RxRing;
use virtio_queues::transmit::TxRing;

/// How long the back-end may take for a message.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// How long it may take for a command on the control queue.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(500);

/// Where the memory lies for a back-end that uses it by I/O virtual addresses from
/// [`DEVICE_BASE`] on.
const SHARED_BASE: u64 = 0x20_0000_0000;

/// How long it may take for each message when the session ends anyway.
const STOP_TIMEOUT: Duration = Duration::from_millis(200);

/// A session whose rings run.
#[derive(Debug)]
pub(super) struct Session {
    frontend: Frontend,
    offer: Offer,
    rings: RingSet,
    /// What the back-end has told by itself.
    news: News,
    /// Rings whose doorbell is in use.
    doorbells: BTreeSet<u8>,
    /// Where notifications are messages.
    kicks: Option<Kicks>,
    /// A ring that the back-end has called broken.
    broken: Option<u8>,
}

impl Session {
    /// Starts a session over `stream` and hands its rings to the workers. It goes on with the rings
    /// in `kept` if it can; these stay there where it may be tried again.
    pub(super) fn start(
        name: &str,
        options: &Options,
        wishes: &Wishes,
        stream: OwnedFd,
        cancel: Option<OwnedFd>,
        lanes: &Lanes,
        kept: &mut Option<Rings>,
    ) -> Result<Self, Error> {
        let mut frontend =
            Frontend::new(stream, &options.path, TIMEOUT, cancel).map_err(device_error)?;
        let news = News::default();
        frontend.listen(news.listener(options.net.queues.saturating_mul(2), lanes.calls()));
        if options.inband {
            frontend.want(ProtocolFeatures::INBAND_NOTIFICATIONS);
        }
        let offer = frontend.handshake().map_err(device_error)?;
        let plan = Plan::new(options, &offer, wishes)?;
        let has_records = offer.protocol.contains(ProtocolFeatures::INFLIGHT_SHMFD);
        let old = kept.take().filter(|rings| has_records && rings.fit(&plan));
        let goes_on = old.is_some();
        let rings = old.map_or_else(|| Rings::new(name, &plan), Ok)?;
        let Rings { set: rings, pairs } = rings;
        let events = Some(&rings.kicks).filter(|_| options.inband);
        let kicks = events.map(|events| Kicks::new(events)).transpose();
        let kicks = kicks.map_err(|source| system(name, &source))?;
        let doorbells = BTreeSet::new();
        let mut session = Self { frontend, offer, rings, news, doorbells, kicks, broken: None };
        if let Err(error) = session.run(&pairs, wishes, lanes) {
            if goes_on && !matches!(error, FrontendError::Refused { .. }) {
                // What it has recorded until now holds for the next one.
                *kept = Some(Rings { set: session.rings, pairs });
            }
            return Err(device_error(error));
        }
        if goes_on {
            tracing::info!("port {name}: goes on with the rings of the last session");
        }
        session.set_up_device(options, wishes);
        for (rx, tx) in &pairs {
            // A kick for each ring that starts: some back-ends wait for it.
            rx.kick();
            tx.kick();
        }
        lanes.install(pairs);
        session.heed_news(lanes);
        Ok(session)
    }

    /// Does what the back-end has told by itself; returns whether the link may have changed.
    pub(super) fn heed_news(&mut self, lanes: &Lanes) -> bool {
        let Pending { config_changed, doorbells, broken } = self.news.take();
        self.broken = self.broken.or(broken);
        for (index, bar) in doorbells {
            let with_position = self.features().contains(Features::NOTIFICATION_DATA);
            let doorbell = bar.map(|bar| Doorbell::memory(bar, 0, index.into(), with_position));
            let has_one = doorbell.is_some();
            let kick = doorbell.map(Kick::Doorbell).or_else(|| {
                let event = self.rings.kicks.get(usize::from(index))?;
                Some(Kick::Event(event.clone()))
            });
            if kick.is_some_and(|kick| lanes.set_kick(index, kick)) && has_one {
                self.doorbells.insert(index);
            } else {
                self.doorbells.remove(&index);
            }
        }
        config_changed
    }

    /// Whether the back-end has told something that was not heeded yet. That may come within any
    /// call, as the channel is served while a reply is waited for.
    pub(super) fn has_news(&self) -> bool {
        !self.news.is_empty() || self.frontend.has_misses()
    }

    /// Why a ring cannot be used any more, if the back-end has said so.
    pub(super) fn fault(&self) -> Option<String> {
        self.broken.map(|index| format!("the back-end calls ring {index} broken"))
    }

    /// What becomes readable when workers notify the back-end, if that takes messages.
    pub(super) fn kicks_fd(&self) -> Option<BorrowedFd<'_>> {
        self.kicks.as_ref().map(AsFd::as_fd)
    }

    /// Passes notifications of workers on to the back-end, where they are messages.
    pub(super) fn pass_kicks_on(&mut self) -> Result<(), FrontendError> {
        for index in self.kicks.as_ref().map(Kicks::take).unwrap_or_default() {
            self.frontend.kick(index)?;
        }
        Ok(())
    }

    /// Whether the device's link is up, which it is where the device does not tell (virtio 1.3
    /// section 5.1.4.2).
    pub(super) fn is_link_up(&mut self) -> Result<bool, FrontendError> {
        const STATUS: u32 = 6;
        const LINK_UP: u8 = 1;
        if !self.features().contains(Features::STATUS) {
            return Ok(true);
        }
        let status = self.frontend.read_config(STATUS, 2)?;
        let low = status.and_then(|part| part.bytes.first().copied());
        Ok(low.is_none_or(|low| low & LINK_UP != 0))
    }

    /// What becomes readable when the back-end tells something by itself.
    pub(super) fn channel_fd(&self) -> Option<BorrowedFd<'_>> {
        self.frontend.channel_fd()
    }

    /// The messages that bring the back-end from the handshake to running rings.
    fn run(
        &mut self,
        pairs: &[(RxRing, TxRing)],
        wishes: &Wishes,
        lanes: &Lanes,
    ) -> Result<(), FrontendError> {
        let features = self.features();
        self.frontend.set_features(features)?;
        if features.contains(Features::MTU) {
            self.frontend.set_mtu(wishes.mtu)?;
        }
        self.share()?;
        let control = self.rings.control.as_ref();
        if features.contains(Features::VHOST_USER_PROTOCOL) {
            // Before they start: what they hold is discarded while they are started and disabled.
            let control = control.map(|control| control.index);
            for index in self.ring_indexes().chain(control) {
                self.frontend.enable_ring(index, true)?;
            }
        }
        let kicks = self.rings.kicks.chunks_exact(2);
        for (index, (((rx, tx), kicks), (rx_lane, tx_lane))) in (0..=u8::MAX)
            .step_by(2)
            .zip(pairs.iter().zip(kicks).zip(lanes.rx.iter().zip(&lanes.tx)))
        {
            let [rx_kick, tx_kick] = kicks else { continue };
            let (rx_files, tx_files) = ((rx_kick, &rx_lane.call), (tx_kick, &tx_lane.call));
            let [rx_files, tx_files] =
                [rx_files, tx_files].map(|files| Some(files).filter(|_| self.kicks.is_none()));
            self.frontend.start_ring(&ring(index, rx.queue(), rx_files))?;
            self.frontend.start_ring(&ring(index | 1, tx.queue(), tx_files))?;
        }
        if let Some(Control { queue, index, kick, call }) = control {
            self.frontend.start_ring(&ring(*index, queue.queue(), Some((kick, call))))?;
        }
        self.frontend.driver_ok()
    }

    /// Shares the memory, and that for records of chains in flight, where the back-end keeps some.
    fn share(&mut self) -> Result<(), FrontendError> {
        let shared = self.rings.memory.shared();
        let translated = self.features().contains(Features::ACCESS_PLATFORM);
        // Where addresses are translated, those that the memory has otherwise are others.
        let addr = if translated { SHARED_BASE } else { DEVICE_BASE };
        let size = shared.len() as u64;
        let region = MemoryRegion { guest_addr: addr, size, user_addr: addr, mmap_offset: 0 };
        self.frontend.share_memory(&[(region, shared.fd())])?;
        if translated {
            let (iova, access) = (DEVICE_BASE, Access::all());
            self.frontend.map(Translation { iova, len: size, user_addr: addr, access })?;
        }
        if self.rings.records.is_none() {
            let (count, entries) = (self.rings.count(), self.rings.entries());
            self.rings.records = self.frontend.get_inflight(count, entries)?;
        }
        if let Some(records) = &self.rings.records {
            self.frontend.set_inflight(records)?;
        }
        Ok(())
    }

    /// Indexes of the rings that carry frames.
    fn ring_indexes(&self) -> impl Iterator<Item = u8> + use<> {
        (0..=u8::MAX).take(2 * usize::from(self.rings.plan.pairs))
    }

    /// Tells a device with a control queue what it needs to know. A device that does not do it
    /// still carries frames, so that is no error.
    fn set_up_device(&mut self, options: &Options, wishes: &Wishes) {
        let control = self.rings.control.as_mut().map(|control| &mut control.queue);
        if let Some(Err(error)) = control.map(|queue| queue.recover(COMMAND_TIMEOUT)) {
            tracing::warn!("{}: {error}", options.path);
        }
        let features = self.features();
        let mut commands = Vec::new();
        if features.contains(Features::MQ) {
            commands.push(Command::QueuePairs(self.rings.plan.pairs));
        }
        // The mode first: an address makes the device filter, should it not be promiscuous.
        if features.contains(Features::CTRL_RX) {
            commands.push(Command::Promiscuous(wishes.promiscuous));
        }
        if features.contains(Features::CTRL_MAC_ADDR) {
            commands.push(Command::Mac(wishes.mac));
        }
        if features.contains(Features::CTRL_VLAN) {
            commands.extend(options.net.vlans.iter().map(|id| Command::AddVlan(*id)));
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
        Some(self.rings.control.as_mut()?.queue.run(command, COMMAND_TIMEOUT))
    }

    /// Tells the back-end another MTU.
    pub(super) fn set_mtu(&mut self, mtu: u16) -> Result<(), FrontendError> {
        if self.features().contains(Features::MTU) { self.frontend.set_mtu(mtu) } else { Ok(()) }
    }

    /// Bytes of a frame that the receive buffers hold.
    pub(super) fn receive_limit(&self) -> usize {
        self.rings.plan.receive_limit()
    }

    /// Negotiated features.
    pub(super) const fn features(&self) -> Features {
        self.rings.plan.features
    }

    /// Looks why the socket became readable.
    pub(super) fn check(&mut self) -> Result<(), FrontendError> {
        self.frontend.check()
    }

    /// Facts for people.
    pub(super) fn details(&self) -> Vec<(String, String)> {
        let protocol: Vec<&str> = self.offer.protocol.iter_names().map(|(name, _)| name).collect();
        let protocol = protocol.join(" ").to_lowercase();
        let RingSet { plan, memory, kicks, control, records } = &self.rings;
        let memory = memory.shared();
        let pairs = format!("{} of the {} offered", plan.pairs, self.offer.queue_pairs);
        let control = if control.is_some() { "in use" } else { "none" };
        let records = if records.is_some() { "kept" } else { "none" };
        let facts = [
            ("features", names(plan.features)),
            ("protocol_features", protocol),
            ("queue_pairs", pairs),
            ("control_queue", control.to_owned()),
            ("doorbells", format!("{} of {} rings", self.doorbells.len(), kicks.len())),
            ("records_of_chains_in_flight", records.to_owned()),
            ("memory", format!("{} bytes, {:?} pages", memory.len(), memory.backing())),
        ];
        facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Ends the session after the back-end has: takes the rings from the workers. They are kept for
    /// the next one, if the back-end has left records of what it had in flight.
    pub(super) fn suspend(self, lanes: &Lanes) -> Option<Rings> {
        let (rx, tx) = lanes.withdraw();
        let pairs = rx.into_iter().zip(tx).collect();
        // Doorbells go with the back-end.
        let keep = self.rings.records.is_some() && self.doorbells.is_empty();
        keep.then_some(Rings { set: self.rings, pairs })
    }

    /// Ends the session: takes the rings from the workers, and tells the back-end where it still
    /// listens.
    pub(super) fn stop(mut self, lanes: &Lanes) {
        drop(lanes.withdraw());
        // Whoever wants us to stop has made `cancel` readable, which must not stop the stopping.
        self.frontend.set_limits(STOP_TIMEOUT, None);
        for index in self.ring_indexes() {
            if self.frontend.stop_ring(index).is_err() {
                return;
            }
        }
        // It ends anyway.
        let _ = self.frontend.unmap_all();
    }
}

impl AsFd for Session {
    /// What becomes readable when the back-end goes away.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.frontend.as_fd()
    }
}

/// A ring with the files by which each side notifies the other, if there are any.
fn ring<'fd>(
    index: u8,
    queue: &DriverQueue,
    files: Option<(&'fd PeerEvent, &'fd PeerEvent)>,
) -> Ring<'fd> {
    let (size, base) = (queue.entries(), queue.base());
    let addresses = queue.device_addresses();
    let (kick, call) = files.map(|(kick, call)| (kick.as_fd(), call.as_fd())).unzip();
    Ring { index, size, base, addresses, kick, call }
}

/// What a session will be like.
pub(super) struct Plan {
    pub(super) rings: RingPlan,
    pub(super) control_index: Option<u8>,
}

impl Plan {
    fn new(options: &Options, offer: &Offer, wishes: &Wishes) -> Result<Self, Error> {
        let mut features = Self::choose(options, offer)?;
        let control = options.net.choose_control(offer.features);
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
        let queues = options.net.queues;
        let offered = u16::try_from(offer.queue_pairs).unwrap_or(u16::MAX).max(1);
        let pairs = if features.contains(Features::MQ) { queues.min(offered) } else { 1 };
        if pairs < queues {
            tracing::warn!(
                "{}: the back-end has {pairs} queue pairs, fewer than the {queues} asked for; the \
                 others carry nothing",
                options.path,
            );
        }
        let rings = RingPlan {
            features,
            pairs,
            rx_size: options.queue_size,
            tx_size: options.queue_size,
            control_size: control_index.map(|_| control_queue::SIZE),
            receive_room: receive_room(features, wishes.mtu),
            legacy: false,
            piece: usize::MAX,
            packets: false,
        };
        Ok(Self { rings, control_index })
    }

    /// The features to accept, but for those of the control queue.
    fn choose(options: &Options, offer: &Offer) -> Result<Features, Error> {
        let missing = |missing| {
            let (socket, offered) = (options.path.clone(), offer.features);
            device_error(FrontendError::Missing { socket, offered, missing })
        };
        let mut features = options.net.choose(offer.features);
        // Header and frame share a descriptor here, which legacy devices may not understand.
        if !features.intersects(Features::VERSION_1 | Features::ANY_LAYOUT) {
            return Err(missing("VERSION_1 (or ANY_LAYOUT)"));
        }
        // The sizes that each format allows differ, so there is no falling back.
        if options.net.features.contains(Features::RING_PACKED)
            && !features.contains(Features::RING_PACKED)
        {
            return Err(missing("RING_PACKED (or say packed=off)"));
        }
        if options.net.features.contains(Features::ACCESS_PLATFORM)
            && !features.contains(Features::ACCESS_PLATFORM)
        {
            return Err(missing("ACCESS_PLATFORM (or say iommu=off)"));
        }
        if options.inband && !offer.protocol.contains(ProtocolFeatures::INBAND_NOTIFICATIONS) {
            return Err(missing("protocol feature INBAND_NOTIFICATIONS (or say inband=off)"));
        }
        // Of use only where the configuration can be read.
        if offer.protocol.contains(ProtocolFeatures::CONFIG) {
            features |= offer.features & Features::STATUS;
        }
        Ok(features)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn device_error(error: FrontendError) -> Error {
    // The socket's path is the first thing in each message.
    Error::Device { what: "virtio-user".to_owned(), reason: error.to_string() }
}

pub(super) fn no_room(name: &str) -> Error {
    let reason = "cannot make the rings: too many open files?".to_owned();
    Error::Device { what: format!("port {name}"), reason }
}

pub(super) fn system(name: &str, source: &std::io::Error) -> Error {
    Error::Device { what: format!("port {name}"), reason: source.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables of what both sides of vhost-user support; those of the back-end, and all else in
    /// them, are compared where the back-end is.
    const TABLES: &str = include_str!("../../../../docs/vhost-user.md");

    #[test]
    fn features_are_taken_as_the_table_says() {
        let device = "virtio-user:/a,queues=2,packed=on,in_order=on,event_idx=on,vlans=1,iommu=on";
        let options = Options::parse(device.parse().unwrap()).unwrap();
        let (features, protocol) = (Features::all(), ProtocolFeatures::all());
        let offer = Offer { features, protocol, queue_pairs: 2 };
        let wishes = Wishes { mac: options.mac, mtu: options.mtu, promiscuous: true };
        let taken = Plan::new(&options, &offer, &wishes).unwrap().rings.features;
        let (_, table) = TABLES.split_once("\n## Features of virtio\n").unwrap();
        let mut compared = Features::empty();
        for line in table.lines() {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, _, name, _, front_end, ..] = cells[..] else { continue };
            let Some(feature) = Features::from_name(name.trim_matches('`')) else { continue };
            assert_eq!(front_end == "yes", taken.contains(feature), "{line}");
            compared |= feature;
        }
        assert_eq!(compared, Features::all());
    }
}
