//! One session with a device: from its reset to the next one.

use std::sync::Arc;
use std::time::Duration;

use eal::dma::DmaBacking;
use packet::MacAddr;
use virtio::Features;
use virtio::driver::DriverQueue;
use virtio::driver::split::LEGACY_ALIGN;

use super::config::{LinkStatus, NetConfig, write_legacy_mac};
use super::device::Device;
use super::hardware::Trouble;
use super::negotiation::{self, Queues};
use super::options::Options;
use super::registers::{DRIVER_OK, NEEDS_RESET, NO_VECTOR};
use crate::control_queue::{Command, CommandError, ControlQueue};
use crate::features::names;
use crate::link::Wishes;
use crate::plan::RingPlan;
use virtio_queues::lane::Lanes;
use virtio_queues::memory::Parts;
use virtio_queues::receive::RxRing;
use virtio_queues::transmit::TxRing;

/// How long the device may take for a command on the control queue.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(1);

/// What a port wants of its device, as far as it does not leave that to the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) mac: Option<MacAddr>,
    pub(super) mtu: Option<u16>,
    pub(super) promiscuous: bool,
}

impl From<Wishes> for Wanted {
    fn from(wishes: Wishes) -> Self {
        let Wishes { mac, mtu, promiscuous } = wishes;
        Self { mac: Some(mac), mtu: Some(mtu), promiscuous }
    }
}

/// A session whose rings run.
#[derive(Debug)]
pub(super) struct Session {
    plan: RingPlan,
    config: NetConfig,
    control: Option<ControlQueue>,
    memory: Arc<DmaBacking>,
    wishes: Wishes,
}

/// The rings of a session, by number of their queue pairs.
type Pairs = Vec<(RxRing, TxRing)>;

impl Session {
    /// Starts the device and hands its rings to the workers.
    ///
    /// # Errors
    /// When device and options do not go together, or the device does not do its part.
    pub(super) fn start(
        name: &str,
        device: &Device,
        options: &Options,
        wanted: &Wanted,
        lanes: &Lanes,
    ) -> Result<Self, Trouble> {
        device.greet()?;
        let features = negotiation::features(device, options)?;
        let config = NetConfig::read(&*device.registers, features);
        let wishes = negotiation::wishes(device, options, &config, wanted, features)?;
        device.agree(features)?;
        let queues = Queues::find(device, options, &config, features)?;
        let plan = queues.plan(device, features, wishes.mtu);

        let bytes = plan.bytes().ok_or_else(|| too_large(&plan))?;
        let space = device.pci.dma();
        let mut parts = Parts::dma(name, bytes, space).map_err(failed)?;
        let pairs = queues.pairs(name, device, &plan, &mut parts)?;
        let control = queues.control(device, &plan, &mut parts)?;
        let memory = Arc::clone(parts.memory());
        let mut session = Self { plan, config, control, memory, wishes };
        if device.registers.is_legacy() {
            session.check_legacy(&pairs)?;
        }
        session.run(device, &queues, pairs, lanes)?;
        session.set_up_device(name, device, options);
        Ok(session)
    }

    /// Tells the device where the rings are and starts it (section 3.1.1, steps 7 and 8). From
    /// here on it may use their memory, and does not any more if this fails.
    fn run(
        &self,
        device: &Device,
        queues: &Queues,
        pairs: Pairs,
        lanes: &Lanes,
    ) -> Result<(), Trouble> {
        let (registers, interrupts) = (&*device.registers, &device.interrupts);
        let mut woken = interrupts.wake_workers();
        registers.set_config_vector(interrupts.config_vector());
        for (number, (rx, tx)) in (0..).zip(&pairs) {
            let vector = interrupts.rx_vector(number);
            woken &= registers.start_queue(2 * number, rx.queue().into(), vector);
            registers.start_queue(2 * number + 1, tx.queue().into(), NO_VECTOR);
        }
        if let Some((control, index)) = self.control.as_ref().zip(queues.control_index()) {
            registers.start_queue(index, control.queue().into(), NO_VECTOR);
        }
        device.add_status(DRIVER_OK);
        let status = registers.status();
        if status & DRIVER_OK == 0 || status & NEEDS_RESET != 0 {
            if !device.halt() {
                self.leak_memory();
            }
            return Err(Trouble::Failed(format!("it does not start: its status is {status:#x}")));
        }
        lanes.set_can_sleep(woken);
        // The buffers that have been there since before the start are to be noticed.
        pairs.iter().for_each(|(rx, _)| rx.kick());
        lanes.install(pairs);
        Ok(())
    }

    /// Legacy devices are told the page of a ring by a number of 32 bits.
    fn check_legacy(&self, pairs: &Pairs) -> Result<(), Trouble> {
        let rings = pairs.iter().flat_map(|(rx, tx)| [rx.queue(), tx.queue()]);
        let rings = rings.chain(self.control.as_ref().map(ControlQueue::queue));
        let fits = |queue: &DriverQueue| {
            u32::try_from(queue.device_addresses().0 / LEGACY_ALIGN as u64).is_ok()
        };
        if rings.into_iter().all(fits) {
            return Ok(());
        }
        let reason = "a legacy device reaches the first 16 TiB of memory only, and that is full";
        Err(Trouble::Failed(reason.to_owned()))
    }

    /// Tells a device with a control queue what it needs to know. A device that does not do it
    /// still carries frames, so that is no error.
    fn set_up_device(&mut self, name: &str, device: &Device, options: &Options) {
        let features = self.plan.features;
        let mut commands = Vec::new();
        if let Some(spread) = self.config.spread(self.plan.pairs) {
            commands.push(Command::Spread(spread));
        } else if features.contains(Features::MQ) {
            commands.push(Command::QueuePairs(self.plan.pairs));
        }
        if features.contains(Features::CTRL_RX) {
            commands.push(Command::Promiscuous(self.wishes.promiscuous));
            commands.push(Command::AllMulticast(true));
        }
        if !options.net.vlans.is_empty() && !features.contains(Features::CTRL_VLAN) {
            tracing::warn!("port {name}: the device does not filter VLANs; all pass");
        } else {
            commands.extend(options.net.vlans.iter().map(|id| Command::AddVlan(*id)));
        }
        for command in commands {
            match self.command(command) {
                Ok(()) | Err(CommandError::GivenUp) => {}
                Err(error) => tracing::warn!("port {name}: {error}"),
            }
        }
        if self.config.mac != Some(self.wishes.mac)
            && let Err(reason) = self.set_mac(device, self.wishes.mac)
        {
            tracing::warn!("port {name}: {reason}");
        }
    }

    /// Has the device carry out a command.
    pub(super) fn command(&mut self, command: Command) -> Result<(), CommandError> {
        self.control
            .as_mut()
            .map_or(Err(CommandError::GivenUp), |control| control.run(command, COMMAND_TIMEOUT))
    }

    /// Tells the device its address.
    pub(super) fn set_mac(&mut self, device: &Device, mac: MacAddr) -> Result<(), String> {
        if self.plan.features.contains(Features::CTRL_MAC_ADDR) {
            return self.command(Command::Mac(mac)).map_err(|error| error.to_string());
        }
        if !device.registers.is_legacy() {
            return Err("the device has no way to change its address".to_owned());
        }
        write_legacy_mac(&*device.registers, mac);
        Ok(())
    }

    /// The link now.
    pub(super) fn link(&self, device: &Device) -> LinkStatus {
        LinkStatus::read(&*device.registers, self.plan.features)
    }

    /// What was wanted or, where nothing was, what the device has.
    pub(super) const fn wishes(&self) -> Wishes {
        self.wishes
    }

    /// Bytes of a frame that the receive buffers hold.
    pub(super) fn receive_limit(&self) -> usize {
        self.plan.receive_limit()
    }

    /// Largest MTU that the device allows, in bytes.
    pub(super) fn max_mtu(&self) -> u16 {
        self.config.mtu.unwrap_or(u16::MAX)
    }

    /// Speed of the link in Mbit/s, where the device tells it.
    pub(super) const fn speed(&self) -> Option<u32> {
        self.config.speed
    }

    /// Negotiated features.
    pub(super) const fn features(&self) -> Features {
        self.plan.features
    }

    /// Facts for people.
    pub(super) fn details(&self, device: &Device) -> Vec<(String, String)> {
        let RingPlan { features, pairs, rx_size, tx_size, legacy, .. } = &self.plan;
        let memory = self.memory.shared();
        let facts = [
            ("device", if *legacy { "legacy" } else { "modern" }.to_owned()),
            ("features", names(*features)),
            ("queue_pairs", format!("{pairs} of the device's {}", self.config.pairs)),
            ("ring_entries", format!("{rx_size} receive, {tx_size} transmit")),
            ("control_queue", if self.control.is_some() { "in use" } else { "none" }.to_owned()),
            ("interrupts", device.interrupts.to_string()),
            ("memory", format!("{} bytes, {:?} pages", memory.len(), memory.backing())),
        ];
        facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Ends the session: takes the rings from the workers, and their memory from the device.
    pub(super) fn stop(self, device: &Device, lanes: &Lanes) {
        let rings = lanes.withdraw();
        if device.halt() {
            drop(rings);
        } else {
            self.leak_memory();
            // They have packets that the device may still read.
            std::mem::forget(rings);
        }
    }

    /// Never frees the memory: a device that cannot be stopped may go on writing to it.
    fn leak_memory(&self) {
        tracing::error!("a device cannot be stopped; its memory is never used again");
        std::mem::forget(Arc::clone(&self.memory));
    }
}

fn too_large(plan: &RingPlan) -> Trouble {
    Trouble::Failed(format!(
        "rings of {} and {} entries do not lie in one page of memory, and the device is behind no \
         IOMMU; expected a smaller queue_size",
        plan.rx_size, plan.tx_size
    ))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: ethdev::Error) -> Trouble {
    Trouble::Failed(match error {
        ethdev::Error::Device { reason, .. } => reason,
        other => other.to_string(),
    })
}
