use packet::MacAddr;
use tunnel::{Address, Kind, Link, Meta, Outer, Settings};

use super::*;
use crate::tunnel::TunnelWay;

/// Bridge `br0`, whose port 4 is a tunnel that leads by `br1`; what goes out on port 3 of either is for the host,
/// and out of a tunnel. Without a native tunnel, the datapath sees to that.
struct Tunnels {
    bridges: [Arc<Pipeline>; 2],
    is_native: bool,
}

const NUMBER: u32 = 4_789;

impl World for Tunnels {
    fn pipeline(&mut self, bridge: &str) -> Option<Arc<Pipeline>> {
        self.bridges.get(usize::from(bridge != "br0")).cloned()
    }

    fn outlet(&mut self, bridge: &str, port: u16) -> Outlet {
        match (bridge, port) {
            ("br0", 14) => Outlet::Tunnel("tunnel".to_owned()),
            (_, port) => Outlet::Port(port.into()),
        }
    }

    fn normal(&mut self, _: &str, _: Option<u16>, _: &Key) -> Normal {
        Normal::default()
    }

    fn enter_tunnel(&mut self, _: &str, port: &str, _: &Key) -> Option<IntoTunnel> {
        assert_eq!(port, "tunnel");
        let settings = Arc::new(Settings::new(Kind::Vxlan, Address::Is([10, 9, 0, 2].into())));
        let meta = Meta::new([10, 9, 0, 1].into(), [10, 9, 0, 2].into()).with_key(0);
        let [source, destination] = [1, 2].map(|last| MacAddr([2, 0, 0, 0, 0, last]));
        let outer = Outer::new(Kind::Vxlan, &meta, Link { source, destination }, 4_789)?;
        let (bridge, next) = ("br1".to_owned(), meta.destination);
        let way = TunnelWay {
            port: bridge.clone(),
            number: 100,
            inlet: (bridge, PortNo::LOCAL),
            next,
            outer,
        };
        Some(IntoTunnel { number: NUMBER, settings, meta, way: self.is_native.then_some(Ok(way)) })
    }

    fn out_of_tunnel(&mut self, port: u32, _: &Key) -> Option<u32> {
        (port == 13).then_some(NUMBER)
    }

    fn context(&mut self, _: &str, _: &PacketIn) -> u32 {
        1
    }

    fn round(&mut self, _: &str, _: &Arc<Frozen>) -> u32 {
        1
    }
}

const UDP: &str = "in_port=1,dl_src=52:54:00:00:00:01,dl_dst=52:54:00:00:00:02,udp,nw_src=10.0.0.1,\
                   nw_dst=10.0.0.2,nw_ttl=64,nw_ecn=1,tp_src=1000,tp_dst=22,nw_frag=no";

fn told(first: &str, second: &str, is_native: bool, key: Key) -> Told {
    let bridges = [tests::pipeline(&[first]), tests::pipeline(&[second])];
    let question = tests::question(key);
    trace(&mut Tunnels { bridges, is_native }, &question)
}

fn key() -> Key {
    tests::key(UDP)
}

fn actions(first: &str, second: &str, is_native: bool) -> String {
    let actions = told(first, second, is_native, key()).actions;
    Actions { actions: &actions, names: None }.to_string()
}

const PUSH: &str = "tnl_push(tnl_port(4789),header(size=50,type=4,eth(dst=02:00:00:00:00:02,\
                    src=02:00:00:00:00:01,dl_type=0x0800),ipv4(src=10.9.0.1,dst=10.9.0.2,proto=17,tos=0,\
                    ttl=64,frag=0x4000),udp(src=0,dst=4789,csum=0x0),vxlan(flags=0x8000000,vni=0x0)),\
                    out_port(100))";

#[test]
fn what_goes_into_a_tunnel_goes_on_in_another_bridge() {
    let below = "in_port=LOCAL,udp,nw_dst=10.9.0.2,tp_dst=4789,actions=output:1";
    assert_eq!(actions("actions=output:4", below, true), format!("{PUSH},11"));
    // Others have the packet as it was, and not as it is there.
    let both = "ip,actions=set_field:7->nw_ttl,output:4,output:2";
    let clone = format!("set(ipv4(ttl=7)),clone({PUSH},11),12");
    assert_eq!(actions(both, below, true), clone);
    let nothing = "in_port=LOCAL,udp,tp_dst=1,actions=output:1";
    assert_eq!(actions("actions=output:4,output:2", nothing, true), "12");
    // Of the packet itself, only that counts which goes into the header.
    let mask = told("actions=output:4", below, true, key()).mask;
    assert_eq!((mask.get(slot::IP_TOS), mask.get(slot::TP_DST)), (3, 0));
}

#[test]
fn a_datapath_that_has_tunnels_is_told_where_they_lead() {
    let set = "set(tunnel(src=10.9.0.1,dst=10.9.0.2,ttl=64,tp_dst=4789,flags(df)))";
    // Once, as it does not forget it.
    assert_eq!(
        actions("actions=output:4,output:2,output:4", "actions=drop", false),
        format!("{set},4789,12,4789")
    );
}

#[test]
fn what_is_for_the_host_comes_out() {
    assert_eq!(actions("actions=output:3", "actions=drop", true), "tnl_pop(4789)");
}

#[test]
fn congestion_outside_is_told_inside() {
    let mut key = key();
    key.set(slot::TUN_DST, 1);
    key.set(slot::TUN_TOS, 3);
    let told = |key| {
        let actions = told("actions=output:2", "actions=drop", true, key).actions;
        Actions { actions: &actions, names: None }.to_string()
    };
    assert_eq!(told(key), "set(ipv4(tos=0x3/0x3)),12");
    key.set(slot::IP_ECN, 0);
    assert_eq!(told(key), "drop");
}
