//! What bridges and ports are set to. The names are those of Open vSwitch, without their `rstp-`.

use std::collections::BTreeSet;

use packet::MacAddr;
use serde::{Deserialize, Serialize};

use super::bpdu::HELLO_TIME;
use super::port::Settings as PortSettings;
use crate::named;
use crate::names::is_default;

/// What is so where nothing else is said (IEEE 802.1D-2004 tables 17-1 and 17-2).
const PRIORITY: u16 = 0x8000;
const PORT_PRIORITY: u8 = 0x80;
const MAX_AGE: u8 = 20;
const FORWARD_DELAY: u8 = 15;
const HOLD_COUNT: u8 = 6;

/// Steps between priorities of bridges, and of ports.
const STEP: u16 = 0x1000;
const PORT_STEP: u8 = 0x10;

/// The highest priorities.
const MAX_PRIORITY: u16 = 0xF000;
const MAX_PORT_PRIORITY: u8 = 0xF0;

/// The highest cost of a path.
const MAX_COST: u32 = 200_000_000;

/// The speed of a link of which it is not known, in Mbit/s: as Open vSwitch has it.
const UNKNOWN_SPEED: u32 = 10_000;

/// The highest number of a port.
const MAX_NUMBER: u16 = 0xFFF;

/// The protocol that a bridge speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RstpVersion {
    /// The rapid one, and the old one to neighbours that know no other.
    #[default]
    Rstp,
    /// The old one.
    Stp,
}

impl RstpVersion {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Rstp, Self::Stp];

    /// The name, as in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rstp => "rstp",
            Self::Stp => "stp",
        }
    }
}

named!(RstpVersion);

/// A bridge's part in spanning tree.
///
/// ```
/// use l2proto::Rstp;
///
/// let rstp = Rstp { enabled: true, priority: Some(4096), ..Rstp::default() };
/// assert!(rstp.check().is_ok());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "settings of spanning tree, as in { enabled = true }"
)]
pub struct Rstp {
    /// Whether it takes part.
    #[serde(skip_serializing_if = "is_default")]
    pub enabled: bool,
    /// Of several bridges the one with the lowest is the root; a multiple of 4096; `None`: 32768.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// The address by which it is known; `None`: that of a port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// After how many seconds, or bridges, what was heard is of no use any more; `None`: 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u8>,
    /// How many seconds a port waits before it learns, and again before it forwards, where its neighbour
    /// does not agree; `None`: 15.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_delay: Option<u8>,
    /// The most messages in a second from a port; `None`: 6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transmit_hold_count: Option<u8>,
    /// The protocol that it speaks.
    #[serde(skip_serializing_if = "is_default")]
    pub force_version: RstpVersion,
}

impl Rstp {
    /// Whether it takes no part, and nothing is set.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// The key of the one that does not, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if let Some(priority) =
            self.priority.filter(|one| !one.is_multiple_of(STEP) || *one > MAX_PRIORITY)
        {
            let expected = format!("a multiple of {STEP} up to {MAX_PRIORITY}");
            return Err(("priority", format!("priority {priority}: expected {expected}")));
        }
        if let Some(address) = &self.address {
            let wrong =
                |why: &dyn std::fmt::Display| ("address", format!("address {address}: {why}"));
            let mac = address.parse::<MacAddr>().map_err(|error| wrong(&error))?;
            if !mac.is_station() {
                return Err(wrong(&"expected the address of one station"));
            }
        }
        within("max-age", self.max_age, 6, 40)?;
        within("forward-delay", self.forward_delay, 4, 30)?;
        within("transmit-hold-count", self.transmit_hold_count, 1, 10)?;
        // Clause 17.14.
        let (age, delay) = (self.age(), self.delay());
        let most = delay.saturating_sub(1).saturating_mul(2);
        if age > most {
            let expected = format!("at most {most}, or a longer forward-delay than {delay}");
            return Err(("max-age", format!("max-age {age}: expected {expected}")));
        }
        Ok(())
    }

    fn age(&self) -> u8 {
        self.max_age.unwrap_or(MAX_AGE)
    }

    fn delay(&self) -> u8 {
        self.forward_delay.unwrap_or(FORWARD_DELAY)
    }

    /// The same as the protocol needs it, for a bridge that has `own` where no address is given.
    pub fn settings(&self, own: MacAddr) -> super::tree::Settings {
        let address = self.address.as_ref().and_then(|address| address.parse().ok());
        super::tree::Settings {
            name: super::vector::BridgeName::new(
                self.priority.unwrap_or(PRIORITY),
                address.unwrap_or(own),
            ),
            max_age: self.age(),
            hello: HELLO_TIME,
            forward_delay: self.delay(),
            hold_count: self.transmit_hold_count.unwrap_or(HOLD_COUNT),
            is_rapid: self.force_version == RstpVersion::Rstp,
        }
    }
}

fn within(
    key: &'static str,
    value: Option<u8>,
    least: u8,
    most: u8,
) -> Result<(), (&'static str, String)> {
    match value.filter(|value| !(least..=most).contains(value)) {
        Some(value) => Err((key, format!("{key} {value}: expected {least} to {most}"))),
        None => Ok(()),
    }
}

/// A port's part in spanning tree, where its bridge has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "settings of spanning tree, as in { path-cost = 2000 }"
)]
pub struct PortRstp {
    /// Whether it takes part; if not, it always forwards.
    #[serde(skip_serializing_if = "is_yes")]
    pub enabled: bool,
    /// What a way through it costs; `None`: by its speed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_cost: Option<u32>,
    /// Of several ports to the same bridge the one with the lowest is used; a multiple of 16; `None`: 128.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Its number in messages, by which it is told from others of the same priority; `None`, or that of
    /// another port: one that is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u16>,
    /// Whether there is no bridge behind it, so that it forwards at once; one that is heard counts.
    #[serde(skip_serializing_if = "is_default")]
    pub admin_edge: bool,
    /// Whether that is found out, by hearing none for 3 s.
    #[serde(skip_serializing_if = "is_yes")]
    pub auto_edge: bool,
    /// Whether there is one neighbour at most, with which it can agree.
    #[serde(skip_serializing_if = "is_yes")]
    pub point_to_point: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_yes(value: &bool) -> bool {
    *value
}

impl Default for PortRstp {
    fn default() -> Self {
        Self {
            enabled: true,
            path_cost: None,
            priority: None,
            number: None,
            admin_edge: false,
            auto_edge: true,
            point_to_point: true,
        }
    }
}

impl PortRstp {
    /// Whether all settings are as by default.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// What does not, by its key.
    pub fn check(&self) -> Result<(), String> {
        if let Some(cost) = self.path_cost.filter(|cost| !(1..=MAX_COST).contains(cost)) {
            return Err(format!("path-cost {cost}: expected 1 to {MAX_COST}"));
        }
        let is_wrong = |one: &u8| !one.is_multiple_of(PORT_STEP) || *one > MAX_PORT_PRIORITY;
        if let Some(priority) = self.priority.filter(is_wrong) {
            let expected = format!("a multiple of {PORT_STEP} up to {MAX_PORT_PRIORITY}");
            return Err(format!("priority {priority}: expected {expected}"));
        }
        if let Some(number) = self.number.filter(|one| !(1..=MAX_NUMBER).contains(one)) {
            return Err(format!("number {number}: expected 1 to {MAX_NUMBER}"));
        }
        Ok(())
    }

    /// The same as the protocol needs it, for a port that has `number` in messages, and so many Mbit/s.
    pub fn settings(
        &self,
        number: u16,
        speed_mbps: Option<u32>,
        version: RstpVersion,
    ) -> PortSettings {
        let priority = self.priority.unwrap_or(PORT_PRIORITY);
        let cost = match version {
            RstpVersion::Rstp => cost,
            RstpVersion::Stp => old_cost,
        };
        PortSettings {
            id: u16::from(priority) << 8 | number & MAX_NUMBER,
            cost: self.path_cost.unwrap_or_else(|| cost(speed_mbps)),
            admin_edge: self.admin_edge,
            auto_edge: self.auto_edge,
            point_to_point: self.point_to_point,
        }
    }
}

/// The cost of a link (table 17-3): 20,000 for 1 Gbit/s, and less the faster it is.
fn cost(speed_mbps: Option<u32>) -> u32 {
    let speed = speed_mbps.filter(|speed| *speed > 0).unwrap_or(UNKNOWN_SPEED);
    (20_000_000 / speed).clamp(1, MAX_COST)
}

/// The same by the old protocol (IEEE 802.1D-1998 table 8-5), whose bridges cannot count further than
/// 65535.
fn old_cost(speed_mbps: Option<u32>) -> u32 {
    match speed_mbps.filter(|speed| *speed > 0).unwrap_or(UNKNOWN_SPEED) {
        10_000.. => 2,
        1_000.. => 4,
        100.. => 19,
        16.. => 62,
        10.. => 100,
        _ => 250,
    }
}

/// The numbers that ports have in messages: of each of them its place in the switch, and the number that
/// it is to have. No two have the same; of several that are to, the first one has it.
#[must_use]
pub fn numbers(ports: &[(u16, Option<u16>)]) -> Vec<u16> {
    let mut taken = BTreeSet::new();
    let asked: Vec<Option<u16>> =
        ports.iter().map(|(_, asked)| asked.filter(|one| taken.insert(*one))).collect();
    let mut give = |place: u16| {
        let own = place.saturating_add(1).min(MAX_NUMBER);
        let mut free = std::iter::once(own).chain(1..=MAX_NUMBER);
        // There are fewer ports than numbers.
        free.find(|one| taken.insert(*one)).unwrap_or(own)
    };
    let all = ports.iter().zip(asked);
    all.map(|((place, _), asked)| asked.unwrap_or_else(|| give(*place))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_are_written() {
        assert_eq!(serde_json::to_string(&Rstp::default()).unwrap(), "{}");
        let text = r#"{"enabled":true,"priority":4096,"address":"02:00:00:00:00:01","max-age":10,"forward-delay":7,"transmit-hold-count":3,"force-version":"stp"}"#;
        let rstp: Rstp = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&rstp).unwrap(), text);
        assert_eq!(rstp.check(), Ok(()));
        let settings = rstp.settings(MacAddr::default());
        assert_eq!(settings.name.to_string(), "1000.020000000001");
        assert_eq!((settings.max_age, settings.hold_count, settings.is_rapid), (10, 3, false));
        assert_eq!(serde_json::to_string(&PortRstp::default()).unwrap(), "{}");
        let text = r#"{"enabled":false,"path-cost":7,"priority":16,"number":5,"admin-edge":true,"auto-edge":false,"point-to-point":false}"#;
        let port: PortRstp = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&port).unwrap(), text);
        let settings = port.settings(5, None, RstpVersion::Rstp);
        assert_eq!((settings.id, settings.cost), (0x1005, 7));
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_key() {
        for (text, key, expected) in [
            (r#"{"priority":1}"#, "priority", "multiple of 4096"),
            (r#"{"address":"01:00:00:00:00:00"}"#, "address", "one station"),
            (r#"{"max-age":41}"#, "max-age", "6 to 40"),
            (r#"{"forward-delay":3}"#, "forward-delay", "4 to 30"),
            (r#"{"forward-delay":10}"#, "max-age", "at most 18"),
            (r#"{"transmit-hold-count":11}"#, "transmit-hold-count", "1 to 10"),
        ] {
            let rstp: Rstp = serde_json::from_str(text).unwrap();
            let (found, reason) = rstp.check().unwrap_err();
            assert!(found == key && reason.contains(expected), "{text}: {reason}");
        }
        for (text, expected) in
            [(r#"{"path-cost":0}"#, "1 to 200000000"), (r#"{"priority":8}"#, "multiple of 16")]
        {
            let port: PortRstp = serde_json::from_str(text).unwrap();
            assert!(port.check().unwrap_err().contains(expected), "{text}");
        }
    }

    #[test]
    fn a_faster_link_costs_less() {
        let costs = [10, 100, 1_000, 10_000, 100_000, u32::MAX].map(|speed| cost(Some(speed)));
        assert_eq!(costs, [2_000_000, 200_000, 20_000, 2_000, 200, 1]);
        assert_eq!((cost(None), cost(Some(0))), (2_000, 2_000));
        let costs = [4, 10, 16, 100, 1_000, 10_000].map(|speed| old_cost(Some(speed)));
        assert_eq!(costs, [250, 100, 62, 19, 4, 2]);
        assert_eq!(old_cost(None), 2);
    }

    #[test]
    fn no_two_ports_have_the_same_number() {
        let ports = [(0, None), (1, Some(1)), (2, Some(1)), (3, None), (4095, None), (4, Some(4))];
        assert_eq!(numbers(&ports), [2, 1, 3, 5, 4095, 4]);
        assert_eq!(numbers(&[(9, None), (0, None)]), [10, 1]);
    }
}
