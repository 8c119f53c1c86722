//! Registers of the 82576 and its siblings, by the names of the datasheet ("Intel 82576EB Gigabit
//! Ethernet Controller Datasheet", chapter 8; section numbers below are its).

use eal::pci::Bar;

/// The device's registers. Data paths are made for one implementation, so that an access is one
/// load or store; tests have a device in software behind it.
pub(super) trait Registers: Send + Sync + 'static {
    /// Reads a register. A device that is gone answers with all ones.
    fn read(&self, register: Register) -> u32;

    /// Writes a register, behind everything that was written to memory before.
    fn write(&self, register: Register, value: u32);

    /// Whether the kernel has taken the registers away.
    fn are_gone(&self) -> bool {
        false
    }
}

/// What a register reads as when nobody answers.
pub(super) const ALL_ONES: u32 = u32::MAX;

impl Registers for Bar {
    #[inline]
    fn read(&self, register: Register) -> u32 {
        u32::from_le(self.read32(register.0))
    }

    #[inline]
    fn write(&self, register: Register, value: u32) {
        memory_before_registers();
        self.write32(register.0, value.to_le());
    }

    fn are_gone(&self) -> bool {
        self.is_gone()
    }
}

/// Makes descriptors and packets that were written visible to the device before a register is
/// written that points it at them.
#[inline]
fn memory_before_registers() {
    // x86 stores are seen in order, by devices too, so this costs nothing there.
    std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier has no operands and changes no memory. Devices are observers of the outer
    // domain, which the fence above does not reach.
    unsafe {
        std::arch::asm!("dmb oshst", options(nostack, preserves_flags));
    }
}

/// A register's byte offset in the first base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Register(pub(super) usize);

impl Register {
    /// Register `index` of a table that starts here.
    pub(super) const fn at(self, index: usize) -> Self {
        Self(self.0 + 4 * index)
    }
}

// General (8.2).

/// Device control (8.2.1).
pub(super) const CTRL: Register = Register(0x0000);
/// Device status (8.2.2).
pub(super) const STATUS: Register = Register(0x0008);
/// NVM control: tells when its contents have been loaded (8.4.1).
pub(super) const EECD: Register = Register(0x0010);
/// NVM read (8.4.2).
pub(super) const EERD: Register = Register(0x0014);
/// Extended device control (8.2.3).
pub(super) const CTRL_EXT: Register = Register(0x0018);
/// Access to the PHY (8.2.4).
pub(super) const MDIC: Register = Register(0x0020);
/// EtherTypes of VLAN tags: the outer one in the upper half (8.2.7).
pub(super) const VET: Register = Register(0x0038);
/// Software semaphore (8.16.1).
pub(super) const SWSM: Register = Register(0x5B50);
/// What software and firmware are using (8.16.4).
pub(super) const SW_FW_SYNC: Register = Register(0x5B5C);

/// Bits of [`CTRL`].
pub(super) mod ctrl {
    /// Keeps the device from starting new accesses to memory.
    pub const GIO_MASTER_DISABLE: u32 = 1 << 2;
    /// Link reset, of SerDes links.
    pub const LRST: u32 = 1 << 3;
    /// Set link up.
    pub const SLU: u32 = 1 << 6;
    /// Force the speed.
    pub const FRCSPD: u32 = 1 << 11;
    /// Force the duplex mode.
    pub const FRCDPLX: u32 = 1 << 12;
    /// Reset of everything but the PHY; clears itself.
    pub const RST: u32 = 1 << 26;
    /// Obey pause frames.
    pub const RFCE: u32 = 1 << 27;
    /// Send pause frames.
    pub const TFCE: u32 = 1 << 28;
    /// Strip VLAN tags of received frames.
    pub const VME: u32 = 1 << 30;
}

/// Bits of [`STATUS`].
pub(super) mod status {
    /// The link is up.
    pub const LU: u32 = 1 << 1;
    /// Which port of the device this is.
    pub const LAN_ID_SHIFT: u32 = 2;
    /// Speed: 0 for 10 Mbit/s, 1 for 100 Mbit/s, otherwise 1 Gbit/s.
    pub const SPEED_SHIFT: u32 = 6;
    /// Accesses to memory are enabled or under way.
    pub const GIO_MASTER_ENABLE: u32 = 1 << 19;
}

/// Bits of [`EECD`].
pub(super) mod eecd {
    /// The NVM has been loaded.
    pub const AUTO_RD: u32 = 1 << 9;
}

/// Fields of [`EERD`].
pub(super) mod eerd {
    /// Start to read.
    pub const START: u32 = 1 << 0;
    /// The word is there.
    pub const DONE: u32 = 1 << 1;
    /// Where the word's address goes.
    pub const ADDRESS_SHIFT: u32 = 2;
    /// Where the word comes.
    pub const DATA_SHIFT: u32 = 16;
}

/// Bits of [`CTRL_EXT`].
pub(super) mod ctrl_ext {
    /// The reset of the physical function is done, for virtual functions.
    pub const PFRSTD: u32 = 1 << 14;
    /// A driver is in charge, for management firmware.
    pub const DRV_LOAD: u32 = 1 << 28;
}

/// Fields of [`MDIC`].
pub(super) mod mdic {
    /// The PHY's register.
    pub const REGISTER_SHIFT: u32 = 16;
    /// The PHY's address.
    pub const PHY_SHIFT: u32 = 21;
    /// Write to the PHY.
    pub const OP_WRITE: u32 = 1 << 26;
    /// Read from the PHY.
    pub const OP_READ: u32 = 2 << 26;
    /// Done.
    pub const READY: u32 = 1 << 28;
    /// It did not work.
    pub const ERROR: u32 = 1 << 30;
}

/// Bits of [`SWSM`].
pub(super) mod swsm {
    /// Taken by whichever driver reads it as 0.
    pub const SMBI: u32 = 1 << 0;
    /// Taken by whoever can set it, driver or firmware.
    pub const SWESMBI: u32 = 1 << 1;
}

// Interrupts (8.8).

/// Interrupt cause; cleared by reading (8.8.8).
pub(super) const ICR: Register = Register(0x00C0);
/// Interrupt causes to enable (8.8.10).
pub(super) const IMS: Register = Register(0x00D0);
/// Interrupt causes to disable (8.8.11).
pub(super) const IMC: Register = Register(0x00D8);
/// General purpose interrupt enable (8.8.13).
pub(super) const GPIE: Register = Register(0x1514);
/// Vectors to enable (8.8.3).
pub(super) const EIMS: Register = Register(0x1524);
/// Vectors to disable (8.8.4).
pub(super) const EIMC: Register = Register(0x1528);
/// Vectors whose cause is cleared when they fire (8.8.5).
pub(super) const EIAC: Register = Register(0x152C);
/// Causes of vectors; writing a bit clears it (8.8.1).
pub(super) const EICR: Register = Register(0x1580);
/// The vector of link changes and other causes (8.8.16).
pub(super) const IVAR_MISC: Register = Register(0x1740);

/// Shortest distance of a vector's interrupts (8.8.14).
pub(super) const fn eitr(vector: usize) -> Register {
    Register(0x1680).at(vector)
}

/// Vectors of queues; see [`Model::vector_place`](super::devices::Model::vector_place) (8.8.15).
pub(super) const fn ivar(index: usize) -> Register {
    Register(0x1700).at(index)
}

/// Bits of [`ICR`], [`IMS`] and [`IMC`].
pub(super) mod cause {
    /// The link changed.
    pub const LSC: u32 = 1 << 2;
    /// A receive descriptor was written back.
    pub const RXDW: u32 = 1 << 7;
}

/// Bits of [`GPIE`].
pub(super) mod gpie {
    /// Reading the cause clears it, whatever is enabled.
    pub const NSICR: u32 = 1 << 0;
    /// One vector per cause.
    pub const MULTIPLE_MSIX: u32 = 1 << 4;
    /// [`EIAC`](super::EIAC) and automatic masks apply to MSI-X.
    pub const EIAME: u32 = 1 << 30;
    /// Pending bits are cleared when a vector fires.
    pub const PBA_SUPPORT: u32 = 1 << 31;
}

/// In [`ivar`] and [`IVAR_MISC`]: the vector is valid.
pub(super) const IVAR_VALID: u32 = 0x80;

// Receive (8.10).

/// Receive control (8.10.1).
pub(super) const RCTL: Register = Register(0x0100);
/// Receive checksum control (8.10.16).
pub(super) const RXCSUM: Register = Register(0x5000);
/// Longest frame in bytes, frame check sequence and tags included (8.10.3).
pub(super) const RLPML: Register = Register(0x5004);
/// Multicast table: a bit per hash (8.10.17).
pub(super) const MTA: Register = Register(0x5200);
/// VLAN filter: a bit per VLAN (8.10.21).
pub(super) const VFTA: Register = Register(0x5600);
/// Multiple receive queues (8.10.18).
pub(super) const MRQC: Register = Register(0x5818);
/// RSS table: a byte per entry (8.10.20).
pub(super) const RETA: Register = Register(0x5C00);
/// RSS key: 40 bytes (8.10.19).
pub(super) const RSSRK: Register = Register(0x5C80);
/// Unicast table: a bit per hash (8.10.26).
pub(super) const UTA: Register = Register(0xA000);

/// Words of [`MTA`], [`VFTA`] and [`UTA`].
pub(super) const TABLE_WORDS: usize = 128;

/// Bits of [`RCTL`].
pub(super) mod rctl {
    /// Receive.
    pub const EN: u32 = 1 << 1;
    /// Frames to any station.
    pub const UPE: u32 = 1 << 3;
    /// Frames to any group.
    pub const MPE: u32 = 1 << 4;
    /// Frames as long as [`RLPML`](super::RLPML) says.
    pub const LPE: u32 = 1 << 5;
    /// Frames to everybody.
    pub const BAM: u32 = 1 << 15;
    /// Only VLANs that are in [`VFTA`](super::VFTA).
    pub const VFE: u32 = 1 << 18;
    /// Strip the frame check sequence.
    pub const SECRC: u32 = 1 << 26;
}

/// Bits of [`RXCSUM`].
pub(super) mod rxcsum {
    /// Check the checksum of IPv4 headers.
    pub const IPOFLD: u32 = 1 << 8;
    /// Check checksums of TCP and UDP.
    pub const TUOFLD: u32 = 1 << 9;
    /// Report the RSS hash instead of a raw checksum; RSS needs it.
    pub const PCSD: u32 = 1 << 13;
}

/// Bits of [`MRQC`].
pub(super) mod mrqc {
    /// RSS over all queues.
    pub const RSS: u32 = 2;
    /// By addresses and ports of TCP over IPv4.
    pub const TCP_IPV4: u32 = 1 << 16;
    /// By addresses of IPv4.
    pub const IPV4: u32 = 1 << 17;
    /// By addresses and ports of TCP over IPv6 with extensions. QEMU has this one only.
    pub const TCP_IPV6_EX: u32 = 1 << 18;
    /// By addresses of IPv6.
    pub const IPV6: u32 = 1 << 20;
    /// By addresses and ports of TCP over IPv6.
    pub const TCP_IPV6: u32 = 1 << 21;
    /// By addresses and ports of UDP over IPv4.
    pub const UDP_IPV4: u32 = 1 << 22;
    /// By addresses and ports of UDP over IPv6.
    pub const UDP_IPV6: u32 = 1 << 23;
}

/// Registers of one receive queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct RxRegisters {
    /// Address of the ring, lower half (8.10.5).
    pub(super) rdbal: Register,
    /// Upper half (8.10.6).
    pub(super) rdbah: Register,
    /// Length of the ring in bytes (8.10.7).
    pub(super) rdlen: Register,
    /// Buffers (8.10.2).
    pub(super) srrctl: Register,
    /// The descriptor that the device fills next (8.10.8).
    pub(super) rdh: Register,
    /// The descriptor behind the last one that it may fill (8.10.9).
    pub(super) rdt: Register,
    /// Control (8.10.10).
    pub(super) rxdctl: Register,
    /// Frames dropped for the lack of descriptors (8.10.11).
    pub(super) rqdpc: Register,
}

impl RxRegisters {
    pub(super) const fn of(queue: u16) -> Self {
        let base = 0xC000 + 0x40 * queue as usize;
        Self {
            rdbal: Register(base),
            rdbah: Register(base + 0x04),
            rdlen: Register(base + 0x08),
            srrctl: Register(base + 0x0C),
            rdh: Register(base + 0x10),
            rdt: Register(base + 0x18),
            rxdctl: Register(base + 0x28),
            rqdpc: Register(base + 0x30),
        }
    }
}

/// Fields of SRRCTL.
pub(super) mod srrctl {
    /// Advanced descriptors, one buffer each.
    pub const DESCTYPE_ADVANCED: u32 = 1 << 25;
    /// Drop frames of this queue while it has no descriptors, rather than hold up the others.
    pub const DROP_EN: u32 = 1 << 31;
}

/// Fields of RXDCTL and TXDCTL (8.10.10, 8.12.14).
pub(super) mod dctl {
    /// Where the threshold for write-backs goes.
    pub const WTHRESH_SHIFT: u32 = 16;
    /// Where the host threshold for prefetches goes.
    pub const HTHRESH_SHIFT: u32 = 8;
    /// The queue is enabled.
    pub const ENABLE: u32 = 1 << 25;
}

// Transmit (8.12).

/// Transmit control (8.12.1).
pub(super) const TCTL: Register = Register(0x0400);

/// Fields of [`TCTL`].
pub(super) mod tctl {
    /// Transmit.
    pub const EN: u32 = 1 << 1;
    /// Pad short frames.
    pub const PSP: u32 = 1 << 3;
    /// Collisions before a half-duplex frame is given up: 15.
    pub const CT: u32 = 15 << 4;
    /// Collision distance: 64 byte times.
    pub const COLD: u32 = 0x3F << 12;
    /// Send again after a late collision.
    pub const RTLC: u32 = 1 << 24;
}

/// Registers of one transmit queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct TxRegisters {
    /// Address of the ring, lower half (8.12.9).
    pub(super) tdbal: Register,
    /// Upper half (8.12.10).
    pub(super) tdbah: Register,
    /// Length of the ring in bytes (8.12.11).
    pub(super) tdlen: Register,
    /// The descriptor that the device sends next (8.12.12).
    pub(super) tdh: Register,
    /// The descriptor behind the last one to send (8.12.13).
    pub(super) tdt: Register,
    /// Control (8.12.14).
    pub(super) txdctl: Register,
    /// Where completions are written instead of descriptors; 0 for descriptors (8.12.15).
    pub(super) tdwbal: Register,
}

impl TxRegisters {
    pub(super) const fn of(queue: u16) -> Self {
        let base = 0xE000 + 0x40 * queue as usize;
        Self {
            tdbal: Register(base),
            tdbah: Register(base + 0x04),
            tdlen: Register(base + 0x08),
            tdh: Register(base + 0x10),
            tdt: Register(base + 0x18),
            txdctl: Register(base + 0x28),
            tdwbal: Register(base + 0x38),
        }
    }
}

// Addresses of the port (8.10.15).

/// Receive address `index`: lower half, then upper half with [`RAH_VALID`].
pub(super) const fn receive_address(index: usize) -> [Register; 2] {
    let base = if index < 16 { 0x5400 + 8 * index } else { 0x54E0 + 8 * (index - 16) };
    [Register(base), Register(base + 4)]
}

/// In the upper half of a receive address: frames to it are received.
pub(super) const RAH_VALID: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_and_addresses_have_their_places() {
        assert_eq!(RxRegisters::of(15).rxdctl, Register(0xC3E8));
        assert_eq!(TxRegisters::of(1).tdt, Register(0xE058));
        assert_eq!(receive_address(15), [Register(0x5478), Register(0x547C)]);
        assert_eq!(receive_address(16), [Register(0x54E0), Register(0x54E4)]);
        assert_eq!(RETA.at(31), Register(0x5C7C));
    }
}
