//! Which devices this driver knows, and how they differ.

/// What the driver has to know of a kind of device.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Model {
    /// Name for people.
    pub(crate) name: &'static str,
    /// Receive queues, and transmit queues.
    pub(super) queues: u16,
    /// Receive addresses.
    pub(super) addresses: usize,
    /// How vectors of queues are laid out in IVAR.
    vectors: Vectors,
}

/// How the vectors of queues are laid out in IVAR registers, of four bytes each.
#[derive(Debug, PartialEq, Eq)]
enum Vectors {
    /// Queue n with queue n + 8 (82576 datasheet, 8.8.15).
    Eights,
    /// Queue 2n with queue 2n + 1 (all later devices).
    Pairs,
}

impl Model {
    /// Which IVAR register, and how far left in it, has the vector of receive queue `queue`.
    pub(super) const fn vector_place(&self, queue: u16) -> (usize, u32) {
        let queue = queue as usize;
        match self.vectors {
            Vectors::Eights => (queue % 8, if queue < 8 { 0 } else { 16 }),
            Vectors::Pairs => (queue / 2, if queue.is_multiple_of(2) { 0 } else { 16 }),
        }
    }
}

const I82576: Model =
    Model { name: "Intel 82576", queues: 16, addresses: 24, vectors: Vectors::Eights };
const I82580: Model =
    Model { name: "Intel 82580", queues: 8, addresses: 24, vectors: Vectors::Pairs };
const I350: Model = Model { name: "Intel I350", queues: 8, addresses: 32, vectors: Vectors::Pairs };
const I210: Model = Model { name: "Intel I210", queues: 4, addresses: 16, vectors: Vectors::Pairs };
const I211: Model = Model { name: "Intel I211", queues: 2, addresses: 16, vectors: Vectors::Pairs };

/// Intel.
const VENDOR: u16 = 0x8086;

/// Devices with a copper port. Those with fibre, SerDes or SGMII set up their link in other ways,
/// which this driver does not know.
const COPPER: &[(u16, &Model)] = &[
    // 82576, also what QEMU emulates.
    (0x10C9, &I82576),
    (0x10E8, &I82576),
    (0x1526, &I82576),
    (0x150A, &I82576),
    (0x150E, &I82580),
    (0x1516, &I82580),
    (0x1521, &I350),
    (0x1533, &I210),
    (0x1534, &I210),
    (0x1535, &I210),
    // Without flash.
    (0x157B, &I210),
    (0x1539, &I211),
];

/// Their siblings with other links.
const OTHER_LINKS: &[u16] = &[
    0x10E6, 0x10E7, 0x1518, 0x150D, 0x150F, 0x1510, 0x1511, 0x1527, 0x1522, 0x1523, 0x1524, 0x1536,
    0x1537, 0x1538, 0x157C,
];

/// The kind of device that `vendor` and `device` are.
///
/// # Errors
/// What it is instead.
pub(crate) fn find(vendor: u16, device: u16) -> Result<&'static Model, String> {
    if vendor == VENDOR {
        if let Some((_, model)) = COPPER.iter().find(|(id, _)| *id == device) {
            return Ok(model);
        }
        if OTHER_LINKS.contains(&device) {
            return Err(format!(
                "it is {vendor:04x}:{device:04x}, a device with a fibre or SerDes link; this \
                 driver takes copper ports only"
            ));
        }
    }
    Err(format!(
        "it is {vendor:04x}:{device:04x}, expected an Intel 82576 (8086:10c9), 82580, I350, I210 or \
         I211"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_apart() {
        assert_eq!(find(VENDOR, 0x10C9).unwrap().queues, 16);
        assert_eq!(find(VENDOR, 0x1539).unwrap().name, "Intel I211");
        assert!(find(VENDOR, 0x10E6).unwrap_err().contains("copper"));
        assert!(find(0x1AF4, 0x10C9).unwrap_err().contains("1af4:10c9, expected an Intel 82576"));
        assert!(COPPER.iter().all(|(id, _)| !OTHER_LINKS.contains(id)));
    }

    #[test]
    fn vectors_of_queues_have_their_places() {
        assert_eq!(I82576.vector_place(0), (0, 0));
        assert_eq!(I82576.vector_place(9), (1, 16));
        assert_eq!(I350.vector_place(2), (1, 0));
        assert_eq!(I350.vector_place(7), (3, 16));
    }
}
