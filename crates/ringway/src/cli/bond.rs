//! The command line of `ringway bond`.

use std::net::{IpAddr, Ipv4Addr};

use clap::{Args, Subcommand};
use packet::MacAddr;
use serde_json::{Map, Value, json};
use switch::{BondMode, Lacp, LacpManner, LacpTime};

use super::ControlArgs;
use super::admin::{OrDefault, or_default};
use super::{number, parse_switch};
use crate::vlan::VlanArgs;

/// Arguments of `ringway bond`.
#[derive(Clone, Debug, Args)]
pub struct BondArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: BondAction,

    /// Where the control socket is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// What `ringway bond` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum BondAction {
    /// Make one port of several: they leave their bridges and become members of a bond.
    Add {
        /// Its name.
        name: String,
        /// The ports that become its members.
        #[arg(long, value_name = "PORT,..", value_delimiter = ',', required = true)]
        members: Vec<String>,
        /// Its settings.
        #[command(flatten)]
        settings: BondSettings,
        /// The bridge that it belongs to [default: default].
        #[arg(long, value_name = "NAME")]
        bridge: Option<String>,
        /// Its part in VLANs.
        #[command(flatten)]
        vlan: VlanArgs,
        /// Write it to the configuration file of the switch, too.
        #[arg(long)]
        save: bool,
    },
    /// Change the settings of a bond while it carries frames. Its bridge and VLANs are settings of
    /// its port: see 'ringway port set'.
    Set {
        /// Its name.
        name: String,
        /// The ports that are its members from now on; one that is none any more is taken out of
        /// service, so that it makes no loop.
        #[arg(long, value_name = "PORT,..", value_delimiter = ',')]
        members: Vec<String>,
        /// What to change.
        #[command(flatten)]
        settings: BondSettings,
        /// Write it to the configuration file of the switch, too.
        #[arg(long)]
        save: bool,
    },
    /// Remove a bond, and the ports that are its members.
    Del {
        /// Its name.
        name: String,
        /// Take them from the configuration file of the switch, too.
        #[arg(long)]
        save: bool,
    },
    /// Make a member the active one, as long as it is in use and no primary one is; its settings stay
    /// as they are.
    SetActiveMember {
        /// The name of the bond.
        name: String,
        /// The member.
        member: String,
    },
    /// Have a member be used again that was disabled, as soon as its link is up and agreed on.
    EnableMember {
        /// The name of the bond.
        name: String,
        /// The member.
        member: String,
    },
    /// Take a member out of use until it is enabled, or the switch is started anew; its link stays up.
    DisableMember {
        /// The name of the bond.
        name: String,
        /// The member.
        member: String,
    },
    /// Give a part of the traffic to a member, until load is moved the next time. For bonds that
    /// divide traffic by source (balance-slb).
    Migrate {
        /// The name of the bond.
        name: String,
        /// The member that gets it.
        member: String,
        /// Which part.
        #[command(flatten)]
        part: PartArgs,
        /// With --mac, the VLAN of its frames as they go out.
        #[arg(long, value_name = "ID", requires = "mac", value_parser = number(1_u16..=4094))]
        vlan: Option<u16>,
    },
}

/// A part of the traffic of a bond.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[group(required = true, multiple = false)]
pub struct PartArgs {
    /// The part that frames from this station are in.
    #[arg(long, value_name = "MAC", value_parser = station)]
    pub mac: Option<String>,
    /// The part of this number, of 256: the hash of 'ovs-appctl bond/migrate'.
    #[arg(long, value_name = "N", value_parser = number(0_u8..))]
    pub part: Option<u8>,
}

/// Settings of a bond; `default` takes one back.
#[derive(Clone, Debug, Default, Args)]
pub struct BondSettings {
    /// How traffic is divided among the members: active-backup, balance-slb (by source) or
    /// balance-tcp (by flow; with LACP only).
    #[arg(long, value_name = "MODE|default", value_parser = or_default(|text: &str| text.parse::<BondMode>()))]
    pub mode: Option<OrDefault<BondMode>>,
    /// The member that is the active one whenever its link is up; default: none is preferred.
    #[arg(long, value_name = "PORT|default", value_parser = or_default(|text: &str| Ok(text.to_owned())))]
    pub primary: Option<OrDefault<String>>,
    /// With balance-slb, whether all members hear what goes to a group, and not the active one alone.
    #[arg(long, value_name = "on|off", value_parser = parse_switch)]
    pub all_members_active: Option<bool>,
    /// How long a link has to be up before its member is used.
    #[arg(long, value_name = "MS|default", value_parser = or_default(number(0_u32..=600_000)))]
    pub updelay: Option<OrDefault<u32>>,
    /// How long a link has to be down before its member is given up.
    #[arg(long, value_name = "MS|default", value_parser = or_default(number(0_u32..=600_000)))]
    pub downdelay: Option<OrDefault<u32>>,
    /// How often load is moved from one member to another; 0 for never.
    #[arg(long, value_name = "MS|default", value_parser = or_default(number(0_u32..)))]
    pub rebalance_interval: Option<OrDefault<u32>>,
    /// Whether it speaks LACP (802.1AX): off, active or passive.
    #[arg(long, value_name = "HOW|default", value_parser = or_default(|text: &str| text.parse::<Lacp>()))]
    pub lacp: Option<OrDefault<Lacp>>,
    /// How often the other end is to speak: slow (30 s) or fast (1 s).
    #[arg(long, value_name = "TIME|default", value_parser = or_default(|text: &str| text.parse::<LacpTime>()))]
    pub lacp_time: Option<OrDefault<LacpTime>>,
    /// Whose state machines LACP follows: standard or open-vswitch.
    #[arg(long, value_name = "WHOSE|default", value_parser = or_default(|text: &str| text.parse::<LacpManner>()))]
    pub lacp_manner: Option<OrDefault<LacpManner>>,
    /// Whether members are used as by active-backup as long as nobody answers by LACP.
    #[arg(long, value_name = "on|off", value_parser = parse_switch)]
    pub lacp_fallback_ab: Option<bool>,
    /// The address by which the bond is known to the other end; default: one of its own, which stays.
    #[arg(long, value_name = "MAC|default", value_parser = or_default(station))]
    pub lacp_system_id: Option<OrDefault<String>>,
    /// The side with the lower one decides in case of doubt.
    #[arg(long, value_name = "N|default", value_parser = or_default(number(1_u16..)))]
    pub lacp_system_priority: Option<OrDefault<u16>>,
    /// Stations that each member asks for by ARP or neighbour solicitation, to be used as long as they
    /// answer; default: none, and links are believed.
    #[arg(long, value_name = "IP,..|default", value_parser = or_default(addresses))]
    pub arp_ip_targets: Option<OrDefault<Vec<IpAddr>>>,
    /// How often.
    #[arg(long, value_name = "MS|default", value_parser = or_default(number(100_u32..=600_000)))]
    pub arp_interval: Option<OrDefault<u32>>,
    /// How many questions in turn may go without an answer before a member is given up.
    #[arg(long, value_name = "N|default", value_parser = or_default(number(1_u8..)))]
    pub arp_missed_max: Option<OrDefault<u8>>,
    /// Whether all of the stations have to answer, and not any.
    #[arg(long, value_name = "on|off", value_parser = parse_switch)]
    pub arp_all_targets: Option<bool>,
    /// The address that asks by ARP; default: none.
    #[arg(long, value_name = "IP|default", value_parser = or_default(address))]
    pub arp_source: Option<OrDefault<Ipv4Addr>>,
    /// The VLAN where the stations are, by its tag.
    #[arg(long, value_name = "ID|default", value_parser = or_default(number(1_u16..=4094)))]
    pub arp_vlan: Option<OrDefault<u16>>,
}

fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let parsed: Result<Vec<IpAddr>, _> = text.split(',').map(|one| one.trim().parse()).collect();
    parsed.map_err(|_| "expected addresses, as in 192.0.2.1,2001:db8::1".to_owned())
}

fn address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| "expected an address of IPv4, as 192.0.2.1".to_owned())
}

fn station(text: &str) -> Result<String, String> {
    let mac = text.parse::<MacAddr>().map_err(|error| error.to_string())?;
    match mac.is_station() {
        true => Ok(mac.to_string()),
        false => Err("expected the address of one station".to_owned()),
    }
}

/// What a port says by LACP, as a member of a bond; `default` takes a setting back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct LacpArgs {
    /// Its number in LACP, as a member of a bond.
    #[arg(long, value_name = "N|default", value_parser = or_default(number(1_u16..)))]
    pub lacp_port_id: Option<OrDefault<u16>>,
    /// Its priority in LACP: of several groups of members that with the lowest is used.
    #[arg(long, value_name = "N|default", value_parser = or_default(number(1_u16..)))]
    pub lacp_port_priority: Option<OrDefault<u16>>,
    /// Its key in LACP: members with different ones are never in use together.
    #[arg(long, value_name = "N|default", value_parser = or_default(number(1_u16..)))]
    pub lacp_aggregation_key: Option<OrDefault<u16>>,
}

impl LacpArgs {
    /// The settings that are to change, by their keys in the file.
    pub fn changed(&self) -> Map<String, Value> {
        let all = [
            ("port-id", &self.lacp_port_id),
            ("port-priority", &self.lacp_port_priority),
            ("aggregation-key", &self.lacp_aggregation_key),
        ];
        let given = all.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?.0)));
        given.map(|(key, value)| (key.to_owned(), json!(value))).collect()
    }
}

impl BondSettings {
    /// Those that are given, by their keys in the file.
    pub fn given(&self) -> Map<String, Value> {
        let Self { mode, primary, updelay, downdelay, .. } = self;
        let Self { rebalance_interval, lacp, lacp_time, lacp_fallback_ab, .. } = self;
        let Self { lacp_system_id, lacp_system_priority, .. } = self;
        let Self { arp_ip_targets, arp_interval, arp_missed_max, arp_all_targets, .. } = self;
        let targets = arp_ip_targets.as_ref().map(|value| json!(value.0));
        let all = [
            ("mode", mode.as_ref().map(|value| json!(value.0))),
            ("primary", primary.as_ref().map(|value| json!(value.0))),
            ("all-members-active", self.all_members_active.map(Value::Bool)),
            ("updelay", updelay.as_ref().map(|value| json!(value.0))),
            ("downdelay", downdelay.as_ref().map(|value| json!(value.0))),
            ("rebalance-interval", rebalance_interval.as_ref().map(|value| json!(value.0))),
            ("lacp", lacp.as_ref().map(|value| json!(value.0))),
            ("lacp-time", lacp_time.as_ref().map(|value| json!(value.0))),
            ("lacp-manner", self.lacp_manner.as_ref().map(|value| json!(value.0))),
            ("lacp-fallback-ab", lacp_fallback_ab.map(Value::Bool)),
            ("lacp-system-id", lacp_system_id.as_ref().map(|value| json!(value.0))),
            ("lacp-system-priority", lacp_system_priority.as_ref().map(|value| json!(value.0))),
            ("arp-ip-targets", targets),
            ("arp-interval", arp_interval.as_ref().map(|value| json!(value.0))),
            ("arp-missed-max", arp_missed_max.as_ref().map(|value| json!(value.0))),
            ("arp-all-targets", arp_all_targets.map(Value::Bool)),
            ("arp-source", self.arp_source.as_ref().map(|value| json!(value.0))),
            ("arp-vlan", self.arp_vlan.as_ref().map(|value| json!(value.0))),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(options: &str) -> Result<Map<String, Value>, String> {
        let words = ["ringway", "bond"].into_iter();
        let cli = Cli::try_parse_from(words.chain(options.split_whitespace()));
        match cli.map_err(|error| error.to_string())?.command {
            Command::Bond(BondArgs {
                action: BondAction::Add { settings, .. } | BondAction::Set { settings, .. },
                ..
            }) => Ok(settings.given()),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn options_are_the_settings() {
        let given = parse("add up --members a,b --mode active-backup --primary a --updelay 200");
        let expected = json!({"mode": "active-backup", "primary": "a", "updelay": 200});
        assert_eq!(Value::Object(given.unwrap()), expected);
        let given = parse("set up --lacp active --lacp-time fast --lacp-manner open-vswitch --lacp-fallback-ab on")
            .unwrap();
        let expected = json!({
            "lacp": "active", "lacp-time": "fast", "lacp-manner": "open-vswitch", "lacp-fallback-ab": true
        });
        assert_eq!(Value::Object(given), expected);
        let given = parse("set up --primary default --downdelay default").unwrap();
        assert_eq!(Value::Object(given), json!({"primary": null, "downdelay": null}));
        let given = parse("set up --lacp-system-id 02:00:00:00:00:0A --lacp-system-priority 7");
        let expected = json!({"lacp-system-id": "02:00:00:00:00:0a", "lacp-system-priority": 7});
        assert_eq!(Value::Object(given.unwrap()), expected);
        let given =
            parse("set up --arp-ip-targets 10.1.0.2,fd00::2 --arp-vlan 7 --arp-source default");
        let expected =
            json!({"arp-ip-targets": ["10.1.0.2", "fd00::2"], "arp-vlan": 7, "arp-source": null});
        assert_eq!(Value::Object(given.unwrap()), expected);
        let args = LacpArgs {
            lacp_port_priority: Some(OrDefault(Some(3))),
            lacp_port_id: Some(OrDefault(None)),
            ..LacpArgs::default()
        };
        assert_eq!(Value::Object(args.changed()), json!({"port-priority": 3, "port-id": null}));
        for (options, expected) in [
            ("set up --arp-ip-targets 10.1.0.2,x", "expected addresses"),
            ("set up --lacp-system-id 01:00:00:00:00:00", "one station"),
            ("add up", "--members"),
            ("add up --members a --mode active-backpu", "did you mean 'active-backup'?"),
            ("set up --updelay 600001", "600000"),
        ] {
            let error = parse(options).unwrap_err();
            assert!(error.contains(expected), "{options}: {error}");
        }
    }
}
