//! A virtio network device on the PCI bus that lies: in its configuration space, in its registers,
//! and by answering now this, now that.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock};

use eal::DmaSpace;
use eal::pci::{Bar, DeviceInfo, PciDevice, PciError, capabilities};
use virtio::Features;
use virtio_net::control::Doorbell;
use virtio_net::pci::capability::Layout;
use virtio_net::pci::config::{LinkStatus, NetConfig};
use virtio_net::pci::hardware::Hardware;
use virtio_net::pci::model::{Model, Shape};
use virtio_net::pci::registers::{DRIVER_OK, RingPlace};
use virtio_net::pci::window::{MappedBars, Place, Window, Windows};

use crate::guest::file;
use crate::input::Input;

/// Bytes of each base address register: a page.
const BAR: u64 = 4096;

/// Where an honest device has its registers: kind, offset, length.
const PARTS: [(u8, u32, u32); 4] = [(1, 0, 56), (2, 0x300, 64), (3, 0x100, 1), (4, 0x200, 32)];

/// Answers that may be lies: each may cost the driver half a millisecond of patience.
const LIES: usize = 256;

/// Rings that are looked at.
const RINGS: u16 = 8;

/// Plays one input.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let device = Arc::new(Device::new(&mut input));
    let pci: Arc<dyn PciDevice> = device;
    check_capabilities(&*pci);
    let honest = MappedBars::new(Arc::clone(&pci));
    let with_position = input.yes();
    let rest = input.rest();
    let lies = rest.iter().take(LIES).copied().collect();
    let windows = Box::new(Liar { honest, lies: Arc::new(Mutex::new(lies)) });
    if let Ok((hardware, layout)) = Hardware::open(pci, windows) {
        drive(&hardware, &layout, with_position);
        hardware.halt();
    }
}

/// The list ends, and is inside of the space.
fn check_capabilities(pci: &dyn PciDevice) {
    let Ok(found) = capabilities(pci) else { return };
    assert!(found.len() <= 48, "{found:?}");
    assert!(found.iter().all(|entry| entry.offset >= 0x40), "{found:?}");
}

/// What a driver does with a device from its reset to its rings.
fn drive(hardware: &Hardware, layout: &Layout, with_position: bool) {
    for place in [layout.common, layout.notify, layout.isr, layout.device] {
        assert!(u64::from(place.offset) + u64::from(place.len) <= BAR, "{place:?}");
    }
    let registers = &*hardware.registers;
    if hardware.greet().is_err() {
        return;
    }
    let features = registers.offered();
    let config = NetConfig::read(registers, features);
    assert!(config.mac.is_none_or(|mac| !mac.is_multicast()));
    assert!(config.speed.is_none_or(|speed| speed > 0));
    if hardware.agree(features - Features::RING_PACKED).is_err() {
        return;
    }
    let _ = LinkStatus::read(registers, features);
    let _ = registers.set_config_vector(0);
    for index in 0..registers.queue_count().unwrap_or(RINGS).min(RINGS) {
        let info = registers.queue(index);
        let width = if with_position { 4 } else { 2 };
        let at = layout.notify_at(info.notify_offset, width);
        assert!(at.is_none_or(|at| at + width <= layout.notify.len));
        let (descriptors, driver, device) = (0x1000, 0x2000, 0x3000);
        let place = RingPlace { size: info.size.min(256), descriptors, driver, device };
        let _ = registers.start_queue(index, place, index);
        let kick = registers.kick(index, info, with_position);
        assert_eq!(kick.is_ok(), at.is_some());
        if let Ok(kick) = kick {
            kick.signal(7);
        }
    }
    hardware.add_status(DRIVER_OK);
    let _ = (registers.interrupt_status(), hardware.is_gone());
}

/// The device on its bus.
#[derive(Debug)]
struct Device {
    /// For all that nobody asks here.
    honest: Model,
    config: Vec<u8>,
    bars: Vec<OwnedFd>,
}

impl Device {
    /// An honest one, in which some bytes are others.
    fn new(input: &mut Input<'_>) -> Self {
        // Each one leaves memory behind, so there is but one.
        static MODEL: OnceLock<Model> = OnceLock::new();
        let honest = MODEL.get_or_init(|| Model::new(&Shape::default())).clone();
        let mut config = honest.config().clone();
        for (number, (kind, offset, len)) in PARTS.into_iter().enumerate() {
            let at = virtio_net::pci::model::FIRST_CAPABILITY + 20 * number;
            config[at + 3] = kind;
            config[at + 8..at + 12].copy_from_slice(&offset.to_le_bytes());
            config[at + 12..at + 16].copy_from_slice(&len.to_le_bytes());
        }
        for _ in 0..input.below(12) {
            let at = usize::from(input.byte());
            config[at] = input.byte();
        }
        let bars: Vec<OwnedFd> = (0..2).map(|_| file(BAR)).collect();
        // Features, rings and their sizes of an honest device, and others.
        let page = [(4, u32::MAX), (18, 5), (24, 256), (0x204, 1), (0x208, 0x05DC_0002)];
        for (at, value) in page {
            rustix::io::pwrite(&bars[0], &value.to_le_bytes(), at).unwrap();
        }
        for _ in 0..input.below(12) {
            let at = u64::from(input.number::<u16>()) % BAR;
            rustix::io::pwrite(&bars[0], &[input.byte()], at).unwrap();
        }
        Self { honest, config, bars }
    }

    fn error(&self, reason: &str) -> PciError {
        PciError::new(self.honest.info().address, reason)
    }
}

impl PciDevice for Device {
    fn info(&self) -> &DeviceInfo {
        self.honest.info()
    }

    fn dma(&self) -> &DmaSpace {
        self.honest.dma()
    }

    fn read_config(&self, offset: u16, into: &mut [u8]) -> Result<(), PciError> {
        let bytes = self.config.get(usize::from(offset)..).and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(bytes.ok_or_else(|| self.error("outside of the space"))?);
        Ok(())
    }

    fn write_config(&self, _offset: u16, _bytes: &[u8]) -> Result<(), PciError> {
        Ok(())
    }

    fn map_bar(&self, index: u8) -> Result<Bar, PciError> {
        let file = self.bars.get(usize::from(index)).ok_or_else(|| self.error("no memory"))?;
        Bar::map_page(file.as_fd(), 0).map_err(|error| self.error(&error.to_string()))
    }

    fn set_bus_master(&self, _on: bool) -> Result<(), PciError> {
        Ok(())
    }

    fn reset(&self) -> Result<(), PciError> {
        Ok(())
    }

    fn msix_vectors(&self) -> u16 {
        0
    }

    fn set_msix(&self, _events: &[Option<BorrowedFd<'_>>]) -> Result<(), PciError> {
        Err(self.error("no vectors"))
    }

    fn line_interrupt(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn unmask_line_interrupt(&self) -> Result<(), PciError> {
        Err(self.error("no line"))
    }
}

/// What the device answers next, instead of what its registers hold.
type Lies = Arc<Mutex<VecDeque<u8>>>;

/// Windows onto the registers, behind which the device answers what it likes.
#[derive(Debug)]
struct Liar {
    honest: MappedBars,
    lies: Lies,
}

impl Windows for Liar {
    fn open(&mut self, place: Place) -> Result<Box<dyn Window>, PciError> {
        let honest = self.honest.open(place)?;
        Ok(Box::new(LyingWindow { honest, lies: Arc::clone(&self.lies) }))
    }

    fn doorbell(
        &self,
        place: Place,
        at: u32,
        index: u16,
        with_position: bool,
    ) -> Result<Doorbell, PciError> {
        self.honest.doorbell(place, at, index, with_position)
    }
}

#[derive(Debug)]
struct LyingWindow {
    honest: Box<dyn Window>,
    lies: Lies,
}

impl LyingWindow {
    /// The truth, or else the next bytes.
    fn answer<const N: usize>(&self, truth: [u8; N]) -> [u8; N] {
        let mut lies = self.lies.lock().unwrap();
        match lies.pop_front() {
            Some(0x80..) => truth.map(|byte| lies.pop_front().unwrap_or(byte)),
            _ => truth,
        }
    }
}

impl Window for LyingWindow {
    fn read8(&self, offset: usize) -> u8 {
        u8::from_le_bytes(self.answer(self.honest.read8(offset).to_le_bytes()))
    }

    fn read16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.answer(self.honest.read16(offset).to_le_bytes()))
    }

    fn read32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.answer(self.honest.read32(offset).to_le_bytes()))
    }

    fn write8(&self, offset: usize, value: u8) {
        self.honest.write8(offset, value);
    }

    fn write16(&self, offset: usize, value: u16) {
        self.honest.write16(offset, value);
    }

    fn write32(&self, offset: usize, value: u32) {
        self.honest.write32(offset, value);
    }
}
