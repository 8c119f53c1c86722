//! What a member of a bond says of itself by LACP, where it is not left to the switch. The names are
//! those of Open vSwitch, without their `lacp-`.

use serde::{Deserialize, Serialize};

/// Settings of a member.
///
/// ```
/// use l2proto::PortLacp;
///
/// assert!(PortLacp { port_priority: Some(1), ..PortLacp::default() }.check().is_ok());
/// assert!(PortLacp { port_id: Some(0), ..PortLacp::default() }.check().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "settings of a member for LACP, as in { port-priority = 1 }"
)]
pub struct PortLacp {
    /// Its number, which no other member of the bond has; `None`: one of the switch's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_id: Option<u16>,
    /// Which of several groups of members is used: that with the lowest; `None`: 65535.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_priority: Option<u16>,
    /// Members with different keys are never in use together; `None`: that of the bond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation_key: Option<u16>,
}

impl PortLacp {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// The one that does not, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        let all = [
            ("port-id", self.port_id),
            ("port-priority", self.port_priority),
            ("aggregation-key", self.aggregation_key),
        ];
        match all.into_iter().find(|(_, value)| *value == Some(0)) {
            Some((key, _)) => Err(format!("{key} 0: expected 1 to 65535")),
            None => Ok(()),
        }
    }
}
