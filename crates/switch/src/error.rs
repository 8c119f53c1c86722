//! What can go wrong with the switch.

use std::io;

use packet::MacAddr;

/// Why the switch could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is out of range.
    #[error("{setting} is {value}: expected {expected}")]
    Config {
        /// The setting's name.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// A worker could not be started.
    #[error(transparent)]
    Worker(#[from] eal::worker::WorkerError),
    /// The system refused something that the switch needs.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A port with this name exists.
    #[error("port '{name}' exists already: choose another name or delete it first")]
    DuplicatePort {
        /// The name.
        name: String,
    },
    /// There is no port with this name.
    #[error("there is no port '{name}'{}", list(.known))]
    UnknownPort {
        /// The name.
        name: String,
        /// The ports that there are.
        known: Vec<String>,
    },
    /// Nothing comes in on the port: it is disabled or shut, or no device of its own.
    #[error("port '{name}' receives nothing: it is disabled, shut, a bond or a patch port")]
    NotPolled {
        /// The name.
        name: String,
    },
    /// A bridge with this name exists.
    #[error("bridge '{name}' exists already: choose another name or remove it first")]
    DuplicateBridge {
        /// The name.
        name: String,
    },
    /// There is no bridge with this name.
    #[error("there is no bridge '{name}'; there are: {}", .known.join(", "))]
    UnknownBridge {
        /// The name.
        name: String,
        /// The bridges that there are.
        known: Vec<String>,
    },
    /// A bridge's name is empty, too long, or has unusual characters.
    #[error(
        "bridge name '{name}': expected 1 to 32 letters, digits, '-', '_', '.' and '+', \
         beginning with a letter or digit"
    )]
    BridgeName {
        /// The name given.
        name: String,
    },
    /// The switch has as many bridges as it can have.
    #[error("bridge '{name}': the switch has {max} bridges already, which is the most it can have")]
    TooManyBridges {
        /// The name of the bridge that was to be added.
        name: String,
        /// The limit.
        max: usize,
    },
    /// A bridge still has ports.
    #[error("bridge '{name}' has ports: {}; remove them first, or move them", .ports.join(", "))]
    BridgeInUse {
        /// The name.
        name: String,
        /// Its ports.
        ports: Vec<String>,
    },
    /// The default bridge cannot be removed.
    #[error("bridge 'default' is always there: it cannot be removed")]
    DefaultBridge,
    /// A port's name is empty, too long, or has unusual characters.
    #[error(
        "port name '{name}': expected 1 to 32 letters, digits, '-', '_', '.' and '+', \
         beginning with a letter or digit"
    )]
    PortName {
        /// The name given.
        name: String,
    },
    /// The switch has as many ports as it can have.
    #[error("port '{name}': the switch has {max} ports already, which is the most it can have")]
    TooManyPorts {
        /// The name of the port that was to be added.
        name: String,
        /// The limit.
        max: usize,
    },
    /// A port's device could not be opened or changed.
    #[error("port '{name}': {source}")]
    Port {
        /// The port's name.
        name: String,
        /// What the driver said.
        source: ethdev::Error,
    },
    /// A device was opened for a port that no longer waits for it.
    #[error(
        "port '{name}' does not get the device '{device}': while that was opened, the port was removed \
         and added again, or given another one; if it is still to have it, ask again"
    )]
    DeviceLate {
        /// The port's name.
        name: String,
        /// The device.
        device: String,
    },
    /// Receive queues are pinned to a worker that does not exist.
    #[error("port '{name}': there is no worker {worker}: the switch has {workers}, counted from 0")]
    UnknownWorker {
        /// The port's name.
        name: String,
        /// The worker asked for.
        worker: usize,
        /// Number of workers.
        workers: usize,
    },
    /// A port's VLAN settings contradict each other.
    #[error("port '{name}': {reason}")]
    PortVlan {
        /// The port's name.
        name: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A limit of a port makes no sense.
    #[error("port '{name}': {reason}")]
    PortLimits {
        /// The port's name.
        name: String,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// A bond, or a member of one, cannot be as it was asked for.
    #[error("port '{name}': {reason}")]
    Bond {
        /// The port's name.
        name: String,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// What a port may send makes no sense.
    #[error("port '{name}': {reason}")]
    PortGuard {
        /// The port's name.
        name: String,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// What a port says by LACP makes no sense.
    #[error("port '{name}': lacp: {reason}")]
    PortLacp {
        /// The port's name.
        name: String,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// A port's part in spanning tree makes no sense.
    #[error("port '{name}': rstp: {reason}")]
    PortRstp {
        /// The port's name.
        name: String,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// How a port's link is to be watched makes no sense.
    #[error("port '{name}': {protocol}: {reason}")]
    PortWatch {
        /// The port's name.
        name: String,
        /// By what protocol.
        protocol: &'static str,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// A bridge's part in spanning tree makes no sense.
    #[error("rstp: {reason}")]
    Rstp {
        /// The key of the setting.
        setting: &'static str,
        /// What is wrong with it, and what was expected.
        reason: String,
    },
    /// A mirror cannot be as it was asked for.
    #[error("mirror '{name}': {reason}")]
    Mirror {
        /// Its name.
        name: String,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// A capture cannot be as it was asked for.
    #[error("capture: {reason}")]
    Capture {
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// Frames cannot be sampled as it was asked for.
    #[error("sampling: {reason}")]
    Sampling {
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// All workers have ended, by panics.
    #[error("no worker is left: all have ended by a panic (see the log); restart the switch")]
    NoWorker,
    /// The forwarding database has no room for a static entry.
    #[error("forwarding database: {0}; delete some or raise the limit")]
    FdbFull(#[from] fdb::Full),
    /// The address cannot be in the forwarding database.
    #[error("forwarding database: {mac} is not the address of one station")]
    NotUnicast {
        /// The address.
        mac: MacAddr,
    },
    /// The VLAN id does not exist.
    #[error("forwarding database: VLAN {vlan}: expected 0 to 4094")]
    Vlan {
        /// The id.
        vlan: u16,
    },
    /// The forwarding database has no such entry.
    #[error("forwarding database: there is no entry for {mac} in VLAN {vlan}")]
    UnknownEntry {
        /// The address.
        mac: MacAddr,
        /// The VLAN id.
        vlan: u16,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "; there are no ports".to_owned()
    } else {
        format!("; there are: {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_port_lists_the_known_ones() {
        let error = |known: &[&str]| Error::UnknownPort {
            name: "vm3".into(),
            known: known.iter().map(ToString::to_string).collect(),
        };
        let text = error(&["vm1", "vm2"]).to_string();
        assert_eq!(text, "there is no port 'vm3'; there are: vm1, vm2");
        assert_eq!(error(&[]).to_string(), "there is no port 'vm3'; there are no ports");
    }
}
