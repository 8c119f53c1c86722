//! Whether a flow's actions fit the packets that it is for.

use std::borrow::Cow;

use super::{Action, Ct, CtZone, Learn, LearnSource, LearnTarget, Nat, verify_output, wire};
use crate::error::ErrorCode;
use crate::field::{Field, Prerequisite, Subfield};
use crate::instruction::Instructions;
use crate::matching::Match;
use crate::matching::prerequisite::{
    ETH_TYPE_IP, ETH_TYPE_IPV6, ETH_TYPE_NSH, PROTO_SCTP, PROTO_TCP, PROTO_UDP,
};
use crate::port_no::PortNo;
use crate::version::Version;

/// That there is a VLAN tag.
const PRESENT: u128 = 0x1000;

/// The type of packets that may begin with anything.
const UNKNOWN: u128 = 0xFFFF_FFFF;

/// The largest number of a meter.
const LAST_METER: u32 = 0xFFFF_0000;

/// Actions of OpenFlow 1.0 as later versions say what they do to these packets: which ports are set, and
/// that there is a VLAN tag already.
pub(crate) fn fitted<'a>(actions: &'a [Action], matching: &Match) -> Cow<'a, [Action]> {
    if !actions.iter().any(depends) {
        return Cow::Borrowed(actions);
    }
    let mut known = Known::of(matching);
    Cow::Owned(actions.iter().map(|action| known.fit(action)).collect())
}

/// Whether what an action does depends on the packet, or that of one in it.
fn depends(action: &Action) -> bool {
    match action {
        Action::SetVlanVid { push, .. } | Action::SetVlanPcp { push, .. } => *push,
        Action::SetL4Src(_) | Action::SetL4Dst(_) => true,
        Action::Clone(actions) => actions.iter().any(depends),
        _ => false,
    }
}

/// What is known of packets where an action has come to.
struct Known {
    /// With the outer VLAN tag, if there is one.
    matching: Match,
    /// Whether there is a second one. It is the last that there can be, and stays where the first is taken
    /// away by writing to it.
    has_second_tag: bool,
    /// Whether all actions so far do something to these packets. OpenFlow 1.0 does not ask for it.
    is_consistent: bool,
}

impl Instructions {
    /// Whether what a flow of `table` does fits the packets that it is for, as Open vSwitch asks for
    /// where it adds the flow. [`FlowMod::decode`](crate::message::flow_mod::FlowMod::decode) has done
    /// it already.
    ///
    /// # Errors
    /// `OFPBAC_MATCH_INCONSISTENT`, `OFPBAC_BAD_OUT_PORT`, `OFPBAC_BAD_TAG`, `OFPMMFC_INVALID_METER`,
    /// `OFPBIC_BAD_TABLE_ID` where the next table does not come behind this one, or is no table (255).
    pub fn check(&self, matching: &Match, table: u8, version: Version) -> Result<(), ErrorCode> {
        let mut known = Known::of(matching);
        known.list(&self.apply)?;
        if let Some(actions) = &self.write {
            // In which order a set is done is not known here.
            let is_consistent = known.is_consistent;
            known.nested(actions)?;
            known.is_consistent = is_consistent;
        }
        let is_nowhere = |next: u8| next == 0xFF || (table != 0xFF && next <= table);
        if self.goto_table.is_some_and(is_nowhere) {
            return Err(ErrorCode::BicBadTableId);
        }
        if known.is_consistent || version == Version::V10 {
            Ok(())
        } else {
            Err(ErrorCode::BacMatchInconsistent)
        }
    }
}

impl Known {
    fn of(matching: &Match) -> Self {
        Self { matching: matching.clone(), has_second_tag: false, is_consistent: true }
    }

    /// An action as it is to these packets, and goes on behind it.
    fn fit(&mut self, action: &Action) -> Action {
        let port = |fields: [Field; 3]| {
            let protocols = [PROTO_TCP, PROTO_UDP, PROTO_SCTP];
            let protocol = self.matching.protocol();
            let at = protocols.iter().position(|known| *known == protocol)?;
            fields.get(at).copied()
        };
        let set = |field: Option<Field>, number: u16| {
            let field = field?;
            Some(Action::SetField { field, value: number.into(), mask: field.byte_mask() })
        };
        let has_tag = self.has_tag();
        let fitted = match action {
            Action::SetVlanVid { vid, push: true } if has_tag => {
                Some(Action::SetVlanVid { vid: *vid, push: false })
            }
            Action::SetVlanPcp { pcp, push: true } if has_tag => {
                Some(Action::SetVlanPcp { pcp: *pcp, push: false })
            }
            Action::SetL4Src(number) => {
                set(port([Field::TcpSrc, Field::UdpSrc, Field::SctpSrc]), *number)
            }
            Action::SetL4Dst(number) => {
                set(port([Field::TcpDst, Field::UdpDst, Field::SctpDst]), *number)
            }
            Action::Clone(actions) => {
                Some(Action::Clone(fitted(actions, &self.matching).into_owned()))
            }
            _ => None,
        };
        // Whether it is right is another matter.
        let _ = self.one(action);
        fitted.unwrap_or_else(|| action.clone())
    }

    fn has(&self, needs: Prerequisite) -> bool {
        self.matching.has(needs)
    }

    fn has_tag(&self) -> bool {
        self.matching.has_tag()
    }

    /// What is asked for but in OpenFlow 1.0.
    fn expect(&mut self, is_right: bool) {
        self.is_consistent &= is_right;
    }

    /// Has a tag be there that is not known.
    fn put_tag(&mut self) {
        self.matching.set_masked(Field::VlanTci, PRESENT, PRESENT);
    }

    /// Takes the outer tag away, if there is one; then the second is the outer one.
    fn pop_tag(&mut self) {
        if self.has_tag() && !std::mem::take(&mut self.has_second_tag) {
            self.matching.remove(Field::VlanTci);
        }
    }

    fn list(&mut self, actions: &[Action]) -> Result<(), ErrorCode> {
        actions.iter().try_for_each(|action| self.one(action))
    }

    /// Checks a list in an action, behind which everything is as before.
    fn nested(&mut self, actions: &[Action]) -> Result<(), ErrorCode> {
        let mut inner = Self { matching: self.matching.clone(), ..*self };
        inner.list(actions)?;
        self.is_consistent &= inner.is_consistent;
        Ok(())
    }

    /// Whether packets have a field.
    fn field(&self, field: Field) -> Result<(), ErrorCode> {
        if self.matching.may_have(field) { Ok(()) } else { Err(ErrorCode::BacMatchInconsistent) }
    }

    fn part(&self, part: Subfield) -> Result<(), ErrorCode> {
        self.field(part.field)
    }

    fn one(&mut self, action: &Action) -> Result<(), ErrorCode> {
        match action {
            Action::Output { port, .. } | Action::OutputTruncated { port, .. } => {
                verify_output(*port)?;
            }
            Action::OutputField { source, .. } => self.part(*source)?,
            Action::Bundle(bundle) => {
                if let Some(target) = bundle.target {
                    self.part(target)?;
                }
                // There is no length of what a controller would get.
                let verify = |port: PortNo| match port {
                    PortNo::ANY => Ok(()),
                    PortNo::CONTROLLER => Err(ErrorCode::BacBadOutPort),
                    port => verify_output(port),
                };
                bundle.members.iter().try_for_each(|member| verify(*member))?;
            }
            Action::Multipath(multipath) => self.part(multipath.target)?,
            Action::SetField { field, value, .. } => self.set(*field, *value)?,
            Action::Load { target, value } => {
                let value = u128::from(*value).checked_shl(target.offset.into());
                self.set(target.field, value.unwrap_or_default())?;
            }
            Action::Move { source, target } => {
                self.part(*source)?;
                self.part(*target)?;
            }
            Action::Push(part) | Action::Pop(part) => self.part(*part)?,
            Action::Resubmit { ct: true, .. } if !self.has(Prerequisite::Tracked) => {
                return Err(ErrorCode::BacMatchInconsistent);
            }
            Action::Learn(learn) => self.learn(learn)?,
            Action::Clone(actions) => self.nested(actions)?,
            Action::Ct(ct) => self.ct(ct)?,
            Action::Nat(nat) => self.nat(nat)?,
            Action::Meter(meter) if *meter == 0 || *meter > LAST_METER => {
                return Err(ErrorCode::MmfcInvalidMeter);
            }
            Action::DeleteField(field) if !field.is_tun_metadata() => {
                return Err(ErrorCode::BacBadArgument);
            }
            _ => return self.header(action),
        }
        Ok(())
    }

    /// Actions that change what headers there are, or ask for some.
    fn header(&mut self, action: &Action) -> Result<(), ErrorCode> {
        let is_ip = self.matching.is_ip();
        match action {
            Action::SetVlanVid { push, .. } | Action::SetVlanPcp { push, .. } => {
                self.expect(*push || self.has_tag());
                if !self.has_tag() {
                    self.put_tag();
                }
            }
            Action::StripVlan | Action::PopVlan => {
                self.expect(self.has_tag());
                self.pop_tag();
            }
            Action::PushVlan { .. } => {
                if self.has_second_tag {
                    return Err(ErrorCode::BacBadTag);
                }
                self.has_second_tag = self.has_tag();
                self.put_tag();
            }
            Action::SetIpSrc(_) | Action::SetIpDst(_) => self.expect(self.has(Prerequisite::Ipv4)),
            Action::SetNwTos(_) | Action::SetNwEcn(_) | Action::SetNwTtl(_) | Action::DecTtl(_) => {
                self.expect(is_ip);
            }
            Action::SetL4Src(_) | Action::SetL4Dst(_) => {
                let protocol = self.matching.protocol();
                let is_later =
                    self.matching.get(Field::IpFrag).is_some_and(|(kind, _)| kind & 2 != 0);
                let has_ports = [PROTO_TCP, PROTO_UDP, PROTO_SCTP].contains(&protocol);
                self.expect(is_ip && has_ports && !is_later);
            }
            Action::SetMplsLabel(_)
            | Action::SetMplsTc(_)
            | Action::SetMplsTtl(_)
            | Action::DecMplsTtl => self.expect(self.has(Prerequisite::Mpls)),
            Action::PushMpls { ethertype } => {
                self.expect(self.matching.is_ethernet());
                self.matching.set(Field::EthType, (*ethertype).into());
                self.matching.remove(Field::IpProto);
            }
            Action::PopMpls { ethertype } => {
                let is_ethernet = self.matching.is_ethernet();
                self.expect(is_ethernet && self.has(Prerequisite::Mpls));
                self.matching.set(Field::EthType, (*ethertype).into());
            }
            Action::FinTimeout { .. } => self.expect(self.matching.protocol() == PROTO_TCP),
            Action::DecNshTtl => self.expect(self.matching.eth_type() == ETH_TYPE_NSH),
            Action::Encap(encap) => {
                self.matching.set(Field::PacketType, encap.packet_type.into());
                if encap.packet_type >> 16 == 1 {
                    self.matching.set(Field::EthType, (encap.packet_type & 0xFFFF).into());
                }
                if !self.matching.is_ip() {
                    self.matching.remove(Field::IpProto);
                }
            }
            Action::Decap { .. } if self.matching.is_ethernet() => {
                let below = 1 << 16 | u128::from(self.matching.eth_type());
                self.matching.set(Field::PacketType, below);
            }
            Action::Decap { .. } => {
                // What is behind is not known, and no field of it is there.
                self.matching.set(Field::PacketType, UNKNOWN);
                self.matching.set(Field::EthType, 0xFFFF);
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks that a field is set, or some bits of it.
    fn set(&mut self, field: Field, value: u128) -> Result<(), ErrorCode> {
        self.field(field)?;
        if field == Field::VlanVid && !self.has_tag() {
            return Err(ErrorCode::BacMatchInconsistent);
        }
        if field == Field::VlanTci {
            self.matching.remove(Field::VlanTci);
            if value & PRESENT != 0 {
                self.put_tag();
            }
        }
        Ok(())
    }

    fn learn(&self, learn: &Learn) -> Result<(), ErrorCode> {
        let mut learnt = Self::of(&Match::new());
        for spec in &learn.specs {
            let part = |field, offset| Subfield { field, offset, bits: spec.bits };
            if let LearnSource::Field { field, offset } = spec.source {
                wire::check_source(part(field, offset))?;
                self.field(field)?;
            }
            match spec.target {
                LearnTarget::Match { field, offset } => {
                    let part = part(field, offset);
                    wire::check_source(part)?;
                    learnt.field(field)?;
                    if let LearnSource::Value(value) = spec.source {
                        let value = value.checked_shl(offset.into()).unwrap_or(0);
                        let (old, mask) = learnt.matching.get(field).unwrap_or_default();
                        let value = old & !part.mask() | value & part.mask();
                        learnt.matching.set_masked(field, value, mask | part.mask());
                    }
                }
                LearnTarget::Load { field, offset } => {
                    wire::check_target(part(field, offset))?;
                    learnt.field(field)?;
                }
                LearnTarget::Output => {}
            }
        }
        learn.result.map_or(Ok(()), wire::check_target)
    }

    fn ct(&mut self, ct: &Ct) -> Result<(), ErrorCode> {
        let protocol = self.matching.protocol();
        let state = self.matching.get(Field::CtState).map_or(0, |(state, _)| state);
        let is_right = self.matching.is_ip()
            && !(ct.commit && state & 0x10 != 0)
            && (ct.alg != 21 || protocol == PROTO_TCP)
            && (ct.alg != 69 || protocol == PROTO_UDP);
        if !is_right {
            return Err(ErrorCode::BacMatchInconsistent);
        }
        match ct.zone {
            CtZone::Field(source) => self.part(source),
            CtZone::Number(_) => self.nested(&ct.actions),
        }
    }

    fn nat(&self, nat: &Nat) -> Result<(), ErrorCode> {
        let is_v4 = nat.addresses.map(|(least, _)| least.is_ipv4());
        let is_right = match is_v4 {
            None => self.matching.is_ip(),
            Some(true) => self.matching.eth_type() == ETH_TYPE_IP,
            Some(false) => self.matching.eth_type() == ETH_TYPE_IPV6,
        };
        if is_right { Ok(()) } else { Err(ErrorCode::BacMatchInconsistent) }
    }
}

#[cfg(test)]
mod tests {
    use crate::Version;
    use crate::error::ErrorCode;
    use crate::message::flow_mod::{Command, FlowMod};
    use crate::message::{Form, Raw};
    use crate::text::{Names, flow_mod};

    /// Whether one tag more is too many behind these actions.
    fn has_two_tags(actions: &str) -> bool {
        let rule = |actions: &str| {
            let text = format!("actions={actions}");
            let wanted = flow_mod(&text, Command::Add, Names::NONE).unwrap();
            wanted.instructions.check(&wanted.matching, 0, Version::V15)
        };
        assert_ne!(rule(actions), Err(ErrorCode::BacBadTag), "{actions}");
        let text = format!("actions={actions},push_vlan:0x8100");
        flow_mod(&text, Command::Add, Names::NONE).is_err()
    }

    /// Whether a flow is taken as it comes over the wire, where some actions are two.
    fn is_taken(text: &str) -> bool {
        let Ok(flow) = flow_mod(text, Command::Add, Names::NONE) else { return false };
        let sent = flow.encode(Version::V15, Form::Of, false, 1);
        let read = FlowMod::decode(&Raw::read(&sent).unwrap(), false);
        assert!(matches!(read, Ok(_) | Err(ErrorCode::BacMatchInconsistent)), "{text}");
        read.is_ok()
    }

    #[test]
    fn what_packets_begin_with_is_followed_through_headers_that_come_and_go() {
        for (rule, is_right) in [
            ("actions=decap(),mod_vlan_pcp:2", false),
            ("dl_vlan=5,actions=mod_vlan_pcp:2,decap()", true),
            ("actions=push_vlan:0x8100,decap(),set_field:5->vlan_vid", false),
            ("ip,actions=decap(),set_field:1->eth_src", false),
            ("ip,actions=decap(),encap(ethernet),set_field:00:00:00:00:00:01->eth_src", true),
            ("ip,actions=decap(),dec_ttl", true),
            ("ip,actions=decap(),decap(),dec_ttl", false),
            ("tcp,actions=decap(),set_field:80->tcp_dst", true),
            ("tcp,actions=encap(nsh),set_field:80->tcp_dst", false),
            ("ip,actions=encap(nsh),set_field:1->nsh_si,decap(),set_field:1->nsh_si", false),
            ("dl_type=0x894f,actions=dec_nsh_ttl,decap(),dec_nsh_ttl", true),
            ("dl_type=0x894f,actions=decap(),decap(),dec_nsh_ttl", false),
            ("packet_type=(1,0x894f),actions=dec_nsh_ttl", true),
            ("packet_type=(1,0x800),actions=push_mpls:0x8847", false),
            ("mpls,actions=decap(),pop_mpls:0x800", false),
            ("ip,actions=encap(mpls),set_mpls_ttl:3,encap(ethernet),set_mpls_ttl:3", true),
            ("ip,actions=decap(),clone(decap()),dec_ttl", true),
        ] {
            assert_eq!(is_taken(rule), is_right, "{rule}");
        }
    }

    #[test]
    fn tags_are_counted_however_they_come() {
        for (actions, expected) in [
            ("push_vlan:0x8100", false),
            ("push_vlan:0x8100,push_vlan:0x88a8", true),
            ("set_field:0x1001->vlan_tci", false),
            ("set_field:0x1001->vlan_tci,push_vlan:0x8100", true),
            ("load:1->NXM_OF_VLAN_TCI[12],push_vlan:0x8100", true),
            ("load:1->NXM_OF_VLAN_TCI[0..3],push_vlan:0x8100", false),
            ("mod_vlan_vid:5,push_vlan:0x8100", true),
            ("push_vlan:0x8100,push_vlan:0x8100,pop_vlan", false),
            // The second stays where the first is written away, and is no outer one.
            ("push_vlan:0x8100,push_vlan:0x8100,set_field:0->vlan_tci", true),
            ("push_vlan:0x8100,push_vlan:0x8100,set_field:0->vlan_tci,pop_vlan", true),
        ] {
            assert_eq!(has_two_tags(actions), expected, "{actions}");
        }
        let nested = "push_vlan:0x8100,clone(push_vlan:0x8100),clone(push_vlan:0x8100)";
        assert!(!has_two_tags(nested));
    }
}
