//! Patch ports of a desired state: both ends of each have to be there, and to name each other, unless they
//! may come one by one. And ports of tunnels, which have as few settings.

use ethdev::hint;
use litemap::LiteMap;
use switch::tunnels::{Kind, Settings};
use switch::{LldpMode, is_port_name, patch_peer, tunnel_settings};

use crate::error::Error;
use crate::state::{Port, State};

impl Port {
    /// One end of a pair of patch ports, the other one of which is called `peer`.
    #[must_use]
    pub fn patch(peer: &str) -> Self {
        Self::new(format!("patch:{peer}"))
    }

    /// Whether it is one of a tunnel.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        tunnel_settings(&self.device).is_some()
    }

    /// The name of its peer, if it is a patch port.
    #[must_use]
    pub fn peer(&self) -> Option<&str> {
        patch_peer(&self.device)
    }
}

impl State {
    /// Adds both ends of a pair of patch ports: `name`, and its peer in bridge `peer_bridge`.
    ///
    /// # Errors
    /// A name is taken, or `port` is no patch port.
    pub fn add_patch(&mut self, name: &str, port: Port, peer_bridge: &str) -> Result<(), Error> {
        let Some(peer) = port.peer().map(str::to_owned) else {
            let reason = format!("port '{name}': a peer is for patch ports, as in patch:PEER");
            return Err(Error::invalid(format!("ports.{name}.device"), reason));
        };
        self.add_port(name, port)?;
        let bridge = Some(peer_bridge.to_owned());
        self.add_port(&peer, Port { bridge, ..Port::patch(name) })
    }

    /// The name of the port that patch port `name` is joined to.
    #[must_use]
    pub fn peer_of(&self, name: &str) -> Option<&str> {
        let peer = self.ports.get(name)?.peer()?;
        (self.ports.get(peer)?.peer()? == name).then_some(peer)
    }
}

impl State {
    /// The bridge where what comes in on a port comes in: of a member of a bond, that of the bond.
    fn bridge_behind<'s>(&'s self, port: &'s Port) -> &'s str {
        let bond = port.bond.as_ref().and_then(|bond| self.ports.get(bond));
        bond.unwrap_or(port).bridge_name()
    }
}

/// What is wrong with the patch ports of a state.
pub(crate) fn check(state: &State) -> Result<(), Error> {
    let patches = state.ports.iter().filter_map(|(name, port)| Some((name, port, port.peer()?)));
    for (name, port, peer) in patches {
        let wrong = |key: &str, reason: String| {
            Err(Error::invalid(format!("ports.{name}.{key}"), format!("port '{name}': {reason}")))
        };
        if !is_port_name(peer) {
            let reason = format!("'{}': expected patch:PORT, with the name of a port", port.device);
            return wrong("device", reason);
        }
        if let Some(key) = unused(port) {
            return wrong(key, "a patch port has no such setting: leave it out".to_owned());
        }
        if let Err(reason) = check_peer(state, name, port, peer) {
            return wrong("device", reason);
        }
    }
    Ok(())
}

/// What is wrong with a port of VXLAN to a port of UDP where others are.
pub const OTHER_POLICY: &str = "all tunnels of VXLAN at one port of UDP have policies in their headers (gbp=on), or none \
     has: set another port, or the same gbp";

/// What is wrong with the ports of tunnels of a state, whose devices are good ones.
pub(crate) fn check_tunnels(before: &State, state: &State) -> Result<(), Error> {
    let mut policies = LiteMap::new();
    let is_old = |name: &str, port: &Port| before.ports.get(name) == Some(port);
    // Who was there first stays.
    for old in [true, false] {
        let ports = state.ports.iter().filter(|(name, port)| is_old(name, port) == old);
        for (name, port) in ports {
            let Some(settings) = tunnel_settings(&port.device) else { continue };
            check_tunnel(port, settings.ok().as_ref(), &mut policies).map_err(
                |(key, reason)| {
                    Error::invalid(
                        format!("ports.{name}.{key}"),
                        format!("port '{name}': {reason}"),
                    )
                },
            )?;
        }
    }
    Ok(())
}

/// What is wrong with a port of a tunnel beside those of VXLAN with `policies`, by ports of UDP.
fn check_tunnel(
    port: &Port,
    settings: Option<&Settings>,
    policies: &mut LiteMap<u16, bool>,
) -> Result<(), (&'static str, &'static str)> {
    if let Some(key) = unused(port) {
        return Err((key, "a port of a tunnel has no such setting: leave it out"));
    }
    if port.bond.is_some() {
        return Err(("bond", "a port of a tunnel is no member of a bond"));
    }
    match settings {
        // What comes is read by the one way or by the other.
        Some(Settings { kind: Kind::Vxlan, port, has_policy, .. })
            if policies.entry(*port).or_insert(*has_policy) != has_policy =>
        {
            Err(("device", OTHER_POLICY))
        }
        _ => Ok(()),
    }
}

/// The key of a setting that has no meaning for a patch port, or one of a tunnel.
fn unused(port: &Port) -> Option<&'static str> {
    let given = [
        (port.mtu.is_some(), "mtu"),
        (!port.workers.is_empty(), "workers"),
        (port.tx_retries != 0, "tx-retries"),
        (!port.limits.is_default(), "limits"),
        (!port.guard.is_default(), "guard"),
        (port.lldp != LldpMode::Off, "lldp"),
    ];
    given.into_iter().find_map(|(is_given, key)| is_given.then_some(key))
}

fn check_peer(state: &State, name: &str, port: &Port, peer: &str) -> Result<(), String> {
    if peer == name {
        return Err("a patch port cannot be its own peer".to_owned());
    }
    let other = state.ports.get(peer);
    if state.lone_patches && other.is_none_or(|other| other.peer() != Some(name)) {
        return Ok(());
    }
    let Some(other) = other else {
        let hint = hint(peer, state.ports.keys().map(String::as_str).filter(|one| *one != name));
        return Err(format!(
            "there is no port '{peer}' to be its peer{hint}; both ends are needed, as 'port add' \
             makes them with --peer-bridge"
        ));
    };
    if other.peer() != Some(name) {
        let device = &other.device;
        return Err(format!("its peer '{peer}' has device '{device}', not 'patch:{name}'"));
    }
    let bridge = state.bridge_behind(port);
    // Where rules decide, they may have packets come back as other ones; a loop ends by itself.
    if state.bridge_behind(other) == bridge && !state.lone_patches {
        return Err(format!("its peer '{peer}' is in bridge '{bridge}', too: choose another"));
    }
    Ok(())
}
