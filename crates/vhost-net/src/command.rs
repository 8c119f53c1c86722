//! Commands of the control queue (virtio 1.3 section 5.1.6.5), as they come from a driver whose
//! front-end passes that queue on instead of serving it itself.

use packet::MacAddr;
use virtio::Features;

use super::filter::{Addresses, Modes};

/// Longest command that is read: both address tables with more entries than any filter keeps.
pub const MAX_COMMAND: usize = 4096;

/// The answer to a command that was carried out.
pub const ACK_OK: u8 = 0;
/// The answer to one that was not.
pub const ACK_ERR: u8 = 1;

/// A command with its arguments; short-lived, so the odd large one does no harm.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one at a time, on the stack")]
pub enum Command {
    /// Switch a receive mode on or off.
    Mode(Modes, bool),
    /// Replace the tables of unicast and multicast addresses.
    MacTables(Addresses, Addresses),
    /// Set the driver's own address.
    Mac(MacAddr),
    /// Let frames of this VLAN pass, or no longer.
    Vlan(u16, bool),
    /// The driver has announced itself, as it was asked to.
    AnnounceAck,
    /// Use this many queue pairs.
    QueuePairs(u16),
    /// Leave no more than these offloads to the driver, of those that were negotiated.
    GuestOffloads(Features),
}

impl Command {
    /// Reads a command: class, command, arguments. `None` when it is unknown, cut short or too
    /// long.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let ([class, command], arguments) = bytes.split_first_chunk()?;
        match (class, command) {
            (0, 0..=5) => {
                let [on] = arguments.try_into().ok()?;
                Some(Self::Mode(Modes::from_bits(1 << command)?, on != 0))
            }
            (1, 0) => {
                let (unicast, rest) = addresses(arguments)?;
                let (multicast, rest) = addresses(rest)?;
                rest.is_empty().then_some(Self::MacTables(unicast, multicast))
            }
            (1, 1) => Some(Self::Mac(MacAddr(arguments.try_into().ok()?))),
            (2, 0 | 1) => {
                let vlan = u16::from_le_bytes(arguments.try_into().ok()?);
                Some(Self::Vlan(vlan, *command == 0))
            }
            (3, 0) => arguments.is_empty().then_some(Self::AnnounceAck),
            (4, 0) => Some(Self::QueuePairs(u16::from_le_bytes(arguments.try_into().ok()?))),
            (5, 0) => {
                let offloads = u64::from_le_bytes(arguments.try_into().ok()?);
                let offloads = Features::from_bits(offloads)?;
                let all_are = Features::GUEST_OFFLOADS.contains(offloads);
                all_are.then_some(Self::GuestOffloads(offloads))
            }
            _ => None,
        }
    }
}

/// Reads one table: a count and that many addresses.
fn addresses(bytes: &[u8]) -> Option<(Addresses, &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(6)?;
    let (table, rest) = rest.split_at_checked(len)?;
    let (entries, _) = table.as_chunks::<6>();
    Some((entries.iter().copied().map(MacAddr).collect(), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_are_read() {
        let read = |bytes: &[u8]| Command::parse(bytes);
        assert!(matches!(read(&[0, 0, 1]), Some(Command::Mode(Modes::PROMISCUOUS, true))));
        assert!(matches!(read(&[0, 5, 0]), Some(Command::Mode(Modes::NO_BROADCAST, false))));
        let own = MacAddr([1, 2, 3, 4, 5, 6]);
        assert!(matches!(read(&[1, 1, 1, 2, 3, 4, 5, 6]), Some(Command::Mac(mac)) if mac == own));
        assert!(matches!(read(&[2, 0, 5, 1]), Some(Command::Vlan(0x105, true))));
        assert!(matches!(read(&[2, 1, 5, 1]), Some(Command::Vlan(0x105, false))));
        assert!(matches!(read(&[3, 0]), Some(Command::AnnounceAck)));
        assert!(matches!(read(&[4, 0, 2, 0]), Some(Command::QueuePairs(2))));
        let offloads = Features::GUEST_CSUM | Features::GUEST_USO4;
        let bytes = [&[5, 0][..], &offloads.bits().to_le_bytes()].concat();
        assert!(matches!(read(&bytes), Some(Command::GuestOffloads(all)) if all == offloads));
        assert!(read(&[5, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]).is_none(), "no such offload");
        let tables = [&[1, 0, 1, 0, 0, 0][..], &own.0, &[0; 4]].concat();
        assert!(matches!(read(&tables), Some(Command::MacTables(..))));
    }

    #[test]
    fn what_is_cut_short_unknown_or_too_long_is_refused() {
        let bad: [&[u8]; 10] = [
            &[],
            &[0],
            &[0, 0],
            &[0, 6, 1],
            &[0, 0, 1, 1],
            &[1, 0, 255, 255, 255, 255, 0, 0, 0, 0],
            &[1, 0, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6],
            &[1, 1, 1, 2, 3, 4, 5],
            &[5, 0, 0],
            &[4, 0, 2],
        ];
        for bytes in bad {
            assert!(Command::parse(bytes).is_none(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Command::parse(&bytes);
        }
    }
}
