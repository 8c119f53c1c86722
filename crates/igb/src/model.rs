//! An 82576 in software, for unit tests: registers with their side effects, rings that it reads
//! and writes through device addresses, and the other end of its cable.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard};

use eal::dma::{AddressSpace, DeviceAddresses};
use eal::mem::Pages;
use eal::pci::{Bar, DeviceInfo, PciDevice, PciError};
use eal::{DmaSpace, EventFd, PeerEvent, SharedMemory};
use packet::MacAddr;

use super::descriptors::{Received, tx};
use super::registers::*;
use super::rss::{KEY_LEN, hashed_bytes, toeplitz};

/// The address that the model's NVM has.
pub(super) const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

/// A frame that the device has sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) queue: u16,
    /// As it lay in memory, with the tag that the device was told to insert.
    pub(super) bytes: Vec<u8>,
    /// The second word of its first data descriptor.
    pub(super) bits: u64,
    /// The context that it refers to, and how many were written so far.
    pub(super) context: [u64; 2],
    pub(super) contexts_written: usize,
    /// Data descriptors.
    pub(super) pieces: usize,
}

/// Memory that the device reaches: device address, host address, length.
#[derive(Debug, Default)]
struct Mappings(Vec<(u64, usize, usize)>);

#[derive(Debug, Default)]
pub(super) struct State {
    registers: HashMap<usize, u32>,
    mappings: Mappings,
    next_address: u64,
    bus_master: bool,
    contexts: HashMap<(u16, usize), [u64; 2]>,
    contexts_written: usize,
    events: Vec<Option<PeerEvent>>,
    line: Option<EventFd>,
    phy_restarts: usize,
    /// Reads of STATUS until the link is there after negotiation.
    negotiation: u32,
    pub(super) negotiation_takes: u32,
    pub(super) cable_out: bool,
    pub(super) gone: bool,
    /// The driver has given it back, in a state where it reached no memory.
    pub(super) given_back: bool,
    /// The kernel wants it back.
    pub(super) request: Option<EventFd>,
    pub(super) without_address: bool,
    pub(super) erased_nvm: bool,
    /// Queues do not stop.
    pub(super) stuck: bool,
    /// Nothing is sent.
    pub(super) stalled: bool,
    /// What is sent is received as well.
    pub(super) loopback: bool,
    pub(super) sent: Vec<Sent>,
    /// Writes of RDT.
    pub(super) announcements: usize,
    /// Writes of TDT.
    pub(super) publications: usize,
    /// Memory that was taken away from a queue that was running.
    pub(super) violations: usize,
    /// Accesses to what is not mapped.
    pub(super) faults: usize,
}

/// The device. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Device(Arc<Mutex<State>>);

impl Device {
    pub(super) fn new() -> Self {
        let state = State { next_address: 0x1_0000_0000, ..State::default() };
        let device = Self(Arc::new(Mutex::new(state)));
        device.lock().reset();
        device
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// What the driver opens, with `vectors` of MSI-X, and a line where there are none.
    pub(super) fn pci(&self, vectors: u16, line: bool) -> Arc<dyn PciDevice> {
        let line = line.then(|| EventFd::new().unwrap());
        self.lock().line = line.as_ref().map(|event| event.try_clone().unwrap());
        let info = DeviceInfo {
            address: "0000:01:00.0".parse().unwrap(),
            vendor: 0x8086,
            device: 0x10C9,
            subsystem_vendor: 0,
            subsystem_device: 0,
            class: 0x02_00_00,
            revision: 1,
            driver: Some("model".to_owned()),
            numa_node: None,
            iommu_group: None,
            interfaces: Vec::new(),
        };
        let space = DmaSpace::new(Arc::new(self.clone()));
        let request = EventFd::new().unwrap();
        self.lock().request = Some(request.try_clone().unwrap());
        Arc::new(ModelPci { device: self.clone(), info, space, vectors, line, request })
    }

    /// Sends a frame to the device.
    pub(super) fn inject(&self, frame: &[u8]) {
        self.lock().receive(frame);
    }

    /// Has the device write `status` to the next receive descriptor of `queue`, whatever it means.
    pub(super) fn inject_descriptor(&self, queue: u16, status: u64) {
        self.lock().write_back(queue, status);
    }

    /// Has the device write `status` to descriptor `index` of `queue`, without moving on.
    pub(super) fn overwrite_descriptor(&self, queue: u16, index: u32, status: u64) {
        let mut state = self.lock();
        let base = state.base(RxRegisters::of(queue).rdbal);
        state.write_memory(base + 16 * u64::from(index) + 8, &status.to_le_bytes());
    }

    /// Sends what it was held up with.
    pub(super) fn resume(&self) {
        let mut state = self.lock();
        state.stalled = false;
        for queue in 0..16 {
            state.transmit(queue);
        }
    }

    /// Pulls the cable or plugs it in.
    pub(super) fn plug(&self, in_place: bool) {
        let mut state = self.lock();
        state.cable_out = !in_place;
        state.negotiation = 0;
        state.raise(cause::LSC);
    }

    /// How often memory was taken from a queue that was running, and how much is mapped still.
    pub(super) fn left_behind(&self) -> (usize, usize) {
        let state = self.lock();
        (state.violations, state.mapped_bytes())
    }

    pub(super) fn register(&self, register: Register) -> u32 {
        self.lock().get(register)
    }

    pub(super) fn count(&self, register: usize, count: u32) {
        self.lock().registers.insert(register, count);
    }
}

impl Registers for Device {
    fn read(&self, register: Register) -> u32 {
        self.lock().read(register)
    }

    fn write(&self, register: Register, value: u32) {
        self.lock().write(register, value);
    }
}

impl State {
    pub(super) fn phy_restarts(&self) -> usize {
        self.phy_restarts
    }

    pub(super) fn has_bus_master(&self) -> bool {
        self.bus_master
    }

    pub(super) fn mapped_bytes(&self) -> usize {
        self.mappings.0.iter().map(|(_, _, len)| len).sum()
    }

    fn get(&self, register: Register) -> u32 {
        self.registers.get(&register.0).copied().unwrap_or(0)
    }

    fn set(&mut self, register: Register, value: u32) {
        self.registers.insert(register.0, value);
    }

    fn reset(&mut self) {
        self.registers.clear();
        self.contexts.clear();
        // What this device has before software: a link reset, and queue 0 enabled.
        self.set(CTRL, ctrl::LRST);
        self.set(TxRegisters::of(0).txdctl, dctl::ENABLE);
        self.negotiation = u32::MAX;
        if !self.without_address {
            let [a, b, c, d, e, f] = MAC.0;
            let [low, high] = receive_address(0);
            self.set(low, u32::from_le_bytes([a, b, c, d]));
            self.set(high, u32::from_le_bytes([e, f, 0, 0]) | RAH_VALID);
        }
    }

    fn read(&mut self, register: Register) -> u32 {
        if self.gone {
            return ALL_ONES;
        }
        let value = self.get(register);
        match register {
            STATUS => return self.status(),
            ICR => self.set(ICR, 0),
            SWSM => self.set(SWSM, value | swsm::SMBI),
            Register(0x4000..0x4108) => self.set(register, 0),
            _ => {}
        }
        value
    }

    fn status(&mut self) -> u32 {
        let mut value = 2 << status::SPEED_SHIFT | 1;
        let control = self.get(CTRL);
        if control & ctrl::GIO_MASTER_DISABLE == 0 {
            value |= status::GIO_MASTER_ENABLE;
        }
        if self.negotiation > 0 && self.negotiation != u32::MAX {
            self.negotiation -= 1;
        }
        if self.negotiation == 0 && control & ctrl::SLU != 0 && !self.cable_out {
            value |= status::LU;
        }
        value
    }

    fn write(&mut self, register: Register, value: u32) {
        if self.gone {
            return;
        }
        let old = self.get(register);
        match register {
            CTRL if value & ctrl::RST != 0 => self.reset(),
            IMS | EIMS => {
                self.set(register, old | value);
                self.deliver();
            }
            IMC => self.set(IMS, self.get(IMS) & !value),
            EIMC => self.set(EIMS, self.get(EIMS) & !value),
            ICR | EICR => self.set(register, old & !value),
            MDIC => self.access_phy(value),
            EERD => self.read_nvm(value),
            _ => self.write_queue(register, value),
        }
    }

    fn write_queue(&mut self, register: Register, value: u32) {
        let place = register.0 & 0x3F;
        let queue = u16::try_from(register.0 >> 6 & 0xF).unwrap();
        let area = register.0 & !0x3FF;
        match (area, place) {
            (0xC000 | 0xE000, 0x28) if self.stuck && value & dctl::ENABLE == 0 => return,
            (0xC000, 0x18) => self.announcements += 1,
            (0xE000, 0x18) => self.publications += 1,
            _ => {}
        }
        self.set(register, value);
        if (area, place) == (0xE000, 0x18) {
            self.transmit(queue);
        }
    }

    fn access_phy(&mut self, value: u32) {
        let register = value >> mdic::REGISTER_SHIFT & 0x1F;
        let mut answer = value & !0xFFFF | mdic::READY;
        if value >> mdic::PHY_SHIFT & 0x1F != 1 || register != 0 {
            answer |= mdic::ERROR;
        } else if value & mdic::OP_WRITE != 0 && value & 1 << 9 != 0 {
            self.phy_restarts += 1;
            self.negotiation = self.negotiation_takes;
        }
        self.set(MDIC, answer);
    }

    fn read_nvm(&mut self, value: u32) {
        let word = (value >> eerd::ADDRESS_SHIFT) as usize;
        let bytes = MAC.0.get(2 * word..2 * word + 2).unwrap_or(&[0, 0]);
        let data = u32::from(u16::from_le_bytes(bytes.try_into().unwrap()));
        let data = if self.erased_nvm { 0xFFFF } else { data };
        self.set(EERD, eerd::DONE | data << eerd::DATA_SHIFT);
    }

    // Interrupts.

    fn raise(&mut self, causes: u32) {
        self.set(ICR, self.get(ICR) | causes);
        let multiple = self.get(GPIE) & gpie::MULTIPLE_MSIX != 0;
        let vector = self.get(IVAR_MISC) >> 8 & 0xFF;
        if multiple && causes & self.get(IMS) != 0 && vector & IVAR_VALID != 0 {
            self.set(EICR, self.get(EICR) | 1 << (vector & 0x1F));
        }
        self.deliver();
    }

    fn raise_queue(&mut self, queue: u16) {
        let entry = self.get(ivar(usize::from(queue) % 8)) >> if queue < 8 { 0 } else { 16 };
        if entry & IVAR_VALID != 0 {
            self.set(EICR, self.get(EICR) | 1 << (entry & 0x1F));
        }
        self.raise(cause::RXDW);
    }

    fn deliver(&mut self) {
        if self.get(GPIE) & gpie::MULTIPLE_MSIX != 0 {
            let firing = self.get(EICR) & self.get(EIMS);
            for (vector, event) in self.events.iter().enumerate() {
                if firing & 1 << vector != 0
                    && let Some(event) = event
                {
                    event.signal().unwrap();
                }
            }
            self.set(EICR, self.get(EICR) & !(firing & self.get(EIAC)));
        } else if self.get(ICR) & self.get(IMS) != 0
            && let Some(line) = &self.line
        {
            line.signal().unwrap();
        }
    }

    // Memory.

    fn host(&mut self, address: u64, len: usize) -> Option<NonNull<u8>> {
        let inside = |(device, _, bytes): &&(u64, usize, usize)| {
            address >= *device && address + len as u64 <= *device + *bytes as u64
        };
        let found = self.mappings.0.iter().find(inside).filter(|_| self.bus_master);
        let Some((device, host, _)) = found else {
            self.faults += 1;
            return None;
        };
        let offset = usize::try_from(address - device).unwrap();
        NonNull::new(std::ptr::with_exposed_provenance_mut(host + offset))
    }

    fn read_memory(&mut self, address: u64, len: usize) -> Option<Vec<u8>> {
        let host = self.host(address, len)?;
        let mut bytes = vec![0; len];
        // SAFETY: `host` made sure that the bytes are in memory that is mapped; it is unmapped
        // here before it is freed.
        unsafe { host.as_ptr().copy_to(bytes.as_mut_ptr(), len) };
        Some(bytes)
    }

    fn write_memory(&mut self, address: u64, bytes: &[u8]) {
        if let Some(host) = self.host(address, bytes.len()) {
            // SAFETY: as in `read_memory`.
            unsafe { host.as_ptr().copy_from(bytes.as_ptr(), bytes.len()) };
        }
    }

    fn read_descriptor(&mut self, address: u64) -> Option<[u64; 2]> {
        let bytes = self.read_memory(address, 16)?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        Some([word(0), word(8)])
    }

    fn base(&self, low: Register) -> u64 {
        u64::from(self.get(Register(low.0 + 4))) << 32 | u64::from(self.get(low))
    }

    // Transmit.

    fn transmit(&mut self, queue: u16) {
        let registers = TxRegisters::of(queue);
        let mut frame = Sent { queue, ..Sent::default() };
        while !self.stalled
            && self.bus_master
            && self.get(TCTL) & tctl::EN != 0
            && self.get(registers.txdctl) & dctl::ENABLE != 0
            && self.get(registers.tdh) != self.get(registers.tdt)
        {
            let head = self.get(registers.tdh);
            let address = self.base(registers.tdbal) + 16 * u64::from(head);
            let Some(descriptor) = self.read_descriptor(address) else { return };
            self.transmit_descriptor(&mut frame, descriptor);
            if descriptor[1] & tx::REPORT != 0 {
                let done = descriptor[1] | tx::DONE;
                self.write_memory(address + 8, &done.to_le_bytes());
            }
            let entries = self.get(registers.tdlen) / 16;
            self.set(registers.tdh, (head + 1) % entries);
        }
        assert_eq!(frame.pieces, 0, "a frame without end");
    }

    fn transmit_descriptor(&mut self, frame: &mut Sent, [first, second]: [u64; 2]) {
        let number = usize::from(second & 1 << tx::CONTEXT_SHIFT != 0);
        if second & tx::DATA != tx::DATA {
            assert_eq!(second & tx::DATA, tx::CONTEXT);
            self.contexts.insert((frame.queue, number), [first, second]);
            self.contexts_written += 1;
            return;
        }
        if frame.pieces == 0 {
            frame.bits = second;
        }
        frame.pieces += 1;
        let len = usize::try_from(second & 0xFFFF).unwrap();
        assert_eq!(first >> 12, (first + len as u64 - 1) >> 12, "a part on two pages");
        frame.bytes.extend(self.read_memory(first, len).unwrap_or_default());
        if second & tx::END == 0 {
            return;
        }
        let mut frame = std::mem::replace(frame, Sent { queue: frame.queue, ..Sent::default() });
        frame.context = self.contexts.get(&(frame.queue, number)).copied().unwrap_or_default();
        frame.contexts_written = self.contexts_written;
        if frame.bits & tx::INSERT_TAG != 0 {
            let [high, low] = u16::try_from(frame.context[0] >> 16 & 0xFFFF).unwrap().to_be_bytes();
            frame.bytes.splice(12..12, [0x81, 0, high, low]);
        }
        if self.loopback {
            self.receive(&frame.bytes.clone());
        }
        self.sent.push(frame);
    }

    // Receive.

    /// Takes a frame from the cable, which has no checksum that would interest it.
    fn receive(&mut self, frame: &[u8]) {
        let control = self.get(RCTL);
        let tag = (frame[12..14] == [0x81, 0])
            .then(|| u16::from_be_bytes([frame[14], frame[15]]) & 0xFFF);
        if control & rctl::EN == 0
            || frame.len() + 4 > self.get(RLPML) as usize
            || !self.is_wanted(frame)
            || tag.is_some_and(|tag| control & rctl::VFE != 0 && !self.bit(VFTA, tag.into()))
        {
            return;
        }
        let queue = self.rss_queue(frame);
        let mut frame = frame.to_vec();
        let mut status = Received::END;
        if let Some(tag) = tag.filter(|_| self.get(CTRL) & ctrl::VME != 0) {
            frame.drain(12..16);
            status |= Received::TAG_STRIPPED | u64::from(tag) << 48;
        }
        // UDP datagrams to port 9 have a good checksum, those to port 10 a bad one.
        if frame.len() > 38 && frame[12..14] == [8, 0] && frame[23] == 17 {
            status |= match frame[37] {
                9 => Received::L4_CHECKED,
                10 => Received::L4_CHECKED | Received::L4_ERROR,
                _ => 0,
            };
        }
        let registers = RxRegisters::of(queue);
        let room = (self.get(registers.srrctl) as usize & 0x7F) << 10;
        let entries = self.get(registers.rdlen) / 16;
        let (head, tail) = (self.get(registers.rdh), self.get(registers.rdt));
        let free = (tail + entries - head) % entries.max(1);
        if frame.len().div_ceil(room) > free as usize {
            let missed = self.get(Register(0x4010)) + 1;
            self.set(Register(0x4010), missed);
            return;
        }
        let mut pieces = frame.chunks(room).peekable();
        while let Some(piece) = pieces.next() {
            let head = self.get(registers.rdh);
            let address = self.base(registers.rdbal) + 16 * u64::from(head);
            let Some([buffer, _]) = self.read_descriptor(address) else { return };
            self.write_memory(buffer, piece);
            let last = if pieces.peek().is_none() { status } else { 0 };
            self.write_back(queue, (piece.len() as u64) << 32 | last | Received::DONE);
        }
        let packets = self.get(Register(0x4074)) + 1;
        self.set(Register(0x4074), packets);
        self.raise_queue(queue);
    }

    fn write_back(&mut self, queue: u16, status: u64) {
        let registers = RxRegisters::of(queue);
        let head = self.get(registers.rdh);
        let address = self.base(registers.rdbal) + 16 * u64::from(head);
        self.write_memory(address, &0xDEAD_u64.to_le_bytes());
        self.write_memory(address + 8, &status.to_le_bytes());
        let entries = self.get(registers.rdlen) / 16;
        self.set(registers.rdh, (head + 1) % entries);
    }

    fn bit(&self, table: Register, bit: usize) -> bool {
        self.get(table.at(bit / 32)) & 1 << (bit % 32) != 0
    }

    fn is_wanted(&self, frame: &[u8]) -> bool {
        let control = self.get(RCTL);
        let [low, high] = receive_address(0).map(|register| self.get(register).to_le_bytes());
        let own = [&low[..], &high[..2]].concat();
        let hash = usize::from(u16::from_le_bytes([frame[4], frame[5]]) >> 4);
        match frame[0] & 1 {
            0 => control & rctl::UPE != 0 || frame[..6] == own,
            _ if frame[..6] == [0xFF; 6] => control & rctl::BAM != 0,
            _ => control & rctl::MPE != 0 || self.bit(MTA, hash),
        }
    }

    /// Of IPv4 frames with ports.
    fn rss_queue(&self, frame: &[u8]) -> u16 {
        if frame.len() < 38 || frame[12..14] != [8, 0] || self.get(MRQC) & 7 != mrqc::RSS {
            return 0;
        }
        let mut key = [0; KEY_LEN];
        for (index, bytes) in key.chunks_exact_mut(4).enumerate() {
            bytes.copy_from_slice(&self.get(RSSRK.at(index)).to_le_bytes());
        }
        let address = |at: usize| <[u8; 4]>::try_from(&frame[at..at + 4]).unwrap().into();
        let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let input = hashed_bytes(address(26), address(30), Some((port(34), port(36))));
        let entry = toeplitz(&key, &input) as usize % 128;
        let queue = self.get(RETA.at(entry / 4)).to_le_bytes()[entry % 4];
        u16::from(queue & 0xF)
    }
}

impl AddressSpace for Device {
    fn pages(&self) -> Pages {
        Pages::Plain
    }

    fn piece_len(&self) -> usize {
        usize::MAX
    }

    unsafe fn map(&self, memory: &SharedMemory) -> Result<DeviceAddresses, String> {
        let mut state = self.lock();
        let device = state.next_address;
        state.next_address += 2 * memory.len() as u64;
        let host = memory.as_ptr().as_ptr().expose_provenance();
        state.mappings.0.push((device, host, memory.len()));
        Ok(DeviceAddresses::Contiguous(device))
    }

    fn unmap(&self, memory: &SharedMemory, _addresses: &DeviceAddresses) {
        let mut state = self.lock();
        let host = memory.as_ptr().as_ptr().addr();
        let running = (0..16).any(|queue| {
            let (rx, tx) = (RxRegisters::of(queue), TxRegisters::of(queue));
            let on = |control, len| {
                state.get(control) & dctl::ENABLE != 0 && state.get(len) != 0 && state.bus_master
            };
            on(rx.rxdctl, rx.rdlen) || on(tx.txdctl, tx.tdlen)
        });
        if running && !state.gone {
            state.violations += 1;
        }
        state.mappings.0.retain(|(_, mapped, _)| *mapped != host);
    }
}

/// What gives access to the device.
#[derive(Debug)]
struct ModelPci {
    device: Device,
    info: DeviceInfo,
    space: DmaSpace,
    vectors: u16,
    line: Option<EventFd>,
    request: EventFd,
}

impl PciDevice for ModelPci {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn dma(&self) -> &DmaSpace {
        &self.space
    }

    fn read_config(&self, _offset: u16, _into: &mut [u8]) -> Result<(), PciError> {
        Err(PciError::new(self.info.address, "no configuration space"))
    }

    fn write_config(&self, _offset: u16, _bytes: &[u8]) -> Result<(), PciError> {
        Err(PciError::new(self.info.address, "no configuration space"))
    }

    fn map_bar(&self, _index: u8) -> Result<Bar, PciError> {
        Err(PciError::new(self.info.address, "no BAR"))
    }

    fn set_bus_master(&self, on: bool) -> Result<(), PciError> {
        self.device.lock().bus_master = on;
        Ok(())
    }

    fn reset(&self) -> Result<(), PciError> {
        Ok(())
    }

    fn msix_vectors(&self) -> u16 {
        self.vectors
    }

    fn set_msix(&self, events: &[Option<BorrowedFd<'_>>]) -> Result<(), PciError> {
        self.device.lock().events = events.iter().map(|event| event.map(heard_by)).collect();
        Ok(())
    }

    fn line_interrupt(&self) -> Option<BorrowedFd<'_>> {
        self.line.as_ref().map(AsFd::as_fd)
    }

    fn release_request(&self) -> Option<BorrowedFd<'_>> {
        Some(self.request.as_fd())
    }

    fn give_back(&self) {
        let mut state = self.device.lock();
        assert!(state.gone || !state.bus_master, "it still reaches memory");
        state.given_back = true;
        state.gone = true;
    }

    fn unmask_line_interrupt(&self) -> Result<(), PciError> {
        let Some(line) = &self.line else {
            return Err(PciError::new(self.info.address, "no line"));
        };
        line.drain().unwrap();
        self.device.lock().deliver();
        Ok(())
    }
}

impl Drop for ModelPci {
    fn drop(&mut self) {
        self.device.lock().bus_master = false;
    }
}

/// The event of a vector, which the device signals.
fn heard_by(event: BorrowedFd<'_>) -> PeerEvent {
    PeerEvent::from_fd(event.try_clone_to_owned().unwrap()).unwrap()
}
