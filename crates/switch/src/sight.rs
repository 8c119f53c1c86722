//! A handle of a switch for threads that do not have it.

use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use conntrack::Conntrack;
use datapath::flows::{BridgeFlows, FlowPacketOut};
use eal::time::Time;
use flow::Pipeline;

use crate::error::Error;
use crate::report::PortReport;
use crate::switch::{Control, Switch, lock};

/// What a switch's ports do, and the flows of its bridges, for a thread of its own. It does not keep the
/// switch alive.
#[derive(Clone, Debug)]
pub struct Sight {
    control: Weak<Mutex<Control>>,
    started: Instant,
    time: Time,
}

impl Sight {
    fn control(&self) -> Option<Arc<Mutex<Control>>> {
        self.control.upgrade()
    }

    /// All ports as [`Switch::samples`] has them; none once the switch is gone.
    #[must_use]
    pub fn ports(&self) -> Vec<PortReport> {
        self.control().map(|control| lock(&control).samples()).unwrap_or_default()
    }

    /// As [`Switch::flow_time`].
    #[must_use]
    pub fn flow_time(&self) -> u64 {
        let uptime = self.time.now().saturating_duration_since(self.started);
        u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX)
    }

    /// As [`Switch::flush_flows`].
    pub fn flush_flows(&self) {
        let now = self.flow_time();
        if let Some(control) = self.control() {
            lock(&control).flush_flows(now);
        }
    }

    /// As [`Switch::set_flows`].
    ///
    /// # Errors
    /// There is no such bridge, or no switch any more.
    pub fn set_flows(&self, bridge: &str, flows: Option<BridgeFlows>) -> Result<(), Error> {
        let now = self.flow_time();
        let control = self.control().ok_or(Error::NoWorker)?;
        lock(&control).set_flows(bridge, flows, now)
    }

    /// As [`Switch::connections`]; `None`: there is no switch any more.
    #[must_use]
    pub fn connections(&self) -> Option<Arc<Conntrack>> {
        let control = self.control()?;
        let connections = Arc::clone(lock(&control).connections());
        Some(connections)
    }

    /// As [`Switch::port_number`].
    ///
    /// # Errors
    /// There is no such port, or no switch any more.
    pub fn port_number(&self, name: &str) -> Result<u16, Error> {
        let control = self.control().ok_or(Error::NoWorker)?;
        lock(&control).port_number(name)
    }

    /// Whether a port is one of a tunnel.
    #[must_use]
    pub fn is_tunnel(&self, name: &str) -> bool {
        let is_it = |control: Arc<Mutex<Control>>| lock(&control).is_tunnel(name);
        self.control().is_some_and(is_it)
    }

    /// Whether a port is one end of a patch, behind which another bridge is.
    #[must_use]
    pub fn is_patch(&self, name: &str) -> bool {
        let is_it = |control: Arc<Mutex<Control>>| lock(&control).is_patch(name);
        self.control().is_some_and(is_it)
    }

    /// Whether packets without a header of Ethernet can go out on a port: on a patch port, and on those of tunnels that
    /// are set to it.
    #[must_use]
    pub fn takes_bare(&self, name: &str) -> bool {
        let takes = |control: Arc<Mutex<Control>>| lock(&control).takes_bare(name);
        self.control().is_some_and(takes)
    }

    /// As [`Switch::packet_out`].
    ///
    /// # Errors
    /// There is no such bridge, or all workers have ended.
    pub fn packet_out(
        &self,
        bridge: &str,
        pipeline: Option<Arc<Pipeline>>,
        packet: FlowPacketOut,
    ) -> Result<(), Error> {
        let now = self.flow_time();
        let control = self.control().ok_or(Error::NoWorker)?;
        lock(&control).packet_out(bridge, (pipeline, packet), now)
    }
}

impl Switch {
    /// A handle of it.
    #[must_use]
    pub fn sight(&self) -> Sight {
        let (control, started, time) = self.parts();
        Sight { control, started, time }
    }
}
