//! VLAN settings of Open vSwitch's table `Port`.

use switch::vlan::{PriorityTags, VlanSet};
use switch::{PortVlan, VlanMode};

use crate::content::Port;

/// A port's VLAN settings, as Open vSwitch understands its columns: what a mode has no use for is
/// ignored.
///
/// # Errors
/// A value that is not known, in words for `Interface.error`.
pub fn settings(port: &Port) -> Result<PortVlan, String> {
    let mode = port.vlan_mode.as_deref().map(str::parse::<VlanMode>).transpose();
    let mode = mode.map_err(|error| format!("vlan_mode: {error}"))?;
    let other = |key: &str| port.other_config.get(key).map(String::as_str);
    let mut vlan = PortVlan {
        mode,
        tag: port.tag.map(number).transpose()?,
        trunks: set(&port.trunks)?,
        cvlans: set(&port.cvlans)?,
        // Open vSwitch hides no tag behind another one.
        bare_inner: true,
        ..PortVlan::default()
    };
    if let Some(kind) = other("qinq-ethtype") {
        let kind = kind.parse();
        vlan.qinq_ethertype =
            kind.map_err(|error| format!("other_config:qinq-ethtype: {error}"))?;
    }
    match other("priority-tags") {
        None | Some("false") => {}
        Some("true") => vlan.priority_tags = PriorityTags::IfNonzero,
        Some(when) => {
            let when = when.parse();
            vlan.priority_tags =
                when.map_err(|error| format!("other_config:priority-tags: {error}"))?;
        }
    }
    let mode = vlan.mode();
    if mode == VlanMode::Trunk {
        vlan.tag = None;
    }
    if matches!(mode, VlanMode::Access | VlanMode::Dot1qTunnel) {
        vlan.trunks = None;
    }
    if mode != VlanMode::Dot1qTunnel {
        vlan.cvlans = None;
    }
    if vlan.tag.is_none() && mode != VlanMode::Trunk {
        // Without a tag there is nothing that it could be but VLAN 0.
        vlan.tag = Some(0);
    }
    vlan.check()?;
    Ok(vlan)
}

fn number(vlan: i64) -> Result<u16, String> {
    u16::try_from(vlan).map_err(|_| format!("VLAN {vlan}: expected 0 to 4094"))
}

/// The VLANs in a column; `None`, which is all of them, where it is empty.
fn set(vlans: &[i64]) -> Result<Option<VlanSet>, String> {
    let mut set = VlanSet::new();
    for vlan in vlans {
        // 4095 is reserved: the schema allows it, no frame has it.
        set.insert(number(*vlan)?);
    }
    Ok((!vlans.is_empty()).then_some(set))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ovsdb::Uuid;
    use switch::vlan::QinqEtherType;

    fn port() -> Port {
        Port::bare(Uuid(1))
    }

    #[test]
    fn modes_follow_from_columns() {
        assert_eq!(
            settings(&port()).unwrap(),
            PortVlan { bare_inner: true, ..PortVlan::default() }
        );
        let access = settings(&Port { tag: Some(7), trunks: vec![1, 2], ..port() }).unwrap();
        assert_eq!((access.mode(), access.trunks), (VlanMode::Access, None));
        let trunk =
            Port { vlan_mode: Some("trunk".into()), tag: Some(7), trunks: vec![1], ..port() };
        let trunk = settings(&trunk).unwrap();
        assert_eq!((trunk.mode(), trunk.tag), (VlanMode::Trunk, None));
        assert!(trunk.trunks.unwrap().contains(1));
        let tags = [("priority-tags".to_owned(), "true".to_owned())];
        let access =
            settings(&Port { tag: Some(7), other_config: tags.into_iter().collect(), ..port() })
                .unwrap();
        assert_eq!(access.priority_tags, PriorityTags::IfNonzero);
        let native = Port { vlan_mode: Some("native-untagged".into()), tag: Some(7), ..port() };
        assert_eq!(settings(&native).unwrap().mode(), VlanMode::NativeUntagged);
    }

    #[test]
    fn tunnels_have_their_own_columns() {
        let other = [("qinq-ethtype", "802.1q"), ("priority-tags", "true")];
        let other = other.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let tunnel = Port {
            vlan_mode: Some("dot1q-tunnel".into()),
            tag: Some(5),
            cvlans: vec![8],
            other_config: other.into_iter().collect(),
            ..port()
        };
        let tunnel = settings(&tunnel).unwrap();
        assert_eq!(tunnel.qinq_ethertype, QinqEtherType::Dot1q);
        assert_eq!(tunnel.priority_tags, PriorityTags::IfNonzero);
        assert!(tunnel.cvlans.unwrap().contains(8));
    }

    #[test]
    fn what_is_not_known_is_named() {
        let wrong = Port { vlan_mode: Some("acess".into()), ..port() };
        assert!(settings(&wrong).unwrap_err().contains("did you mean 'access'?"));
        assert!(settings(&Port { tag: Some(4095), ..port() }).is_err());
        let other = [("qinq-ethtype".to_owned(), "9100".to_owned())];
        let wrong = Port { other_config: other.into_iter().collect(), ..port() };
        assert!(settings(&wrong).unwrap_err().contains("qinq-ethtype"));
    }
}
