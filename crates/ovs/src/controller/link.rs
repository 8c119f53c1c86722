//! Between the database, the switch and the thread that serves controllers.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use daemon::{Daemon, Missing, State};
use flow::VlanLimit;
use litemap::LiteMap;
use ofproto::{BUNDLE_TIMEOUT, Job, Manner, Rate, Settings};
use openflow::message::port::config;
use openflow::message::role::Role;
use openflow::message::stats::desc::Desc;
use openflow::{Version, VersionSet};
use ordered::Gather as _;
use ovsdb::{Atom, Datum, Uuid};
use tls::Identity;

use super::in_band::InBandSpec;
use super::target::Target;
use super::{BridgeSpec, ControllerSpec, ControllerStatus, PROBE, Service, flow_table};
use crate::agent::Settings as AgentSettings;
use crate::content::{Bridge, Content, Controller};
use crate::export::IpfixCounts;
use crate::numbers::Numbers;
use crate::report::{Column, datapath_id};

/// The longest wait before a controller is tried again, where nothing is said.
const BACKOFF: Duration = Duration::from_secs(8);

/// The longest that a text of a description can be, without the zero that ends it.
const DESC: usize = 255;

/// Controllers of bridges, as the database has them.
#[derive(Debug, Default)]
pub struct Link {
    service: Option<Service>,
    bridges: LiteMap<String, BridgeSpec>,
    /// What controllers have set of ports: bits of their `config`.
    configs: LiteMap<String, u32>,
    /// Controllers that cannot be had, which the log was told of.
    bad: LiteMap<Uuid, String>,
    /// What they are told about collectors.
    ipfix: IpfixCounts,
}

impl Link {
    /// None yet; they are told these counts.
    pub fn new(ipfix: IpfixCounts) -> Self {
        Self { ipfix, ..Self::default() }
    }

    /// Readable when controllers want something, or have come or gone.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.service.as_ref().map(Service::fd)
    }

    /// Does what controllers want; gives whether there may be something to write into the database.
    pub fn serve(&mut self, daemon: &mut Daemon) -> bool {
        let Some(service) = &mut self.service else { return false };
        if !service.heed() {
            return false;
        }
        let wishes = service.wishes();
        for wish in &wishes {
            let Job::SetPort { name, config } = &wish.job;
            self.configs.insert(name.clone(), *config);
            let is_down = config & config::PORT_DOWN != 0;
            let applied = daemon.edit(Missing::Retry, |state| {
                state.port_mut(name)?.enabled = !is_down;
                Ok(())
            });
            if let Err(error) = applied {
                tracing::warn!("port {name}: a controller's change cannot be made: {error}");
            }
            if let Some(spec) = self.bridges.get_mut(&wish.bridge)
                && let Some((_, own)) = spec.ports.get_mut(name)
            {
                *own = config & !config::PORT_DOWN;
            }
        }
        service.update(&self.bridges);
        wishes.into_iter().for_each(|wish| service.grant(wish));
        true
    }

    /// Has controllers not be told of ports until [`update`](Self::update): the switch is being made
    /// what the database says.
    pub(crate) fn hold(&self) {
        if let Some(service) = &self.service {
            service.hold();
        }
    }

    /// Waits until controllers have been told of all packets that were for them by now.
    pub fn settle(&self) {
        if let Some(service) = &self.service {
            service.settle();
        }
    }

    /// Has ports so as controllers have set them.
    pub fn adjust(&self, state: &mut State) {
        for (name, config) in &self.configs {
            if let Some(port) = state.ports.get_mut(name) {
                port.enabled = config & config::PORT_DOWN == 0;
            }
        }
    }

    /// Has bridges and their controllers so as the database says.
    pub(crate) fn update(
        &mut self,
        content: &Content,
        numbers: &LiteMap<String, Numbers>,
        daemon: &Daemon,
        settings: &AgentSettings,
    ) {
        self.configs.retain(|name, _| content.interfaces().any(|(_, _, there, _)| there == name));
        let tls = identity(content, settings);
        self.bridges = content
            .bridges
            .iter()
            .map(|(name, bridge)| {
                let mut spec =
                    self.spec((name, bridge), numbers.get(name), &settings.run, tls.as_ref());
                spec.settings.bundle_timeout = bundle_timeout(content);
                spec.settings.tables = flow_table::configs(name, bridge);
                spec.vlans = vlan_limit(content);
                spec.in_band = InBandSpec::of(content, bridge);
                (name.clone(), spec)
            })
            .gather();
        if self.service.is_none() && !self.bridges.is_empty() {
            let sight = daemon.switch().sight();
            let (ipfix, time) = (self.ipfix.clone(), settings.time.clone());
            match Service::start(&settings.run, sight, ipfix, time) {
                Ok(service) => self.service = Some(service),
                Err(error) => tracing::error!("no OpenFlow: {error}"),
            }
        }
        if let Some(service) = &mut self.service {
            // Whoever asks for a change waits for `cur_cfg`, and sends frames then.
            if service.update(&self.bridges) {
                service.settle();
            }
        }
    }

    fn spec(
        &mut self,
        (bridge_name, bridge): (&str, &Bridge),
        numbers: Option<&Numbers>,
        run: &Path,
        tls: Option<&Identity>,
    ) -> BridgeSpec {
        let interfaces = bridge.ports.values().flat_map(|port| port.interfaces.keys());
        let ports = interfaces.filter_map(|name| {
            let config = self.configs.get(name).copied().unwrap_or(0) & !config::PORT_DOWN;
            Some((name.clone(), (numbers?.of(name)?, config)))
        });
        let ports = ports.gather();
        let (mut controllers, mut has_lost) = (LiteMap::new(), false);
        for (row, controller) in &bridge.controllers {
            let spec = controller_spec(controller, tls);
            match spec.and_then(|spec| guarded(spec, run, bridge_name)) {
                Ok(spec) => {
                    self.bad.remove(row);
                    controllers.insert(*row, spec);
                }
                Err(error) => {
                    has_lost |= controller.kind.as_deref() != Some("service");
                    if self.bad.insert(*row, controller.target.clone()).as_ref()
                        != Some(&controller.target)
                    {
                        tracing::error!("{error}");
                    }
                }
            }
        }
        let is_secure = bridge.fail_mode.as_deref() == Some("secure");
        let (settings, queues, marks) = (settings(bridge), queues(bridge), marks(bridge));
        let (vlans, in_band) = Default::default();
        BridgeSpec {
            settings,
            ports,
            queues,
            marks,
            controllers,
            is_secure,
            has_lost,
            vlans,
            in_band,
        }
    }

    /// What the rows of controllers say.
    pub(crate) fn columns(&self, content: &Content) -> Vec<(Uuid, Vec<Column>)> {
        let status = self.service.as_ref().map(Service::status).unwrap_or_default();
        let rows = content.bridges.values().flat_map(|bridge| bridge.controllers.keys());
        let none = ControllerStatus::default();
        rows.map(|row| (*row, status_columns(status.get(row).unwrap_or(&none)))).collect()
    }
}

/// Kinds of QoS with queues, of those that are kept (ovs-vswitchd.conf.db(5)).
const WITH_QUEUES: [&str; 3] = ["linux-htb", "linux-hfsc", "trtcm-policer"];

/// The numbers of the queues of a bridge's interfaces.
fn queues(bridge: &Bridge) -> LiteMap<String, BTreeSet<u32>> {
    let of = bridge.ports.values().filter_map(|port| {
        let qos = port.qos.as_ref().filter(|qos| WITH_QUEUES.contains(&qos.kind.as_str()))?;
        let numbers: BTreeSet<u32> = qos.queues.keys().copied().gather();
        Some(port.interfaces.keys().map(move |name| (name.clone(), numbers.clone())))
    });
    of.flatten().gather()
}

/// The classes of service that queues give packets, by the bridge's interfaces.
fn marks(bridge: &Bridge) -> LiteMap<String, LiteMap<u32, u8>> {
    let of = bridge.ports.values().filter_map(|port| {
        let queues = port.qos.as_ref()?.queues.iter();
        let marks: LiteMap<u32, u8> =
            queues.filter_map(|(at, queue)| Some((*at, queue.dscp?))).gather();
        Some(port.interfaces.keys().map(move |name| (name.clone(), marks.clone())))
    });
    of.flatten().filter(|(_, marks)| !marks.is_empty()).gather()
}

/// What has become of a controller, as its row says it.
fn status_columns(status: &ControllerStatus) -> Vec<Column> {
    let role = status.role.map(|role| match role {
        Role::Equal => "other",
        Role::Primary => "master",
        Role::Secondary => "slave",
    });
    let state = (!status.state.is_empty()).then_some(("state", status.state));
    let error = status.last_error.as_deref().map(|error| ("last_error", error));
    let pairs = state.into_iter().chain(error);
    let pairs = pairs.map(|(key, value)| (Atom::from(key), Atom::from(value)));
    vec![
        ("is_connected", Datum::from(status.role.is_some())),
        ("role", role.map_or_else(Datum::default, Datum::from)),
        ("status", Datum::Map(pairs.gather())),
    ]
}

/// How many packets a controller is told of; a burst is a quarter of a second's where it is not said.
fn rate(row: &Controller) -> Option<Rate> {
    let number = |number: i64| u32::try_from(number).ok().filter(|number| *number > 0);
    let per_second = row.rate_limit.and_then(number)?;
    let burst = row.burst_limit.and_then(number).unwrap_or((per_second / 4).max(1));
    Some(Rate { per_second, burst })
}

/// `other_config:bundle-idle-timeout` of the whole switch, in seconds.
fn bundle_timeout(content: &Content) -> Duration {
    let seconds = content.other_config.get("bundle-idle-timeout");
    let seconds = seconds.and_then(|text| text.parse().ok()).filter(|seconds| *seconds > 0);
    seconds.map_or(BUNDLE_TIMEOUT, Duration::from_secs)
}

fn milliseconds(value: Option<i64>) -> Option<Duration> {
    value.and_then(|value| u64::try_from(value).ok()).map(Duration::from_millis)
}

/// By which keys controllers know us: those of the database, or else those of the command line, which also says
/// what the database does not.
fn identity(content: &Content, settings: &AgentSettings) -> Option<Identity> {
    let usual = settings.tls.as_ref()?;
    Some(content.ssl.as_ref().map_or_else(|| usual.clone(), |ssl| usual.with(ssl.clone())))
}

fn controller_spec(row: &Controller, tls: Option<&Identity>) -> Result<ControllerSpec, String> {
    let target: Target = row.target.parse().map_err(|error| format!("{error}"))?;
    let listens = target.listens();
    Ok(ControllerSpec {
        is_service: row.kind.as_deref().map_or(listens, |kind| kind == "service"),
        tls: tls.filter(|_| target.secured().is_some()).cloned(),
        target,
        max_backoff: milliseconds(row.max_backoff).unwrap_or(BACKOFF),
        probe: Some(milliseconds(row.inactivity_probe).unwrap_or(PROBE))
            .filter(|probe| !probe.is_zero()),
        manner: Manner { rate: rate(row), is_silent: row.is_silent },
    })
}

/// The same, unless others could have files overwritten by it: sockets that we listen at are in the run
/// folder, and named after their bridge.
fn guarded(spec: ControllerSpec, run: &Path, bridge: &str) -> Result<ControllerSpec, String> {
    let Target::ListenUnix(path) = &spec.target else { return Ok(spec) };
    let name = path.file_name().and_then(|name| name.to_str());
    let is_named = name.is_some_and(|name| name.starts_with(&format!("{bridge}.")));
    let is_there = std::path::absolute(run).is_ok_and(|run| path.parent() == Some(&run));
    if is_named && is_there {
        return Ok(spec);
    }
    let (target, run) = (&spec.target, run.display());
    Err(format!(
        "bridge {bridge}: Not adding Unix domain socket controller \"{target}\" due to possibility of \
         overwriting local files. Instead, use \"punix:{run}/{bridge}.NAME\", or connect to \
         \"unix:{run}/{bridge}.mgmt\", which is always there"
    ))
}

/// How many tags rules can match on (`vlan-limit`); what is no number counts as nothing.
fn vlan_limit(content: &Content) -> VlanLimit {
    let asked = content.other_config.get("vlan-limit").and_then(|text| text.parse().ok());
    asked.map_or_else(VlanLimit::default, VlanLimit::new)
}

/// What controllers are told of a bridge. Programs tell by the hardware's name whether Open
/// vSwitch's extensions are there, which they are; by the software's they are told the truth.
fn settings(bridge: &Bridge) -> Settings {
    let text = |key: &str, default: &str| {
        let text = bridge.other_config.get(key).map_or(default, String::as_str);
        text.chars().take(DESC).collect::<String>()
    };
    let versions: VersionSet =
        bridge.protocols.iter().filter_map(|name| name.parse::<Version>().ok()).collect();
    Settings {
        datapath_id: u64::from_str_radix(&datapath_id(bridge), 16).unwrap_or(0),
        versions: if versions.is_empty() { VersionSet::ALL } else { versions },
        desc: Desc {
            manufacturer: "Nicira, Inc.".to_owned(),
            hardware: "Open vSwitch".to_owned(),
            software: format!("Ringway {}", env!("CARGO_PKG_VERSION")),
            serial: text("dp-sn", "None"),
            datapath: text("dp-desc", "None"),
        },
        ..Settings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Texts;

    #[test]
    fn who_we_listen_for_only_asks_unless_it_is_said_otherwise() {
        let spec = |target: &str, kind: Option<&str>| {
            let kind = kind.map(str::to_owned);
            let row = Controller { target: target.to_owned(), kind, ..Controller::default() };
            controller_spec(&row, None)
        };
        let is_service = |target, kind| spec(target, kind).unwrap().is_service;
        assert!(is_service("ptcp:", None) && !is_service("ptcp:", Some("primary")));
        assert!(!is_service("tcp:127.0.0.1", None) && is_service("tcp:127.0.0.1", Some("service")));
        assert!(spec("tls:1.2.3.4:1", None).unwrap_err().contains("expected tcp:"));
        let row = Controller {
            target: "ptcp:".to_owned(),
            max_backoff: Some(2_000),
            inactivity_probe: Some(0),
            ..Controller::default()
        };
        let spec = controller_spec(&row, None).unwrap();
        assert_eq!((spec.max_backoff, spec.probe), (Duration::from_secs(2), None));
    }

    #[test]
    fn sockets_that_we_listen_at_are_ours() {
        let may = |path: &str| {
            let target = format!("punix:{path}");
            let spec = controller_spec(&Controller { target, ..Controller::default() }, None);
            guarded(spec.unwrap(), Path::new("/run/ringway"), "br0").is_ok()
        };
        assert!(may("/run/ringway/br0.void") && may("/run/ringway/br0.controller"));
        let others = ["/run/ringway/br1.a", "/run/br0.a", "br0.a", "/run/ringway/br0.a/../x"];
        assert_eq!(others.map(may), [false; 4]);
    }

    #[test]
    fn rows_say_what_has_become_of_controllers() {
        let status = ControllerStatus {
            role: None,
            state: "BACKOFF",
            last_error: Some("it went".to_owned()),
        };
        let columns = status_columns(&status);
        let [_, (_, role), (_, pairs)] = &columns[..] else { panic!("{columns:?}") };
        assert_eq!((role.string(), pairs.value_of("last_error")), (None, Some("it went")));
        let there = ControllerStatus { role: Some(Role::Primary), ..status };
        assert_eq!(status_columns(&there)[1].1.string(), Some("master"));
    }

    #[test]
    fn limits_of_packets_are_those_of_the_row() {
        let of = |rate_limit, burst_limit| {
            rate(&Controller { rate_limit, burst_limit, ..Controller::default() })
        };
        assert_eq!((of(None, Some(25)), of(Some(0), None)), (None, None));
        assert_eq!(of(Some(1_000), None), Some(Rate { per_second: 1_000, burst: 250 }));
        assert_eq!(of(Some(100), Some(30)), Some(Rate { per_second: 100, burst: 30 }));
    }

    #[test]
    fn a_bridge_speaks_what_it_is_to_speak() {
        let other = [("datapath-id", "00000000000000ab"), ("dp-desc", "of the lab")];
        let other = other.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut bridge = Bridge::bare(Uuid(1), Texts::from_iter(other), LiteMap::new());
        assert_eq!(settings(&bridge).versions, VersionSet::ALL);
        bridge.protocols = vec!["OpenFlow13".to_owned(), "OpenFlow99".to_owned()];
        let settings = settings(&bridge);
        assert_eq!(settings.versions.newest(), Some(Version::V13));
        assert_eq!((settings.datapath_id, settings.desc.datapath.as_str()), (0xab, "of the lab"));
        assert_eq!(settings.desc.serial, "None");
    }
}
