//! What rules see of a tunnel, as words of a packet's key, and from there to what an outer header says.

use std::net::IpAddr;

use flow::{Key, OptionField, TunnelWords, slot};
use packet::headers::EtherType;
use tunnel::{Erspan, Gtpu, Inner, Meta, Options, Policy, Wish};

/// The words of a packet that has come with this outer header; `None` if it has an option that must not be
/// passed over and that no field stands for.
pub fn words(meta: &Meta, fields: &[OptionField]) -> Option<TunnelWords> {
    let mut key = Key::default();
    key.set(slot::TUN_ID, meta.key.unwrap_or(0).into());
    for (address, v4, v6) in [
        (meta.source, slot::TUN_SRC, slot::TUN_IPV6_SRC),
        (meta.destination, slot::TUN_DST, slot::TUN_IPV6_DST),
    ] {
        match address {
            IpAddr::V4(address) => key.set(v4, u32::from(address).into()),
            IpAddr::V6(address) => key.set(v6, address.into()),
        }
    }
    key.set(slot::TUN_TOS, meta.tos.into());
    key.set(slot::TUN_TTL, meta.ttl.into());
    key.set(slot::TUN_FLAGS, meta.oam.into());
    key.set(slot::TUN_DONT_FRAGMENT, meta.dont_fragment.into());
    key.set(slot::TUN_CHECKSUM, meta.checksum.into());
    key.set(slot::TUN_HAS_KEY, meta.key.is_some().into());
    let Policy { group, flags } = meta.policy.unwrap_or_default();
    key.set(slot::TUN_GBP_ID, group.into());
    key.set(slot::TUN_GBP_FLAGS, flags.into());
    if let Some(erspan) = meta.erspan {
        set_erspan(&mut key, erspan);
    }
    if let Some(Gtpu { flags, message }) = meta.gtpu {
        key.set(slot::TUN_GTPU_FLAGS, flags.into());
        key.set(slot::TUN_GTPU_MSGTYPE, message.into());
    }
    for option in meta.options.iter() {
        let is_it = |field: &&OptionField| {
            (field.class, field.kind) == (option.class, option.kind)
                && usize::from(field.len) == option.value.len()
        };
        match fields.iter().find(is_it) {
            Some(field) => {
                key.set_masked(slot::TUN_PRESENT, field.bit().into(), field.bit().into());
                if field.has_place() {
                    let value =
                        option.value.iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
                    key.set(slot::tun_metadata(field.field), value.into());
                }
            }
            None if option.is_critical() => return None,
            None => {}
        }
    }
    Some(key.tunnel())
}

fn set_erspan(key: &mut Key, erspan: Erspan) {
    let Erspan { version, index, direction, hardware } = erspan;
    key.set(slot::TUN_ERSPAN_VER, version.into());
    key.set(slot::TUN_ERSPAN_IDX, index.into());
    key.set(slot::TUN_ERSPAN_DIR, direction.into());
    key.set(slot::TUN_ERSPAN_HWID, hardware.into());
}

fn erspan(key: &Key) -> Erspan {
    Erspan {
        version: key.get_u8(slot::TUN_ERSPAN_VER),
        index: key.get_u32(slot::TUN_ERSPAN_IDX),
        direction: key.get_u8(slot::TUN_ERSPAN_DIR),
        hardware: key.get_u8(slot::TUN_ERSPAN_HWID),
    }
}

/// What these words wish of a tunnel, and the options among them.
pub fn wish(words: &TunnelWords, fields: &[OptionField]) -> (Wish, Options, bool) {
    let key = words.key();
    let address = |v4, v6| {
        let (short, long) = (key.get_u32(v4), key.get(v6));
        match (short, long) {
            (0, 0) => None,
            (0, long) => Some(IpAddr::from(long.to_be_bytes())),
            (short, _) => Some(IpAddr::from(short.to_be_bytes())),
        }
    };
    let wish = Wish {
        key: key.get_u64(slot::TUN_ID),
        source: address(slot::TUN_SRC, slot::TUN_IPV6_SRC),
        destination: address(slot::TUN_DST, slot::TUN_IPV6_DST),
        policy: Policy {
            group: key.get_u16(slot::TUN_GBP_ID),
            flags: key.get_u8(slot::TUN_GBP_FLAGS),
        },
        erspan: erspan(&key),
    };
    let mut options = Options::NONE;
    let present = key.get_u64(slot::TUN_PRESENT);
    let there = fields.iter().filter(|field| present & field.bit() != 0 && field.is_known());
    for field in there {
        let value = key.get_u64(slot::tun_metadata(field.field)).to_be_bytes();
        let own = value.len().checked_sub(field.len.into()).and_then(|from| value.get(from..));
        options.push(field.class, field.kind, own.unwrap_or_default());
    }
    (wish, options, key.get(slot::TUN_FLAGS) != 0)
}

/// As much of the outer header that a packet with this key has come with as tells which port it is for; `None` if it has
/// come by no tunnel.
pub fn meta_of(key: &Key) -> Option<Meta> {
    let (wish, ..) = wish(&key.tunnel(), &[]);
    let meta = Meta::new(wish.source?, wish.destination?);
    Some(Meta { key: Some(wish.key), inner: inner_of(key), ..meta })
}

/// What a packet with this key is to who looks into a tunnel.
pub fn inner_of(key: &Key) -> Inner {
    let packet_type = key.get_u32(slot::PACKET_TYPE);
    match u16::try_from(packet_type & 0xFFFF) {
        Ok(kind) if packet_type != 0 => Inner::Bare(EtherType(kind)),
        _ => Inner::Ethernet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [OptionField; 4] = [
        OptionField { field: 0, class: 0x0102, kind: 0x80, len: 4 },
        OptionField { field: 3, class: 5, kind: 6, len: 8 },
        OptionField { field: 4, class: 5, kind: 7, len: 0 },
        OptionField { field: 15, class: 5, kind: 8, len: 12 },
    ];

    #[test]
    fn what_was_seen_is_what_is_wished() {
        for (source, destination) in [
            (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])),
            ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap()),
        ] {
            let mut meta = Meta::new(source, destination).with_key(7);
            meta.oam = true;
            meta.policy = Some(Policy { group: 9, flags: 8 });
            let erspan = Erspan { version: 2, index: 0, direction: 1, hardware: 0x3F };
            meta.erspan = Some(erspan);
            assert!(meta.options.push(0x0102, 0x80, &[0, 1, 2, 3]));
            assert!(meta.options.push(5, 6, &[0; 8]));
            assert!(meta.options.push(5, 7, &[]));
            let words = words(&meta, &FIELDS).unwrap();
            let policy = Policy { group: 9, flags: 8 };
            let (source, destination) = (Some(source), Some(destination));
            let wished = Wish { key: 7, source, destination, policy, erspan };
            assert_eq!(wish(&words, &FIELDS), (wished, meta.options, true));
            assert_eq!(words.key().get(slot::tun_metadata(0)), 0x1_0203);
            assert_eq!(words.key().get(slot::TUN_PRESENT), 1 << 4 | 1 << 3 | 1);
        }
        assert_eq!(wish(&TunnelWords::default(), &FIELDS), (Wish::default(), Options::NONE, false));
    }

    #[test]
    fn options_that_nobody_knows_are_passed_over_if_they_may_be() {
        let mut meta = Meta::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        assert!(meta.options.push(0x0102, 0x00, &[1; 4]));
        assert!(words(&meta, &FIELDS).is_some());
        // What is too long to be known is known to be there, and does not come again.
        assert!(meta.options.push(5, 8, &[1; 12]));
        let known = words(&meta, &FIELDS).unwrap();
        assert_eq!(known.key().get(slot::TUN_PRESENT), 1 << 15);
        assert_eq!(wish(&known, &FIELDS).1, Options::NONE);
        assert!(meta.options.push(0x0102, 0x80, &[1; 8]), "of another length");
        assert_eq!(words(&meta, &FIELDS), None);
    }
}
