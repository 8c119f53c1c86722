//! What a running switch answers about neighbours.

use daemon::Daemon;
use switch::LldpReport;

use crate::control::protocol::{Neighbour, NeighbourPort, Neighbours};

/// The neighbours of a switch.
pub fn answer(daemon: &Daemon) -> Neighbours {
    Neighbours { ports: daemon.switch().neighbours().into_iter().map(port).collect() }
}

fn port(report: LldpReport) -> NeighbourPort {
    NeighbourPort {
        port: report.port,
        mode: report.mode,
        received: report.received,
        sent: report.sent,
        bad: report.bad,
        ignored: report.ignored,
        aged: report.aged,
        neighbours: report.neighbours.into_iter().map(neighbour).collect(),
    }
}

fn neighbour(found: switch::Neighbour) -> Neighbour {
    let ((chassis_id_type, chassis_id), (port_id_type, port_id)) = (found.chassis, found.port);
    Neighbour {
        chassis_id,
        chassis_id_type: chassis_id_type.to_owned(),
        port_id,
        port_id_type: port_id_type.to_owned(),
        ttl_seconds: found.ttl.as_secs(),
        left_seconds: found.left.as_secs(),
        port_description: found.port_description,
        system_name: found.system_name,
        system_description: found.system_description,
        capabilities: found.capabilities.into_iter().map(str::to_owned).collect(),
        addresses: found.addresses,
    }
}
