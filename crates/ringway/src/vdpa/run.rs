//! `ringway vdpa`: attaches devices to sockets, and keeps them there.

use std::io::IsTerminal as _;

use daemon::{Hub, Vdpa};
use eal::signals::Signals;
use ethdev::DeviceSpec;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::args::{VdpaAction, VdpaArgs};
use super::input::{Input, Lines};
use super::prompt::{self, Outcome};
use super::report;
use crate::exit::Failure;
use crate::output;
use crate::table::colour_stdout;

/// `ringway vdpa`.
pub fn run(args: &VdpaArgs) -> Result<(), Failure> {
    if let Some(VdpaAction::List { json }) = &args.action {
        let found = vdpa::find();
        if *json {
            output::json_pretty(&report::found_json(&found));
        } else {
            output::text(&report::list(&found, &[], colour_stdout()));
        }
        return Ok(());
    }
    let signals = Signals::install().map_err(Failure::runtime)?;
    let mut hub = Hub::new(args.sockets.access());
    if let Some(prefix) = &args.iface {
        attach(&mut hub, prefix, args)?;
    }
    ready(&hub);
    serve(&signals, &mut hub, args)?;
    tracing::info!("ending");
    Ok(())
}

/// Attaches the devices that were named, all of which must be there, or whatever can be used.
fn attach(hub: &mut Hub, prefix: &str, args: &VdpaArgs) -> Result<(), Failure> {
    let named = !args.device.is_empty();
    let devices = if named { args.device.clone() } else { usable() };
    if devices.is_empty() && !args.interactive {
        return Err(Failure::runtime(
            "no vDPA device can be used now; 'ringway vdpa list' tells why, and docs/vdpa.md what \
             can be one",
        ));
    }
    // All strings first: a mistake in one starts nothing.
    for device in &devices {
        device.parse::<DeviceSpec>()?;
    }
    for (number, device) in devices.into_iter().enumerate() {
        let name = format!("{prefix}{number}");
        let socket = (&name).into();
        let vdpa = Vdpa { device, socket, client: args.client, group: None, mode: None };
        match hub.open(&name, &vdpa) {
            Ok(()) => {}
            Err(error) if named => return Err(error.into()),
            Err(error) => tracing::error!("{error}; going on without it"),
        }
    }
    if hub.is_empty() && !args.interactive {
        return Err(Failure::runtime("none of the vDPA devices could be opened; see the log"));
    }
    Ok(())
}

/// The devices that nothing is known to be in the way of.
fn usable() -> Vec<String> {
    let found = vdpa::find().into_iter();
    found.filter(|found| found.obstacle.is_none()).map(|found| found.device).collect()
}

/// What tests and service managers wait for, and where each device is.
fn ready(hub: &Hub) {
    let devices = report::devices(hub);
    let plural = if devices.len() == 1 { "" } else { "s" };
    let mut text = format!("ringway vdpa ready: {} device{plural}\n", devices.len());
    for device in devices {
        text.push_str(&format!("{}  {}\n", device.socket, device.device));
    }
    output::text(&text);
}

/// Waits for a signal, and meanwhile carries commands out if there are to be any.
fn serve(signals: &Signals, hub: &mut Hub, args: &VdpaArgs) -> Result<(), Failure> {
    let stdin = std::io::stdin();
    let prompt = if stdin.is_terminal() { prompt::PROMPT } else { "" };
    let mut lines = Lines::default();
    if args.interactive {
        output::text(prompt);
    }
    loop {
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        if args.interactive {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::runtime(format!("cannot wait: {error}"))),
        }
        let is_ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        if is_ready(0) {
            return Ok(());
        }
        if is_ready(1) {
            let Input::Lines(lines) = lines.read(&stdin) else { return Ok(()) };
            for line in lines {
                match prompt::execute(&line, hub, args.client, colour_stdout()) {
                    Outcome::Say(text) => output::text(&format!("{text}{prompt}")),
                    Outcome::Failed(why) => output::text(&format!("error: {why}\n{prompt}")),
                    Outcome::Quit => return Ok(()),
                }
            }
        }
    }
}
