//! A port's part in snooping on the command line, and what a running switch answers about groups of
//! IGMP and MLD.

use std::str::FromStr as _;

use clap::Args;
use daemon::Daemon;
use serde_json::{Map, Value, json};
use switch::{GroupsReport, McastRouter, PortSnooping};

use crate::cli::{OrDefault, number, or_default, parse_switch};
use crate::control::protocol::{Group, GroupBridge, GroupRouter, Groups};

/// The options of a port for groups, as in a configuration file. Each can be `default`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct GroupArgs {
    /// Whether it has a multicast router: auto, as long as one is heard; always; or never, which
    /// drops what only routers say [default: auto].
    #[arg(long, value_name = "WHEN", value_parser = or_default(McastRouter::from_str))]
    pub mcast_router: Option<OrDefault<McastRouter>>,
    /// Send it what goes to any group, whoever has joined [default: off].
    #[arg(long, value_name = "on|off", value_parser = or_default(parse_switch))]
    pub mcast_flood: Option<OrDefault<bool>>,
    /// Send it what hosts report to routers [default: off].
    #[arg(long, value_name = "on|off", value_parser = or_default(parse_switch))]
    pub mcast_flood_reports: Option<OrDefault<bool>>,
    /// The most groups that it may join [default: as many as there is room for].
    #[arg(long, value_name = "N", value_parser = or_default(number::<u32>(..)))]
    pub mcast_max_groups: Option<OrDefault<u32>>,
}

impl GroupArgs {
    /// The settings of a new port.
    pub fn settings(&self) -> PortSnooping {
        PortSnooping {
            flood: self.mcast_flood.as_ref().and_then(|is_on| is_on.0).unwrap_or_default(),
            flood_reports: self
                .mcast_flood_reports
                .as_ref()
                .and_then(|is_on| is_on.0)
                .unwrap_or_default(),
            router: self.mcast_router.as_ref().and_then(|when| when.0).unwrap_or_default(),
            max_groups: self.mcast_max_groups.as_ref().and_then(|most| most.0),
        }
    }

    /// The settings that are to change, by their keys in the file.
    pub fn changed(&self) -> Map<String, Value> {
        let Self { mcast_router, mcast_flood, mcast_flood_reports, mcast_max_groups } = self;
        let all = [
            ("router", mcast_router.as_ref().map(|when| json!(when.0))),
            ("flood", mcast_flood.as_ref().map(|is_on| json!(is_on.0))),
            ("flood-reports", mcast_flood_reports.as_ref().map(|is_on| json!(is_on.0))),
            ("max-groups", mcast_max_groups.as_ref().map(|most| json!(most.0))),
        ];
        let given = all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        given.collect()
    }
}

/// A port's part in a few words; `None` where it is as by default.
pub fn summary(own: &PortSnooping) -> Option<String> {
    let words = [
        (own.router != McastRouter::Auto).then(|| format!("router {}", own.router)),
        own.flood.then(|| "flood".to_owned()),
        own.flood_reports.then(|| "flood-reports".to_owned()),
        own.max_groups.map(|most| format!("max-groups {most}")),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// The groups of a switch.
pub fn answer(daemon: &Daemon) -> Groups {
    let mut all = Groups { bridges: Vec::new(), groups: Vec::new(), routers: Vec::new() };
    for GroupsReport { bridge, settings, groups, routers, counts } in daemon.switch().groups() {
        let joined = groups.into_iter().map(|group| Group {
            bridge: bridge.clone(),
            vlan: group.vlan,
            group: group.group,
            port: group.port,
            age_seconds: group.age,
        });
        all.groups.extend(joined);
        all.routers.extend(routers.into_iter().map(|router| GroupRouter {
            bridge: bridge.clone(),
            vlan: router.vlan,
            port: router.port,
            age_seconds: router.age,
        }));
        all.bridges.push(GroupBridge {
            name: bridge,
            limit: settings.table_size,
            ageing_seconds: settings.aging_time,
            flood_unregistered: !settings.disable_flood_unregistered,
            querier: settings.querier,
            joined: counts.joined,
            left: counts.left,
            expired: counts.expired,
            evicted: counts.evicted,
            refused: counts.refused,
            bad: counts.bad,
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command, PortAction};

    fn parse(options: &str) -> Result<GroupArgs, String> {
        let words = ["ringway", "port", "set", "a"].into_iter();
        let cli = Cli::try_parse_from(words.chain(options.split_whitespace()));
        match cli.map_err(|error| error.to_string())?.command {
            Command::Port(args) => match args.action {
                PortAction::Set(port) => Ok(port.groups),
                other => Err(format!("{other:?}")),
            },
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn options_are_the_settings() {
        let args = parse("").unwrap();
        assert!(args.settings().is_default() && args.changed().is_empty());
        assert_eq!(summary(&args.settings()), None);
        let args = parse("--mcast-router never --mcast-flood on --mcast-max-groups 7").unwrap();
        let expected = r#"{"router":"never","flood":true,"max-groups":7}"#;
        assert_eq!(Value::Object(args.changed()).to_string(), expected);
        assert_eq!(summary(&args.settings()).unwrap(), "router never, flood, max-groups 7");
        let args = parse("--mcast-router default --mcast-flood-reports default").unwrap();
        let expected = r#"{"router":null,"flood-reports":null}"#;
        assert_eq!(Value::Object(args.changed()).to_string(), expected);
        assert!(parse("--mcast-router nevr").unwrap_err().contains("did you mean 'never'?"));
    }
}
