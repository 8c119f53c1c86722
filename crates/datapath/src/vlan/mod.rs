//! VLANs: which of them a port carries, and how frames look there.
//!
//! The settings are those of Open vSwitch's table `Port`, by the same names.
//!
//! - [`set`]: sets of VLANs
//! - `formats`: settings in configuration files and messages
//! - `policy`: what the data path makes of the settings
//! - `tags`: the tags of a frame, and what the bridge knows by them

pub mod formats;
pub mod policy;
pub mod set;
pub mod tags;

pub use l2proto::named;
use packet::headers::EtherType;
use serde::{Deserialize, Serialize};

pub use self::set::{MAX_VLAN, VlanSet};

/// How a port takes part in VLANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VlanMode {
    /// One VLAN, whose frames have no tag on this port.
    Access,
    /// Many VLANs, whose frames have tags; those without are in VLAN 0.
    Trunk,
    /// A trunk where frames without a tag are in the native VLAN; that one's frames leave with a
    /// tag like all others.
    NativeTagged,
    /// A trunk where frames without a tag are in the native VLAN; that one's frames leave without
    /// one.
    NativeUntagged,
    /// All frames, with tags or without, are in one VLAN of the provider, whose tag they get in
    /// front of their own (IEEE 802.1ad, "QinQ").
    Dot1qTunnel,
}

impl VlanMode {
    /// All modes.
    pub const ALL: [Self; 5] =
        [Self::Access, Self::Trunk, Self::NativeTagged, Self::NativeUntagged, Self::Dot1qTunnel];

    /// The mode's name, as in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Trunk => "trunk",
            Self::NativeTagged => "native-tagged",
            Self::NativeUntagged => "native-untagged",
            Self::Dot1qTunnel => "dot1q-tunnel",
        }
    }
}

/// When frames that a port sends in no VLAN get a tag all the same, for the priority in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PriorityTags {
    /// Never.
    #[default]
    No,
    /// Where the priority is not 0.
    IfNonzero,
    /// Always.
    Always,
}

impl PriorityTags {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::No, Self::IfNonzero, Self::Always];

    /// The name, as in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::IfNonzero => "if-nonzero",
            Self::Always => "always",
        }
    }
}

/// Which tag a `dot1q-tunnel` port puts on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum QinqEtherType {
    /// 0x88a8, that of service tags.
    #[default]
    Dot1ad,
    /// 0x8100, that of customer tags, for equipment that knows no other.
    Dot1q,
}

impl QinqEtherType {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Dot1ad, Self::Dot1q];

    /// The name, as in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dot1ad => "802.1ad",
            Self::Dot1q => "802.1q",
        }
    }

    pub(crate) const fn kind(self) -> EtherType {
        match self {
            Self::Dot1ad => EtherType::QINQ,
            Self::Dot1q => EtherType::VLAN,
        }
    }
}

named!(VlanMode, PriorityTags, QinqEtherType);

/// A port's VLAN settings. By default, it is a trunk of all VLANs.
///
/// ```
/// use datapath::vlan::{PortVlan, VlanMode};
///
/// let port = PortVlan { tag: Some(10), ..PortVlan::default() };
/// assert_eq!(port.mode(), VlanMode::Access);
/// assert!(port.check().is_ok());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "VLAN settings, as in { tag = 10 }"
)]
pub struct PortVlan {
    /// The mode; `None`: `access` where there is a tag, `trunk` where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<VlanMode>,
    /// The VLAN of an access port, the native one of a native port, the provider's of a tunnel.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "formats::vlan")]
    pub tag: Option<u16>,
    /// The VLANs of a trunk or native port; `None`: all. A native port always has its native one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunks: Option<VlanSet>,
    /// The customer's VLANs that a tunnel takes, 0 for frames without a tag; `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cvlans: Option<VlanSet>,
    /// The tag that a tunnel puts on.
    #[serde(skip_serializing_if = "formats::is_default")]
    pub qinq_ethertype: QinqEtherType,
    /// When frames leave with a tag for the priority alone.
    #[serde(skip_serializing_if = "formats::is_default")]
    pub priority_tags: PriorityTags,
    /// Whether a tag behind the bridge's comes to the front where the bridge's own is taken off. Otherwise
    /// one of VLAN 0 stays in front of it, so that nobody takes it for the bridge's.
    #[serde(skip_serializing_if = "formats::is_default")]
    pub bare_inner: bool,
}

impl PortVlan {
    /// Whether frames pass as if there were no VLANs, as long as all ports are like this.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The mode that holds.
    #[must_use]
    pub const fn mode(&self) -> VlanMode {
        match (self.mode, self.tag) {
            (Some(mode), _) => mode,
            (None, Some(_)) => VlanMode::Access,
            (None, None) => VlanMode::Trunk,
        }
    }

    /// Checks that the settings make sense together.
    ///
    /// # Errors
    /// What does not, and what to do about it.
    pub fn check(&self) -> Result<(), String> {
        let mode = self.mode();
        let wants_tag = mode != VlanMode::Trunk;
        match self.tag {
            Some(tag) if tag > MAX_VLAN => {
                return Err(format!("tag {tag}: expected a VLAN from 0 to {MAX_VLAN}"));
            }
            Some(tag) if !wants_tag => {
                return Err(format!(
                    "tag {tag} on a trunk port, which has no VLAN of its own: leave it out, or set \
                     the mode to native-untagged"
                ));
            }
            None if wants_tag => return Err(format!("mode {mode} needs a tag: the port's VLAN")),
            _ => {}
        }
        let is_trunk = !matches!(mode, VlanMode::Access | VlanMode::Dot1qTunnel);
        if self.trunks.is_some() && !is_trunk {
            return Err(format!(
                "trunks on a port of mode {mode}, which carries one VLAN: leave them out, or set \
                 the mode to trunk or native-untagged"
            ));
        }
        if self.trunks.as_ref().is_some_and(VlanSet::is_empty) {
            return Err("trunks without a VLAN: leave them out for all VLANs".to_owned());
        }
        self.check_tunnel(mode == VlanMode::Dot1qTunnel)
    }

    fn check_tunnel(&self, is_tunnel: bool) -> Result<(), String> {
        if self.cvlans.as_ref().is_some_and(VlanSet::is_empty) {
            return Err("cvlans without a VLAN: leave them out for all VLANs".to_owned());
        }
        let other = self.qinq_ethertype != QinqEtherType::default();
        if !is_tunnel && (self.cvlans.is_some() || other) {
            return Err(
                "cvlans and the QinQ EtherType are for mode dot1q-tunnel: leave them out, \
                        or set the mode"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_makes_an_access_port_and_none_a_trunk() {
        let port = PortVlan::default();
        assert!(port.is_default() && port.check().is_ok() && port.mode() == VlanMode::Trunk);
        let port = PortVlan { tag: Some(7), ..port };
        assert!(!port.is_default() && port.check().is_ok() && port.mode() == VlanMode::Access);
    }

    #[test]
    fn names_are_read_and_written() {
        for mode in VlanMode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert_eq!("if-nonzero".parse(), Ok(PriorityTags::IfNonzero));
        assert_eq!("802.1q".parse(), Ok(QinqEtherType::Dot1q));
        assert_eq!(
            "acess".parse::<VlanMode>().unwrap_err(),
            "'acess': expected access, trunk, native-tagged, native-untagged, dot1q-tunnel; \
             did you mean 'access'?"
        );
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        use VlanMode::{Access, Dot1qTunnel, NativeTagged, Trunk};
        let some = || Some("1-3".parse().unwrap());
        let check = |mode, tag, change: &dyn Fn(&mut PortVlan)| {
            let mut port = PortVlan { mode, tag, ..PortVlan::default() };
            change(&mut port);
            port.check().err().unwrap_or_default()
        };
        let none = &|_: &mut PortVlan| {};
        assert!(check(None, Some(4095), none).contains("0 to 4094"));
        assert!(check(Some(Trunk), Some(5), none).contains("native-untagged"));
        for mode in [Access, NativeTagged, Dot1qTunnel] {
            assert!(check(Some(mode), None, none).contains("needs a tag"));
        }
        assert!(check(None, Some(5), &|p| p.trunks = some()).contains("mode access"));
        assert!(check(None, None, &|p| p.trunks = Some(VlanSet::new())).contains("without a VLAN"));
        assert!(check(None, Some(5), &|p| p.cvlans = some()).contains("dot1q-tunnel"));
        let always = |p: &mut PortVlan| p.priority_tags = PriorityTags::Always;
        assert_eq!(check(Some(Dot1qTunnel), Some(5), &always), "");
        assert_eq!(check(Some(Dot1qTunnel), Some(5), &|p| p.cvlans = some()), "");
        assert_eq!(check(Some(NativeTagged), Some(5), &|p| p.trunks = some()), "");
    }
}
