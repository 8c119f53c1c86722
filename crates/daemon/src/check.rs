//! What is wrong with a desired state: all that can be known before anything is opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ethdev::DeviceSpec;
use litemap::LiteMap;
use switch::{BridgeOptions, DEFAULT_BRIDGE, is_port_name, tunnel_settings};

use crate::address::Address;
use crate::error::Error;
use crate::metrics::Endpoint;
use crate::mirror;
use crate::state::{Port, State};
use crate::vdpa::Vdpa;
use crate::{bond, bridge, patch};

/// Checks a state from which `before` may differ; what is the same in both is taken to be right.
///
/// # Errors
/// The first part that is wrong, and what was expected there.
pub fn check(before: &State, state: &State) -> Result<(), Error> {
    check_switch(before, state)?;
    let workers = state.switch().worker_count();
    for (name, port) in &state.ports {
        if before.ports.get(name) != Some(port) {
            check_port(state, name, port)?;
        } else if before.switch().worker_count() != workers {
            check_options(name, port, workers)?;
        }
    }
    for (name, device) in &state.vdpa {
        if before.vdpa.get(name) != Some(device) {
            check_vdpa(state, name, device)?;
        }
    }
    bridge::check(state)?;
    patch::check(state)?;
    patch::check_tunnels(before, state)?;
    bond::check(state)?;
    mirror::check(state)?;
    check_addresses(state)?;
    check_sockets(state)
}

fn check_switch(before: &State, state: &State) -> Result<(), Error> {
    if let Some(cores) = state.cores.as_ref().filter(|_| before.cores != state.cores) {
        cores.check_available().map_err(|error| Error::invalid("cores", error))?;
    }
    state.switch().check().map_err(|error| Error::invalid(bridge::part_of(&error), error))
}

/// Whether `name` can be that of a port or vDPA device.
///
/// # Errors
/// When it cannot; says what was expected.
pub fn check_name(name: &str) -> Result<(), Error> {
    if is_port_name(name) {
        return Ok(());
    }
    let error = switch::Error::PortName { name: name.to_owned() };
    Err(Error::invalid(format!("ports.{name}"), error))
}

fn check_port(state: &State, name: &str, port: &Port) -> Result<(), Error> {
    check_name(name)?;
    let part = |key: &str| format!("ports.{name}.{key}");
    // Patch ports are checked with their peers, and bonds with their members.
    let is_own = port.peer().is_some() || port.is_bond();
    let checked = match tunnel_settings(&port.device) {
        Some(settings) => settings.map(|_| ()),
        None if is_own => Ok(()),
        None => drivers::open::check(&port.device),
    };
    checked.map_err(|error| Error::invalid(part("device"), format!("port '{name}': {error}")))?;
    check_options(name, port, state.switch().worker_count())
}

/// Whether a switch with so many workers can have a port with such settings.
fn check_options(name: &str, port: &Port, workers: usize) -> Result<(), Error> {
    let part = |key: &str| format!("ports.{name}.{key}");
    let checked = port.options().check(name, workers);
    checked.map_err(|error| match error {
        switch::Error::PortVlan { .. } => Error::invalid(part("vlan"), error),
        switch::Error::PortLimits { .. } => Error::invalid(part("limits"), error),
        switch::Error::Bond { .. } => Error::invalid(part("bonding"), error),
        switch::Error::PortLacp { .. } => Error::invalid(part("lacp"), error),
        switch::Error::PortGuard { .. } => Error::invalid(part("guard"), error),
        switch::Error::PortRstp { .. } => Error::invalid(part("rstp"), error),
        switch::Error::PortWatch { protocol, .. } => Error::invalid(part(protocol), error),
        error => Error::invalid(part("workers"), error),
    })
}

fn check_vdpa(state: &State, name: &str, device: &Vdpa) -> Result<(), Error> {
    check_name(name)?;
    let wrong = |key: &str, error: &dyn std::fmt::Display| {
        Error::invalid(format!("vdpa.{name}.{key}"), format!("port '{name}': {error}"))
    };
    if state.ports.contains_key(name) {
        let error = "this is the name of a port, too; each needs a name of its own";
        return Err(Error::invalid(
            format!("vdpa.{name}"),
            format!("vDPA device '{name}': {error}"),
        ));
    }
    let spec = device.spec().map_err(|error| wrong("device", &error))?;
    ::vdpa::needs(&spec).map(drop).map_err(|error| wrong("device", &error))
}

/// An address can be behind one port of a bridge only, and all have to fit into its forwarding
/// database.
fn check_addresses(state: &State) -> Result<(), Error> {
    let mut seen: LiteMap<&str, BTreeMap<&Address, &str>> = LiteMap::new();
    for (name, port) in &state.ports {
        let seen = seen.entry(port.bridge_name()).or_default();
        for address in &port.addresses {
            if let Some(other) = seen.insert(address, name) {
                let reason = format!("address {address} is behind port '{other}' and '{name}'");
                return Err(Error::invalid(format!("ports.{name}.addresses"), reason));
            }
        }
    }
    for (name, seen) in seen {
        let Some(BridgeOptions { fdb_limit: limit, .. }) = state.bridge(name) else { continue };
        let count = seen.len();
        if count > limit {
            let part = match name {
                DEFAULT_BRIDGE => "fdb.size".to_owned(),
                name => format!("bridges.{name}.fdb.size"),
            };
            let reason = format!("{count} static addresses, and {part} is {limit}: raise it");
            return Err(Error::invalid(part, reason));
        }
    }
    Ok(())
}

/// At a socket one port listens, or one vDPA device, or the control socket.
fn check_sockets(state: &State) -> Result<(), Error> {
    let mut taken: LiteMap<PathBuf, String> = LiteMap::new();
    if let Some(control) = &state.control {
        taken.insert(control.clone(), "the control socket".to_owned());
    }
    let metrics = state.metrics.address.iter().filter_map(|address| match address {
        Endpoint::Unix(path) => {
            Some(("metrics.address".to_owned(), "metrics".to_owned(), path.clone()))
        }
        Endpoint::Tcp(_) => None,
    });
    let ports = state.ports.iter().filter_map(|(name, port)| {
        Some((format!("ports.{name}.device"), format!("port '{name}'"), listens_at(&port.device)?))
    });
    let listening = state.vdpa.iter().filter(|(_, device)| !device.client);
    let devices = listening.map(|(name, device)| {
        let who = format!("vDPA device '{name}'");
        (format!("vdpa.{name}.socket"), who, device.socket.clone())
    });
    for (part, who, path) in metrics.chain(ports).chain(devices) {
        if let Some(other) = taken.insert(path.clone(), who.clone()) {
            let reason = format!("{who}: {} is the socket of {other} already", shown(&path));
            return Err(Error::invalid(part, reason));
        }
    }
    Ok(())
}

/// The socket at which a port of this device string listens.
fn listens_at(device: &str) -> Option<PathBuf> {
    let mut spec: DeviceSpec = device.parse().ok()?;
    let listens = spec.driver() == "vhost-user" && !spec.take_switch("client", false).ok()?;
    listens.then(|| PathBuf::from(spec.target()))
}

fn shown(path: &Path) -> impl std::fmt::Display {
    path.display()
}
