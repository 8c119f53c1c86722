//! VLAN settings on the command line.

use serde_json::Value;
use switch::vlan::set::parse_vlan;
use switch::{PortVlan, PriorityTags, QinqEtherType, VlanMode, VlanSet};

use crate::cli::settings::{Read, Setting, Settings, Table, parsed};

/// The options of a port for VLANs, as in a configuration file.
pub type VlanArgs = Settings<PortVlan>;

impl Table for PortVlan {
    const NAME: &str = "vlan settings";
    const SETTINGS: &[Setting] = &[
        Setting::new("tag", "VLAN", Read::By(|text| parse_vlan(text).map(Value::from))).help(
            "VLAN of an access port, native VLAN of a native one, the provider's of a \
             tunnel",
        ),
        Setting::new("trunks", "VLANS", Read::By(parsed::<VlanSet>))
            .help("VLANs of a trunk, as in 10,20-29 [default: all]"),
        Setting::new("vlan-mode", "MODE", Read::By(parsed::<VlanMode>)).key("mode").help(
            "access, trunk, native-tagged, native-untagged or dot1q-tunnel [default: access \
             with a tag, trunk without]",
        ),
        Setting::new("cvlans", "VLANS", Read::By(parsed::<VlanSet>)).help(
            "The customer's VLANs that a tunnel takes, 0 for frames without a tag [default: \
             all]",
        ),
        Setting::new("qinq-ethertype", "TYPE", Read::By(parsed::<QinqEtherType>))
            .help("The tag that a tunnel puts on: 802.1ad or 802.1q [default: 802.1ad]"),
        Setting::new("priority-tags", "WHEN", Read::By(parsed::<PriorityTags>)).help(
            "When frames that leave in no VLAN get a tag for their priority: no, if-nonzero \
             or always [default: no]",
        ),
        Setting::flag("bare-inner").help(
            "Let a tag behind the bridge's come to the front where the bridge's own is \
             taken off",
        ),
    ];
}

/// What a port does with VLANs, in a few words; `None` where it has no settings.
pub fn summary(vlan: &PortVlan) -> Option<String> {
    if vlan.is_default() {
        return None;
    }
    let mut words = vec![vlan.mode().to_string()];
    words.extend(vlan.tag.map(|tag| tag.to_string()));
    words.extend(vlan.trunks.as_ref().map(|trunks| format!("trunks {trunks}")));
    words.extend(vlan.cvlans.as_ref().map(|cvlans| format!("cvlans {cvlans}")));
    if vlan.mode() == VlanMode::Dot1qTunnel {
        words.push(vlan.qinq_ethertype.to_string());
    }
    if vlan.priority_tags != PriorityTags::No {
        words.push(format!("priority tags {}", vlan.priority_tags));
    }
    if vlan.bare_inner {
        words.push("bare inner tags".to_owned());
    }
    Some(words.join(" "))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command, PortAction};

    fn parse(options: &str) -> Result<PortVlan, String> {
        let words = ["ringway", "port", "add", "a=null:"].into_iter();
        let cli = Cli::try_parse_from(words.chain(options.split_whitespace()));
        match cli.map_err(|error| error.to_string())?.command {
            Command::Port(args) => match args.action {
                PortAction::Add(port) => Ok(port.vlan.whole().unwrap()),
                other => Err(format!("{other:?}")),
            },
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn options_are_the_settings() {
        assert_eq!(parse(""), Ok(PortVlan::default()));
        let vlan = parse("--tag 5 --vlan-mode native-untagged --trunks 5,7-9").unwrap();
        assert_eq!(summary(&vlan).unwrap(), "native-untagged 5 trunks 5,7-9");
        let vlan = parse("--tag 5 --vlan-mode dot1q-tunnel --cvlans 0 --qinq-ethertype 802.1q");
        assert_eq!(summary(&vlan.unwrap()).unwrap(), "dot1q-tunnel 5 cvlans 0 802.1q");
        let vlan = parse("--tag 5 --priority-tags always").unwrap();
        assert_eq!(summary(&vlan).unwrap(), "access 5 priority tags always");
        let vlan = parse("--tag 5 --vlan-mode native-untagged --bare-inner").unwrap();
        assert_eq!(summary(&vlan).unwrap(), "native-untagged 5 bare inner tags");
        assert_eq!(summary(&PortVlan::default()), None);
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_option() {
        for (options, expected) in [
            ("--tag 4095", "expected a number from 0 to 4094"),
            ("--trunks 5-4", "the range ends before it begins"),
            ("--vlan-mode acces", "did you mean 'access'?"),
        ] {
            let error = parse(options).unwrap_err();
            let option = options.split(' ').next().unwrap();
            assert!(error.contains(expected) && error.contains(option), "{error}");
        }
    }
}
