//! Network service headers (RFC 8300), in front of a whole packet.
//!
//! One that is put on is not put on at once: what is written to its fields until the packet is handed on is in it
//! from the beginning.

use std::sync::Arc;

use openflow::action::{Encap, PropertyOfEncap};
use openflow::packet_in::Reason;
use packet::headers::Nsh;
use packet::headers::nsh::{HEADER_LEN, MAX_LEN, MD1, MD1_LEN, MD2};

use super::dirty::Dirty;
use super::mpls::Labels;
use super::{Kind, NO_METER, State, Walk};
use crate::extract::{IPV4, IPV6, NSH};
use crate::key::{Key, PACKET_WORDS, slot};
use crate::path::{Edit, NshPush, Op};

/// What packets begin with that have such a header in front.
pub(super) const PACKET_TYPE: u32 = 1 << 16 | NSH as u32;

/// The first time to live, and the first place on a path.
const TTL: u8 = 63;
const FIRST: u8 = 255;

/// What is behind such a header, and the types of packets that begin with it (RFC 8300, section 2.2).
const NEXT: [(u8, u32); 4] =
    [(1, 1 << 16 | IPV4 as u32), (2, 1 << 16 | IPV6 as u32), (3, 0), (4, PACKET_TYPE)];

/// Whether a packet carries such a header.
pub(super) fn is_nsh(key: &Key) -> bool {
    key.get_u16(slot::ETH_TYPE) == NSH
}

/// What a header that is to be put on has beside the fields of the key.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    /// Values with types of their own, as bytes.
    values: Arc<[u8]>,
    /// What the packet begins with, and the type of the metadata, which stay as they are whatever is written.
    next: u8,
    kind: u8,
}

impl Metadata {
    /// How long the header is.
    pub(super) fn header_len(&self) -> u32 {
        let len = if self.kind == MD1 { MD1_LEN } else { HEADER_LEN + self.values.len() };
        u32::try_from(len).unwrap_or_default()
    }

    /// Puts it on, with what was written to its fields.
    pub(super) fn push(&self, key: &Key, dirty: &mut Dirty) -> Option<Op> {
        dirty.forget(slot::NSH_FIRST.word()..PACKET_WORDS);
        let header = Nsh {
            flags: key.get_u8(slot::NSH_FLAGS),
            ttl: key.get_u8(slot::NSH_TTL),
            md_type: self.kind,
            next: self.next,
            path: key.get_u32(slot::NSH_PATH),
        };
        let context = [slot::NSH_C1_C2, slot::NSH_C3_C4].map(|of| key.get_u64(of).to_be_bytes());
        let metadata = if self.kind == MD1 { context.as_flattened() } else { &self.values };
        let header = header.to_bytes(metadata)?;
        let before_ethernet = NEXT.contains(&(self.next, 0));
        Some(Op::PushNsh(Arc::new(NshPush { header: (*header).into(), before_ethernet })))
    }
}

/// Values of metadata, each with its length, in words; none if there are too many.
#[must_use]
pub fn metadata(encap: &Encap) -> Vec<u8> {
    let mut bytes = Vec::new();
    for property in &encap.properties {
        let PropertyOfEncap::NshTlv { class, kind, data } = property else { continue };
        bytes.extend(class.to_be_bytes());
        bytes.extend([*kind, u8::try_from(data.len()).unwrap_or(u8::MAX)]);
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    if bytes.len() > MAX_LEN - HEADER_LEN { Vec::new() } else { bytes }
}

/// The type of the metadata of a header that is put on, and its values.
fn kind_and_values(encap: &Encap) -> (u8, Vec<u8>) {
    let kind = encap.properties.iter().rev().find_map(|property| match property {
        PropertyOfEncap::NshMdtype(kind) => Some(*kind),
        PropertyOfEncap::NshTlv { .. } => None,
    });
    // What other types have is not known.
    match kind.unwrap_or(MD1) {
        MD1 => (MD1, Vec::new()),
        MD2 => (MD2, metadata(encap)),
        _ => (0, Vec::new()),
    }
}

/// How long the header is that is put on, if it is one.
pub(crate) fn nsh_len(encap: &Encap) -> u16 {
    if encap.packet_type != PACKET_TYPE {
        return 0;
    }
    let (kind, values) = kind_and_values(encap);
    let metadata = Metadata { values: values.into(), next: 0, kind };
    u16::try_from(metadata.header_len()).unwrap_or_default()
}

impl Walk<'_> {
    /// Puts one on, of which the first fields are as Open vSwitch has them.
    pub(super) fn encap_nsh(&mut self, encap: &Encap) {
        let packet_type = self.state.key.get_u32(slot::PACKET_TYPE);
        let Some((next, _)) = NEXT.into_iter().find(|(_, kind)| *kind == packet_type) else {
            return self.lose(format_args!(
                "Dropping packet as encap(nsh) is not supported for packet type ({},{:#x})",
                packet_type >> 16,
                packet_type & 0xFFFF
            ));
        };
        let (kind, values) = kind_and_values(encap);
        self.begin_anew();
        let State { key, nsh, labels, .. } = &mut self.state;
        key.set_packet_type(PACKET_TYPE);
        for (slot, value) in [
            (slot::ETH_TYPE, u128::from(NSH)),
            (slot::NSH_TTL, TTL.into()),
            (slot::NSH_MDTYPE, kind.into()),
            (slot::NSH_NP, next.into()),
            (slot::NSH_SI, FIRST.into()),
        ] {
            key.set(slot, value);
        }
        *labels = Labels::new(key);
        *nsh = Some(Metadata { values: values.into(), next, kind });
    }

    /// Takes it off. Returns whether the packet goes on as it is, and need not be looked at anew.
    pub(super) fn decap_nsh(&mut self) -> bool {
        let next = self.state.key.get_u8(slot::NSH_NP);
        let Some((_, packet_type)) = NEXT.into_iter().find(|(own, _)| *own == next) else {
            let note = format_args!("Dropping packet as NSH next protocol {next} is not supported");
            self.lose(note);
            return true;
        };
        self.state.key.set_packet_type(packet_type);
        let ether_type = u16::try_from(packet_type & 0xFFFF).ok().filter(|kind| *kind != 0);
        self.ops.push(Op::Edit(Edit::PopNsh { ether_type }));
        self.go_again();
        false
    }

    /// Takes one from its time to live; returns whether the packet goes on.
    pub(super) fn dec_nsh_ttl(&mut self) -> bool {
        if is_nsh(&self.state.key) {
            let ttl = self.state.key.get_u8(slot::NSH_TTL);
            if ttl > 1 {
                self.put(slot::NSH_TTL, u128::from(ttl - 1));
                return true;
            }
            self.controller((u16::MAX, 0), Reason::INVALID_TTL, &[], NO_METER);
        }
        self.note(Kind::Warning, format_args!("NSH decrement TTL exception"));
        false
    }
}
