//! What the switch answers at a moment.

use std::collections::BTreeMap;

use ordered::Gather as _;

use crate::control::client::Client;
use crate::control::protocol::{
    Bonds, Bridges, Info, Mirrors, Ports, Request, Stats, Vdpa, Workers,
};
use crate::exit::Failure;
use crate::show::front_end;

/// Answers that belong together.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Who answers.
    pub info: Info,
    /// Counters.
    pub stats: Stats,
    /// Ports.
    pub ports: Ports,
    /// Workers.
    pub workers: Workers,
    /// Bridges.
    pub bridges: Bridges,
    /// Bonds.
    pub bonds: Bonds,
    /// Mirrors.
    pub mirrors: Mirrors,
    /// vDPA devices.
    pub vdpa: Vdpa,
    /// The processes that have connected to ports, by the ports' names.
    pub front_ends: BTreeMap<String, String>,
}

impl Sample {
    /// Asks for one.
    ///
    /// # Errors
    /// When the switch does not answer, or is of a version that answers otherwise.
    pub fn take(client: &mut Client) -> Result<Self, Failure> {
        // Counters and workers first, one after the other: their rates are those of one interval.
        let stats = client.ask(&Request::ShowStats {})?;
        let workers = client.ask(&Request::ShowWorkers {})?;
        let ports: Ports = client.ask(&Request::ShowPorts {})?;
        let bridges = client.ask(&Request::ShowBridges {})?;
        let bonds = client.ask(&Request::ShowBonds {})?;
        let mirrors = client.ask(&Request::ShowMirrors {})?;
        let vdpa = client.ask(&Request::ShowVdpa {})?;
        let info = client.ask(&Request::Info {})?;
        let named = |port| front_end(port).map(|process| (port.name.clone(), process));
        let front_ends = ports.ports.iter().filter_map(named).gather();
        Ok(Self { info, stats, ports, workers, bridges, bonds, mirrors, vdpa, front_ends })
    }
}
