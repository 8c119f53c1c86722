//! How many groups and meters there may be, and what they can do.

use std::fmt::Write as _;

use super::{Bits, Names};
use crate::error::ErrorCode;
use crate::message::stats::limits::{GroupFeatures, MeterFeatures};
use crate::message::{Kind, Raw};
use crate::version::Version;

/// Actions by their numbers in OpenFlow 1.0; each has its place in the order in which Open vSwitch names them.
const ACTIONS_V10: [(u8, &str); 12] = [
    (0, "output"),
    (11, "enqueue"),
    (1, "set_vlan_vid"),
    (2, "set_vlan_pcp"),
    (3, "strip_vlan"),
    (4, "mod_dl_src"),
    (5, "mod_dl_dst"),
    (6, "mod_nw_src"),
    (7, "mod_nw_dst"),
    (8, "mod_nw_tos"),
    (9, "mod_tp_src"),
    (10, "mod_tp_dst"),
];

/// Those of OpenFlow 1.1.
const ACTIONS_V11: [(u8, &str); 23] = [
    (0, "output"),
    (22, "group"),
    (1, "set_vlan_vid"),
    (2, "set_vlan_pcp"),
    (18, "strip_vlan"),
    (17, "push_vlan"),
    (3, "mod_dl_src"),
    (4, "mod_dl_dst"),
    (5, "mod_nw_src"),
    (6, "mod_nw_dst"),
    (7, "mod_nw_tos"),
    (8, "mod_nw_ecn"),
    (23, "mod_nw_ttl"),
    (9, "mod_tp_src"),
    (10, "mod_tp_dst"),
    (24, "dec_ttl"),
    (13, "set_mpls_label"),
    (14, "set_mpls_tc"),
    (15, "set_mpls_ttl"),
    (16, "dec_mpls_ttl"),
    (19, "push_mpls"),
    (20, "pop_mpls"),
    (21, "set_queue"),
];

/// Those of later versions.
const ACTIONS_V12: [(u8, &str); 12] = [
    (0, "output"),
    (22, "group"),
    (25, "set_field"),
    (18, "strip_vlan"),
    (17, "push_vlan"),
    (23, "mod_nw_ttl"),
    (24, "dec_ttl"),
    (15, "set_mpls_ttl"),
    (16, "dec_mpls_ttl"),
    (19, "push_mpls"),
    (20, "pop_mpls"),
    (21, "set_queue"),
];

const BAND_TYPES: Names = &["", "drop", "dscp_remark"];

const METER_FLAGS: Names = &["kbps", "pktps", "burst", "stats"];

/// The names of actions whose bits are set, as a version numbers them.
pub(super) fn action_names(bits: u32, version: Version) -> Vec<&'static str> {
    let names: &[(u8, &str)] = match version {
        Version::V10 => &ACTIONS_V10,
        Version::V11 => &ACTIONS_V11,
        _ => &ACTIONS_V12,
    };
    names.iter().filter(|(at, _)| bits >> at & 1 != 0).map(|(_, name)| *name).collect()
}

/// Writes what there may be.
pub(super) fn show(text: &mut String, raw: &Raw<'_>) -> Result<(), ErrorCode> {
    match raw.kind {
        Kind::GroupFeaturesReply => groups(text, &GroupFeatures::decode(raw.body)?, raw.version),
        _ => meters(text, MeterFeatures::decode(raw.body)?),
    }
    Ok(())
}

fn groups(text: &mut String, features: &GroupFeatures, version: Version) {
    let GroupFeatures { types, capabilities, max_groups, actions } = features;
    let _ = writeln!(text, "\n Group table:\n    Types:  {types:#x}");
    let _ = writeln!(text, "    Capabilities:  {capabilities:#x}");
    let names = ["all", "select", "indirect", "fast failover"];
    for (at, ((name, most), actions)) in names.iter().zip(max_groups).zip(actions).enumerate() {
        if types >> at & 1 == 0 {
            continue;
        }
        let most = crate::field::text::Hex((*most).into());
        let actions = match &action_names(*actions, version)[..] {
            [] => "<none>".to_owned(),
            names => names.join(" "),
        };
        let _ = writeln!(
            text,
            "    {name} group:\n       max_groups={most}\n       actions: {actions}"
        );
    }
}

fn meters(text: &mut String, features: MeterFeatures) {
    let MeterFeatures { max_meters, band_types, capabilities, max_bands, max_color } = features;
    let _ = writeln!(text, "\nmax_meter:{max_meters} max_bands:{max_bands} max_color:{max_color}");
    let _ = writeln!(text, "band_types: {}", Bits(band_types, BAND_TYPES));
    let _ = writeln!(text, "capabilities: {}", Bits(capabilities, METER_FLAGS));
}
