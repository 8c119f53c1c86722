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
    ("Tunnel push pop", "tnl_push_pop", Is(true)),
    ("Ufid", "ufid", Is(true)),
    ("Truncate action", "trunc", Is(true)),
    ("Clone action", "clone", Is(true)),
    ("Sample nesting", "sample_nesting", Count(10)),
    ("Conntrack eventmask", "ct_eventmask", Is(false)),
    ("Conntrack clear", "ct_clear", Is(true)),
    ("Max dp_hash algorithm", "max_hash_alg", Count(0)),
    ("Check pkt length action", "check_pkt_len", Is(true)),
    ("Conntrack timeout policy", "ct_timeout", Is(true)),
    ("Explicit Drop action", "explicit_drop_action", Is(false)),
    ("Optimized Balance TCP mode", "lb_output_action", Is(true)),
    ("Conntrack all-zero IP SNAT", "ct_zero_snat", Is(true)),
    ("MPLS Label add", "add_mpls", Is(true)),
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

/// The names of data paths: for tests, and for all others.
pub const PATHS: [&str; 2] = ["dummy@ovs-dummy", "netdev@ovs-netdev"];

/// Which of them a bridge with this type of data path has.
#[must_use]
pub fn path_of(datapath_type: &str) -> &'static str {
    let [dummy, netdev] = PATHS;
    if datapath_type == "dummy" { dummy } else { netdev }
}

/// Tells the log what a data path can, as Open vSwitch tells what it has found out.
pub(crate) fn tell(path: &str) {
    for line in FEATURES.iter().filter_map(|(_, name, feature)| line(name, *feature)) {
        tracing::info!(target: "ofproto_dpif", "{path}: {line}");
    }
}

/// What Open vSwitch says of a feature that a data path has, or has not; of some it says nothing.
fn line(name: &str, feature: Feature) -> Option<String> {
    let what = match (name, feature) {
        ("max_vlan_headers", Count(most)) => {
            return Some(format!("VLAN header stack length probed as {most}"));
        }
        ("max_mpls_depth", Count(most)) => {
            return Some(format!("MPLS label stack length probed as {most}"));
        }
        ("sample_nesting", Count(most)) => {
            return Some(format!("Max sample nesting level probed as {most}"));
        }
        ("max_hash_alg", Count(most)) => {
            return Some(format!("Max dp_hash algorithm probed to be {most}"));
        }
        ("masked_set_action", Is(true)) => return None,
        ("tnl_push_pop" | "explicit_drop_action" | "lb_output_action", _) => return None,
        ("masked_set_action", Is(false)) => {
            return Some("datapath does not support masked set action feature.".to_owned());
        }
        ("recirc", _) => "recirculation",
        ("ufid", _) => "unique flow ids",
        ("trunc", _) => "truncate action",
        ("clone", _) => "clone action",
        ("ct_eventmask", _) => "eventmask in conntrack action",
        ("ct_clear", _) => "ct_clear action",
        ("ct_timeout", _) => "timeout policy in conntrack action",
        ("check_pkt_len", _) => "check_pkt_len action",
        ("add_mpls", _) => "add_mpls action",
        ("nd_ext", _) => "IPv6 ND Extensions",
        (name, _) => name,
    };
    let does = if feature == Is(true) { "supports" } else { "does not support" };
    Some(format!("Datapath {does} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_says_what_is_so() {
        let said = |wanted: &str| {
            let (_, name, feature) = FEATURES.iter().find(|(_, name, _)| *name == wanted).unwrap();
            line(name, *feature)
        };
        assert_eq!(said("ct_clear").as_deref(), Some("Datapath supports ct_clear action"));
        assert_eq!(said("ct_zero_snat").as_deref(), Some("Datapath supports ct_zero_snat"));
        assert_eq!(said("max_mpls_depth").as_deref(), Some("MPLS label stack length probed as 3"));
        assert_eq!(
            line("clone", Is(false)).as_deref(),
            Some("Datapath does not support clone action")
        );
        assert_eq!(said("masked_set_action"), None);
    }
}
