//! What may be asked of a switch at its control socket.

use daemon::object::Given;
use serde::de::Error as _;
use serde::ser::{Error as _, SerializeMap as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use switch::{LldpMode, PortGuard, PortLimits, PortRstp, PortSnooping, PortVlan};

use crate::control::event::Topic;
use crate::control::tagged;

/// The member that names the command.
const COMMAND: &str = "command";

/// What a client may ask. By serde, its member `command` has the name, beside its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Who is there: version, process, uptime.
    Info {},
    /// All ports with their link state and device facts.
    ShowPorts {},
    /// All bridges with their settings.
    ShowBridges {},
    /// All mirrors with their counters.
    ShowMirrors {},
    /// All bonds with their members.
    ShowBonds {},
    /// What ports know of their neighbours by LLDP.
    ShowNeighbours {},
    /// Spanning tree: which bridges and ports take part, and what they do.
    ShowRstp {},
    /// Groups of IGMP and MLD, of bridges that look at them.
    ShowGroups {},
    /// The forwarding databases.
    ShowFdb {},
    /// Counters of all ports and queues.
    ShowStats {},
    /// The workers and the queues that they poll.
    ShowWorkers {},
    /// The vDPA devices.
    ShowVdpa {},
    /// Opens a port and connects it, or attaches a vDPA device.
    PortAdd(Box<NewPort>),
    /// Changes settings of a port while it carries frames.
    PortSet {
        /// Its name.
        name: String,
        /// The settings, by their keys in the configuration file; `null` is the default. Of `guard`, `rstp`
        /// and `mcast-snooping`, settings that are not named stay.
        settings: Map<String, Value>,
    },
    /// Disconnects a port and closes it, or detaches a vDPA device.
    PortDel {
        /// Its name.
        name: String,
    },
    /// Adds a bridge, without ports.
    BridgeAdd {
        /// Its name.
        name: String,
        /// Its settings, by their keys in the configuration file, as in `fdb.ageing`.
        #[serde(default)]
        settings: Map<String, Value>,
    },
    /// Changes settings of a bridge.
    BridgeSet {
        /// Its name.
        name: String,
        /// The settings, in the same way; `null` is the default.
        settings: Map<String, Value>,
    },
    /// Makes one port of several, which become its members.
    BondAdd {
        /// Its name.
        name: String,
        /// The ports that become its members.
        members: Vec<String>,
        /// Its settings, by their keys in `bonding` of the configuration file.
        #[serde(default)]
        settings: Map<String, Value>,
        /// The bridge that it belongs to; the default one when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bridge: Option<String>,
        /// Its part in VLANs.
        #[serde(default, skip_serializing_if = "PortVlan::is_default")]
        vlan: PortVlan,
    },
    /// Changes settings of a bond while it carries frames.
    BondSet {
        /// Its name.
        name: String,
        /// Its members from now on; those that there are when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        members: Option<Vec<String>>,
        /// The settings, in the same way; `null` is the default.
        #[serde(default)]
        settings: Map<String, Value>,
    },
    /// Removes a bond, and the ports that are its members.
    BondDel {
        /// Its name.
        name: String,
    },
    /// Makes a member of a bond the active one, as long as it is in use.
    BondSetActiveMember {
        /// The bond's name.
        name: String,
        /// The member's.
        member: String,
    },
    /// Has a member of a bond be used again that was disabled.
    BondEnableMember {
        /// The bond's name.
        name: String,
        /// The member's.
        member: String,
    },
    /// Takes a member of a bond out of use, until it is enabled.
    BondDisableMember {
        /// The bond's name.
        name: String,
        /// The member's.
        member: String,
    },
    /// Gives a part of a bond's traffic to a member, until load is moved the next time.
    BondMigrate {
        /// The bond's name.
        name: String,
        /// The member's.
        member: String,
        /// The part, of 256; or else a source address tells it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        part: Option<u8>,
        /// The source address whose frames are in the part.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mac: Option<String>,
        /// The VLAN of those frames as they go out, 0 for untagged.
        #[serde(default)]
        vlan: u16,
    },
    /// Has a port find out anew whether its neighbour speaks the rapid protocol.
    RstpMcheck {
        /// Its name.
        port: String,
    },
    /// Has a bridge tell its neighbours that the topology has changed.
    RstpTcn {
        /// Its name.
        #[serde(default = "default_bridge")]
        bridge: String,
    },
    /// Adds a mirror.
    MirrorAdd {
        /// Its name.
        name: String,
        /// What it copies, and where to.
        mirror: switch::Mirror,
    },
    /// Gives a mirror other settings.
    MirrorSet {
        /// Its name.
        name: String,
        /// What it copies from now on, and where to.
        mirror: switch::Mirror,
    },
    /// Removes a mirror.
    MirrorDel {
        /// Its name.
        name: String,
    },
    /// Captures what ports receive and send: a capture file follows the answer, on the same
    /// connection.
    Capture {
        /// The ports; all, if there are none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ports: Vec<String>,
        /// Which way; both, if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        direction: Option<CaptureWay>,
        /// Only frames that are dropped.
        #[serde(default)]
        dropped: bool,
        /// The most bytes of a frame.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        snaplen: Option<usize>,
        /// Which frames: classic BPF, 16 hexadecimal digits for each instruction.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filter: Option<String>,
        /// What the filter was made of, for people who read the file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expression: Option<String>,
        /// Bytes that each worker has for what is not sent yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        buffer: Option<usize>,
    },
    /// Removes a bridge that has no ports.
    BridgeDel {
        /// Its name.
        name: String,
    },
    /// What the switch is to be.
    ConfigShow {},
    /// In what that differs from the file and the command line.
    ConfigDiff {},
    /// Changes what is logged, until the end.
    LogSet {
        /// A level, or a filter as `RUST_LOG` has it; of a target, a level or `default`.
        level: String,
        /// The crate or module that it is for; without one, what holds for all is replaced.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<String>,
    },
    /// What is logged.
    LogShow {},
    /// Have events told on this connection, between the answers.
    Subscribe {
        /// What about; all but addresses where there are none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        topics: Vec<Topic>,
        /// Frames that a port drops in a second, from which on that is an event.
        #[serde(default = "default_drop_rate")]
        drop_rate: u64,
    },
    /// Stops the clock, if that is allowed.
    TimeStop {},
    /// Puts the clock forward, if that is allowed.
    TimeWarp {
        /// By so much.
        milliseconds: u64,
    },
    /// Reads the configuration file again.
    Reload {
        /// Whether what commands have changed is changed back.
        #[serde(default)]
        exact: bool,
    },
    /// Adds a static entry to the forwarding database.
    FdbAdd {
        /// The station's address.
        mac: String,
        /// The port it is behind.
        port: String,
        /// The VLAN, 0 for untagged.
        #[serde(default)]
        vlan: u16,
    },
    /// Removes an entry from a forwarding database.
    FdbDel {
        /// The station's address.
        mac: String,
        /// The VLAN, 0 for untagged.
        #[serde(default)]
        vlan: u16,
        /// The bridge.
        #[serde(default = "default_bridge")]
        bridge: String,
    },
    /// What would become of a frame that comes in on a port.
    Trace {
        /// The port.
        port: String,
        /// The frame, in digits of base 16.
        frame: String,
    },
    /// Removes all learned entries from the forwarding databases.
    FdbFlush {
        /// Only those of this bridge.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bridge: Option<String>,
        /// Only those of this port.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<String>,
    },
}

/// A port that is to be opened, or a vDPA device that is to be attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPort {
    /// Its name.
    pub name: String,
    /// Its device string.
    pub device: String,
    /// Largest payload in bytes; the device's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Workers that poll its receive queues, by number, in turn; spread evenly when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<usize>,
    /// The bridge that it belongs to; the default one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// With a device `patch:PEER`: make port PEER, too, in this bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_bridge: Option<String>,
    /// Its part in VLANs.
    #[serde(default, skip_serializing_if = "PortVlan::is_default")]
    pub vlan: PortVlan,
    /// How much may come in and go out.
    #[serde(default, skip_serializing_if = "PortLimits::is_default")]
    pub limits: PortLimits,
    /// What it may send.
    #[serde(default, skip_serializing_if = "PortGuard::is_default")]
    pub guard: PortGuard,
    /// Whether it and its neighbours tell each other who they are.
    #[serde(default, skip_serializing_if = "is_off")]
    pub lldp: LldpMode,
    /// Its part in snooping.
    #[serde(default, skip_serializing_if = "PortSnooping::is_default")]
    pub mcast_snooping: PortSnooping,
    /// Its part in spanning tree.
    #[serde(default, skip_serializing_if = "PortRstp::is_default")]
    pub rstp: PortRstp,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_off(lldp: &LldpMode) -> bool {
    *lldp == LldpMode::Off
}

impl Serialize for Request {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let whole = Self::serialize(self, serde_json::value::Serializer);
        let (command, arguments) = tagged::split(whole).map_err(S::Error::custom)?;
        let mut members = serializer.serialize_map(Some(arguments.len().saturating_add(1)))?;
        members.serialize_entry(COMMAND, &command)?;
        for (name, value) in &arguments {
            members.serialize_entry(name, value)?;
        }
        members.end()
    }
}

impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = Map::deserialize(deserializer)?;
        let whole = tagged::join(COMMAND, "the name of a command", members)?;
        Self::deserialize(Given(whole)).map_err(D::Error::custom)
    }
}

impl Request {
    /// Whether it may change what the switch is to be.
    pub const fn changes_state(&self) -> bool {
        !matches!(
            self,
            Self::Info {}
                | Self::ShowPorts {}
                | Self::ShowBridges {}
                | Self::ShowMirrors {}
                | Self::ShowBonds {}
                | Self::ShowNeighbours {}
                | Self::ShowRstp {}
                | Self::ShowGroups {}
                | Self::ShowFdb {}
                | Self::ShowStats {}
                | Self::ShowWorkers {}
                | Self::ShowVdpa {}
                | Self::ConfigShow {}
                | Self::ConfigDiff {}
                | Self::LogSet { .. }
                | Self::LogShow {}
                | Self::Subscribe { .. }
                | Self::Capture { .. }
                | Self::FdbFlush { .. }
                | Self::Trace { .. }
                | Self::BondSetActiveMember { .. }
                | Self::BondEnableMember { .. }
                | Self::BondDisableMember { .. }
                | Self::BondMigrate { .. }
                | Self::RstpMcheck { .. }
                | Self::RstpTcn { .. }
        )
    }
}

/// Drops per second that are worth an event where nobody says otherwise.
pub const DROP_RATE: u64 = 100;

const fn default_drop_rate() -> u64 {
    DROP_RATE
}

/// Which way frames go, seen from the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureWay {
    /// From the port into the switch.
    In,
    /// From the switch to the port.
    Out,
}

pub(super) fn default_bridge() -> String {
    switch::DEFAULT_BRIDGE.to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    #[test]
    fn requests_read_as_documented() {
        let parse = |text| serde_json::from_str::<Request>(text);
        assert_eq!(parse(r#"{"command":"show-ports"}"#).unwrap(), Request::ShowPorts {});
        let add = r#"{"command":"port-add","name":"vm1","device":"null:"}"#;
        let expected = NewPort {
            name: "vm1".into(),
            device: "null:".into(),
            mtu: None,
            workers: Vec::new(),
            bridge: None,
            peer_bridge: None,
            vlan: PortVlan::default(),
            limits: PortLimits::default(),
            guard: PortGuard::default(),
            lldp: LldpMode::Off,
            mcast_snooping: PortSnooping::default(),
            rstp: PortRstp::default(),
        };
        assert_eq!(parse(add).unwrap(), Request::PortAdd(Box::new(expected)));
        assert_eq!(
            parse(r#"{"command":"fdb-flush"}"#).unwrap(),
            Request::FdbFlush { port: None, bridge: None }
        );
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let message = |text| serde_json::from_str::<Request>(text).unwrap_err().to_string();
        assert!(message(r#"{"command":"show-prots"}"#).contains("show-prots"));
        assert!(message(r#"{"command":"show-ports","verbose":1}"#).contains("verbose"));
        assert!(message(r#"{"command":"port-add","name":"a"}"#).contains("device"));
        assert!(message(r#"{"name":"a"}"#).contains("missing field `command`"));
        assert!(message(r#"{"command":["info"]}"#).contains("expected the name of a command"));
        assert!(message("[]").contains("expected a map"));
    }

    #[test]
    fn requests_are_read_as_they_are_written() {
        let request = Request::FdbAdd { mac: "a".into(), port: "b".into(), vlan: 7 };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(text, r#"{"command":"fdb-add","mac":"a","port":"b","vlan":7}"#);
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
    }

    /// What serde says it expected where there is something else, quoted.
    fn expected(request: &Value) -> Vec<String> {
        let error = serde_json::from_value::<Request>(request.clone()).unwrap_err().to_string();
        let (_, list) = error.split_once("expected").unwrap_or_default();
        let mut names: Vec<_> = list.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Commands and what may be in them, as the schema has them.
    fn documented() -> BTreeMap<String, Vec<String>> {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/control-protocol.schema.json");
        let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let read = |one: &Value| {
            let properties = one["properties"].as_object().unwrap();
            let command = properties["command"]["const"].as_str().unwrap().to_owned();
            let mut names: Vec<_> = properties.keys().cloned().collect();
            names.retain(|name| name != "command");
            names.sort();
            (command, names)
        };
        schema["$defs"]["request"]["oneOf"].as_array().unwrap().iter().map(read).collect()
    }

    #[test]
    fn the_schema_has_all_commands_and_all_that_may_be_in_them() {
        let documented = documented();
        let commands: Vec<_> = documented.keys().cloned().collect();
        assert_eq!(commands, expected(&serde_json::json!({"command": "?"})));
        for (command, names) in documented {
            let request = serde_json::json!({"command": command, "?": 0});
            assert_eq!(names, expected(&request), "{command}");
        }
    }
}
