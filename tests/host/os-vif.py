"""Plugs a vhost-user interface into bridge br-int as Nova's compute service does, by os-vif, and out again after a
line on its standard input.

Usage: os-vif.py DATABASE SOCKET"""

import sys
import tempfile

import os_vif
from os_vif.objects import instance_info, network, vif
from oslo_config import cfg
from vif_plug_ovs import privsep

ID = "11111111-2222-3333-4444-555555555555"

database, socket = sys.argv[1:]
# All of it is done by this process, which is root.
privsep.vif_plug.set_client_mode(False)
with tempfile.NamedTemporaryFile("w") as file:
    file.write(f"[os_vif_ovs]\novsdb_connection = {database}\n")
    file.flush()
    cfg.CONF(["--config-file", file.name], project="os-vif")
os_vif.initialize()
profile = vif.VIFPortProfileOpenVSwitch(interface_id=ID, datapath_type="netdev")
# The VMM listens at the socket.
interface = vif.VIFVHostUser(
    id=ID, address="52:54:00:00:00:01", network=network.Network(id=ID, bridge="br-int", mtu=1400),
    plugin="ovs", path=socket, mode="server", vif_name="vhu11111111-22", port_profile=profile)
instance = instance_info.InstanceInfo(uuid=ID, name="vm1")
os_vif.plug(interface, instance)
print("plugged", flush=True)
sys.stdin.readline()
os_vif.unplug(interface, instance)
