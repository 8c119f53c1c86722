//! What device and options agree on: features, addresses, rings.

use virtio::Features;
use virtio::ring::QueueSize;

use super::config::NetConfig;
use super::device::Device;
use super::hardware::Trouble;
use super::options::Options;
use super::registers::QueueInfo;
use super::session::Wanted;
use crate::control_queue::{self, ControlQueue};
use crate::features::receive_room;
use crate::link::Wishes;
use crate::plan::RingPlan;
use virtio_queues::kick::Kick;
use virtio_queues::memory::Parts;
use virtio_queues::receive::RxRing;
use virtio_queues::transmit::TxRing;

/// Entries of a ring where neither the device nor the options want fewer.
const MOST_ENTRIES: u16 = 1024;

/// Fewest entries of a ring: one command takes three.
const FEWEST_ENTRIES: u16 = 4;

/// Bytes of the longest frames that are received into packets, of which there are twice as many as a
/// ring has entries. The buffers for longer ones stay in the ring.
const MOST_PACKET_ROOM: usize = 16 << 10;

/// Bytes, where neither the device nor the options say it.
const MTU: u16 = 1500;

/// The features to use.
pub(super) fn features(device: &Device, options: &Options) -> Result<Features, Trouble> {
    let offered = device.registers.offered();
    let mut features = options.choose(offered);
    let missing = |what: &str| Err(Trouble::Failed(format!("it does not offer {what}")));
    if !device.registers.is_legacy() && !features.contains(Features::VERSION_1) {
        return missing("VERSION_1, which all modern devices must");
    }
    // Header and frame share a descriptor here.
    if device.registers.is_legacy() && !features.contains(Features::ANY_LAYOUT) {
        return missing("ANY_LAYOUT: legacy devices without it are not supported");
    }
    if options.net.features.contains(Features::RING_PACKED)
        && !features.contains(Features::RING_PACKED)
    {
        return missing("RING_PACKED: say packed=off, or give the device packed rings");
    }
    // The device would take our addresses for those of physical memory, and write there.
    let translated = device.pci.dma().piece_len() == usize::MAX;
    if translated && !features.contains(Features::ACCESS_PLATFORM) {
        return missing(
            "ACCESS_PLATFORM, so it goes past the IOMMU; start QEMU with iommu_platform=on for \
             it, or bind it to uio_pci_generic",
        );
    }
    check_order(features)?;
    if features.contains(Features::MTU)
        && NetConfig::read(&*device.registers, features)
            .mtu
            .is_some_and(|mtu| mtu < ethdev::mtu::MIN)
    {
        features -= Features::MTU;
    }
    Ok(features)
}

/// ORDER_PLATFORM (section 6) takes barriers that order memory for devices too. On x86 ours do:
/// stores are seen in order by devices as by other processors, loads are not taken out of order,
/// and a store to a register comes after all stores to memory before it. Elsewhere devices may
/// be outside of the domain that a processor's own barriers order.
fn check_order(features: Features) -> Result<(), Trouble> {
    if cfg!(target_arch = "x86_64") || !features.contains(Features::ORDER_PLATFORM) {
        return Ok(());
    }
    let reason = "it needs barriers for devices (ORDER_PLATFORM), which are there on x86-64 only";
    Err(Trouble::Failed(reason.to_owned()))
}

/// What is wanted and, where nothing is, what the device has.
pub(super) fn wishes(
    device: &Device,
    options: &Options,
    config: &NetConfig,
    wanted: &Wanted,
    features: Features,
) -> Result<Wishes, Trouble> {
    let own = config.mac.unwrap_or_else(|| default_mac(device));
    let mac = wanted.mac.unwrap_or(own);
    let fixed = !device.registers.is_legacy() && !features.contains(Features::CTRL_MAC_ADDR);
    if fixed && options.mac.is_some() && mac != own {
        return Err(Trouble::Failed(format!("it has no way to take address {mac} for {own}")));
    }
    let mtu = wanted.mtu.unwrap_or_else(|| config.mtu.unwrap_or(MTU));
    if let Some(most) = config.mtu.filter(|most| mtu > *most) {
        return Err(Trouble::Failed(format!("its largest MTU is {most}, not {mtu}")));
    }
    Ok(Wishes { mac, mtu, promiscuous: wanted.promiscuous })
}

/// A locally administered address for a device without one, the same each time.
fn default_mac(device: &Device) -> packet::MacAddr {
    let address = device.pci.info().address;
    let [_, _, high, low] = address.domain.to_be_bytes();
    let place = address.device << 3 | address.function & 7;
    packet::MacAddr([0x02, 0x56, high, low, address.bus, place])
}

/// The rings of a device that are used.
#[derive(Debug)]
pub(super) struct Queues {
    rx: Vec<QueueInfo>,
    tx: Vec<QueueInfo>,
    /// With its number.
    control: Option<(u16, QueueInfo)>,
    rx_size: u16,
    tx_size: u16,
}

impl Queues {
    /// Looks at the rings and chooses their sizes.
    pub(super) fn find(
        device: &Device,
        options: &Options,
        config: &NetConfig,
        features: Features,
    ) -> Result<Self, Trouble> {
        // Section 5.1.2: the control queue is behind all pairs that the device has, used or not.
        let behind = config.pairs.checked_mul(2).filter(|count| *count > 0).ok_or_else(|| {
            Trouble::Failed(format!("it says that it has {} queue pairs", config.pairs))
        })?;
        let pairs = config.pairs.min(options.net.queues);
        if pairs < options.net.queues {
            tracing::warn!(
                "{}: the device has {} queue pairs, fewer than the {} asked for; the others carry \
                 nothing",
                options.address,
                config.pairs,
                options.net.queues
            );
        }
        let control = features.contains(Features::CTRL_VQ).then_some(behind);
        let last = control.unwrap_or_else(|| pairs.saturating_mul(2).saturating_sub(1));
        if let Some(count) = device.registers.queue_count().filter(|count| *count <= last) {
            return Err(Trouble::Failed(format!("it has {count} rings, expected {}", last + 1)));
        }
        let info = |index| device.registers.queue(index);
        let rx: Vec<QueueInfo> = (0..pairs).map(|pair| info(2 * pair)).collect();
        let tx: Vec<QueueInfo> = (0..pairs).map(|pair| info(2 * pair + 1)).collect();
        let control = control.map(|index| (index, info(index)));
        let sizes = Sizes {
            wanted: options.net.queue_size.unwrap_or(MOST_ENTRIES),
            fixed: device.registers.is_legacy(),
            packed: features.contains(Features::RING_PACKED),
        };
        let (rx_size, tx_size) = (sizes.choose("receive", &rx)?, sizes.choose("transmit", &tx)?);
        Ok(Self { rx, tx, control, rx_size, tx_size })
    }

    /// What the rings will be like.
    pub(super) fn plan(&self, device: &Device, features: Features, mtu: u16) -> RingPlan {
        let legacy = device.registers.is_legacy();
        let control_size = self
            .control
            .map(|(_, info)| if legacy { info.size } else { control_queue::SIZE.min(info.size) });
        let receive_room = receive_room(features, mtu);
        RingPlan {
            features,
            pairs: u16::try_from(self.rx.len()).unwrap_or(u16::MAX),
            rx_size: self.rx_size,
            tx_size: self.tx_size,
            control_size,
            receive_room,
            legacy,
            piece: device.pci.dma().piece_len(),
            packets: receive_room <= MOST_PACKET_ROOM,
        }
    }

    /// The number of the control queue.
    pub(super) fn control_index(&self) -> Option<u16> {
        self.control.map(|(index, _)| index)
    }

    /// Makes the rings of all pairs, of which the device does not know yet.
    pub(super) fn pairs(
        &self,
        name: &str,
        device: &Device,
        plan: &RingPlan,
        parts: &mut Parts,
    ) -> Result<Vec<(RxRing, TxRing)>, Trouble> {
        let mut pairs = Vec::new();
        for (pair, (rx, tx)) in (0..).zip(self.rx.iter().zip(&self.tx)) {
            let kicks =
                (kick(device, plan, 2 * pair, *rx)?, kick(device, plan, 2 * pair + 1, *tx)?);
            let packets = plan.packets(name, device.pci.dma());
            let packets = packets.map_err(|error| Trouble::Failed(error.to_string()))?;
            let (rx, mut tx) = plan.pair(parts, kicks, packets).ok_or_else(no_room)?;
            tx.keep_packets(device.pci.dma().clone());
            pairs.push((rx, tx));
        }
        Ok(pairs)
    }

    /// Makes the control queue, of which the device does not know yet.
    pub(super) fn control(
        &self,
        device: &Device,
        plan: &RingPlan,
        parts: &mut Parts,
    ) -> Result<Option<ControlQueue>, Trouble> {
        let Some((index, info)) = self.control else { return Ok(None) };
        let kick = kick(device, plan, index, info)?;
        plan.control_queue(parts, kick, None).map(Some).ok_or_else(|| {
            Trouble::Failed(format!("its control queue cannot have {} entries", info.size))
        })
    }
}

fn kick(device: &Device, plan: &RingPlan, index: u16, info: QueueInfo) -> Result<Kick, Trouble> {
    let with_position = plan.features.contains(Features::NOTIFICATION_DATA);
    Ok(device.registers.kick(index, info, with_position)?)
}

fn no_room() -> Trouble {
    Trouble::Failed("its rings do not fit into the memory made for them".to_owned())
}

/// How to choose the size of rings.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// No more entries than this.
    wanted: u16,
    /// The device's own sizes must be used.
    fixed: bool,
    packed: bool,
}

impl Sizes {
    /// Entries of all rings of one kind.
    fn choose(self, kind: &str, infos: &[QueueInfo]) -> Result<u16, Trouble> {
        let least = infos.iter().map(|info| info.size).min().unwrap_or(0);
        let differ = infos.iter().any(|info| info.size != least);
        let size = match self {
            _ if self.fixed && differ => 0,
            _ if self.fixed => least,
            Self { packed: true, wanted, .. } => least.min(wanted),
            // The largest power of two that is not larger.
            Self { wanted, .. } => {
                let most = least.min(wanted).checked_ilog2().unwrap_or(0);
                1_u16.checked_shl(most).unwrap_or(0)
            }
        };
        let allowed = self.packed || QueueSize::new(size).is_some();
        if size < FEWEST_ENTRIES || !allowed || least == 0 {
            let sizes: Vec<String> = infos.iter().map(|info| info.size.to_string()).collect();
            return Err(Trouble::Failed(format!(
                "its {kind} rings have room for {} entries, expected {FEWEST_ENTRIES} at least",
                sizes.join(", ")
            )));
        }
        Ok(size)
    }
}
