//! The switch, as a bridge's rules and its controllers need it.

use std::sync::Arc;

use flow::{OptionField, Pipeline, Tables, Tunnelling, VlanLimit, slot};
use litemap::LiteMap;
use ofproto::{Datapath, PacketOut, Port, Resumed};
use openflow::PortNo;
use openflow::message::ct_flush::CtFlush;
use openflow::message::port::{config, state};
use openflow::message::stats::ipfix::IpfixStats;
use ordered::Gather as _;
use switch::{BridgeFlows, FlowBegin, FlowInlet, FlowPacketOut, Sight};

use crate::connections;
use crate::export::IpfixCounts;

/// One bridge of the switch.
#[derive(Debug)]
pub struct Forwarding {
    sight: Sight,
    bridge: String,
    /// Where packets for controllers go.
    inlet: FlowInlet,
    vlans: VlanLimit,
    /// Which options of tunnels fields stand for.
    options: Vec<OptionField>,
    ipfix: IpfixCounts,
}

impl Forwarding {
    /// The bridge of this name; `inlet` takes packets for its controllers.
    #[must_use]
    pub fn new(sight: Sight, bridge: &str, inlet: FlowInlet, ipfix: IpfixCounts) -> Self {
        Self {
            sight,
            bridge: bridge.to_owned(),
            inlet,
            vlans: VlanLimit::default(),
            options: Vec::new(),
            ipfix,
        }
    }

    /// Has rules be able to match on so many tags, from when they are published next.
    pub const fn set_vlans(&mut self, vlans: VlanLimit) {
        self.vlans = vlans;
    }

    /// The name of the bridge.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }
}

impl Forwarding {
    /// What decides about packets by these rules and ports.
    fn pipeline(
        &self,
        tables: &Tables,
        ports: &mut dyn Iterator<Item = &Port>,
        asks_controllers: bool,
    ) -> Arc<Pipeline> {
        let (mut marks, mut is_used) = (LiteMap::new(), false);
        let known = ports.filter_map(|port| {
            let number = self.sight.port_number(&port.name).ok()?;
            is_used |= self.sight.is_tunnel(&port.name);
            let has = |bit: u32| port.desc.config & bit != 0;
            let settings = flow::Port {
                number,
                no_forward: has(config::NO_FWD),
                no_flood: has(config::NO_FLOOD),
                no_receive: has(config::NO_RECV),
                no_receive_stp: has(config::NO_RECV_STP),
                no_packet_in: has(config::NO_PACKET_IN),
                is_dead: port.desc.state & state::LIVE == 0,
                takes_bare: self.sight.takes_bare(&port.name),
                is_patch: self.sight.is_patch(&port.name),
            };
            let of = port.marks.iter().map(|(queue, mark)| ((port.desc.number, *queue), *mark));
            for (queue, mark) in of {
                marks.insert(queue, mark);
            }
            Some((port.desc.number, settings))
        });
        let ports = known.gather();
        Arc::new(Pipeline {
            tables: tables.clone(),
            ports,
            asks_controllers,
            marks,
            vlans: self.vlans,
            tunnels: Tunnelling { is_used, options: self.options.clone() },
        })
    }

    fn packet_out(&self, pipeline: Option<Arc<Pipeline>>, packet: PacketOut) {
        let PacketOut { in_port, actions, key, bytes } = packet;
        let begin = FlowBegin::Actions(actions);
        self.hand_over(pipeline, FlowPacketOut { in_port, begin, key, bytes });
    }

    fn hand_over(&self, pipeline: Option<Arc<Pipeline>>, packet: FlowPacketOut) {
        if let Err(error) = self.sight.packet_out(&self.bridge, pipeline, packet) {
            tracing::debug!("bridge {}: a packet is not sent: {error}", self.bridge);
        }
    }
}

impl Datapath for Forwarding {
    fn now(&self) -> u64 {
        self.sight.flow_time()
    }

    fn flush(&mut self) {
        self.sight.flush_flows();
    }

    fn set_options(&mut self, options: Vec<OptionField>) {
        self.options = options;
    }

    fn publish(
        &mut self,
        tables: &Tables,
        ports: &mut dyn Iterator<Item = &Port>,
        asks_controllers: bool,
    ) {
        let pipeline = self.pipeline(tables, ports, asks_controllers);
        let flows = BridgeFlows::new(pipeline).with_packets(self.inlet.clone());
        if let Err(error) = self.sight.set_flows(&self.bridge, Some(flows)) {
            tracing::debug!("bridge {}: its rules are not in use: {error}", self.bridge);
        }
    }

    fn send(&mut self, packet: PacketOut) {
        self.packet_out(None, packet);
    }

    fn send_by(
        &mut self,
        tables: &Tables,
        ports: &mut dyn Iterator<Item = &Port>,
        packet: PacketOut,
    ) {
        let pipeline = self.pipeline(tables, ports, false);
        self.packet_out(Some(pipeline), packet);
    }

    fn resume(&mut self, Resumed { frozen, mirrors, bytes }: Resumed) {
        let (in_port, key) = (PortNo(frozen.key.get_u32(slot::IN_PORT)), frozen.key.clone());
        let begin = FlowBegin::Resume { frozen, mirrors };
        self.hand_over(None, FlowPacketOut { in_port, begin, key, bytes });
    }

    fn flush_connections(&mut self, which: &CtFlush) {
        if let Some(connections) = self.sight.connections() {
            connections::flush(&connections, which);
        }
    }

    fn ipfix(&self) -> Vec<(Option<u32>, IpfixStats)> {
        self.ipfix.of(&self.bridge)
    }
}
