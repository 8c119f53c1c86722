//! The registers of the model, of both generations.

use std::sync::Arc;

use eal::pci::PciError;
use virtio::Features;

use super::super::window::{Place, Window, Windows};
use super::{COMMON, ISR, Model, NET, Queue, State};
use virtio_queues::kick::Doorbell;

impl State {
    pub fn set_status(&mut self, status: u8) {
        if status != 0 {
            self.status = status;
            if self.refuses {
                self.status &= !8;
            }
            return;
        }
        self.resets += 1;
        if self.stuck {
            return;
        }
        self.status = 0;
        self.accepted = Features::empty();
        for queue in &mut self.queues {
            *queue = Queue { max: queue.max, size: queue.max, ..Queue::default() };
        }
    }

    pub fn queue(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(self.selects[2])
    }

    /// The vector that the device takes for one that is asked for.
    const fn vector(&self, vector: u32) -> u16 {
        if vector < self.msix as u32 { vector as u16 } else { 0xFFFF }
    }

    pub fn read_common(&mut self, offset: usize) -> u32 {
        let half = |bits: u64, select: usize| (bits >> (32 * select.min(1))) as u32;
        let queue =
            |state: &mut Self, read: fn(&Queue) -> u32| state.queue().map_or(0, |q| read(q));
        match offset {
            4 => half(self.offered.bits(), self.selects[0]),
            16 => self.config_vector.into(),
            18 => self.queues.len() as u32,
            20 => self.status.into(),
            21 => self.generation.into(),
            24 => queue(self, |queue| queue.size.into()),
            26 => queue(self, |queue| queue.vector.into()),
            30 => self.selects[2] as u32,
            _ => 0,
        }
    }

    pub fn write_common(&mut self, offset: usize, value: u32) {
        match offset {
            0 => self.selects[0] = value as usize,
            8 => self.selects[1] = value as usize,
            12 => {
                let bits = u64::from(value) << (32 * self.selects[1].min(1));
                self.accepted |= Features::from_bits(bits).expect("known features");
            }
            16 => self.config_vector = self.vector(value),
            20 => self.set_status(value as u8),
            22 => self.selects[2] = value as usize,
            _ => self.write_queue(offset, value),
        }
    }

    fn write_queue(&mut self, offset: usize, value: u32) {
        let vector = self.vector(value);
        let Some(queue) = self.queue() else { return };
        match offset {
            24 => queue.size = value as u16,
            26 => queue.vector = vector,
            28 => queue.enabled = value == 1,
            32 | 40 | 48 => queue.addresses[(offset - 32) / 8] |= u64::from(value),
            36 | 44 | 52 => queue.addresses[(offset - 36) / 8] |= u64::from(value) << 32,
            _ => panic!("write of {value:#x} to {offset}"),
        }
    }

    pub fn read_port(&mut self, offset: u64) -> u32 {
        let config = if self.msix > 0 { 24 } else { 20 };
        match offset {
            _ if offset >= config => self.net[(offset - config) as usize].into(),
            0 => self.offered.bits() as u32,
            12 => self.queue().map_or(0, |queue| queue.max.into()),
            18 => self.status.into(),
            19 => std::mem::take(&mut self.isr).into(),
            20 => self.config_vector.into(),
            22 => self.queue().map_or(0, |queue| queue.vector.into()),
            _ => panic!("read of port {offset}"),
        }
    }

    pub fn write_port(&mut self, offset: u64, value: u32) {
        let config = if self.msix > 0 { 24 } else { 20 };
        let vector = self.vector(value);
        match offset {
            _ if offset >= config => self.net[(offset - config) as usize] = value as u8,
            4 => self.accepted = Features::from_bits_truncate(value.into()),
            8 => {
                let queue = self.queue().unwrap();
                queue.addresses[0] = u64::from(value) << 12;
                queue.enabled = value != 0;
            }
            14 => self.selects[2] = value as usize,
            16 => {}
            18 => self.set_status(value as u8),
            20 => self.config_vector = vector,
            22 => self.queue().unwrap().vector = vector,
            _ => panic!("write of port {offset}"),
        }
    }
}

/// The registers of a part.
struct Registers {
    model: Model,
    part: u32,
}

impl std::fmt::Debug for Registers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registers at {:#x}", self.part)
    }
}

impl Registers {
    fn read(&self, offset: usize) -> u32 {
        let mut state = self.model.state();
        match self.part {
            _ if state.gone => u32::MAX,
            COMMON => state.read_common(offset),
            ISR => std::mem::take(&mut state.isr).into(),
            NET => state.net[offset].into(),
            _ => unreachable!(),
        }
    }

    fn write(&self, offset: usize, value: u32) {
        let mut state = self.model.state();
        assert_eq!(self.part, COMMON, "the others are only read");
        if !state.gone {
            state.write_common(offset, value);
        }
    }
}

impl Window for Registers {
    fn read8(&self, offset: usize) -> u8 {
        self.read(offset) as u8
    }

    fn read16(&self, offset: usize) -> u16 {
        self.read(offset) as u16
    }

    fn read32(&self, offset: usize) -> u32 {
        self.read(offset)
    }

    fn write8(&self, offset: usize, value: u8) {
        self.write(offset, value.into());
    }

    fn write16(&self, offset: usize, value: u16) {
        self.write(offset, value.into());
    }

    fn write32(&self, offset: usize, value: u32) {
        self.write(offset, value);
    }
}

/// Windows onto the model.
#[derive(Debug)]
pub struct ModelWindows(pub Model);

impl Windows for ModelWindows {
    fn open(&mut self, place: Place) -> Result<Box<dyn Window>, PciError> {
        Ok(Box::new(Registers { model: self.0.clone(), part: place.offset }))
    }

    fn doorbell(
        &self,
        place: Place,
        at: u32,
        index: u16,
        with_position: bool,
    ) -> Result<Doorbell, PciError> {
        let offset = (place.offset + at) as usize;
        Ok(Doorbell::memory(Arc::clone(&self.0.doorbells), offset, index, with_position))
    }
}
