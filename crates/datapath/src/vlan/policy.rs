//! What the data path makes of a port's VLAN settings: which frames come in, in which VLAN, and
//! which go out, with which tag. The rules are those of Open vSwitch.

use ethdev::DropReason;
use packet::headers::EtherType;
use packet::{Edit, Tag};

use super::tags::{Meta, Tags, vid, with_vid};
use super::{PortVlan, PriorityTags, VlanMode, VlanSet};

/// The tag of frames that came without one.
const PLAIN: Tag = Tag { kind: EtherType::VLAN, control: 0 };

/// A port's part in VLANs.
#[derive(Clone, Debug)]
pub struct Policy {
    mode: VlanMode,
    /// The VLAN of its own; 0 where it has none.
    own: u16,
    /// `None`: all.
    trunks: Option<VlanSet>,
    cvlans: Option<VlanSet>,
    qinq: EtherType,
    priority_tags: PriorityTags,
    bare_inner: bool,
}

/// A trunk of all VLANs.
pub(crate) static TRUNK: Policy = Policy {
    mode: VlanMode::Trunk,
    own: 0,
    trunks: None,
    cvlans: None,
    qinq: EtherType::QINQ,
    priority_tags: PriorityTags::No,
    bare_inner: false,
};

impl From<&PortVlan> for Policy {
    fn from(port: &PortVlan) -> Self {
        let mode = port.mode();
        let own = port.tag.unwrap_or(0);
        let mut trunks = port.trunks.clone();
        if let Some(trunks) = &mut trunks
            && mode != VlanMode::Trunk
        {
            // A port always carries its native VLAN.
            trunks.insert(own);
        }
        Self {
            mode,
            own,
            trunks,
            cvlans: port.cvlans.clone(),
            qinq: port.qinq_ethertype.kind(),
            priority_tags: port.priority_tags,
            bare_inner: port.bare_inner,
        }
    }
}

#[inline(always)]
fn holds(set: Option<&VlanSet>, vlan: u16) -> bool {
    set.is_none_or(|set| set.contains(vlan))
}

impl Policy {
    /// The VLAN and the tag of frames with `tags` that come in on the port.
    #[inline(always)]
    pub(crate) fn admit(&self, tags: Tags) -> Result<Meta, DropReason> {
        if tags.is_cut_off() {
            return Err(DropReason::TooShort);
        }
        let (outer, inner) = (vid(tags.outer()), vid(tags.inner()));
        let vlan = match self.mode {
            VlanMode::Dot1qTunnel => return self.admit_customer(outer),
            // A tag in a VLAN of its own, and one hidden behind a tag in none, are others' VLANs.
            VlanMode::Access if outer != 0 || inner != 0 => return Err(DropReason::WrongVlan),
            VlanMode::Access => self.own,
            VlanMode::NativeTagged | VlanMode::NativeUntagged if outer == 0 => self.own,
            _ => outer,
        };
        if self.mode != VlanMode::Access && !holds(self.trunks.as_ref(), vlan) {
            return Err(DropReason::WrongVlan);
        }
        let tag = with_vid(tags.outer().unwrap_or(PLAIN), vlan);
        Ok(Meta { vlan, inner, had: tags.outer(), tag })
    }

    /// As [`admit`](Self::admit), for a tunnel, on frames with `customer` as their outer VLAN.
    #[inline(always)]
    fn admit_customer(&self, customer: u16) -> Result<Meta, DropReason> {
        if !holds(self.cvlans.as_ref(), customer) {
            return Err(DropReason::WrongVlan);
        }
        let tag = Tag { kind: self.qinq, control: self.own };
        Ok(Meta { vlan: self.own, inner: customer, had: None, tag })
    }

    /// How frames go out on the port; `None` where it does not carry them.
    #[inline(always)]
    pub fn edit(&self, meta: &Meta) -> Option<Edit> {
        let carries = match self.mode {
            // What most ports are, and most frames need: no tag has to be thought of.
            VlanMode::Access if self.priority_tags == PriorityTags::No => {
                let carries = meta.vlan == self.own && meta.inner == 0;
                return carries.then(|| change(meta.had, None));
            }
            VlanMode::Access => meta.vlan == self.own && meta.inner == 0,
            VlanMode::Dot1qTunnel => {
                meta.vlan == self.own && holds(self.cvlans.as_ref(), meta.inner)
            }
            // Without a tag it would be in the port's own VLAN there.
            VlanMode::NativeTagged | VlanMode::NativeUntagged
                if meta.vlan == 0 && self.own != 0 =>
            {
                false
            }
            _ => holds(self.trunks.as_ref(), meta.vlan),
        };
        carries.then(|| change(meta.had, self.tag_of(meta)))
    }

    /// How copies of frames go out on the port, whatever VLANs it carries.
    pub(crate) fn edit_any(&self, meta: &Meta) -> Edit {
        change(meta.had, self.tag_of(meta))
    }

    /// The tag that frames have behind the port.
    #[inline(always)]
    fn tag_of(&self, meta: &Meta) -> Option<Tag> {
        let vlan = match self.mode {
            // The customer's own tag, which comes to light.
            VlanMode::Dot1qTunnel if meta.inner != 0 => return None,
            VlanMode::Dot1qTunnel | VlanMode::Access => 0,
            VlanMode::NativeUntagged if meta.vlan == self.own => 0,
            _ => meta.vlan,
        };
        let tag = with_vid(meta.tag, vlan);
        let for_priority = match self.priority_tags {
            PriorityTags::No => false,
            PriorityTags::IfNonzero => tag.control >> 13 != 0,
            PriorityTags::Always => true,
        };
        // A tag that is behind the bridge's stays there: otherwise whoever receives the frame would
        // take it for the VLAN, and a guest could send into VLANs that its port does not carry.
        let hides = meta.inner != 0 && !self.bare_inner;
        (vlan != 0 || hides || for_priority).then_some(tag)
    }
}

/// What makes frames with the tag `had` frames with the tag `wanted`.
#[inline(always)]
fn change(had: Option<Tag>, wanted: Option<Tag>) -> Edit {
    if had == wanted {
        return Edit::NONE;
    }
    Edit { pop: had.is_some(), push: wanted }
}
