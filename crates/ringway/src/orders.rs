//! What bonds and spanning tree are told to do at once, whatever their settings say: the commands, and
//! what a running switch does about them.

use serde::Deserialize;
use serde_json::{Value, json};
use switch::bond::source_part;
use switch::{BondOrder, BondRefusal, Switch};

use crate::admin::connect;
use crate::cli::{BondAction, PartArgs, RstpAction, RstpArgs};
use crate::control::client::Client;
use crate::control::protocol::Request;
use crate::control::refusal::{Code, Refusal};
use crate::exit::Failure;
use crate::output;

/// The highest number of a VLAN.
const MAX_VLAN: u16 = 4094;

/// What a bond answers to an order.
#[derive(Deserialize)]
struct Changed {
    changed: bool,
    part: Option<u8>,
}

/// Has a bond do something at once.
pub fn bond(client: &mut Client, action: &BondAction) -> Result<(), Failure> {
    let Some((member, request)) = request(action) else { return Ok(()) };
    let Changed { changed, part } = client.ask(&request)?;
    output::line(&done(&request, member, part, changed));
    Ok(())
}

/// The request of an order, and the member that it is about.
fn request(action: &BondAction) -> Option<(&str, Request)> {
    let both = |name: &String, member: &String| (name.clone(), member.clone());
    Some(match action {
        BondAction::SetActiveMember { name, member } => {
            let (name, own) = both(name, member);
            (member, Request::BondSetActiveMember { name, member: own })
        }
        BondAction::EnableMember { name, member } => {
            let (name, own) = both(name, member);
            (member, Request::BondEnableMember { name, member: own })
        }
        BondAction::DisableMember { name, member } => {
            let (name, own) = both(name, member);
            (member, Request::BondDisableMember { name, member: own })
        }
        BondAction::Migrate { name, member, part: PartArgs { mac, part }, vlan } => {
            let (name, own) = both(name, member);
            let (mac, vlan) = (mac.clone(), vlan.unwrap_or(0));
            (member, Request::BondMigrate { name, member: own, part: *part, mac, vlan })
        }
        BondAction::Add { .. } | BondAction::Set { .. } | BondAction::Del { .. } => return None,
    })
}

/// What has been done, in words.
fn done(request: &Request, member: &str, part: Option<u8>, changed: bool) -> String {
    let before = if changed { "" } else { ", as before" };
    match (request, part) {
        (Request::BondSetActiveMember { .. }, _) => {
            format!("{member} is the active member{before}")
        }
        (Request::BondEnableMember { .. }, _) => format!("{member} is enabled{before}"),
        (Request::BondMigrate { .. }, Some(part)) => {
            format!("part {part} of the traffic goes to {member}{before}")
        }
        _ => format!("{member} is disabled{before}"),
    }
}

/// `ringway rstp`.
pub fn rstp(args: &RstpArgs) -> Result<(), Failure> {
    let mut client = connect(args.control.control.as_deref())?;
    let (request, done) = match &args.action {
        RstpAction::Mcheck { port } => (
            Request::RstpMcheck { port: port.clone() },
            format!("port {port} finds out which protocol its neighbour speaks"),
        ),
        RstpAction::Tcn { bridge } => (
            Request::RstpTcn { bridge: bridge.clone() },
            format!("bridge {bridge} tells of a change of the topology"),
        ),
    };
    let _: Value = client.ask(&request)?;
    output::line(&done);
    Ok(())
}

/// Has a switch do what a request orders.
pub fn give(switch: &Switch, request: Request) -> Result<Value, Refusal> {
    match request {
        Request::BondSetActiveMember { name, member } => {
            let changed = order(switch, &name, BondOrder::Activate(&member))?;
            Ok(json!({ "changed": changed }))
        }
        Request::BondEnableMember { name, member } => {
            let changed = order(switch, &name, BondOrder::Enable(&member))?;
            Ok(json!({ "changed": changed }))
        }
        Request::BondDisableMember { name, member } => {
            let changed = order(switch, &name, BondOrder::Disable(&member))?;
            Ok(json!({ "changed": changed }))
        }
        Request::BondMigrate { name, member, part, mac, vlan } => {
            let part = part_of(part, mac.as_deref(), vlan)?;
            let changed = order(switch, &name, BondOrder::Migrate(part, &member))?;
            Ok(json!({ "changed": changed, "part": part }))
        }
        Request::RstpMcheck { port } => {
            if switch.check_rstp(&port)? {
                return Ok(json!({}));
            }
            let why = "takes no part in spanning tree: see 'ringway show rstp'";
            Err(Refusal::new(Code::Invalid, format!("port '{port}' {why}")))
        }
        Request::RstpTcn { bridge } => {
            if switch.rstp_change(&bridge) {
                return Ok(json!({}));
            }
            let why = "there is no bridge of this name that takes part in spanning tree: see \
                       'ringway show rstp'";
            Err(Refusal::new(Code::NotFound, format!("'{bridge}': {why}")))
        }
        _ => Err(Refusal::new(Code::Internal, "this is no order")),
    }
}

/// A part of the traffic, by its number or by a source.
fn part_of(part: Option<u8>, mac: Option<&str>, vlan: u16) -> Result<u8, Refusal> {
    let refuse = |message: String| Err(Refusal::new(Code::BadRequest, message));
    match (part, mac) {
        (Some(part), None) if vlan == 0 => Ok(part),
        (None, Some(_)) if vlan > MAX_VLAN => {
            refuse(format!("bond-migrate: vlan {vlan}: expected 0 to {MAX_VLAN}"))
        }
        (None, Some(mac)) => match mac.parse() {
            Ok(mac) => Ok(source_part(mac, vlan)),
            Err(error) => refuse(format!("bond-migrate: mac {mac:?}: {error}")),
        },
        _ => refuse("bond-migrate: expected either part, or mac and vlan".to_owned()),
    }
}

/// Has a bond do something; whether anything changes by it.
fn order(switch: &Switch, bond: &str, order: BondOrder<'_>) -> Result<bool, Refusal> {
    let done = switch.bond_order(bond, order);
    done.map_err(|refusal| refused(switch, bond, order, refusal))
}

/// Why a bond does not do it.
fn refused(switch: &Switch, bond: &str, order: BondOrder<'_>, why: BondRefusal) -> Refusal {
    let (BondOrder::Activate(member)
    | BondOrder::Disable(member)
    | BondOrder::Enable(member)
    | BondOrder::Migrate(_, member)) = order;
    let bonds = switch.bonds();
    let names = |all: Vec<&str>| if all.is_empty() { "none".to_owned() } else { all.join(", ") };
    let (code, why) = match why {
        BondRefusal::NoBond => {
            let all = names(bonds.iter().map(|one| one.name.as_str()).collect());
            return Refusal::new(
                Code::NotFound,
                format!("there is no bond '{bond}'; there are: {all}"),
            );
        }
        BondRefusal::NoMember => {
            let own = bonds.iter().filter(|one| one.name == bond).flat_map(|one| &one.members);
            let all = names(own.map(|member| member.name.as_str()).collect());
            (Code::NotFound, format!("'{member}' is none of its members; these are: {all}"))
        }
        BondRefusal::Disabled | BondRefusal::MigrateToDisabled => (
            Code::Invalid,
            format!(
                "member '{member}' is not in use: its link is down or not agreed on, or it is disabled"
            ),
        ),
        BondRefusal::Primary => (
            Code::Invalid,
            format!(
                "another member is the primary one, and would be active again at once: see \
                 'ringway bond set {bond} --primary {member}'"
            ),
        ),
        BondRefusal::NotSlb => (
            Code::Invalid,
            "its traffic is not divided by source: that is for mode balance-slb".to_owned(),
        ),
    };
    Refusal::new(code, format!("bond '{bond}': {why}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use daemon::{Daemon, Options, file};
    use eal::time::Time;
    use testkit::wait_for;

    use super::*;

    const BOND: &str = "[ports.up]\ndevice = \"bond:\"\nbonding.mode = \"balance-slb\"\n\
                        [ports.a]\ndevice = \"null:\"\nbond = \"up\"\n\
                        [ports.b]\ndevice = \"null:\"\nbond = \"up\"\n";

    /// Two bridges and a way between them, whose second speaks the old protocol.
    const TREES: &str = "[rstp]\nenabled = true\n\
                         [bridges.old.rstp]\nenabled = true\nforce-version = \"stp\"\npriority = 0\n\
                         [ports.in]\ndevice = \"patch:out\"\n\
                         [ports.out]\ndevice = \"patch:in\"\nbridge = \"old\"\n\
                         [ports.c]\ndevice = \"null:\"\nrstp.enabled = false\n";

    fn start(text: &str) -> Daemon {
        start_by(text, &Time::stopped())
    }

    fn start_by(text: &str, time: &Time) -> Daemon {
        let options = Options { time: time.clone(), ..Options::default() };
        Daemon::start(file::parse(text).unwrap(), options).unwrap()
    }

    fn ask(daemon: &Daemon, request: &str) -> Result<Value, Refusal> {
        give(daemon.switch(), serde_json::from_str(request).unwrap())
    }

    fn to(command: &str, more: &str) -> String {
        format!(r#"{{"command":"{command}","name":"up",{more}}}"#)
    }

    #[test]
    fn bonds_do_what_they_are_told() {
        let daemon = start(BOND);
        let active = || daemon.switch().bonds()[0].active.clone();
        wait_for("the bond has a member", || active().is_some());
        let other = if active().as_deref() == Some("a") { "b" } else { "a" };
        let member = format!(r#""member":"{other}""#);
        let activate = to("bond-set-active-member", &member);
        assert_eq!(ask(&daemon, &activate).unwrap(), json!({"changed": true}));
        assert_eq!(active().as_deref(), Some(other));
        assert_eq!(ask(&daemon, &activate).unwrap(), json!({"changed": false}));
        let source = format!(r#"{member},"mac":"52:54:00:00:00:01","vlan":7"#);
        let part = source_part("52:54:00:00:00:01".parse().unwrap(), 7);
        let answer = ask(&daemon, &to("bond-migrate", &source)).unwrap();
        assert_eq!(answer["part"], part);
        let same = to("bond-migrate", &format!(r#"{member},"part":{part}"#));
        assert_eq!(ask(&daemon, &same).unwrap(), json!({"changed": false, "part": part}));
        let disable = to("bond-disable-member", &member);
        assert_eq!(ask(&daemon, &disable).unwrap(), json!({"changed": true}));
        assert_ne!(active().as_deref(), Some(other));
        let refusal = ask(&daemon, &activate).unwrap_err();
        assert!(
            refusal.code == Code::Invalid && refusal.message.contains("not in use"),
            "{refusal}"
        );
        let enable = to("bond-enable-member", &member);
        assert_eq!(ask(&daemon, &enable).unwrap(), json!({"changed": true}));
    }

    #[test]
    fn what_a_bond_cannot_do_is_named() {
        let daemon = start(&format!("{BOND}[ports.tcp]\ndevice = \"bond:\"\n"));
        let no_bond = r#"{"command":"bond-enable-member","name":"dn","member":"a"}"#;
        let whole = r#"{"command":"bond-migrate","name":"tcp","member":"a","part":1}"#;
        for (request, code, expected) in [
            (no_bond.to_owned(), Code::NotFound, "there is no bond 'dn'; there are: tcp, up"),
            (whole.to_owned(), Code::Invalid, "balance-slb"),
            (to("bond-enable-member", r#""member":"x""#), Code::NotFound, "these are: a, b"),
            (to("bond-migrate", r#""member":"a""#), Code::BadRequest, "either part, or mac"),
            (to("bond-migrate", r#""member":"a","part":1,"vlan":7"#), Code::BadRequest, "either"),
            (to("bond-migrate", r#""member":"a","mac":"5""#), Code::BadRequest, "mac"),
        ] {
            let refusal = ask(&daemon, &request).unwrap_err();
            assert!(refusal.code == code && refusal.message.contains(expected), "{refusal}");
        }
    }

    #[test]
    fn a_port_finds_out_anew_what_its_neighbour_speaks() {
        let time = Time::stopped();
        let mut daemon = start_by(TREES, &time);
        let is_rapid = |daemon: &Daemon| {
            let trees = daemon.switch().rstp();
            let mut ports = trees.iter().flat_map(|tree| &tree.ports);
            ports.find(|port| port.name == "in").is_none_or(|port| port.is_rapid)
        };
        // It does not believe the old protocol until it has spoken its own for 3 s.
        wait_for("it has heard the old protocol", || {
            time.warp(Duration::from_secs(1));
            daemon.catch_up();
            !is_rapid(&daemon)
        });
        ask(&daemon, r#"{"command":"rstp-mcheck","port":"in"}"#).unwrap();
        assert!(is_rapid(&daemon));
        ask(&daemon, r#"{"command":"rstp-tcn"}"#).unwrap();
        for (request, code, expected) in [
            (r#"{"command":"rstp-mcheck","port":"c"}"#, Code::Invalid, "'c' takes no part"),
            (r#"{"command":"rstp-mcheck","port":"z"}"#, Code::NotFound, "no port 'z'"),
            (r#"{"command":"rstp-tcn","bridge":"z"}"#, Code::NotFound, "'z': there is no bridge"),
        ] {
            let refusal = ask(&daemon, request).unwrap_err();
            assert!(refusal.code == code && refusal.message.contains(expected), "{refusal}");
        }
    }
}
