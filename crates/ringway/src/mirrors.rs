//! `ringway mirror`, and what a running switch answers about its mirrors.

use daemon::Daemon;
use serde_json::Value;

use crate::admin::{Saving, connect};
use crate::cli::{MirrorAction, MirrorArgs};
use crate::control::protocol::{Mirror, Mirrors, Request};
use crate::exit::Failure;
use crate::output;

/// `ringway mirror`.
pub fn run(args: &MirrorArgs) -> Result<(), Failure> {
    let mut client = connect(args.control.control.as_deref())?;
    let (name, save, request, done) = match &args.action {
        MirrorAction::Add { name, settings, save } => {
            let request = Request::MirrorAdd { name: name.clone(), mirror: settings.mirror() };
            (name, save, request, "added")
        }
        MirrorAction::Set { name, settings, save } => {
            let request = Request::MirrorSet { name: name.clone(), mirror: settings.mirror() };
            (name, save, request, "changed")
        }
        MirrorAction::Del { name, save } => {
            (name, save, Request::MirrorDel { name: name.clone() }, "removed")
        }
    };
    let saving = Saving::begin(&mut client, *save, "")?;
    let _: Value = client.ask(&request)?;
    output::line(&format!("mirror {name} {done}"));
    saving.finish_with(&mut client, |edit, state| edit.set_mirror(name, state))
}

/// The mirrors of a switch.
pub fn answer(daemon: &Daemon) -> Mirrors {
    let mirrors = daemon.switch().mirrors().into_iter().map(|report| Mirror {
        name: report.name,
        mirror: report.mirror,
        active: report.is_active,
        trouble: report.trouble,
        missed: report.missed,
        packets: report.packets,
        bytes: report.bytes,
    });
    Mirrors { mirrors: mirrors.collect() }
}
