//! `ringway port`, `fdb`, `config` and `reload`: what a running switch is to be.

use std::path::{Path, PathBuf};

use daemon::{Edit, State, file};
use serde_json::{Map, Value};

use crate::cli::{
    ConfigAction, ConfigArgs, FdbAction, FdbArgs, LogAction, LogArgs, PortAction, PortAdd,
    PortArgs, PortSet, ReloadArgs, TimeAction, TimeArgs,
};
use crate::config::Config;
use crate::control::client::Client;
use crate::control::protocol::{
    self, Added, ConfigDiff, Flushed, LogLevels, NewPort, Reloaded, Request, Shown,
};
use crate::exit::Failure;
use crate::output;
use crate::relative::absolute;
use crate::serve::checked_line;

/// `ringway port`.
pub fn port(args: &PortArgs) -> Result<(), Failure> {
    let mut client = connect(args.control.control.as_deref())?;
    match &args.action {
        PortAction::Add(port) => port_add(&mut client, port),
        PortAction::Set(port) => port_set(&mut client, port),
        PortAction::Del { name, save } => {
            let saving = Saving::begin(&mut client, *save, name)?;
            let peer = saving.peer_of(name);
            let _: Value = client.ask(&Request::PortDel { name: name.clone() })?;
            output::line(&format!("port {name} removed"));
            saving.finish(&mut client, &[name, peer.as_ref().unwrap_or(name)])
        }
    }
}

fn port_add(client: &mut Client, new: &PortAdd) -> Result<(), Failure> {
    let folder = std::env::current_dir().map_err(Failure::runtime)?;
    let (name, device) = (&new.port.name, absolute(&new.port.device, &folder));
    let saving = Saving::begin(client, new.save, name)?;
    let done = format!("port {name} added on {device}");
    let request = NewPort {
        name: name.clone(),
        device,
        mtu: new.mtu,
        workers: new.workers.clone(),
        bridge: new.bridge.clone(),
        peer_bridge: new.peer_bridge.clone(),
        vlan: new.vlan.whole()?,
        limits: new.limits.whole()?,
        guard: new.guard.whole()?,
        lldp: new.lldp.unwrap_or_default(),
        mcast_snooping: new.groups.whole()?,
        rstp: new.rstp.whole()?,
    };
    let _: Value = client.ask(&Request::PortAdd(Box::new(request)))?;
    output::line(&done);
    let peer = switch::patch_peer(&new.port.device).filter(|_| new.peer_bridge.is_some());
    saving.finish(client, &[name, peer.unwrap_or(name)])
}

fn port_set(client: &mut Client, port: &PortSet) -> Result<(), Failure> {
    let (name, settings) = (&port.name, changed(port));
    if settings.is_empty() {
        return Err(Failure::usage("nothing to change: give a setting, such as --mtu 1500"));
    }
    let saving = Saving::begin(client, port.save, name)?;
    let _: Value = client.ask(&Request::PortSet { name: name.clone(), settings })?;
    output::line(&format!("port {name} changed"));
    saving.finish(client, &[name])
}

/// The settings that are to change, by their keys in the file.
fn changed(port: &PortSet) -> Map<String, Value> {
    // Of the last four, what is not named stays; of the first two, it takes its default.
    let parts = [
        ("vlan", port.no_vlan, port.vlan.given()),
        ("limits", port.no_limits, port.limits.given()),
        ("guard", port.no_guard, port.guard.given()),
        ("rstp", false, port.rstp.given()),
        ("lacp", false, port.lacp.given()),
        ("mcast-snooping", false, port.groups.given()),
    ];
    let mut all = port.settings.given().clone();
    for (key, is_none, given) in parts {
        if is_none {
            all.insert(key.to_owned(), Value::Null);
        } else if !given.is_empty() {
            all.insert(key.to_owned(), Value::Object(given.clone()));
        }
    }
    all
}

/// `ringway fdb`.
pub fn fdb(args: &FdbArgs) -> Result<(), Failure> {
    let mut client = connect(args.control.control.as_deref())?;
    match &args.action {
        FdbAction::Add { mac, port, vlan, save } => {
            let saving = Saving::begin(&mut client, *save, port)?;
            let (text, vlan) = (mac.to_string(), *vlan);
            let request = Request::FdbAdd { mac: text, port: port.clone(), vlan };
            let added: Added = client.ask(&request)?;
            let before = added.moved_from.as_deref();
            let moved = before.map(|before| format!(", and no more behind {before}"));
            output::line(&format!(
                "{mac} is now always behind {port}{}",
                moved.unwrap_or_default()
            ));
            saving.finish(&mut client, &[port, before.unwrap_or(port)])
        }
        FdbAction::Del { mac, vlan, bridge, save } => {
            let saving = Saving::begin(&mut client, *save, "")?;
            let ports = saving.ports_of(bridge, *mac, *vlan);
            let (mac_text, bridge) = (mac.to_string(), bridge.clone());
            let request = Request::FdbDel { mac: mac_text, vlan: *vlan, bridge };
            let _: Value = client.ask(&request)?;
            output::line(&format!("{mac} removed"));
            saving.finish(&mut client, &ports.iter().map(String::as_str).collect::<Vec<_>>())
        }
        FdbAction::Flush { port, bridge } => {
            let request = Request::FdbFlush { port: port.clone(), bridge: bridge.clone() };
            let flushed: Flushed = client.ask(&request)?;
            output::line(&format!("{} learned addresses removed", flushed.removed));
            Ok(())
        }
    }
}

/// `ringway config`.
pub fn config(args: &ConfigArgs) -> Result<(), Failure> {
    match &args.action {
        ConfigAction::Check { file } => {
            output::line(&checked_line(&Config::of_file(file)?.state));
        }
        ConfigAction::Show { json } => {
            let mut client = connect(args.control.control.as_deref())?;
            let value = client.ask_raw(&Request::ConfigShow {})?;
            if *json {
                output::json_pretty(&value);
            } else {
                let config: protocol::Config = client.parse(value)?;
                output::text(&file::write(&config.state));
            }
        }
        ConfigAction::Diff => {
            let mut client = connect(args.control.control.as_deref())?;
            let diff: ConfigDiff = client.ask(&Request::ConfigDiff {})?;
            let lines = [diff.changes, diff.restart].concat();
            match lines.is_empty() {
                true => output::line("the switch is what its file and command line say"),
                false => lines.iter().for_each(|line| output::line(line)),
            }
        }
        ConfigAction::FromOvs { database, run_dir } => {
            return crate::ovs::import::print(database.as_ref(), run_dir);
        }
    }
    Ok(())
}

/// `ringway reload`.
pub fn reload(args: &ReloadArgs) -> Result<(), Failure> {
    let mut client = connect(args.control.control.as_deref())?;
    let reloaded: Reloaded = client.ask(&Request::Reload { exact: args.exact })?;
    if reloaded.changes.is_empty() {
        output::line("nothing has changed");
    }
    reloaded.changes.iter().for_each(|line| output::line(line));
    for device in reloaded.waiting {
        output::line(&format!("{} is tried again: {}", device.name, device.reason));
    }
    Ok(())
}

/// `ringway log`.
pub fn log(args: &LogArgs) -> Result<(), Failure> {
    let mut client = connect(args.control.control.as_deref())?;
    match &args.action {
        LogAction::Set { level: text } => {
            let one = text.split_once('=').filter(|_| !text.contains(','));
            let (target, level) = match one {
                Some((target, level)) => (Some(target.to_owned()), level.to_owned()),
                None => (None, text.clone()),
            };
            let _: Value = client.ask(&Request::LogSet { level, target })?;
            output::line(&format!("the switch logs '{text}' from now on"));
        }
        LogAction::Show { json } => {
            let value = client.ask_raw(&Request::LogShow {})?;
            if *json {
                output::json_pretty(&value);
            } else {
                let LogLevels { level, targets } = client.parse(value)?;
                output::line(&level);
                targets
                    .iter()
                    .for_each(|(target, level)| output::line(&format!("{target}={level}")));
            }
        }
    }
    Ok(())
}

/// `ringway time`.
pub fn time(args: &TimeArgs) -> Result<(), Failure> {
    let mut client = connect(args.control.control.as_deref())?;
    let (request, done) = match args.action {
        TimeAction::Stop => (Request::TimeStop {}, "stopped"),
        TimeAction::Warp { milliseconds } => (Request::TimeWarp { milliseconds }, "put forward"),
    };
    let Shown { uptime_ms } = client.ask(&request)?;
    output::line(&format!("the clock is {done}; by it, the switch has run for {uptime_ms} ms"));
    Ok(())
}

pub fn connect(control: Option<&Path>) -> Result<Client, Failure> {
    Client::connect(control.map(Path::to_owned))
}

/// A change that is written to the switch's file, too, if that was asked for.
#[derive(Debug)]
pub struct Saving(Option<(PathBuf, protocol::Config)>);

impl Saving {
    /// Checks that the file can take what is said of `name`, before anything is changed.
    pub fn begin(client: &mut Client, wanted: bool, name: &str) -> Result<Self, Failure> {
        if !wanted {
            return Ok(Self(None));
        }
        let config: protocol::Config = client.ask(&Request::ConfigShow {})?;
        let Some(path) = config.file.clone() else {
            return Err(Failure::runtime(
                "--save: the switch was started without a configuration file",
            ));
        };
        if config.arguments.iter().any(|port| port == name) {
            return Err(Failure::runtime(format!(
                "--save: port '{name}' is on the command line of the switch, so it cannot be in {}",
                path.display()
            )));
        }
        Edit::open(&path).map_err(|error| Failure::runtime(format!("--save: {error}")))?;
        Ok(Self(Some((path, config))))
    }

    /// The ports that an address is behind.
    fn ports_of(&self, bridge: &str, mac: packet::MacAddr, vlan: u16) -> Vec<String> {
        let Some((_, config)) = &self.0 else { return Vec::new() };
        let address = daemon::Address::new(mac, vlan).ok();
        let port = address.and_then(|address| config.state.port_of(bridge, address));
        port.map(str::to_owned).into_iter().collect()
    }

    /// The members of bond `name`.
    pub fn members_of(&self, name: &str) -> Vec<String> {
        let Self(Some((_, config))) = self else { return Vec::new() };
        config.state.members(name).map(str::to_owned).collect()
    }

    /// The other end of patch port `name`.
    fn peer_of(&self, name: &str) -> Option<String> {
        let Self(Some((_, config))) = self else { return None };
        config.state.peer_of(name).map(str::to_owned)
    }

    /// Writes what the switch has of these ports by now.
    fn finish(self, client: &mut Client, names: &[&str]) -> Result<(), Failure> {
        self.finish_with(client, |edit, state| {
            names.iter().try_for_each(|name| edit.set(name, state))
        })
    }

    /// Writes what `change` makes of the file and of what the switch has by now.
    pub fn finish_with(
        self,
        client: &mut Client,
        change: impl FnOnce(&mut Edit, &State) -> Result<(), String>,
    ) -> Result<(), Failure> {
        let Some((path, _)) = self.0 else { return Ok(()) };
        let config: protocol::Config = client.ask(&Request::ConfigShow {})?;
        let saved = Edit::open(&path).and_then(|mut edit| {
            change(&mut edit, &config.state)?;
            edit.check(&config.state)?;
            edit.store()
        });
        saved.map_err(|error| {
            Failure::runtime(format!("the switch has changed, but it is not saved: {error}"))
        })?;
        output::line(&format!("saved in {}", path.display()));
        Ok(())
    }
}
