//! The device as a whole: reset, start, and what keeps its queues from running on.

use std::thread::sleep;
use std::time::{Duration, Instant};

use packet::MacAddr;

use super::devices::Model;
use super::registers::{
    ALL_ONES, CTRL, CTRL_EXT, EECD, EERD, EIMC, ICR, IMC, RCTL, RLPML, RXCSUM, Register, Registers,
    RxRegisters, STATUS, TABLE_WORDS, TCTL, TxRegisters, UTA, VET, ctrl, ctrl_ext, dctl, eecd,
    eerd, rctl, receive_address, rxcsum, status, tctl,
};

/// How long accesses to memory that are under way may take to end (82576 datasheet, 5.2.3.3).
const MASTER_LIMIT: Duration = Duration::from_millis(80);

/// How long a reset may take until the NVM has been read again.
const RESET_LIMIT: Duration = Duration::from_millis(50);

/// How long to wait for that where the device does not tell. QEMU's never does; datasheets promise
/// a millisecond, and give devices without NVM ten.
const NVM_LIMIT: Duration = Duration::from_millis(10);

/// How long a queue may take to start or to stop.
const QUEUE_LIMIT: Duration = Duration::from_millis(20);

/// How long a word of the NVM may take.
const NVM_WORD_LIMIT: Duration = Duration::from_millis(10);

/// Between two looks at a register that is waited for.
const PAUSE: Duration = Duration::from_micros(50);

/// EtherTypes of an outer and an inner VLAN tag.
const TAG_TYPES: u32 = 0x8100 << 16 | 0x8100;

/// Why the device does not do what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HardwareError {
    /// Registers read as all ones.
    #[error("it does not answer: it was removed, or is in a power-saving state")]
    Gone,
    /// Something takes longer than it ever should.
    #[error("{what} takes longer than {limit:?}")]
    Stuck {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        limit: Duration,
    },
    /// The PHY cannot be reached.
    #[error("its PHY gives an error for register {register}")]
    Phy {
        /// The PHY's register.
        register: u8,
    },
    /// There is no address.
    #[error("it has no MAC address, neither in registers nor in its NVM; give it one with mac=MAC")]
    NoAddress,
}

/// The registers and the kind of a device. All methods may be called by any thread; those that
/// read a register to change it, by one at a time.
#[derive(Debug)]
pub(super) struct Hardware<R> {
    pub(super) registers: R,
    pub(super) model: &'static Model,
}

impl<R: Registers> Hardware<R> {
    pub(super) const fn new(registers: R, model: &'static Model) -> Self {
        Self { registers, model }
    }

    #[inline]
    pub(super) fn read(&self, register: Register) -> u32 {
        self.registers.read(register)
    }

    #[inline]
    pub(super) fn write(&self, register: Register, value: u32) {
        self.registers.write(register, value);
    }

    /// Sets and clears bits of a register.
    pub(super) fn change(&self, register: Register, set: u32, clear: u32) {
        self.write(register, self.read(register) & !clear | set);
    }

    /// Whether nobody answers any more. The status register always has a bit that is 0.
    pub(super) fn is_gone(&self) -> bool {
        self.read(STATUS) == ALL_ONES || self.registers.are_gone()
    }

    /// The error, if nobody answers any more.
    pub(super) fn check_present(&self) -> Result<(), HardwareError> {
        if self.is_gone() { Err(HardwareError::Gone) } else { Ok(()) }
    }

    /// Waits until `done` holds for the register.
    pub(super) fn wait(
        &self,
        what: &'static str,
        limit: Duration,
        register: Register,
        done: impl Fn(u32) -> bool,
    ) -> Result<u32, HardwareError> {
        let deadline = Instant::now() + limit;
        loop {
            let value = self.read(register);
            if value == ALL_ONES {
                self.check_present()?;
            }
            if done(value) {
                return Ok(value);
            }
            if Instant::now() >= deadline {
                return Err(HardwareError::Stuck { what, limit });
            }
            sleep(PAUSE);
        }
    }

    /// As [`wait`](Self::wait), where what comes next works even if it takes too long. The only
    /// error is that the device is gone.
    pub(super) fn wait_or_go_on(
        &self,
        what: &'static str,
        limit: Duration,
        register: Register,
        done: impl Fn(u32) -> bool,
    ) -> Result<(), HardwareError> {
        match self.wait(what, limit, register, done) {
            Err(HardwareError::Gone) => Err(HardwareError::Gone),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Stops all that the device does and puts its registers to their defaults (4.2.1.6.1): after
    /// that it neither accesses memory nor interrupts.
    pub(super) fn reset(&self) -> Result<(), HardwareError> {
        self.check_present()?;
        self.silence();
        self.write(RCTL, 0);
        self.write(TCTL, tctl::PSP);
        self.change(CTRL, ctrl::GIO_MASTER_DISABLE, 0);
        let idle = |value| value & status::GIO_MASTER_ENABLE == 0;
        // A device that does not come to rest is reset all the same, as the datasheet says (5.2.3.3).
        self.wait_or_go_on("the end of DMA", MASTER_LIMIT, STATUS, idle)?;
        self.change(CTRL, ctrl::RST, 0);
        // Registers must not be touched for a while (4.2.1.6.1).
        sleep(Duration::from_millis(1));
        self.wait("the reset", RESET_LIMIT, CTRL, |value| value & ctrl::RST == 0)?;
        // QEMU's device never sets the bit, and neither do devices without NVM.
        let loaded = |value| value & eecd::AUTO_RD != 0;
        self.wait_or_go_on("the NVM", NVM_LIMIT, EECD, loaded)?;
        self.silence();
        self.check_present()
    }

    /// Disables all interrupts and forgets those that came.
    pub(super) fn silence(&self) {
        self.write(IMC, u32::MAX);
        self.write(EIMC, u32::MAX);
        let _ = self.read(ICR);
    }

    /// Prepares what all queues share, after a reset.
    pub(super) fn prepare(&self) {
        self.change(CTRL_EXT, ctrl_ext::PFRSTD | ctrl_ext::DRV_LOAD, 0);
        self.write(VET, TAG_TYPES);
        for word in 0..TABLE_WORDS {
            self.write(UTA.at(word), 0);
        }
        for index in 1..self.model.addresses {
            for register in receive_address(index) {
                self.write(register, 0);
            }
        }
        self.write(RXCSUM, rxcsum::IPOFLD | rxcsum::TUOFLD | rxcsum::PCSD);
    }

    /// Lets frames through, in both directions. `receive` are bits of RCTL.
    pub(super) fn start(&self, receive: u32) {
        self.write(TCTL, tctl::EN | tctl::PSP | tctl::CT | tctl::COLD | tctl::RTLC);
        self.write(RCTL, rctl::EN | rctl::LPE | rctl::BAM | rctl::SECRC | receive);
    }

    /// The longest frame to receive in bytes, with frame check sequence and tags.
    pub(super) fn set_longest_frame(&self, bytes: u32) {
        self.write(RLPML, bytes);
    }

    /// The address that the device has from its NVM.
    pub(super) fn permanent_address(&self) -> Result<MacAddr, HardwareError> {
        let [low, high] = receive_address(0).map(|register| self.read(register).to_le_bytes());
        let ([a, b, c, d], [e, f, ..]) = (low, high);
        let loaded = MacAddr([a, b, c, d, e, f]);
        if loaded.is_station() {
            return Ok(loaded);
        }
        let words = [self.nvm_word(0)?, self.nvm_word(1)?, self.nvm_word(2)?];
        let [[a, b], [c, d], [e, f]] = words.map(u16::to_le_bytes);
        // The NVM has the address of the first port; the others differ in the last byte (6.2.1).
        let port = self.read(STATUS).wrapping_shr(status::LAN_ID_SHIFT).to_le_bytes();
        let [port, ..] = port.map(|byte| byte & 3);
        let stored = MacAddr([a, b, c, d, e, f ^ port]);
        let erased = stored.0.iter().all(|byte| *byte == 0xFF);
        if stored.is_station() && !erased { Ok(stored) } else { Err(HardwareError::NoAddress) }
    }

    /// A word of the NVM.
    fn nvm_word(&self, address: u32) -> Result<u16, HardwareError> {
        self.write(EERD, eerd::START | address << eerd::ADDRESS_SHIFT);
        let done = |value| value & eerd::DONE != 0;
        let value = self.wait("reading the NVM", NVM_WORD_LIMIT, EERD, done)?;
        let [low, high, ..] = (value >> eerd::DATA_SHIFT).to_le_bytes();
        Ok(u16::from_le_bytes([low, high]))
    }

    /// Starts a queue whose control register is `register`.
    pub(super) fn enable_queue(&self, register: Register, bits: u32) -> Result<(), HardwareError> {
        self.write(register, bits | dctl::ENABLE);
        let on = |value| value & dctl::ENABLE != 0;
        self.wait("the start of a queue", QUEUE_LIMIT, register, on).map(|_| ())
    }

    /// Stops receive queue `queue`, and returns whether the device does not access its memory any
    /// more.
    pub(super) fn stop_rx(&self, queue: u16) -> bool {
        self.disable_queue(RxRegisters::of(queue).rxdctl)
    }

    /// As [`stop_rx`](Self::stop_rx), for a transmit queue.
    pub(super) fn stop_tx(&self, queue: u16) -> bool {
        self.disable_queue(TxRegisters::of(queue).txdctl)
    }

    fn disable_queue(&self, register: Register) -> bool {
        let off = |value: u32| value & dctl::ENABLE == 0;
        let value = self.read(register);
        if off(value) {
            return true;
        }
        self.write(register, value & !dctl::ENABLE);
        match self.wait("the end of a queue", QUEUE_LIMIT, register, off) {
            // A device that is gone reaches nothing.
            Ok(_) | Err(HardwareError::Gone) => true,
            Err(_) => false,
        }
    }
}
