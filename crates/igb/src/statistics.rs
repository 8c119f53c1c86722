//! The device's own counters (82576 datasheet, 8.18). Reading one clears it, so the control side
//! adds up what it reads, often enough that none overflows.

use super::hardware::Hardware;
use super::registers::{Register, Registers, RxRegisters};

/// A counter of the device.
struct Counted {
    name: &'static str,
    register: usize,
    /// Whether the next register has its upper half; reading that one clears both.
    is_wide: bool,
}

const fn narrow(name: &'static str, register: usize) -> Counted {
    Counted { name, register, is_wide: false }
}

const fn wide(name: &'static str, register: usize) -> Counted {
    Counted { name, register, is_wide: true }
}

/// All counters, by the names that other drivers have for them.
const COUNTERS: [Counted; 50] = [
    narrow("rx_crc_errors", 0x4000),
    narrow("rx_align_errors", 0x4004),
    narrow("rx_symbol_errors", 0x4008),
    narrow("rx_errors", 0x400C),
    narrow("rx_missed_packets", 0x4010),
    narrow("tx_single_collision_packets", 0x4014),
    narrow("tx_excessive_collision_packets", 0x4018),
    narrow("tx_multiple_collision_packets", 0x401C),
    narrow("tx_late_collisions", 0x4020),
    narrow("tx_total_collisions", 0x4028),
    narrow("tx_deferred_packets", 0x4030),
    narrow("tx_no_carrier_sense_packets", 0x4034),
    narrow("rx_carrier_ext_errors", 0x403C),
    narrow("rx_length_errors", 0x4040),
    narrow("rx_xon_packets", 0x4048),
    narrow("tx_xon_packets", 0x404C),
    narrow("rx_xoff_packets", 0x4050),
    narrow("tx_xoff_packets", 0x4054),
    narrow("rx_flow_control_unsupported_packets", 0x4058),
    narrow("rx_wire_size_64_packets", 0x405C),
    narrow("rx_wire_size_65_to_127_packets", 0x4060),
    narrow("rx_wire_size_128_to_255_packets", 0x4064),
    narrow("rx_wire_size_256_to_511_packets", 0x4068),
    narrow("rx_wire_size_512_to_1023_packets", 0x406C),
    narrow("rx_wire_size_1024_to_max_packets", 0x4070),
    narrow("rx_wire_good_packets", 0x4074),
    narrow("rx_wire_broadcast_packets", 0x4078),
    narrow("rx_wire_multicast_packets", 0x407C),
    narrow("tx_wire_good_packets", 0x4080),
    wide("rx_wire_good_bytes", 0x4088),
    wide("tx_wire_good_bytes", 0x4090),
    narrow("rx_no_descriptor_packets", 0x40A0),
    narrow("rx_undersize_errors", 0x40A4),
    narrow("rx_fragment_errors", 0x40A8),
    narrow("rx_oversize_errors", 0x40AC),
    narrow("rx_jabber_errors", 0x40B0),
    wide("rx_wire_total_bytes", 0x40C0),
    wide("tx_wire_total_bytes", 0x40C8),
    narrow("rx_wire_total_packets", 0x40D0),
    narrow("tx_wire_total_packets", 0x40D4),
    narrow("tx_wire_size_64_packets", 0x40D8),
    narrow("tx_wire_size_65_to_127_packets", 0x40DC),
    narrow("tx_wire_size_128_to_255_packets", 0x40E0),
    narrow("tx_wire_size_256_to_511_packets", 0x40E4),
    narrow("tx_wire_size_512_to_1023_packets", 0x40E8),
    narrow("tx_wire_size_1024_to_max_packets", 0x40EC),
    narrow("tx_wire_multicast_packets", 0x40F0),
    narrow("tx_wire_broadcast_packets", 0x40F4),
    narrow("tx_tso_packets", 0x40F8),
    narrow("interrupt_assert_count", 0x4100),
];

/// What the device has counted since it was opened.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    counters: [u64; COUNTERS.len()],
    /// Per receive queue, frames that found no descriptor.
    missed: Vec<u64>,
}

impl Totals {
    pub(super) fn new(queues: u16) -> Self {
        Self { counters: [0; COUNTERS.len()], missed: vec![0; queues.into()] }
    }

    /// Reads, and so clears, the device's counters and adds them. Returns whether the device
    /// answered.
    pub(super) fn collect<R: Registers>(&mut self, hardware: &Hardware<R>) -> bool {
        let mut read = [0; COUNTERS.len()];
        for (count, counter) in read.iter_mut().zip(&COUNTERS) {
            *count = u64::from(hardware.read(Register(counter.register)));
            if counter.is_wide {
                *count |= u64::from(hardware.read(Register(counter.register + 4))) << 32;
            }
        }
        let mut missed = vec![0; self.missed.len()];
        for (queue, count) in (0..).zip(&mut missed) {
            *count = u64::from(hardware.read(RxRegisters::of(queue).rqdpc));
        }
        // A device that went away meanwhile has counted nothing like that.
        if hardware.is_gone() {
            return false;
        }
        for (total, count) in self.counters.iter_mut().zip(read) {
            *total = total.wrapping_add(count);
        }
        for (total, count) in self.missed.iter_mut().zip(missed) {
            *total = total.wrapping_add(count);
        }
        true
    }

    /// All counters by name.
    pub(super) fn named(&self) -> Vec<(String, u64)> {
        let port = COUNTERS.iter().zip(self.counters);
        let port = port.map(|(counter, total)| (counter.name.to_owned(), total));
        let queues = self.missed.iter().enumerate();
        let queues = queues.map(|(queue, total)| (format!("rx_q{queue}_missed_packets"), *total));
        port.chain(queues).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_registers_are_there_once() {
        let mut names: Vec<_> = COUNTERS.iter().map(|counter| counter.name).collect();
        let mut registers: Vec<_> = COUNTERS.iter().map(|counter| counter.register).collect();
        names.sort_unstable();
        names.dedup();
        assert!(registers.is_sorted());
        registers.dedup();
        assert_eq!((names.len(), registers.len()), (COUNTERS.len(), COUNTERS.len()));
    }
}
