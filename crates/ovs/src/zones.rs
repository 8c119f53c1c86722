//! What the database says of zones of connections: rows of `Datapath`, `CT_Zone` and `CT_Timeout_Policy`.
//!
//! There is one table of connections, whatever kinds of data path there are: of a zone that has rows for
//! several, one counts.

use std::time::Duration;

use conntrack::{Conntrack, Stage, Timeouts};
use litemap::LiteMap;
use ovsdb::{Atom, Cache, Row, Uuid};

use crate::features;
use crate::report::Column;

/// The names of timeouts, of those that there are here.
const STAGES: [(&str, Stage); 11] = [
    ("tcp_syn_sent", Stage::TcpFirst),
    ("tcp_syn_recv", Stage::TcpOpening),
    ("tcp_established", Stage::TcpEstablished),
    ("tcp_fin_wait", Stage::TcpClosing),
    ("tcp_time_wait", Stage::TcpFinWait),
    ("tcp_close", Stage::TcpClosed),
    ("udp_first", Stage::OtherFirst),
    ("udp_single", Stage::OtherMultiple),
    ("udp_multiple", Stage::OtherBidirectional),
    ("icmp_first", Stage::IcmpFirst),
    ("icmp_reply", Stage::IcmpReply),
];

/// A row of `CT_Zone`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Zone {
    /// Its timeouts by name, in seconds.
    timeouts: Option<Vec<(String, i64)>>,
    /// The most connections.
    limit: Option<i64>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    /// Rows of `Datapath`.
    rows: Vec<Uuid>,
    zones: LiteMap<i64, Zone>,
    /// The most connections of a zone of which nothing is said.
    default_limit: Option<i64>,
}

impl Zone {
    fn read(cache: &Cache, row: &Row) -> Self {
        let policy = row.get("timeout_policy").uuid();
        let policy = policy.and_then(|policy| cache.row("CT_Timeout_Policy", policy));
        let timeouts = |policy: &Row| {
            let pairs = policy.get("timeouts").pairs();
            let pairs = pairs.filter_map(|(name, seconds)| match (name, seconds) {
                (Atom::String(name), Atom::Integer(seconds)) => Some((name.to_string(), *seconds)),
                _ => None,
            });
            pairs.collect()
        };
        Self { timeouts: policy.map(timeouts), limit: row.get("limit").integer() }
    }

    /// Its timeouts, if it has any of its own.
    fn timeouts(&self) -> Option<Timeouts> {
        let named = |(name, seconds): &(String, i64)| {
            let (_, stage) = STAGES.iter().find(|(known, _)| known == name)?;
            Some((*stage, Duration::from_secs(u64::try_from(*seconds).ok()?)))
        };
        let all = self.timeouts.as_ref()?.iter().filter_map(named);
        Some(all.fold(Timeouts::default(), |all, (stage, time)| all.with(stage, time)))
    }

    fn limit(&self) -> Option<u32> {
        self.limit.and_then(|limit| u32::try_from(limit).ok())
    }
}

impl Zones {
    pub(crate) fn read(cache: &Cache, root: &Row) -> Self {
        let mut zones = Self::default();
        let rows = root.get("datapaths").pairs().filter_map(|(_, row)| match row {
            Atom::Uuid(row) => Some((*row, cache.row("Datapath", *row)?)),
            _ => None,
        });
        for (uuid, row) in rows {
            zones.rows.push(uuid);
            let default = row.get("ct_zone_default_limit").integer();
            zones.default_limit = zones.default_limit.or(default);
            for (number, zone) in row.get("ct_zones").pairs() {
                if let (Atom::Integer(number), Atom::Uuid(zone)) = (number, zone)
                    && let Some(zone) = cache.row("CT_Zone", *zone)
                {
                    zones.zones.entry(*number).or_insert_with(|| Zone::read(cache, zone));
                }
            }
        }
        zones
    }

    /// Has connections be kept so, where something else was said before: what somebody has set by a command
    /// stays as long as the database says nothing of it.
    pub(crate) fn apply(&self, before: Option<&Self>, connections: &Conntrack) {
        let none = Self::default();
        let before = before.unwrap_or(&none);
        let limit = |zones: &Self| zones.default_limit.and_then(|limit| u32::try_from(limit).ok());
        if limit(self) != limit(before) {
            connections.set_default_zone_limit(limit(self).unwrap_or(0));
        }
        for number in self.zones.keys().chain(before.zones.keys()) {
            let (zone, old) = (self.zones.get(number), before.zones.get(number));
            let Ok(number) = u16::try_from(*number) else { continue };
            let [timeouts, old_timeouts] = [zone, old].map(|zone| zone.and_then(Zone::timeouts));
            if timeouts != old_timeouts {
                connections.set_zone_timeouts(number, timeouts.as_ref());
            }
            let [limit, old_limit] = [zone, old].map(|zone| zone.and_then(Zone::limit));
            if limit != old_limit {
                connections.set_zone_limit(number, limit);
            }
        }
    }

    /// What rows of `Datapath` say.
    pub(crate) fn columns(&self) -> impl Iterator<Item = (Uuid, Vec<Column>)> {
        let of = |row: &Uuid| (*row, vec![("capabilities", features::capabilities())]);
        self.rows.iter().map(of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A zone's number, its timeouts and its limit.
    type Said<'r> = (i64, Option<&'r [(&'r str, i64)]>, Option<i64>);

    fn zones(zones: &[Said<'_>], default: Option<i64>) -> Zones {
        let zone = |(number, timeouts, limit): &Said<'_>| {
            let named = |(name, seconds): &(&str, i64)| ((*name).to_owned(), *seconds);
            let timeouts = timeouts.map(|all| all.iter().map(named).collect());
            (*number, Zone { timeouts, limit: *limit })
        };
        Zones { rows: Vec::new(), zones: zones.iter().map(zone).collect(), default_limit: default }
    }

    #[test]
    fn what_the_database_says_no_more_is_as_usual_and_the_rest_stays() {
        let all = Conntrack::default();
        all.set_zone_limit(9, Some(99));
        let one = zones(&[(5, Some(&[("udp_first", 3), ("sctp", 1)]), Some(7))], Some(1_000));
        one.apply(None, &all);
        assert_eq!((all.zone_limit(5).limit, all.default_zone_limit()), (7, 1_000));
        assert_eq!((all.zone_limit(9).limit, all.zone_limit(1).limit), (99, 1_000));
        // What somebody sets by a command stays until the database says something else.
        all.set_zone_limit(5, Some(8));
        one.apply(Some(&one), &all);
        assert_eq!(all.zone_limit(5).limit, 8);
        let none = zones(&[(70_000, None, Some(3)), (6, None, Some(-1))], None);
        none.apply(Some(&one), &all);
        assert_eq!((all.zone_limit(5).limit, all.default_zone_limit()), (0, 0));
        assert_eq!((all.zone_limit(9).limit, all.zone_limit(6).limit), (99, 0));
    }

    #[test]
    fn timeouts_have_their_names() {
        let of = |timeouts: Option<&[(&str, i64)]>| {
            zones(&[(1, timeouts, None)], None).zones[&1].timeouts()
        };
        assert_eq!(of(None), None);
        assert_eq!(of(Some(&[])), Some(Timeouts::default()));
        let time = Duration::from_secs(u32::MAX.into());
        let expected = Timeouts::default().with(Stage::TcpClosing, time);
        let named =
            of(Some(&[("tcp_fin_wait", u32::MAX.into()), ("tcp_unack", 1), ("udp_first", -1)]));
        assert_eq!(named, Some(expected));
    }
}
