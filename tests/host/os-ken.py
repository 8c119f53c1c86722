"""A learning switch by rules, as an application of os-ken: it is asked about packets of which it has not
seen where they go, and makes rules of what it has seen."""

from os_ken.base import app_manager
from os_ken.controller import ofp_event
from os_ken.controller.handler import CONFIG_DISPATCHER, MAIN_DISPATCHER, set_ev_cls
from os_ken.lib.packet import ethernet, packet
from os_ken.ofproto import ofproto_v1_3


class Switch(app_manager.OSKenApp):
    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.ports = {}

    @set_ev_cls(ofp_event.EventOFPSwitchFeatures, CONFIG_DISPATCHER)
    def features(self, event):
        """A switch is there: it is to ask about whatever no rule is for."""
        path = event.msg.datapath
        ask = path.ofproto_parser.OFPActionOutput(
            path.ofproto.OFPP_CONTROLLER, path.ofproto.OFPCML_NO_BUFFER
        )
        self.add(path, 0, path.ofproto_parser.OFPMatch(), [ask])
        self.logger.info("features of %016x", path.id)

    def add(self, path, priority, match, actions):
        """Adds a rule that does these."""
        parser = path.ofproto_parser
        apply = parser.OFPInstructionActions(path.ofproto.OFPIT_APPLY_ACTIONS, actions)
        path.send_msg(
            parser.OFPFlowMod(
                datapath=path, priority=priority, match=match, instructions=[apply]
            )
        )

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)
    def packet_in(self, event):
        """A packet has come that no rule is for."""
        message = event.msg
        path, port = message.datapath, message.match["in_port"]
        parser, proto = path.ofproto_parser, path.ofproto
        header = packet.Packet(message.data).get_protocol(ethernet.ethernet)
        self.ports[header.src] = port
        to = self.ports.get(header.dst, proto.OFPP_FLOOD)
        actions = [parser.OFPActionOutput(to)]
        if to != proto.OFPP_FLOOD:
            match = parser.OFPMatch(in_port=port, eth_dst=header.dst, eth_src=header.src)
            self.add(path, 1, match, actions)
        path.send_msg(
            parser.OFPPacketOut(
                datapath=path,
                buffer_id=proto.OFP_NO_BUFFER,
                in_port=port,
                actions=actions,
                data=message.data,
            )
        )
