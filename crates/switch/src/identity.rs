//! By what a switch is known to its neighbours, whenever it is started.

use std::hash::Hasher as _;

use eal::machine::MachineId;
use packet::MacAddr;
use siphasher::sip::SipHasher24;

/// What addresses are made of by which neighbours know a switch again after a restart. By default
/// nothing is known, and there are none.
///
/// ```
/// use eal::machine::MachineId;
/// use switch::Identity;
///
/// let identity = Identity::new(MachineId([7; 16]), "/run/ringway/ringway.sock");
/// let mac = identity.mac("bond uplink").expect("it is known what machine this is");
/// assert!(mac.is_station() && mac.is_local());
/// assert_eq!(identity.mac("bond uplink"), Some(mac));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity(Option<(MachineId, String)>);

impl Identity {
    /// That of the switch on `machine` which is told from others there by `instance`.
    #[must_use]
    pub fn new(machine: MachineId, instance: impl Into<String>) -> Self {
        Self(Some((machine, instance.into())))
    }

    /// The address for `purpose`, made up locally: a keyed hash, which tells nothing of the machine.
    #[must_use]
    pub fn mac(&self, purpose: &str) -> Option<MacAddr> {
        let (machine, instance) = self.0.as_ref()?;
        let mut hash = SipHasher24::new_with_key(&machine.0);
        // A byte that no text has keeps the parts apart.
        for part in ["ringway", instance, purpose] {
            hash.write(part.as_bytes());
            hash.write_u8(0xFF);
        }
        let [a, b, c, d, e, f, ..] = hash.finish().to_be_bytes();
        Some(MacAddr([a & 0xFC | 0x02, b, c, d, e, f]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stay_the_same_and_differ_by_machine_instance_and_purpose() {
        let identity = |machine, instance: &str| Identity::new(MachineId([machine; 16]), instance);
        let mac = identity(1, "a").mac("bond up").unwrap();
        // Neighbours of a switch that is upgraded know it by this.
        assert_eq!(mac.to_string(), "e6:5b:9f:35:33:17");
        for other in [
            identity(2, "a").mac("bond up"),
            identity(1, "b").mac("bond up"),
            identity(1, "a").mac("bond up2"),
            identity(1, "ab").mac("ond up"),
        ] {
            assert_ne!(other, Some(mac));
        }
        assert_eq!(Identity::default().mac("bond up"), None);
    }
}
