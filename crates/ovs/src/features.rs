//! What Open vSwitch asks of data paths, and what ours can.

use ovsdb::Datum;

/// Whether a data path can do something, or how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Whether.
    Is(bool),
    /// How much.
    Count(u8),
}

use Feature::{Count, Is};

/// What there may be: as `dpif/show-dp-features` names it, and as `Datapath.capabilities` does.
pub const FEATURES: [(&str, &str, Feature); 26] = [
    ("Masked set action", "masked_set_action", Is(true)),
    ("Tunnel push pop", "tnl_push_pop", Is(false)),
    ("Ufid", "ufid", Is(true)),
    ("Truncate action", "trunc", Is(true)),
    ("Clone action", "clone", Is(true)),
    ("Sample nesting", "sample_nesting", Count(0)),
    ("Conntrack eventmask", "ct_eventmask", Is(false)),
    ("Conntrack clear", "ct_clear", Is(true)),
    ("Max dp_hash algorithm", "max_hash_alg", Count(0)),
    ("Check pkt length action", "check_pkt_len", Is(true)),
    ("Conntrack timeout policy", "ct_timeout", Is(true)),
    ("Explicit Drop action", "explicit_drop_action", Is(false)),
    ("Optimized Balance TCP mode", "lb_output_action", Is(true)),
    ("Conntrack all-zero IP SNAT", "ct_zero_snat", Is(true)),
    ("MPLS Label add", "add_mpls", Is(false)),
    ("Max VLAN headers", "max_vlan_headers", Count(1)),
    ("Max MPLS depth", "max_mpls_depth", Count(3)),
    ("Recirc", "recirc", Is(true)),
    ("CT state", "ct_state", Is(true)),
    ("CT zone", "ct_zone", Is(true)),
    ("CT mark", "ct_mark", Is(true)),
    ("CT label", "ct_label", Is(true)),
    ("CT state NAT", "ct_state_nat", Is(true)),
    ("CT orig tuple", "ct_orig_tuple", Is(true)),
    ("CT orig tuple for IPv6", "ct_orig_tuple6", Is(true)),
    ("IPv6 ND Extension", "nd_ext", Is(true)),
];

/// What `Datapath.capabilities` has.
pub(crate) fn capabilities() -> Datum {
    let of = |(_, name, feature): (&str, &'static str, Feature)| match feature {
        Is(is) => (name, is.to_string()),
        // There it is only said whether.
        Count(count) if name == "sample_nesting" => (name, (count != 0).to_string()),
        Count(count) => (name, count.to_string()),
    };
    FEATURES.into_iter().map(of).chain([("ct_flush", "true".to_owned())]).collect()
}
