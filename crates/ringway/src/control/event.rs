//! Events: what a switch tells those who have subscribed, one JSON object per line between the answers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use daemon::object::Given;
use serde::de::Error as _;
use serde::ser::{Error as _, SerializeMap as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::tagged;

/// What shuts a port, as events and `show ports` name it.
pub const SHUT_BY: &str = "bpdu-guard";

/// An event and when it was noticed.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// Milliseconds since the switch started, by its clock.
    pub uptime_ms: u64,
    /// What has happened.
    pub event: Event,
}

/// The members of a notice beside those of its event.
const UPTIME: &str = "uptime_ms";
const EVENT: &str = "event";

impl Serialize for Notice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let whole = self.event.serialize(serde_json::value::Serializer);
        let (event, parts) = tagged::split(whole).map_err(S::Error::custom)?;
        let mut members = serializer.serialize_map(Some(parts.len().saturating_add(2)))?;
        members.serialize_entry(UPTIME, &self.uptime_ms)?;
        members.serialize_entry(EVENT, &event)?;
        for (name, value) in &parts {
            members.serialize_entry(name, value)?;
        }
        members.end()
    }
}

impl<'de> Deserialize<'de> for Notice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Map::deserialize(deserializer)?;
        let uptime = members.shift_remove(UPTIME).as_ref().and_then(Value::as_u64);
        let uptime_ms = uptime.ok_or_else(|| D::Error::missing_field(UPTIME))?;
        let whole = tagged::join(EVENT, "the name of an event", members)?;
        let event = Event::deserialize(Given(whole)).map_err(D::Error::custom)?;
        Ok(Self { uptime_ms, event })
    }
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A port's link is up or down now, and may have been otherwise in between.
    Link {
        /// The port.
        port: String,
        /// Whether it is up.
        up: bool,
        /// How often it has changed since the port was opened.
        changes: u64,
    },
    /// Another member of a bond is the active one now, and may have been another in between.
    BondActive {
        /// The bond's port.
        bond: String,
        /// The member; `None` where none has a link.
        active: Option<String>,
        /// The one before.
        from: Option<String>,
        /// How often that has changed since the bond was added.
        changes: u64,
    },
    /// A port has another role or state in the spanning tree of its bridge, and may have had others in
    /// between.
    RstpPort {
        /// The bridge.
        bridge: String,
        /// The port.
        port: String,
        /// Its role: `disabled`, `root`, `designated`, `alternate` or `backup`.
        role: String,
        /// Its state: `discarding`, `learning` or `forwarding`.
        state: String,
    },
    /// A bridge's spanning tree has another root, or another way there.
    RstpRoot {
        /// The bridge.
        bridge: String,
        /// The root, as 8000.0200000000ab.
        root_id: String,
        /// The way there; `None` where the bridge itself is the root.
        root_port: Option<String>,
    },
    /// A port was shut since it has sent what it must not.
    PortShut {
        /// The port.
        port: String,
        /// What shut it: `bpdu-guard`.
        reason: String,
    },
    /// A port that was shut is open again.
    PortReopened {
        /// The port.
        port: String,
    },
    /// A guest's VMM has connected to a port.
    GuestConnected {
        /// The port.
        port: String,
        /// Process number of the VMM, where it is known.
        pid: Option<u32>,
    },
    /// A guest's VMM has gone.
    GuestDisconnected {
        /// The port.
        port: String,
        /// Process number that it had.
        pid: Option<u32>,
    },
    /// What the switch is to be was changed, by whoever: a command, the file, a database.
    Changed {
        /// How often that has happened by now.
        version: u64,
        /// Of what kind the thing is: `port`, `bridge`, `mirror`, `vdpa`, `workers`, `idle`, `address`.
        kind: String,
        /// Its name, where it has one.
        name: Option<String>,
        /// `added`, `removed` or `changed`.
        change: String,
        /// The same for people, a line for each setting.
        text: String,
    },
    /// A port or vDPA device cannot be opened, and is tried again.
    Waiting {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A port or vDPA device that could not be opened is there now.
    Opened {
        /// Its name.
        name: String,
    },
    /// A port drops more frames in a direction than the subscriber puts up with.
    Drops {
        /// The port.
        port: String,
        /// `rx` from the port to the switch, `tx` from the switch to the port.
        direction: String,
        /// Frames per second, over the last second or so.
        rate: u64,
        /// The same by reason.
        reasons: BTreeMap<String, u64>,
    },
    /// It does not any more.
    DropsEnded {
        /// The port.
        port: String,
        /// The direction.
        direction: String,
    },
    /// An address was learnt.
    Learned(Address),
    /// An address was learnt on another port than before.
    Moved(Moved),
    /// An address was forgotten.
    Forgotten(Address),
    /// A port has members of a group.
    GroupJoined(Membership),
    /// It has none any more.
    GroupLeft(Membership),
    /// A port has a multicast router.
    RouterFound(Router),
    /// It has none any more.
    RouterLost(Router),
    /// The configuration was read again.
    Reload {
        /// Whether it was right.
        ok: bool,
        /// What was changed.
        changes: Vec<String>,
        /// What was wrong.
        error: Option<String>,
    },
    /// The subscriber was too slow: so many events were not kept for it.
    Lost {
        /// How many.
        count: u64,
    },
}

/// An address of a forwarding database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// The bridge.
    pub bridge: String,
    /// The address.
    pub mac: String,
    /// Its VLAN, 0 for untagged.
    pub vlan: u16,
    /// The port that it is, or was, behind.
    pub port: String,
}

/// An address that is behind another port now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moved {
    /// The bridge.
    pub bridge: String,
    /// The address.
    pub mac: String,
    /// Its VLAN, 0 for untagged.
    pub vlan: u16,
    /// The port that it is behind now.
    pub port: String,
    /// The port where it was.
    pub from: String,
}

impl Moved {
    /// `address`, with the port where it is now, has come there from port `from`.
    pub fn new(address: Address, from: String) -> Self {
        let Address { bridge, mac, vlan, port } = address;
        Self { bridge, mac, vlan, port, from }
    }

    /// The address, with the port where it is now.
    pub fn address(&self) -> Address {
        let Self { bridge, mac, vlan, port, .. } = self.clone();
        Address { bridge, mac, vlan, port }
    }
}

/// A port that has members of a group of IGMP or MLD.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Membership {
    /// The bridge.
    pub bridge: String,
    /// The VLAN; 0 in a bridge without VLANs.
    pub vlan: u16,
    /// The group's address.
    pub group: IpAddr,
    /// The port.
    pub port: String,
}

/// A port that has a multicast router.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Router {
    /// The bridge.
    pub bridge: String,
    /// The VLAN where it was heard; `None` where it is set.
    pub vlan: Option<u16>,
    /// The port.
    pub port: String,
}

/// What events are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// Links up and down, active members of bonds, roles and states in spanning trees, and ports that are
    /// shut.
    Link,
    /// VMMs that come and go.
    Guest,
    /// What is added, removed and changed, and what cannot be opened.
    Config,
    /// Drops above a rate.
    Drops,
    /// Addresses that are learnt, move and are forgotten. Only for those who ask for it.
    Fdb,
    /// Members of groups of IGMP and MLD, and routers, that come and go. Only for those who ask for it.
    Groups,
    /// The configuration file, read again.
    Reload,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Link, Self::Guest, Self::Config, Self::Drops, Self::Fdb, Self::Groups, Self::Reload];

    /// Those that one gets without asking for any.
    pub fn usual() -> Vec<Self> {
        let is_usual = |topic: &Self| !matches!(topic, Self::Fdb | Self::Groups);
        Self::ALL.into_iter().filter(is_usual).collect()
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Guest => "guest",
            Self::Config => "config",
            Self::Drops => "drops",
            Self::Fdb => "fdb",
            Self::Groups => "groups",
            Self::Reload => "reload",
        }
    }
}

impl FromStr for Topic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|topic| topic.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("expected one of {names}")
        })
    }
}

impl Event {
    /// What it is about; `None` for what every subscriber gets.
    pub const fn topic(&self) -> Option<Topic> {
        Some(match self {
            Self::Link { .. }
            | Self::BondActive { .. }
            | Self::RstpPort { .. }
            | Self::RstpRoot { .. }
            | Self::PortShut { .. }
            | Self::PortReopened { .. } => Topic::Link,
            Self::GuestConnected { .. } | Self::GuestDisconnected { .. } => Topic::Guest,
            Self::Changed { .. } | Self::Waiting { .. } | Self::Opened { .. } => Topic::Config,
            Self::Drops { .. } | Self::DropsEnded { .. } => Topic::Drops,
            Self::Learned(_) | Self::Moved(_) | Self::Forgotten(_) => Topic::Fdb,
            Self::GroupJoined(_)
            | Self::GroupLeft(_)
            | Self::RouterFound(_)
            | Self::RouterLost(_) => Topic::Groups,
            Self::Reload { .. } => Topic::Reload,
            Self::Lost { .. } => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_written_as_documented() {
        let address = Address {
            bridge: "default".into(),
            mac: "52:54:00:00:00:01".into(),
            vlan: 7,
            port: "vm1".into(),
        };
        for (event, expected) in [
            (
                Event::Link { port: "vm1".into(), up: true, changes: 3 },
                r#"{"uptime_ms":5,"event":"link","port":"vm1","up":true,"changes":3}"#,
            ),
            (
                Event::BondActive {
                    bond: "up".into(),
                    active: Some("eth1".into()),
                    from: None,
                    changes: 2,
                },
                r#"{"uptime_ms":5,"event":"bond-active","bond":"up","active":"eth1","from":null,"changes":2}"#,
            ),
            (
                Event::PortReopened { port: "vm1".into() },
                r#"{"uptime_ms":5,"event":"port-reopened","port":"vm1"}"#,
            ),
            (
                Event::GuestConnected { port: "vm1".into(), pid: None },
                r#"{"uptime_ms":5,"event":"guest-connected","port":"vm1","pid":null}"#,
            ),
            (
                Event::Moved(Moved::new(address, "vm2".into())),
                r#"{"uptime_ms":5,"event":"moved","bridge":"default","mac":"52:54:00:00:00:01","vlan":7,"port":"vm1","from":"vm2"}"#,
            ),
            (
                Event::GroupJoined(Membership {
                    bridge: "default".into(),
                    vlan: 0,
                    group: [239, 1, 2, 3].into(),
                    port: "vm1".into(),
                }),
                r#"{"uptime_ms":5,"event":"group-joined","bridge":"default","vlan":0,"group":"239.1.2.3","port":"vm1"}"#,
            ),
            (
                Event::RouterFound(Router {
                    bridge: "default".into(),
                    vlan: None,
                    port: "up".into(),
                }),
                r#"{"uptime_ms":5,"event":"router-found","bridge":"default","vlan":null,"port":"up"}"#,
            ),
            (Event::Lost { count: 4 }, r#"{"uptime_ms":5,"event":"lost","count":4}"#),
        ] {
            let notice = Notice { uptime_ms: 5, event };
            assert_eq!(serde_json::to_string(&notice).unwrap(), expected);
            assert_eq!(serde_json::from_str::<Notice>(expected).unwrap(), notice);
        }
    }

    #[test]
    fn topics_have_their_names() {
        for topic in Topic::ALL {
            assert_eq!(serde_json::to_value(topic).unwrap(), topic.name());
            assert_eq!(topic.name().parse(), Ok(topic));
        }
        assert!("links".parse::<Topic>().unwrap_err().contains("link, guest"));
        assert!(!Topic::usual().contains(&Topic::Fdb));
    }
}
