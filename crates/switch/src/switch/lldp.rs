//! The discovery of neighbours as control threads see it: on which ports it goes on, and what is said.

use std::time::Instant;

use l2proto::lldp::agent::Agent;
use l2proto::lldp::frame::{BRIDGE, CHASSIS_MAC, Id, PORT_NAME, Unit};
use l2proto::lldp::{LldpMode, LldpReport};
use litemap::LiteMap;
use packet::MacAddr;

use super::{Control, Switch};
use crate::ports::Entry;

/// What the switch says of itself.
const DESCRIPTION: &str = concat!("Ringway ", env!("CARGO_PKG_VERSION"));

/// The ports that take part, by name.
#[derive(Debug, Default)]
pub(super) struct Lldp {
    ports: LiteMap<String, Station>,
    /// The address by which the switch is known: it stays, whatever ports come and go.
    chassis: Option<MacAddr>,
    /// The host's name.
    host: Option<String>,
}

/// A port that takes part.
#[derive(Debug)]
struct Station {
    number: u16,
    agent: Agent,
    /// Whether it was told that what comes in is wrong: a neighbour may say that as often as it likes.
    has_complained: bool,
}

impl Lldp {
    fn chassis(&mut self, macs: impl Iterator<Item = MacAddr>) -> MacAddr {
        let mut macs = macs.filter(|mac| mac.is_station());
        *self.chassis.get_or_insert_with(|| macs.next().unwrap_or_else(MacAddr::random_local))
    }

    fn host(&mut self) -> String {
        let name = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.host.get_or_insert_with(name).clone()
    }
}

impl Switch {
    /// What ports know of their neighbours by LLDP, in the order of their names; those that take no
    /// part are left out.
    #[must_use]
    pub fn neighbours(&self) -> Vec<LldpReport> {
        let mut control = self.control();
        // What has come and is not read yet counts.
        control.update_lldp();
        let now = control.time.now();
        let report = |(name, station): (&String, &Station)| {
            let (agent, counts) = (&station.agent, station.agent.counts);
            LldpReport {
                port: name.clone(),
                mode: agent.mode(),
                received: counts.received,
                sent: counts.sent,
                bad: counts.bad,
                ignored: counts.ignored,
                aged: counts.aged,
                neighbours: agent.neighbours(now).collect(),
            }
        };
        control.lldp.ports.iter().map(report).collect()
    }
}

impl Control {
    /// Looks after the neighbours of all ports, since ports have come, gone or changed.
    pub(super) fn update_lldp(&mut self) {
        if self.run_lldp().is_some() {
            self.notes.ask();
        }
    }

    /// Does what is due on all ports; returns when there is something to do next.
    pub(super) fn run_lldp(&mut self) -> Option<Instant> {
        let wants = |entry: &Entry| {
            entry.options().lldp != LldpMode::Off
                && entry.cable().is_none()
                && entry.bundle().is_none()
        };
        let ports = self.ports.iter().filter(|(_, entry)| wants(entry));
        let wanted: Vec<(String, u16)> =
            ports.map(|(name, entry)| (name.to_owned(), entry.number())).collect();
        if wanted.is_empty() && self.lldp.ports.is_empty() {
            return None;
        }
        self.end_lldp(&wanted);
        for (name, number) in wanted {
            self.run_lldp_on(&name, number);
        }
        self.lldp.ports.values().filter_map(|station| station.agent.due()).min()
    }

    /// Takes ports out that take no part any more, and lets their neighbours know.
    fn end_lldp(&mut self, wanted: &[(String, u16)]) {
        // Both are in the order of their names.
        let stays = |name: &String, station: &Station| {
            let found = wanted.binary_search_by(|(other, _)| other.cmp(name)).ok();
            found.and_then(|at| wanted.get(at)).is_some_and(|(_, number)| *number == station.number)
        };
        let all = self.lldp.ports.iter().filter(|(name, station)| !stays(name, station));
        let gone: Vec<String> = all.map(|(name, _)| name.clone()).collect();
        for name in gone {
            let Some(mut station) = self.lldp.ports.remove(&name) else { continue };
            // A port that is not there any more has had its turn.
            let is_there = self.ports.get(&name).is_ok_and(|it| it.number() == station.number);
            if let Some(ttl) = station.agent.end().filter(|_| is_there) {
                self.say(&name, ttl);
            }
            self.listen_for_lldp(station.number, false);
        }
    }

    fn run_lldp_on(&mut self, name: &str, number: u16) {
        let Ok(entry) = self.ports.get(name) else { return };
        let mode = entry.options().lldp;
        let is_up = entry.is_in_service() && entry.control().link().up;
        self.listen_for_lldp(number, mode.receives());
        let now = self.time.now();
        let new = || Station { number, agent: Agent::default(), has_complained: false };
        let station = self.lldp.ports.entry(name.to_owned()).or_insert_with(new);
        let before = station.agent.run(mode, is_up, now);
        if let Some(line) = self.ears.lldp(number) {
            line.heard().for_each(|heard| station.agent.hear(heard.bytes(), now));
        }
        if let Some(flaw) = station.agent.take_flaw()
            && !std::mem::replace(&mut station.has_complained, true)
        {
            tracing::warn!("{flaw} received on {name}");
        }
        if let Some(ttl) = before {
            self.say(name, ttl);
        }
    }

    /// Has port `name` tell its neighbours no more who it is, since it is about to go.
    pub(super) fn leave_lldp(&mut self, name: &str) {
        let station = self.lldp.ports.get_mut(name);
        if let Some(ttl) = station.and_then(|station| station.agent.end()) {
            self.say(name, ttl);
        }
    }

    /// Has all ports tell so, since the switch is about to go.
    pub(super) fn leave_all_lldp(&mut self) {
        let names: Vec<String> = self.lldp.ports.keys().cloned().collect();
        names.iter().for_each(|name| self.leave_lldp(name));
    }

    /// Tells the neighbours of port `name` who it is, which is to hold for so many seconds.
    fn say(&mut self, name: &str, ttl: u16) {
        let Ok(entry) = self.ports.get(name) else { return };
        let (number, own) = (entry.number(), entry.control().mac());
        let place = match &entry.options().bond {
            Some(bond) => format!("bond {bond}"),
            None => format!("bridge {}", entry.bridge_name()),
        };
        let chassis = self.lldp.chassis(self.ports.iter().map(|(_, port)| port.control().mac()));
        let unit = Unit {
            chassis: Id { kind: CHASSIS_MAC, bytes: chassis.0.to_vec() },
            port: Id { kind: PORT_NAME, bytes: name.as_bytes().to_vec() },
            ttl,
            port_description: Some(format!("{name}, {place}")),
            system_name: Some(self.lldp.host()).filter(|name| !name.is_empty()),
            system_description: Some(DESCRIPTION.to_owned()),
            capabilities: Some([BRIDGE, BRIDGE]),
            addresses: Vec::new(),
        };
        let from = Some(own).filter(|mac| mac.is_station()).unwrap_or(chassis);
        self.send_own(number, &[unit.frame(from)]);
    }
}
