//! The driver side of the control queue, and how a device is notified: what all drivers of virtio
//! network devices share.

pub use crate::control_queue::{BUFFER, Command, CommandError, ControlQueue, SIZE, Spread};
pub use virtio_queues::kick::{Doorbell, Kick};

/// The names of the feature bits `bits`, for people; those without a name as numbers.
#[must_use]
pub fn feature_names(bits: u64) -> String {
    let known = virtio::Features::from_bits_truncate(bits);
    let mut names = crate::features::names(known);
    for bit in (0..64).filter(|bit| (bits & !known.bits()) >> bit & 1 == 1) {
        let comma = if names.is_empty() { "" } else { " " };
        names += &format!("{comma}bit {bit}");
    }
    names
}
