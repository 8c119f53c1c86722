//! Snooping of IGMP and MLD in Open vSwitch's tables `Bridge` and `Port`.

use std::str::FromStr;

use daemon::McastSnooping;
use switch::{MAX_GROUPS, PortSnooping};

use crate::content::{Bridge, Texts, flag};

/// How long members may be remembered, in seconds, as Open vSwitch bounds it.
const AGEING: (u32, u32) = (15, 3_600);

/// What a bridge does about groups. What makes no sense is as when it is absent.
#[must_use]
pub fn bridge(row: &Bridge) -> McastSnooping {
    let all = &row.other_config;
    let ageing = number(all, "mcast-snooping-aging-time").filter(|age| *age > 0);
    let size = number(all, "mcast-snooping-table-size").filter(|size| *size > 0);
    let shuts_out = flag(all, "mcast-snooping-disable-flood-unregistered", false);
    McastSnooping {
        enabled: Some(row.mcast_snooping),
        aging_time: ageing.map(|age: u32| age.clamp(AGEING.0, AGEING.1)),
        table_size: size.map(|size: usize| size.min(MAX_GROUPS)),
        disable_flood_unregistered: Some(shuts_out),
        ..McastSnooping::default()
    }
}

/// A port's part in that, by its `other_config`.
#[must_use]
pub fn port(all: &Texts) -> PortSnooping {
    PortSnooping {
        flood: flag(all, "mcast-snooping-flood", false),
        flood_reports: flag(all, "mcast-snooping-flood-reports", false),
        ..PortSnooping::default()
    }
}

fn number<T: FromStr>(all: &Texts, key: &str) -> Option<T> {
    all.get(key)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use ovsdb::Uuid;

    use super::*;

    fn of(pairs: &[(&str, &str)]) -> McastSnooping {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let bare = Bridge::bare(Uuid(1), pairs.collect(), Default::default());
        bridge(&Bridge { mcast_snooping: true, ..bare })
    }

    #[test]
    fn columns_are_the_settings_of_snooping() {
        let made = of(&[
            ("mcast-snooping-aging-time", "5"),
            ("mcast-snooping-table-size", "100000"),
            ("mcast-snooping-disable-flood-unregistered", "true"),
        ]);
        assert_eq!(
            (made.enabled, made.aging_time, made.table_size),
            (Some(true), Some(15), Some(65_536))
        );
        assert_eq!(made.disable_flood_unregistered, Some(true));
        let made = of(&[("mcast-snooping-aging-time", "x"), ("mcast-snooping-table-size", "0")]);
        assert_eq!((made.aging_time, made.table_size), (None, None));
        let flood = [("mcast-snooping-flood".to_owned(), "true".to_owned())];
        let port = port(&flood.into_iter().collect());
        assert!(port.flood && !port.flood_reports);
    }
}
