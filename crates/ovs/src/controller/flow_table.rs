//! Rows of `Flow_Table`: how tables of rules are set.

use litemap::LiteMap;
use ofproto::TableConfig;
use openflow::Field;
use openflow::text::subfield;
use ordered::Gather as _;
use ovsdb::{Atom, Cache, Row};

use crate::content::Bridge;

/// The last table that controllers see.
const LAST: u8 = 253;

/// A row of `Flow_Table`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowTable {
    /// Its name.
    pub name: Option<String>,
    /// The most rules.
    pub flow_limit: Option<i64>,
    /// What becomes of further ones: `refuse`, or `evict`.
    pub overflow_policy: Option<String>,
    /// By which bits rules that make room are in groups.
    pub groups: Vec<String>,
    /// Of which addresses it is known how many bits decide; `none`: of none.
    pub prefixes: Vec<String>,
}

/// Fields of which Open vSwitch knows that, but for those of tunnels and of IPv6.
const PREFIXES: [(&str, Field); 6] = [
    ("nw_src", Field::IpSrc),
    ("ip_src", Field::IpSrc),
    ("nw_dst", Field::IpDst),
    ("ip_dst", Field::IpDst),
    ("ipv6_src", Field::Ipv6Src),
    ("ipv6_dst", Field::Ipv6Dst),
];

/// The others.
const OTHERS: [&str; 5] = ["tun_id", "tun_src", "tun_dst", "tun_ipv6_src", "tun_ipv6_dst"];

impl FlowTable {
    fn read(row: &Row) -> Self {
        let text = |column| row.get(column).string().map(str::to_owned);
        Self {
            name: text("name"),
            flow_limit: row.get("flow_limit").integer(),
            overflow_policy: text("overflow_policy"),
            groups: row.get("groups").strings().map(str::to_owned).collect(),
            prefixes: row.get("prefixes").strings().map(str::to_owned).collect(),
        }
    }

    /// Those of a bridge, by the numbers of the tables.
    pub(crate) fn all(cache: &Cache, bridge: &Row) -> LiteMap<i64, Self> {
        let pairs = bridge.get("flow_tables").pairs();
        let rows = pairs.filter_map(|(number, row)| match (number, row) {
            (Atom::Integer(number), Atom::Uuid(row)) => {
                Some((*number, Self::read(cache.row("Flow_Table", *row)?)))
            }
            _ => None,
        });
        rows.gather()
    }

    /// As bridges have it; what is wrong with it is in the log.
    fn config(&self, bridge: &str, number: u8) -> TableConfig {
        let groups = self.groups.iter().filter_map(|text| match subfield(text) {
            Ok(bits) => Some(bits),
            Err(error) => {
                tracing::warn!(
                    "bridge {bridge} table {number}: error parsing 'groups' ({text}: {error})"
                );
                None
            }
        });
        TableConfig {
            name: self.name.clone(),
            limit: self.flow_limit.and_then(|limit| usize::try_from(limit).ok()),
            evicts: self.overflow_policy.as_deref() == Some("evict"),
            groups: groups.collect(),
            prefixes: self.prefixes(bridge),
        }
    }

    /// The addresses of which it is known how many bits decide; `None` where nothing is said.
    fn prefixes(&self, bridge: &str) -> Option<Vec<Field>> {
        let mut fields = Vec::new();
        for name in &self.prefixes {
            match PREFIXES.iter().find(|(known, _)| known == name) {
                Some((_, field)) => fields.push(*field),
                None if name == "none" || OTHERS.contains(&name.as_str()) => {}
                None => {
                    tracing::warn!("bridge {bridge}: 'prefixes' with incompatible field: {name}");
                }
            }
        }
        (!self.prefixes.is_empty()).then_some(fields)
    }
}

/// How the tables of a bridge are set.
pub fn configs(name: &str, bridge: &Bridge) -> LiteMap<u8, TableConfig> {
    let tables = bridge.flow_tables.iter().filter_map(|(number, table)| {
        let Some(number) = u8::try_from(*number).ok().filter(|number| *number <= LAST) else {
            tracing::warn!(
                "bridge {name}: ignoring configuration for flow table {number}, of which \
                 there is none; they are numbered 0 to {LAST}"
            );
            return None;
        };
        Some((number, table.config(name, number)))
    });
    tables.gather()
}

#[cfg(test)]
mod tests {
    use openflow::Subfield;
    use ovsdb::Uuid;

    use super::*;
    use crate::content::Texts;

    #[test]
    fn tables_are_set_as_their_rows_say() {
        let mut bridge = Bridge::bare(Uuid(1), Texts::new(), LiteMap::new());
        let row = FlowTable {
            name: Some("main".to_owned()),
            flow_limit: Some(4),
            overflow_policy: Some("evict".to_owned()),
            groups: vec!["NXM_OF_IN_PORT[]".to_owned(), "none".to_owned()],
            prefixes: ["ip_dst", "tun_id", "ipv6_label"].map(str::to_owned).to_vec(),
        };
        bridge.flow_tables = [(0, row.clone()), (254, row)].into_iter().collect();
        bridge.flow_tables.insert(1, FlowTable::default());
        let configs = configs("br0", &bridge);
        let groups = vec![Subfield::whole(Field::InPort)];
        let name = Some("main".to_owned());
        let first = TableConfig {
            name,
            limit: Some(4),
            evicts: true,
            groups,
            prefixes: Some(vec![Field::IpDst]),
        };
        assert_eq!(configs, [(0, first), (1, TableConfig::default())].into_iter().collect());
    }
}
