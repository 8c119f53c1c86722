//! What rows of `sFlow`, `NetFlow` and `IPFIX` mean (ovs-vswitchd.conf.db(5)).

mod ipfix;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use export::{netflow, sflow};
use ovsdb::Row;

pub use self::ipfix::{IpfixRow, IpfixSettings, ipfix};

/// The most collectors of a bridge.
const MAX_TARGETS: usize = 16;

/// Where nothing is said: of so many packets one, every so many seconds, so many bytes.
const SAMPLING: i64 = 400;
const POLLING: i64 = 30;
const HEADER: i64 = 128;

/// How many seconds a flow goes on until it is told, where nothing is said.
const ACTIVE: u32 = 600;

/// A row of `sFlow`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SflowRow {
    /// Collectors.
    pub targets: Vec<String>,
    /// Of how many packets one is sampled.
    pub sampling: Option<i64>,
    /// How many seconds there are between counters.
    pub polling: Option<i64>,
    /// How many bytes of a packet.
    pub header: Option<i64>,
    /// The address of the switch, or an interface that has it.
    pub agent: Option<String>,
}

/// What a bridge is to tell by sFlow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SflowSettings {
    /// Collectors.
    pub targets: Vec<SocketAddr>,
    /// Of how many packets one is sampled; `None`: none is.
    pub rate: Option<u32>,
    /// How often counters are told, if they are.
    pub polling: Option<Duration>,
    /// How many bytes of a packet.
    pub header: usize,
    /// The address of the switch, or an interface that has it.
    pub agent: Option<String>,
}

impl SflowRow {
    pub(crate) fn read(row: &Row) -> Self {
        Self {
            targets: row.get("targets").strings().map(str::to_owned).collect(),
            sampling: row.get("sampling").integer(),
            polling: row.get("polling").integer(),
            header: row.get("header").integer(),
            agent: row.get("agent").string().map(str::to_owned),
        }
    }
}

/// What a row of `sFlow` means.
///
/// # Errors
/// What is wrong with it, and what was expected.
pub fn sflow(row: &SflowRow) -> Result<SflowSettings, String> {
    let number = |column: &str, value: Option<i64>, default: i64, most: u32| {
        let value = value.unwrap_or(default);
        let number = u32::try_from(value).ok().filter(|value| *value <= most);
        number.ok_or_else(|| format!("sFlow {column} {value}: expected 0 to {most}"))
    };
    let rate = number("sampling", row.sampling, SAMPLING, u32::MAX / 2)?;
    let polling = number("polling", row.polling, POLLING, 86_400)?;
    let header = number("header", row.header, HEADER, sflow::MAX_HEADER.into())?;
    if header == 0 {
        return Err(format!("sFlow header 0: expected 1 to {}", sflow::MAX_HEADER));
    }
    Ok(SflowSettings {
        targets: targets("sFlow", &row.targets, sflow::PORT)?,
        rate: Some(rate).filter(|rate| *rate != 0),
        polling: Some(polling)
            .filter(|polling| *polling != 0)
            .map(|s| Duration::from_secs(s.into())),
        header: usize::try_from(header).unwrap_or(usize::MAX),
        agent: row.agent.clone(),
    })
}

/// A row of `NetFlow`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetflowRow {
    /// Collectors.
    pub targets: Vec<String>,
    /// What kind of engine tells, and which one.
    pub engine: [Option<i64>; 2],
    /// Whether numbers of ports begin with a part of the engine's.
    pub add_id: bool,
    /// After how many seconds a flow is told that goes on; -1: never.
    pub active_timeout: i64,
}

/// What a bridge is to tell by NetFlow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetflowSettings {
    /// Collectors.
    pub targets: Vec<SocketAddr>,
    /// How flows are told.
    pub flows: netflow::Settings,
}

impl NetflowRow {
    pub(crate) fn read(row: &Row) -> Self {
        Self {
            targets: row.get("targets").strings().map(str::to_owned).collect(),
            engine: ["engine_type", "engine_id"].map(|column| row.get(column).integer()),
            add_id: row.get("add_id_to_interface").boolean().unwrap_or(false),
            active_timeout: row.get("active_timeout").integer().unwrap_or(0),
        }
    }
}

/// What a row of `NetFlow` means.
///
/// # Errors
/// What is wrong with it, and what was expected.
pub fn netflow(row: &NetflowRow) -> Result<NetflowSettings, String> {
    let byte = |column: &str, value: Option<i64>| {
        let value = value.unwrap_or(0);
        u8::try_from(value).map_err(|_| format!("NetFlow {column} {value}: expected 0 to 255"))
    };
    let [engine_type, engine_id] = row.engine;
    let active = match row.active_timeout {
        -1 => None,
        0 => Some(ACTIVE),
        seconds => Some(u32::try_from(seconds).map_err(|_| {
            format!(
                "NetFlow active_timeout {seconds}: expected -1 (never), 0 ({ACTIVE} s) or seconds"
            )
        })?),
    };
    let flows = netflow::Settings {
        engine_type: byte("engine_type", engine_type)?,
        engine_id: byte("engine_id", engine_id)?,
        active: active.map(|seconds| u64::from(seconds).saturating_mul(1_000)),
        add_id: row.add_id,
    };
    // There is no port by default.
    Ok(NetflowSettings { targets: targets("NetFlow", &row.targets, 0)?, flows })
}

/// Where collectors are, each once; without a port none has one that does not say it.
fn targets(of: &str, texts: &[String], port: u16) -> Result<Vec<SocketAddr>, String> {
    if !(1..=MAX_TARGETS).contains(&texts.len()) {
        let count = texts.len();
        return Err(format!("{of} with {count} targets: expected 1 to {MAX_TARGETS}"));
    }
    let mut all = Vec::new();
    for text in texts {
        let address = target(text, port).ok_or_else(|| {
            let forms = if port == 0 { "ADDRESS:PORT" } else { "ADDRESS or ADDRESS:PORT" };
            format!(
                "{of} target '{text}': expected {forms}, with the address in digits, since names are not looked \
                 up (of version 6 in brackets: [2001:db8::1]:6343)"
            )
        })?;
        if !all.contains(&address) {
            all.push(address);
        }
    }
    Ok(all)
}

/// `ADDRESS[:PORT]`, of version 6 in brackets where there is a port.
fn target(text: &str, port: u16) -> Option<SocketAddr> {
    let address = |text: &str| -> Option<IpAddr> {
        let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        inner.map_or_else(|| text.parse().ok(), |v6| v6.parse().ok().map(IpAddr::V6))
    };
    let whole = text.parse().ok().or_else(|| Some(SocketAddr::new(address(text)?, port)));
    whole.filter(|address| address.port() != 0 && !address.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(targets: &[&str]) -> SflowRow {
        let targets = targets.iter().map(|target| (*target).to_owned()).collect();
        SflowRow { targets, ..SflowRow::default() }
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let settings = sflow(&row(&["192.0.2.1"])).unwrap();
        let expected = SflowSettings {
            targets: vec!["192.0.2.1:6343".parse().unwrap()],
            rate: Some(400),
            polling: Some(Duration::from_secs(30)),
            header: 128,
            agent: None,
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn targets_are_addresses() {
        for (text, expected) in [
            ("192.0.2.1:99", "192.0.2.1:99"),
            ("192.0.2.1", "192.0.2.1:6343"),
            ("2001:db8::1", "[2001:db8::1]:6343"),
            ("[2001:db8::1]", "[2001:db8::1]:6343"),
            ("[::1]:1", "[::1]:1"),
        ] {
            let settings = sflow(&row(&[text, text])).unwrap();
            assert_eq!(settings.targets, [expected.parse().unwrap()], "{text}");
        }
        for text in [
            "",
            "collector",
            "collector:6343",
            "192.0.2.1:",
            "192.0.2.1:0",
            "192.0.2.1:65536",
            "0.0.0.0:1",
            "[192.0.2.1]:1",
            ":6343",
            "::1]:1",
        ] {
            let problem = sflow(&row(&[text])).unwrap_err();
            assert!(problem.starts_with(&format!("sFlow target '{text}': expected")), "{problem}");
        }
        assert!(sflow(&row(&[])).is_err());
        let many: Vec<String> = (1..=17).map(|port| format!("192.0.2.1:{port}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(sflow(&row(&many[..16])).is_ok());
        assert!(sflow(&row(&many)).unwrap_err().contains("17 targets: expected 1 to 16"));
    }

    #[test]
    fn numbers_have_limits() {
        let good = row(&["192.0.2.1"]);
        let none = SflowRow { sampling: Some(0), polling: Some(0), ..good.clone() };
        let settings = sflow(&none).unwrap();
        assert_eq!((settings.rate, settings.polling), (None, None));
        for (bad, expected) in [
            (SflowRow { sampling: Some(-1), ..good.clone() }, "sFlow sampling -1: expected 0 to"),
            (SflowRow { sampling: Some(1 << 31), ..good.clone() }, "expected 0 to 2147483647"),
            (SflowRow { polling: Some(86_401), ..good.clone() }, "sFlow polling 86401: expected"),
            (SflowRow { header: Some(0), ..good.clone() }, "sFlow header 0: expected 1 to 256"),
            (SflowRow { header: Some(257), ..good }, "sFlow header 257: expected 0 to 256"),
        ] {
            let problem = sflow(&bad).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn netflow_has_an_engine_and_a_timeout() {
        let good =
            NetflowRow { targets: vec!["192.0.2.1:2055".to_owned()], ..NetflowRow::default() };
        let settings = netflow(&good).unwrap();
        assert_eq!(settings.targets, ["192.0.2.1:2055".parse().unwrap()]);
        assert_eq!(
            settings.flows,
            netflow::Settings { active: Some(600_000), ..Default::default() }
        );
        let other = NetflowRow {
            engine: [Some(2), Some(1)],
            add_id: true,
            active_timeout: -1,
            ..good.clone()
        };
        let expected =
            netflow::Settings { engine_type: 2, engine_id: 1, active: None, add_id: true };
        assert_eq!(netflow(&other).unwrap().flows, expected);
        for (bad, expected) in [
            (
                NetflowRow { targets: vec!["192.0.2.1".to_owned()], ..good.clone() },
                "expected ADDRESS:PORT, ",
            ),
            (
                NetflowRow { engine: [Some(256), None], ..good.clone() },
                "engine_type 256: expected 0 to 255",
            ),
            (
                NetflowRow { engine: [None, Some(-1)], ..good.clone() },
                "engine_id -1: expected 0 to 255",
            ),
            (NetflowRow { active_timeout: -2, ..good }, "active_timeout -2: expected -1 (never)"),
        ] {
            let problem = netflow(&bad).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
