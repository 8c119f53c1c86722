//! The command line of `ringway bond`.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use packet::MacAddr;
use serde_json::{Value, json};
use switch::{BondMode, Lacp, LacpManner, LacpTime};

use super::bridge::parse_address;
use super::settings::{Read, Setting, Settings, Table, parsed};
use super::{ControlArgs, number};
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
pub type BondSettings = Settings<OfBond>;

/// What bonds have.
#[derive(Clone, Debug)]
pub enum OfBond {}

impl Table for OfBond {
    const NAME: &str = "bond settings";
    const SETTINGS: &[Setting] = &[
        Setting::new("mode", "MODE|default", Read::By(parsed::<BondMode>)).or_default().help(
            "How traffic is divided among the members: active-backup, balance-slb (by \
             source) or balance-tcp (by flow; with LACP only)",
        ),
        Setting::new("primary", "PORT|default", Read::Text).or_default().help(
            "The member that is the active one whenever its link is up; default: none is \
             preferred",
        ),
        Setting::switch("all-members-active").help(
            "With balance-slb, whether all members hear what goes to a group, and not the \
             active one alone",
        ),
        Setting::new("updelay", "MS|default", Read::Number(0, 600_000))
            .or_default()
            .help("How long a link has to be up before its member is used"),
        Setting::new("downdelay", "MS|default", Read::Number(0, 600_000))
            .or_default()
            .help("How long a link has to be down before its member is given up"),
        Setting::new("rebalance-interval", "MS|default", Read::Number(0, u32::MAX as u64))
            .or_default()
            .help("How often load is moved from one member to another; 0 for never"),
        Setting::new("lacp", "HOW|default", Read::By(parsed::<Lacp>))
            .or_default()
            .help("Whether it speaks LACP (802.1AX): off, active or passive"),
        Setting::new("lacp-time", "TIME|default", Read::By(parsed::<LacpTime>))
            .or_default()
            .help("How often the other end is to speak: slow (30 s) or fast (1 s)"),
        Setting::new("lacp-manner", "WHOSE|default", Read::By(parsed::<LacpManner>))
            .or_default()
            .help("Whose state machines LACP follows: standard or open-vswitch"),
        Setting::switch("lacp-fallback-ab")
            .help("Whether members are used as by active-backup as long as nobody answers by LACP"),
        Setting::new(
            "lacp-system-id",
            "MAC|default",
            Read::By(|text| station(text).map(Value::from)),
        )
        .or_default()
        .help(
            "The address by which the bond is known to the other end; default: one of its \
             own, which stays",
        ),
        Setting::new("lacp-system-priority", "N|default", Read::Number(1, 65_535))
            .or_default()
            .help("The side with the lower one decides in case of doubt"),
        Setting::new("arp-ip-targets", "IP,..|default", Read::By(addresses)).or_default().help(
            "Stations that each member asks for by ARP or neighbour solicitation, to be \
             used as long as they answer; default: none, and links are believed",
        ),
        Setting::new("arp-interval", "MS|default", Read::Number(100, 600_000))
            .or_default()
            .help("How often"),
        Setting::new("arp-missed-max", "N|default", Read::Number(1, 255)).or_default().help(
            "How many questions in turn may go without an answer before a member is given \
             up",
        ),
        Setting::switch("arp-all-targets")
            .help("Whether all of the stations have to answer, and not any"),
        Setting::new("arp-source", "IP|default", Read::By(parse_address))
            .or_default()
            .help("The address that asks by ARP; default: none"),
        Setting::new("arp-vlan", "ID|default", Read::Number(1, 4094))
            .or_default()
            .help("The VLAN where the stations are, by its tag"),
    ];
}

fn addresses(text: &str) -> Result<Value, String> {
    let parsed: Result<Vec<IpAddr>, _> = text.split(',').map(|one| one.trim().parse()).collect();
    match parsed {
        Ok(addresses) => Ok(json!(addresses)),
        Err(_) => Err("expected addresses, as in 192.0.2.1,2001:db8::1".to_owned()),
    }
}

fn station(text: &str) -> Result<String, String> {
    let mac = text.parse::<MacAddr>().map_err(|error| error.to_string())?;
    match mac.is_station() {
        true => Ok(mac.to_string()),
        false => Err("expected the address of one station".to_owned()),
    }
}

/// What a port says by LACP, as a member of a bond; `default` takes a setting back.
pub type LacpArgs = Settings<OfMember>;

/// What members of bonds have.
#[derive(Clone, Debug)]
pub enum OfMember {}

impl Table for OfMember {
    const NAME: &str = "lacp settings";
    const SETTINGS: &[Setting] = &[
        Setting::new("lacp-port-id", "N|default", Read::Number(1, 65_535))
            .key("port-id")
            .or_default()
            .help("Its number in LACP, as a member of a bond"),
        Setting::new("lacp-port-priority", "N|default", Read::Number(1, 65_535))
            .key("port-priority")
            .or_default()
            .help(
                "Its priority in LACP: of several groups of members that with the lowest is \
                 used",
            ),
        Setting::new("lacp-aggregation-key", "N|default", Read::Number(1, 65_535))
            .key("aggregation-key")
            .or_default()
            .help("Its key in LACP: members with different ones are never in use together"),
    ];
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use serde_json::Map;

    use super::*;
    use crate::cli::{Cli, Command, PortAction};

    fn parse(options: &str) -> Result<Map<String, Value>, String> {
        let words = ["ringway", "bond"].into_iter();
        let cli = Cli::try_parse_from(words.chain(options.split_whitespace()));
        match cli.map_err(|error| error.to_string())?.command {
            Command::Bond(BondArgs {
                action: BondAction::Add { settings, .. } | BondAction::Set { settings, .. },
                ..
            }) => Ok(settings.given().clone()),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn options_of_a_member_are_its_settings() {
        let line = "ringway port set a --lacp-port-priority 3 --lacp-port-id default";
        let Command::Port(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("{line}");
        };
        let PortAction::Set(port) = args.action else { panic!("{line}") };
        let expected = json!({"port-id": null, "port-priority": 3});
        assert_eq!(Value::Object(port.lacp.given().clone()), expected);
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
