//! Mirrors of Open vSwitch's table `Mirror`.

use std::collections::BTreeSet;

use litemap::LiteMap;
use ordered::Gather as _;
use ovsdb::Uuid;
use switch::{DEFAULT_BRIDGE, VlanSet};

use crate::content::{Bridge, Mirror};

/// Names of the switch's ports by the rows of `Port`: a bond is known by its own name, another port by
/// that of its interface.
#[must_use]
pub fn port_names(bridge: &Bridge) -> LiteMap<Uuid, String> {
    let named = |(name, port): (&String, &crate::content::Port)| {
        let mut interfaces = port.interfaces.keys();
        let only = interfaces.next().filter(|_| port.interfaces.len() == 1);
        (port.row, only.unwrap_or(name).clone())
    };
    bridge.ports.iter().map(named).gather()
}

/// What the switch is to copy for a mirror of `bridge`; ports that are not there are left out, as
/// `has` tells.
///
/// # Errors
/// There is nothing to copy, or nowhere to copy it to, in words for the log.
pub fn settings(
    bridge: &str,
    mirror: &Mirror,
    names: &LiteMap<Uuid, String>,
    has: impl Fn(&str) -> bool,
) -> Result<switch::Mirror, String> {
    let name = |row: &Uuid| names.get(row).filter(|name| has(name)).cloned();
    let output_port = mirror.output_port.as_ref().map(name);
    if output_port == Some(None) {
        return Err("its output port is not there".to_owned());
    }
    let output_port = output_port.flatten();
    // Of two outputs it is the port that counts.
    let output_vlan = mirror.output_vlan.filter(|_| output_port.is_none()).map(vlan).transpose()?;
    let all: BTreeSet<Uuid> = BTreeSet::new();
    let select = |rows: &BTreeSet<Uuid>| -> BTreeSet<String> {
        let rows = if mirror.select_all { &all } else { rows };
        rows.iter().filter_map(name).filter(|name| Some(name) != output_port.as_ref()).gather()
    };
    let snaplen = mirror.snaplen.map(|length| u16::try_from(length).ok()).filter(Option::is_some);
    let made = switch::Mirror {
        bridge: Some(bridge.to_owned()).filter(|bridge| bridge != DEFAULT_BRIDGE),
        select_all: mirror.select_all,
        select_src_port: select(&mirror.select_src_port),
        select_dst_port: select(&mirror.select_dst_port),
        select_vlan: vlans(&mirror.select_vlan)?,
        output_port,
        output_vlan,
        // To the port that the frame came from, too.
        reflect: output_vlan.is_some(),
        snaplen: snaplen.flatten(),
        ..switch::Mirror::default()
    };
    made.check().map_err(|(_, reason)| reason)?;
    Ok(made)
}

fn vlan(vlan: i64) -> Result<u16, String> {
    u16::try_from(vlan).map_err(|_| format!("VLAN {vlan}: expected 0 to 4094"))
}

fn vlans(list: &[i64]) -> Result<Option<VlanSet>, String> {
    let mut set = VlanSet::new();
    for number in list {
        set.insert(vlan(*number)?);
    }
    Ok((!list.is_empty()).then_some(set))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Interface, Port, Texts};

    fn bridge() -> Bridge {
        let port = |row: u128, interfaces: &[&str]| {
            let bare = |name: &&str| ((*name).to_owned(), Interface::bare(Uuid(row), ""));
            Port { interfaces: interfaces.iter().map(bare).collect(), ..Port::bare(Uuid(row)) }
        };
        let ports =
            [("a", port(1, &["eth0"])), ("b", port(2, &["m0", "m1"])), ("w", port(3, &["w"]))];
        let ports = ports.map(|(name, port)| (name.to_owned(), port));
        Bridge::bare(Uuid(9), Texts::new(), ports.into_iter().collect())
    }

    fn made(mirror: &Mirror) -> Result<switch::Mirror, String> {
        settings("br0", mirror, &port_names(&bridge()), |name| name != "gone")
    }

    #[test]
    fn rows_are_known_by_the_names_of_their_ports() {
        let mirror = Mirror {
            select_src_port: [Uuid(1), Uuid(3), Uuid(7)].into(),
            select_dst_port: [Uuid(2)].into(),
            select_vlan: vec![0, 5],
            output_port: Some(Uuid(3)),
            output_vlan: Some(7),
            snaplen: Some(100),
            ..Mirror::default()
        };
        let mirror = made(&mirror).unwrap();
        assert_eq!(mirror.select_src_port, ["eth0".to_owned()].into());
        assert_eq!(mirror.select_dst_port, ["b".to_owned()].into());
        assert_eq!((mirror.output_port.as_deref(), mirror.output_vlan), (Some("w"), None));
        assert_eq!((mirror.snaplen, mirror.bridge.as_deref()), (Some(100), Some("br0")));
        assert!(mirror.select_vlan.unwrap().contains(5));
        let all = Mirror { select_all: true, output_vlan: Some(7), ..Mirror::default() };
        assert_eq!(made(&all).unwrap().output_vlan, Some(7));
    }

    #[test]
    fn one_that_can_copy_nothing_is_none() {
        let to = |row| Mirror { output_port: Some(Uuid(row)), ..Mirror::default() };
        assert!(made(&to(3)).unwrap_err().contains("selects nothing"));
        let nowhere = Mirror { select_all: true, ..to(8) };
        assert!(made(&nowhere).unwrap_err().contains("output port is not there"));
        assert!(made(&Mirror { select_all: true, ..Mirror::default() }).is_err());
    }
}
