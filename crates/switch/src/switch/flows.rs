//! Bridges whose frames go by the rules of OpenFlow tables.

use std::sync::Arc;

use datapath::flows::{BridgeFlows, FlowPacketOut};
use datapath::worker::Message;
use flow::Pipeline;

use super::{Control, Switch};
use crate::error::Error;

impl Switch {
    /// Has the frames of a bridge go by these flows from now on; `None`: as those of a plain bridge. So
    /// do those of which the rules say no more than that. When this returns, no worker goes by others
    /// any more, and each has gone from one to the other between two bursts.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use flow::{Change, Pipeline};
    /// use openflow::{Action, Instructions, Match, PortNo};
    /// use switch::{BridgeFlows, PortOptions, Switch, SwitchConfig};
    ///
    /// let switch = Switch::start(&SwitchConfig::default())?;
    /// switch.open_port("a", "null:", &PortOptions::default())?;
    /// let mut pipeline = Pipeline::default();
    /// pipeline.ports.insert(PortNo(1), flow::Port::new(switch.port_number("a")?));
    /// let send = Instructions::apply(vec![Action::output(PortNo(1))]);
    /// let add = Change::add(0, Match::new(), send);
    /// let added = pipeline.tables.change(&add, switch.flow_time()).unwrap().added;
    /// switch.set_flows("default", Some(BridgeFlows::new(Arc::new(pipeline))))?;
    /// switch.flush_flows();
    /// assert_eq!(added[0].stats.packets(), 0);
    /// # Ok::<(), switch::Error>(())
    /// ```
    ///
    /// # Errors
    /// There is no such bridge.
    pub fn set_flows(&self, bridge: &str, flows: Option<BridgeFlows>) -> Result<(), Error> {
        let now = self.flow_time();
        self.control().set_flows(bridge, flows, now)
    }

    /// What decides about the frames of a bridge, where that was told.
    ///
    /// # Errors
    /// There is no such bridge.
    pub fn flows(&self, bridge: &str) -> Result<Option<BridgeFlows>, Error> {
        Ok(self.control().bridges.get(bridge)?.flows().cloned())
    }

    /// The name of a port, by the number by which the switch knows it.
    #[must_use]
    pub fn port_named(&self, number: u16) -> Option<String> {
        self.control().ports.name_of(number).map(str::to_owned)
    }

    /// The time that rules are changed at, used and ended by: in milliseconds, by the switch's clock.
    #[must_use]
    pub fn flow_time(&self) -> u64 {
        u64::try_from(self.uptime().as_millis()).unwrap_or(u64::MAX)
    }

    /// Has the rules of all bridges be told what they were for: when this returns, they count all that
    /// came before. Without this, that takes a second.
    pub fn flush_flows(&self) {
        let now = self.flow_time();
        self.control().flush_flows(now);
    }

    /// The number by which the switch knows a port, as [`flow::Port`] has it.
    ///
    /// # Errors
    /// There is no such port.
    pub fn port_number(&self, name: &str) -> Result<u16, Error> {
        self.control().port_number(name)
    }

    /// Does with a packet what a controller says: by this pipeline, or by that of the bridge.
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
        self.control().packet_out(bridge, (pipeline, packet), now)
    }
}

impl Control {
    /// Has all rules be told what they were for until `now`, in milliseconds.
    pub(crate) fn flush_flows(&self, now: u64) {
        self.bridges.flush_flows(now, &self.mailboxes);
    }

    pub(crate) fn set_flows(
        &mut self,
        bridge: &str,
        flows: Option<BridgeFlows>,
        now: u64,
    ) -> Result<(), Error> {
        let flows = flows.map(|flows| self.connected(flows));
        self.bridges.set_flows(bridge, flows, now, &self.mailboxes)
    }

    pub(crate) fn port_number(&self, name: &str) -> Result<u16, Error> {
        Ok(self.ports.get(name)?.number())
    }

    pub(crate) fn packet_out(
        &self,
        bridge: &str,
        (pipeline, packet): (Option<Arc<Pipeline>>, FlowPacketOut),
        now: u64,
    ) -> Result<(), Error> {
        let entry = self.bridges.get(bridge)?;
        let workers = self.mailboxes.len();
        let other = pipeline.map(|pipeline| self.connected(entry.flows_by(pipeline, workers)));
        let (id, packet) = (entry.id(), packet.of(other.as_ref().or(entry.flows()), now));
        let worker = self.any_worker()?;
        let sent = worker.ask(|done| Message::PacketOut(id, Box::new(packet), done));
        sent.ok_or(Error::NoWorker)
    }
}
