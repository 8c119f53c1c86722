//! Which features to use of those that a device offers, and what follows from them.

use packet::LINK_HEADERS;
use virtio::Features;

use virtio_queues::memory::DATA_OFFSET;

/// Bytes of a frame that one buffer holds at least: an ordinary frame with tags and some more.
const SLOT_ROOM: usize = 2176;

/// Bytes of a frame that a transmit buffer holds.
pub(crate) const TRANSMIT_ROOM: usize = SLOT_ROOM;

/// The features without those offloads that cannot be without others (virtio 1.3 section
/// 5.1.3.1), and without large segments for receive buffers that could not hold them.
pub(crate) fn with_valid_offloads(mut features: Features) -> Features {
    let guest_tso = Features::GUEST_TSO4 | Features::GUEST_TSO6;
    let host_tso = Features::HOST_TSO4 | Features::HOST_TSO6;
    if !features.contains(Features::CSUM) {
        features -= Features::HOST_OFFLOADS;
    }
    if !features.contains(Features::GUEST_CSUM) {
        features -= Features::GUEST_OFFLOADS;
    }
    if !features.contains(Features::MRG_RXBUF) {
        features -= Features::GUEST_OFFLOADS - Features::GUEST_CSUM;
    }
    if !features.intersects(host_tso) {
        features -= Features::HOST_ECN;
    }
    if !features.intersects(guest_tso) {
        features -= Features::GUEST_ECN;
    }
    features
}

/// Bytes of a frame that a receive buffer must hold: all of it, if a frame cannot span several.
pub(crate) fn receive_room(features: Features, mtu: u16) -> usize {
    if features.contains(Features::MRG_RXBUF) {
        return SLOT_ROOM;
    }
    SLOT_ROOM.max((usize::from(mtu) + LINK_HEADERS).next_multiple_of(DATA_OFFSET))
}

/// The features by name, for people.
pub(crate) fn names(features: Features) -> String {
    let names: Vec<&str> = features.iter_names().map(|(name, _)| name).collect();
    names.join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_hold_a_frame_or_frames_span_buffers() {
        let merged = Features::MRG_RXBUF;
        assert_eq!(receive_room(merged, 9000), SLOT_ROOM);
        assert_eq!(receive_room(Features::empty(), 1500), SLOT_ROOM);
        assert!(receive_room(Features::empty(), 9000) >= 9018);
    }
}
