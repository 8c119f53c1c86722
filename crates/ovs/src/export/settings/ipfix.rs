//! What rows of `IPFIX` mean (ovs-vswitchd.conf.db(5)).

use std::net::SocketAddr;

use export::ipfix;
use litemap::LiteMap;
use ovsdb::Row;
use switch::Sides;

use super::{SAMPLING, targets};
use crate::content::texts;

/// A row of `IPFIX`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpfixRow {
    /// Collectors.
    pub targets: Vec<String>,
    /// Of how many packets one is sampled.
    pub sampling: Option<i64>,
    /// Where packets are seen, for collectors: a domain, and a point there.
    pub observed: [Option<i64>; 2],
    /// For how many seconds packets of a flow are gathered.
    pub active_timeout: Option<i64>,
    /// How many flows are gathered at a time.
    pub max_flows: Option<i64>,
    /// Further settings.
    pub other_config: LiteMap<String, String>,
}

/// What a bridge is to tell by IPFIX, or its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpfixSettings {
    /// Collectors.
    pub targets: Vec<SocketAddr>,
    /// Of how many packets one is sampled.
    pub rate: u32,
    /// Where; `None`: nowhere.
    pub sides: Option<Sides>,
    /// Where packets are seen, for collectors: a domain, and a point there.
    pub observed: [u32; 2],
    /// How flows are told.
    pub flows: ipfix::Settings,
}

impl IpfixRow {
    pub(crate) fn read(row: &Row) -> Self {
        let number = |column: &str| row.get(column).integer();
        Self {
            targets: row.get("targets").strings().map(str::to_owned).collect(),
            sampling: number("sampling"),
            observed: ["obs_domain_id", "obs_point_id"].map(number),
            active_timeout: number("cache_active_timeout"),
            max_flows: number("cache_max_flows"),
            other_config: texts(row.get("other_config")),
        }
    }

    /// Whether a setting is on, which it is if nothing is said.
    fn has(&self, name: &str) -> bool {
        self.other_config.get(name).is_none_or(|text| !text.eq_ignore_ascii_case("false"))
    }
}

/// What a row of `IPFIX` means.
///
/// # Errors
/// What is wrong with it, and what was expected.
pub fn ipfix(row: &IpfixRow) -> Result<IpfixSettings, String> {
    let number = |column: &str, value: Option<i64>, default: i64, [least, most]: [u32; 2]| {
        let value = value.unwrap_or(default);
        let number = u32::try_from(value).ok().filter(|value| (least..=most).contains(value));
        number.ok_or_else(|| format!("IPFIX {column} {value}: expected {least} to {most}"))
    };
    let all = [0, u32::MAX];
    let [domain, point] = row.observed;
    let active = number("cache_active_timeout", row.active_timeout, 0, [0, 4_200])?;
    let max_flows = number("cache_max_flows", row.max_flows, 0, all)?;
    let virtual_id = row.other_config.get("virtual_obs_id").cloned();
    if let Some(len) = virtual_id.as_ref().map(String::len)
        && len > ipfix::MAX_VIRTUAL_ID
    {
        let most = ipfix::MAX_VIRTUAL_ID;
        return Err(format!("IPFIX virtual_obs_id of {len} bytes: expected {most} at most"));
    }
    let ingress = row.has("enable-input-sampling");
    let egress = row.has("enable-output-sampling");
    Ok(IpfixSettings {
        targets: targets("IPFIX", &row.targets, ipfix::PORT)?,
        rate: number("sampling", row.sampling, SAMPLING, [1, u32::MAX / 2])?,
        sides: (ingress || egress).then_some(Sides { ingress, egress }),
        observed: [
            number("obs_domain_id", domain, 0, all)?,
            number("obs_point_id", point, 0, all)?,
        ],
        flows: ipfix::Settings {
            active: u64::from(active).saturating_mul(1_000),
            max_flows: usize::try_from(max_flows).unwrap_or(usize::MAX).min(ipfix::MAX_FLOWS),
            virtual_id,
            ..ipfix::Settings::default()
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_in_open_vswitch() {
        let row = IpfixRow { targets: vec!["192.0.2.1".to_owned()], ..IpfixRow::default() };
        let settings = ipfix(&row).unwrap();
        let expected = IpfixSettings {
            targets: vec!["192.0.2.1:4739".parse().unwrap()],
            rate: 400,
            sides: Some(Sides { ingress: true, egress: true }),
            observed: [0, 0],
            flows: ipfix::Settings::default(),
        };
        assert_eq!(settings, expected);
        let set = |all: &[(&str, &str)]| {
            let all = all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            ipfix(&IpfixRow { other_config: all.collect(), ..row.clone() }).unwrap()
        };
        let (input, output) = ("enable-input-sampling", "enable-output-sampling");
        assert_eq!(set(&[(output, "false"), (input, "true")]).sides, Some(Sides::IN));
        assert_eq!(set(&[(output, "false"), (input, "false")]).sides, None);
        assert_eq!(set(&[("virtual_obs_id", "x")]).flows.virtual_id, Some("x".to_owned()));
    }

    #[test]
    fn numbers_have_limits() {
        let good = IpfixRow { targets: vec!["[::1]:9".to_owned()], ..IpfixRow::default() };
        let row = IpfixRow {
            sampling: Some(1),
            observed: [Some(7), Some(u32::MAX.into())],
            active_timeout: Some(4_200),
            max_flows: Some(u32::MAX.into()),
            ..good.clone()
        };
        let settings = ipfix(&row).unwrap();
        assert_eq!((settings.rate, settings.observed), (1, [7, u32::MAX]));
        let flows = (settings.flows.active, settings.flows.max_flows);
        assert_eq!(flows, (4_200_000, ipfix::MAX_FLOWS));
        let long = [("virtual_obs_id".to_owned(), "x".repeat(255))];
        for (bad, expected) in [
            (IpfixRow { sampling: Some(0), ..good.clone() }, "IPFIX sampling 0: expected 1 to"),
            (
                IpfixRow { active_timeout: Some(4_201), ..good.clone() },
                "IPFIX cache_active_timeout 4201: expected 0 to 4200",
            ),
            (
                IpfixRow { max_flows: Some(-1), ..good.clone() },
                "IPFIX cache_max_flows -1: expected",
            ),
            (
                IpfixRow { observed: [None, Some(1 << 32)], ..good.clone() },
                "IPFIX obs_point_id 4294967296: expected 0 to 4294967295",
            ),
            (
                IpfixRow { other_config: long.into_iter().collect(), ..good.clone() },
                "IPFIX virtual_obs_id of 255 bytes: expected 254 at most",
            ),
            (
                IpfixRow { targets: vec!["xyzzy".to_owned()], ..good },
                "IPFIX target 'xyzzy': expected",
            ),
            (IpfixRow::default(), "IPFIX with 0 targets: expected 1 to 16"),
        ] {
            let problem = ipfix(&bad).unwrap_err();
            assert!(problem.starts_with(expected), "{problem}");
        }
    }
}
