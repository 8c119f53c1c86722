//! `ringway bridge`, and what a running switch answers about its bridges.

use daemon::Daemon;
use serde_json::{Map, Value};
use switch::BridgeReport;

use crate::admin::{Saving, connect};
use crate::cli::{BridgeAction, BridgeArgs, BridgeSettings};
use crate::control::protocol::{Bridge, Bridges, Request};
use crate::exit::Failure;
use crate::output;

/// `ringway bridge`.
pub fn run(args: &BridgeArgs) -> Result<(), Failure> {
    let mut client = connect(args.control.control.as_deref())?;
    let (name, save, request, done) = match &args.action {
        BridgeAction::Add { name, settings, save } => {
            let request = Request::BridgeAdd { name: name.clone(), settings: settings.of_new() };
            (name, save, request, "added")
        }
        BridgeAction::Set { name, settings, save } => {
            let request = Request::BridgeSet { name: name.clone(), settings: given(settings)? };
            (name, save, request, "changed")
        }
        BridgeAction::Del { name, save } => {
            (name, save, Request::BridgeDel { name: name.clone() }, "removed")
        }
    };
    let saving = Saving::begin(&mut client, *save, "")?;
    let _: Value = client.ask(&request)?;
    output::line(&format!("bridge {name} {done}"));
    saving.finish_with(&mut client, |edit, state| edit.set_bridge(name, state))
}

fn given(settings: &BridgeSettings) -> Result<Map<String, Value>, Failure> {
    let given = settings.given();
    if given.is_empty() {
        return Err(Failure::usage("nothing to change: give a setting, such as --ageing 60"));
    }
    Ok(given.clone())
}

/// The bridges of a switch.
pub fn answer(daemon: &Daemon) -> Bridges {
    Bridges { bridges: daemon.switch().bridges().into_iter().map(bridge).collect() }
}

fn bridge(report: BridgeReport) -> Bridge {
    let BridgeReport { name, options, ports, fdb } = report;
    Bridge {
        name,
        ports,
        group_fwd_mask: options.group_fwd_mask,
        vlan_aware: options.vlan_aware,
        any_source: options.any_source,
        learn_per_burst: options.learn_per_burst,
        limit: fdb.limit,
        ageing_seconds: fdb.ageing,
        addresses: fdb.entries,
        learned: fdb.learned,
        moved: fdb.moved,
        expired: fdb.expired,
        evicted: fdb.evicted,
        refused: fdb.refused,
    }
}
