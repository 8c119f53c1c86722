//! VLAN settings in configuration files and messages.

use std::fmt;

use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use l2proto::names::is_default;

use super::set::{MAX_VLAN, VlanSet};

/// Reads a VLAN id.
pub fn vlan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    Option::<Id>::deserialize(deserializer).map(|id| id.map(|Id(vlan)| vlan))
}

/// A VLAN id that was checked.
struct Id(u16);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wide = i64::deserialize(deserializer)?;
        let vlan = u16::try_from(wide).ok().filter(|vlan| *vlan <= MAX_VLAN);
        vlan.map(Self).ok_or_else(|| {
            let expected = format!("a VLAN from 0 to {MAX_VLAN}");
            Error::invalid_value(Unexpected::Signed(wide), &expected.as_str())
        })
    }
}

impl Serialize for VlanSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VlanSet {
    /// Reads a text as "10,20-22", one id, or a list of both.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SetVisitor)
    }
}

struct SetVisitor;

impl<'de> Visitor<'de> for SetVisitor {
    type Value = VlanSet;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VLANs, as in \"10,20-22\" or [10, 20]")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<VlanSet, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, vlan: i64) -> Result<VlanSet, E> {
        self.visit_str(&vlan.to_string())
    }

    fn visit_u64<E: Error>(self, vlan: u64) -> Result<VlanSet, E> {
        self.visit_str(&vlan.to_string())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<VlanSet, A::Error> {
        let mut all = VlanSet::new();
        while let Some(part) = parts.next_element::<VlanSet>()? {
            all.extend(&part);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use crate::vlan::{PortVlan, PriorityTags, QinqEtherType, VlanMode};

    fn read(text: &str) -> Result<PortVlan, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_are_read_as_they_are_written() {
        let all = PortVlan {
            mode: Some(VlanMode::Dot1qTunnel),
            tag: Some(4094),
            trunks: Some("1-3".parse().unwrap()),
            cvlans: Some("0,7".parse().unwrap()),
            qinq_ethertype: QinqEtherType::Dot1q,
            priority_tags: PriorityTags::IfNonzero,
            bare_inner: true,
        };
        let text = serde_json::to_string(&all).unwrap();
        let keys = r#"{"mode":"dot1q-tunnel","tag":4094,"trunks":"1-3","cvlans":"0,7","#;
        let more = r#""qinq-ethertype":"802.1q","priority-tags":"if-nonzero","bare-inner":true}"#;
        assert_eq!(text, format!("{keys}{more}"));
        assert_eq!(read(&text), Ok(all));
        assert_eq!(serde_json::to_string(&PortVlan::default()).unwrap(), "{}");
    }

    #[test]
    fn vlans_may_be_given_in_several_ways() {
        for text in [r#""5,7-8""#, r#"[5, 7, 8]"#, r#"["7-8", 5]"#] {
            let port = read(&format!(r#"{{"trunks":{text}}}"#)).unwrap();
            assert_eq!(port.trunks.unwrap().to_string(), "5,7-8", "{text}");
        }
        assert_eq!(read(r#"{"trunks":5}"#).unwrap().trunks.unwrap().to_string(), "5");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let error = |text: &str| read(text).unwrap_err();
        for bad in [r#"{"tag":4095}"#, r#"{"tag":-1}"#, r#"{"trunks":[4095]}"#] {
            assert!(error(bad).contains("from 0 to 4094"), "{}", error(bad));
        }
        assert!(error(r#"{"trunks":true}"#).contains("VLANs, as in"));
        assert!(error(r#"{"mode":"trunc"}"#).contains("did you mean 'trunk'?"));
        assert!(error(r#"{"tags":5}"#).contains("unknown field `tags`"));
    }
}
