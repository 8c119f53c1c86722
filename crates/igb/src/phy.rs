//! The link: the PHY behind the MDI control register, and what the device says of it.

use std::time::Duration;

use super::hardware::{Hardware, HardwareError};
use super::registers::{
    ALL_ONES, CTRL, MDIC, Registers, STATUS, SW_FW_SYNC, SWSM, ctrl, mdic, status, swsm,
};

/// How long an access to the PHY may take (82576 datasheet, 8.2.4: 64 µs, plus what the PHY takes).
const ACCESS_LIMIT: Duration = Duration::from_millis(10);

/// How long firmware, or the driver of another port, may keep a semaphore.
const SEMAPHORE_LIMIT: Duration = Duration::from_millis(100);

/// The PHY's address on the bus.
const ADDRESS: u32 = 1;

/// The control register of every PHY (IEEE 802.3, 22.2.4.1).
const BMCR: u8 = 0;

/// Bits of [`BMCR`].
mod bmcr {
    /// Negotiate again; clears itself.
    pub(super) const RESTART: u16 = 1 << 9;
    /// Cut off from the MAC.
    pub(super) const ISOLATE: u16 = 1 << 10;
    /// Switched off.
    pub(super) const POWER_DOWN: u16 = 1 << 11;
    /// Negotiate.
    pub(super) const NEGOTIATE: u16 = 1 << 12;
}

/// What the device says of its link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkState {
    pub(super) up: bool,
    /// In Mbit/s; only while it is up.
    pub(super) speed_mbps: u32,
}

impl<R: Registers> Hardware<R> {
    /// Has MAC and PHY set up a link, at whatever speed both ends find best. Returns before there
    /// is one. Pause frames are neither sent nor obeyed: a congested peer is no reason to wait.
    pub(super) fn set_up_link(&self) -> Result<(), HardwareError> {
        let forced = ctrl::FRCSPD | ctrl::FRCDPLX | ctrl::LRST | ctrl::RFCE | ctrl::TFCE;
        self.change(CTRL, ctrl::SLU, forced);
        self.take_phy()?;
        let result = self.restart_negotiation();
        self.give_phy_back();
        result
    }

    fn restart_negotiation(&self) -> Result<(), HardwareError> {
        let now = self.read_phy(BMCR)?;
        let off = bmcr::ISOLATE | bmcr::POWER_DOWN;
        self.write_phy(BMCR, now & !off | bmcr::NEGOTIATE | bmcr::RESTART)
    }

    /// The state of the link; `None` when the device is gone.
    pub(super) fn link(&self) -> Option<LinkState> {
        let value = self.read(STATUS);
        if value == ALL_ONES || self.registers.are_gone() {
            return None;
        }
        let up = value & status::LU != 0;
        let speed_mbps = match value >> status::SPEED_SHIFT & 3 {
            _ if !up => 0,
            0 => 10,
            1 => 100,
            _ => 1000,
        };
        Some(LinkState { up, speed_mbps })
    }

    fn read_phy(&self, register: u8) -> Result<u16, HardwareError> {
        let [low, high, ..] = self.access_phy(register, mdic::OP_READ)?.to_le_bytes();
        Ok(u16::from_le_bytes([low, high]))
    }

    fn write_phy(&self, register: u8, value: u16) -> Result<(), HardwareError> {
        self.access_phy(register, mdic::OP_WRITE | u32::from(value)).map(|_| ())
    }

    fn access_phy(&self, register: u8, operation: u32) -> Result<u32, HardwareError> {
        let place = u32::from(register) << mdic::REGISTER_SHIFT | ADDRESS << mdic::PHY_SHIFT;
        self.write(MDIC, operation | place);
        let done = |value| value & mdic::READY != 0;
        let value = self.wait("an access to the PHY", ACCESS_LIMIT, MDIC, done)?;
        if value & mdic::ERROR != 0 { Err(HardwareError::Phy { register }) } else { Ok(value) }
    }

    /// Takes this port's PHY for software (4.6): firmware uses it as well.
    ///
    /// Whoever died while it had the semaphores never gives them back, so after a while they are
    /// taken all the same.
    fn take_phy(&self) -> Result<(), HardwareError> {
        self.take_semaphore()?;
        let ours = self.phy_bit();
        let firmware = ours << 16;
        let free = |value: u32| value & firmware == 0;
        self.wait_or_go_on("firmware's use of the PHY", SEMAPHORE_LIMIT, SW_FW_SYNC, free)?;
        self.change(SW_FW_SYNC, ours, 0);
        self.give_semaphore_back();
        Ok(())
    }

    fn give_phy_back(&self) {
        if self.take_semaphore().is_ok() {
            self.change(SW_FW_SYNC, 0, self.phy_bit());
            self.give_semaphore_back();
        }
    }

    fn phy_bit(&self) -> u32 {
        let port = self.read(STATUS) >> status::LAN_ID_SHIFT & 3;
        // Ports 0 and 1, then 2 and 3 of later devices (SW_FW_SYNC, 8.16.4).
        if port < 2 { 1 << (1 + port) } else { 1 << (3 + port) }
    }

    fn take_semaphore(&self) -> Result<(), HardwareError> {
        let free = |value: u32| value & swsm::SMBI == 0;
        self.wait_or_go_on("another driver's semaphore", SEMAPHORE_LIMIT, SWSM, free)?;
        self.change(SWSM, swsm::SWESMBI, 0);
        let ours = |value: u32| value & swsm::SWESMBI != 0;
        self.wait_or_go_on("firmware's semaphore", SEMAPHORE_LIMIT, SWSM, ours)
    }

    fn give_semaphore_back(&self) {
        self.change(SWSM, 0, swsm::SMBI | swsm::SWESMBI);
    }
}
