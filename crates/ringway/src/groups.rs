//! A port's part in snooping on the command line, and what a running switch answers about groups of
//! IGMP and MLD.

use daemon::Daemon;
use switch::{GroupsReport, McastRouter, PortSnooping};

use crate::cli::settings::{Read, Setting, Settings, Table, parsed};
use crate::control::protocol::{Group, GroupBridge, GroupRouter, Groups};

/// The options of a port for groups, as in a configuration file. Each can be `default`.
pub type GroupArgs = Settings<PortSnooping>;

impl Table for PortSnooping {
    const NAME: &str = "mcast-snooping settings";
    const SETTINGS: &[Setting] = &[
        Setting::new("mcast-router", "WHEN", Read::By(parsed::<McastRouter>))
            .key("router")
            .or_default()
            .help(
                "Whether it has a multicast router: auto, as long as one is heard; always; or \
                 never, which drops what only routers say [default: auto]",
            ),
        Setting::switch("mcast-flood")
            .key("flood")
            .or_default()
            .help("Send it what goes to any group, whoever has joined [default: off]"),
        Setting::switch("mcast-flood-reports")
            .key("flood-reports")
            .or_default()
            .help("Send it what hosts report to routers [default: off]"),
        Setting::new("mcast-max-groups", "N", Read::Number(0, u32::MAX as u64))
            .key("max-groups")
            .or_default()
            .help("The most groups that it may join [default: as many as there is room for]"),
    ];
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
    use serde_json::Value;

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
        assert!(args.whole().unwrap().is_default() && args.given().is_empty());
        assert_eq!(summary(&args.whole().unwrap()), None);
        let args = parse("--mcast-router never --mcast-flood on --mcast-max-groups 7").unwrap();
        let expected = r#"{"router":"never","flood":true,"max-groups":7}"#;
        assert_eq!(Value::Object(args.given().clone()).to_string(), expected);
        assert_eq!(summary(&args.whole().unwrap()).unwrap(), "router never, flood, max-groups 7");
        let args = parse("--mcast-router default --mcast-flood-reports default").unwrap();
        let expected = r#"{"router":null,"flood-reports":null}"#;
        assert_eq!(Value::Object(args.given().clone()).to_string(), expected);
        assert!(parse("--mcast-router nevr").unwrap_err().contains("did you mean 'never'?"));
    }
}
