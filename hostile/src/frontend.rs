//! A front-end with one queue pair, and a control queue if asked for. How it introduces itself is
//! data that a case can change before; by default all of it is true.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use crate::memory::Memory;
use crate::message::{Region, addresses, feature, number, protocol, request, state, table};
use crate::ring::{Format, Layout, Ring};
use crate::wire::{Answer, Wire};

/// Where the front-end says that its memory is in its own address space.
pub const USER: u64 = 0x7000_0000_0000;
/// Bytes of a front-end's memory.
pub const BYTES: usize = 8 << 20;
/// Where the receive buffers begin: 2 KiB for each.
pub const RX_BUFFERS: usize = 0x10_0000;
/// Where the transmit buffers begin, likewise.
pub const TX_BUFFERS: usize = 0x40_0000;
/// Where there is room for tables and large frames.
pub const SPARE: usize = 0x70_0000;
/// Bytes of a buffer.
pub const BUFFER: usize = 2048;
/// Bytes of the net header with VERSION_1 (virtio 1.3 section 5.1.6).
pub const NET_HEADER: usize = 12;

/// The ring that the device receives into.
pub const RX: usize = 0;
/// The ring that the device takes frames from.
pub const TX: usize = 1;
/// The control ring, of a device with one pair.
pub const CONTROL: usize = 2;

/// All of a front-end's memory as one region.
pub const fn whole() -> Region {
    Region { guest: 0, size: BYTES as u64, user: USER, offset: 0 }
}

/// What a front-end says of one ring.
#[derive(Clone, Debug)]
pub struct RingSetup {
    pub num: u32,
    pub base: u32,
    /// Descriptor, used and available part and the log, in the front-end's address space.
    pub addresses: [u64; 4],
    pub flags: u32,
}

/// What a front-end says of itself.
#[derive(Clone, Debug)]
pub struct Setup {
    pub format: Format,
    /// Features that are taken if they are offered.
    pub features: u64,
    /// Features without which the case makes no sense.
    pub needed: u64,
    pub protocol: u64,
    pub regions: Vec<Region>,
    pub rings: Vec<RingSetup>,
    /// How large the rings really are.
    pub size: u16,
}

impl Setup {
    /// The truth about a front-end with rings of `size`.
    pub fn new(format: Format, size: u16) -> Self {
        let packed = if format == Format::Packed { feature::RING_PACKED } else { 0 };
        let base = if format == Format::Packed { 0x8000_8000 } else { 0 };
        let ring = |index| {
            let at = Layout::of(index);
            let [desc, used, avail] =
                [at.desc, at.used, at.avail].map(|offset| USER + offset as u64);
            RingSetup { num: size.into(), base, addresses: [desc, used, avail, 0], flags: 0 }
        };
        let features = feature::VERSION_1 | feature::PROTOCOL_FEATURES | feature::MRG_RXBUF;
        Self {
            format,
            features: features | packed,
            needed: feature::VERSION_1 | packed,
            protocol: protocol::WANTED,
            regions: vec![whole()],
            rings: vec![ring(RX), ring(TX)],
            size,
        }
    }

    /// With these features as well, if they are offered.
    pub fn with(mut self, features: u64) -> Self {
        self.features |= features;
        self
    }

    /// With these features, without which it makes no sense.
    pub fn needing(mut self, features: u64) -> Self {
        self.needed |= features;
        self.with(features)
    }

    /// With a control queue.
    pub fn with_control(self) -> Self {
        let format = self.format;
        let mut setup = self.needing(feature::CTRL_VQ);
        setup.features |= feature::CTRL_RX | feature::CTRL_VLAN | feature::CTRL_MAC_ADDR;
        let at = Layout::of(CONTROL);
        let [desc, used, avail] = [at.desc, at.used, at.avail].map(|offset| USER + offset as u64);
        let base = if format == Format::Packed { 0x8000_8000 } else { 0 };
        let num = setup.size.into();
        setup.rings.push(RingSetup { num, base, addresses: [desc, used, avail, 0], flags: 0 });
        setup
    }
}

/// A front-end that has introduced itself.
#[derive(Debug)]
pub struct Frontend {
    pub wire: Wire,
    pub memory: Arc<Memory>,
    pub rings: Vec<Ring>,
    /// The features in force.
    pub features: u64,
}

impl Frontend {
    /// Connects and introduces itself with `setup`. What the back-end refuses is noted in the
    /// wire, and the rest is sent all the same.
    ///
    /// # Errors
    /// When there is no back-end, or one that lacks what is needed.
    pub fn start(path: &Path, setup: &Setup) -> Result<Self> {
        let mut frontend = Self::prepare(path, setup)?;
        frontend.share(setup);
        for index in 0..setup.rings.len() {
            frontend.start_ring(index, setup);
        }
        Ok(frontend)
    }

    /// Connects and negotiates, no more.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn prepare(path: &Path, setup: &Setup) -> Result<Self> {
        let mut wire = Wire::connect(path)?;
        let features = wire.negotiate(setup.features, setup.needed, setup.protocol)?;
        let memory = Arc::new(Memory::new(BYTES)?);
        let rings = (0..setup.rings.len())
            .map(|index| Ring::new(&memory, setup.format, index, setup.size))
            .collect::<Result<_>>()?;
        Ok(Self { wire, memory, rings, features })
    }

    /// Sends the memory table.
    pub fn share(&mut self, setup: &Setup) -> Answer {
        let fds: Vec<BorrowedFd<'_>> =
            setup.regions.iter().take(8).map(|_| self.memory.as_fd()).collect();
        let count = u32::try_from(setup.regions.len()).unwrap_or(u32::MAX);
        self.wire.tell(request::SET_MEM_TABLE, &table(count, &setup.regions), &fds)
    }

    /// Sends all that starts a ring, and enables it.
    pub fn start_ring(&mut self, index: usize, setup: &Setup) {
        let number_of = u32::try_from(index).unwrap_or(u32::MAX);
        let (ring, says) = (&self.rings[index], &setup.rings[index]);
        let wire = &mut self.wire;
        wire.tell(request::SET_VRING_NUM, &state(number_of, says.num), &[]);
        wire.tell(request::SET_VRING_BASE, &state(number_of, says.base), &[]);
        let addresses = addresses(number_of, says.flags, says.addresses);
        wire.tell(request::SET_VRING_ADDR, &addresses, &[]);
        let file = number(number_of.into());
        wire.tell(request::SET_VRING_CALL, &file, &[ring.call.as_fd()]);
        wire.tell(request::SET_VRING_KICK, &file, &[ring.kick.as_fd()]);
        wire.tell(request::SET_VRING_ENABLE, &state(number_of, 1), &[]);
    }
}
