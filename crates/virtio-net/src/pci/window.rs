//! Windows onto a device's registers: parts of its base address registers.

use std::fmt;
use std::sync::Arc;

use eal::pci::{Bar, PciDevice, PciError};

use virtio_queues::kick::Doorbell;

/// Where registers are, as the device says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the base address register, 0 to 5.
    pub bar: u8,
    /// Bytes from its start.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
}

/// Registers of a device, for control paths. Every access is one of its own width; outside of the
/// window all ones are read and nothing is written.
pub trait Window: Send + Sync {
    /// Reads 8 bits at byte `offset`.
    fn read8(&self, offset: usize) -> u8;
    /// Reads 16 bits at byte `offset`.
    fn read16(&self, offset: usize) -> u16;
    /// Reads 32 bits at byte `offset`.
    fn read32(&self, offset: usize) -> u32;
    /// Writes 8 bits at byte `offset`.
    fn write8(&self, offset: usize, value: u8);
    /// Writes 16 bits at byte `offset`.
    fn write16(&self, offset: usize, value: u16);
    /// Writes 32 bits at byte `offset`.
    fn write32(&self, offset: usize, value: u32);
}

impl fmt::Debug for dyn Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Window(..)")
    }
}

/// What gives access to places.
pub trait Windows: Send {
    /// The registers at `place`, all of which are inside its base address register.
    ///
    /// # Errors
    /// When they are not, or cannot be mapped.
    fn open(&mut self, place: Place) -> Result<Box<dyn Window>, PciError>;

    /// The register `at` bytes into `place`, which was opened, to notify ring `index` of.
    ///
    /// # Errors
    /// When it was not opened.
    fn doorbell(
        &self,
        place: Place,
        at: u32,
        index: u16,
        with_position: bool,
    ) -> Result<Doorbell, PciError>;
}

impl fmt::Debug for dyn Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Windows(..)")
    }
}

/// The windows of a real device: its base address registers, each mapped once.
#[derive(Debug)]
pub struct MappedBars {
    device: Arc<dyn PciDevice>,
    bars: [Option<Arc<Bar>>; 6],
}

impl MappedBars {
    /// Those of `device`; nothing is mapped yet.
    pub fn new(device: Arc<dyn PciDevice>) -> Self {
        Self { device, bars: Default::default() }
    }

    fn error(&self, reason: String) -> PciError {
        PciError::new(self.device.info().address, reason)
    }
}

impl Windows for MappedBars {
    fn open(&mut self, place: Place) -> Result<Box<dyn Window>, PciError> {
        let Place { bar: index, offset, len } = place;
        let bad = self.error(format!("there is no base address register {index}"));
        let slot = self.bars.get_mut(usize::from(index)).ok_or(bad)?;
        let bar = match slot {
            Some(bar) => Arc::clone(bar),
            None => Arc::clone(slot.insert(Arc::new(self.device.map_bar(index)?))),
        };
        let end = u64::from(offset) + u64::from(len);
        if end > bar.len() as u64 {
            let (has, what) = (bar.len(), format!("{len} bytes of registers at {offset:#x}"));
            return Err(self.error(format!("{what}, but register {index} has {has:#x} bytes")));
        }
        let (start, len) = (offset as usize, len as usize);
        Ok(Box::new(BarWindow { bar, start, len }))
    }

    fn doorbell(
        &self,
        place: Place,
        at: u32,
        index: u16,
        with_position: bool,
    ) -> Result<Doorbell, PciError> {
        let bar = self.bars.get(usize::from(place.bar)).and_then(Option::as_ref);
        let bar = bar.ok_or_else(|| self.error("its notify registers are not mapped".into()))?;
        let offset = place.offset as usize + at as usize;
        Ok(Doorbell::memory(Arc::clone(bar), offset, index, with_position))
    }
}

/// A part of a mapped base address register.
#[derive(Debug)]
struct BarWindow {
    bar: Arc<Bar>,
    start: usize,
    len: usize,
}

impl BarWindow {
    /// The offset in the mapping of `width` bytes; outside of all where they are not inside.
    fn at(&self, offset: usize, width: usize) -> usize {
        let inside = offset.checked_add(width).is_some_and(|end| end <= self.len);
        if inside { self.start + offset } else { usize::MAX }
    }
}

impl Window for BarWindow {
    fn read8(&self, offset: usize) -> u8 {
        self.bar.read8(self.at(offset, 1))
    }

    fn read16(&self, offset: usize) -> u16 {
        self.bar.read16(self.at(offset, 2))
    }

    fn read32(&self, offset: usize) -> u32 {
        self.bar.read32(self.at(offset, 4))
    }

    fn write8(&self, offset: usize, value: u8) {
        self.bar.write8(self.at(offset, 1), value);
    }

    fn write16(&self, offset: usize, value: u16) {
        self.bar.write16(self.at(offset, 2), value);
    }

    fn write32(&self, offset: usize, value: u32) {
        self.bar.write32(self.at(offset, 4), value);
    }
}
