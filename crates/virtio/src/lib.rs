//! Virtio: feature bits, the net header, rings on both sides, the guest memory map.
