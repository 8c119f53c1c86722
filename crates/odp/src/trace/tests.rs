use flow::{Change, Frozen, Port};
use openflow::message::flow_mod::ANY_GROUP;
use openflow::message::group::{ALL_BUCKETS, Bucket, GroupCommand, GroupMod, GroupType, Selection};
use openflow::{Field, Instructions, Match};
use packet::MacAddr;

use super::*;

/// Two bridges: of the first, port 4 leads to the second's port 1. Of the second, spanning tree has shut
/// port 3.
struct Bridges(Arc<Pipeline>, Arc<Pipeline>);

impl World for Bridges {
    fn pipeline(&mut self, bridge: &str) -> Option<Arc<Pipeline>> {
        Some(Arc::clone(if bridge == "br0" { &self.0 } else { &self.1 }))
    }

    fn outlet(&mut self, bridge: &str, port: u16) -> Outlet {
        match (bridge, port) {
            ("br0", 14) => Outlet::Patch("br1".to_owned(), PortNo(1)),
            (_, port) => Outlet::Port(port.into()),
        }
    }

    fn closed_by(&mut self, bridge: &str, port: u16) -> Option<&'static str> {
        (bridge == "br1" && port == 13).then_some("RSTP")
    }

    fn normal(&mut self, _: &str, _: Option<u16>, key: &Key) -> Normal {
        let notes = vec![(false, "no learned MAC for destination, flooding".to_owned())];
        let outputs = [7, 8].map(|port| (Outlet::Port(port), *key));
        Normal { notes, outputs: outputs.into(), ..Normal::default() }
    }

    fn context(&mut self, _: &str, _: &PacketIn) -> u32 {
        1
    }

    fn round(&mut self, _: &str, frozen: &Arc<Frozen>) -> u32 {
        frozen.table.unwrap_or_default().into()
    }
}

pub(super) fn pipeline(rules: &[&str]) -> Arc<Pipeline> {
    let mut pipeline = Pipeline::default();
    for number in 1..5_u16 {
        pipeline.ports.insert(PortNo(number.into()), Port::new(number + 10));
    }
    add(&mut pipeline, rules);
    Arc::new(pipeline)
}

fn add(pipeline: &mut Pipeline, rules: &[&str]) {
    for rule in rules {
        let command = openflow::message::flow_mod::Command::Add;
        let rule = openflow::text::flow_mod(rule, command, openflow::text::Names::NONE).unwrap();
        let table = if rule.table == u8::MAX { 0 } else { rule.table };
        let mut add = Change::add(table, rule.matching, rule.instructions);
        (add.priority, add.cookie) = (rule.priority, Some(rule.new_cookie));
        pipeline.tables.change(&add, 0).unwrap();
    }
}

pub(super) fn key(matching: &str) -> Key {
    let matching: Match = matching.parse().unwrap();
    flow::place::pattern(&matching).unwrap().to_key()
}

/// What becomes of a packet on its way in the first bridge, by its rules.
pub(super) fn question(key: Key) -> Question<'static> {
    Question {
        bridge: "br0",
        key,
        actions: None,
        is_real: false,
        is_flow: false,
        names: false,
        onward: None,
        states: &[],
    }
}

fn told(first: &[&str], second: &[&str], matching: &str) -> Told {
    let mut bridges = Bridges(pipeline(first), pipeline(second));
    let key = key(matching);
    let question = question(key);
    trace(&mut bridges, &question)
}

fn actions(rules: &[&str], matching: &str) -> String {
    let actions = told(rules, &[], matching).actions;
    Actions { actions: &actions, names: None }.to_string()
}

const TCP: &str = "in_port=1,dl_src=52:54:00:00:00:01,dl_dst=52:54:00:00:00:02,tcp,nw_src=10.0.0.1,\
                   nw_dst=10.0.0.2,nw_ttl=64,tp_src=1000,tp_dst=22,nw_frag=no";

/// As `ofproto/trace` of Open vSwitch 3.1 told it for these rules.
#[test]
fn a_way_is_told_as_open_vswitch_tells_it() {
    let rules = [
        "priority=100,in_port=1,cookie=0x25,actions=set_field:0x2->reg13,resubmit(,8)",
        "table=8,priority=50,reg13=2,actions=resubmit(,73),move:NXM_NX_REG10[12]->NXM_NX_REG0[3],goto_table:9",
        "table=9,priority=0,actions=output:2",
    ];
    let text = told(&rules, &[], TCP).text;
    assert_eq!(
        text,
        "Flow: tcp,in_port=1,vlan_tci=0x0000,dl_src=52:54:00:00:00:01,dl_dst=52:54:00:00:00:02,\
         nw_src=10.0.0.1,nw_dst=10.0.0.2,nw_tos=0,nw_ecn=0,nw_ttl=64,nw_frag=no,tp_src=1000,tp_dst=22,\
         tcp_flags=0\n\n\
         bridge(\"br0\")\n-------------\n \
         0. in_port=1, priority 100, cookie 0x25\n    set_field:0x2->reg13\n    resubmit(,8)\n \
         8. reg13=0x2, priority 50\n    resubmit(,73)\n    73. No match.\n            drop\n    \
         move:NXM_NX_REG10[12]->NXM_NX_REG0[3]\n     -> NXM_NX_REG0[3] is now 0\n    goto_table:9\n \
         9. priority 0\n    output:2\n\n\
         Final flow: tcp,reg13=0x2,in_port=1,vlan_tci=0x0000,dl_src=52:54:00:00:00:01,\
         dl_dst=52:54:00:00:00:02,nw_src=10.0.0.1,nw_dst=10.0.0.2,nw_tos=0,nw_ecn=0,nw_ttl=64,nw_frag=no,\
         tp_src=1000,tp_dst=22,tcp_flags=0\n\
         Megaflow: recirc_id=0,eth,ip,in_port=1,nw_frag=no\n\
         Datapath actions: 12"
    );
}

/// As Open vSwitch 3.1 told it for these rules.
#[test]
fn controllers_of_another_bridge_are_told_that_the_action_set_sends_there() {
    let reasons = |rule: &str, second: &str| {
        let mut first = pipeline(&[]);
        let changed = Arc::make_mut(&mut first);
        changed.ports.get_mut(&PortNo(4)).unwrap().is_patch = true;
        add(changed, &[rule]);
        let mut bridges = Bridges(first, pipeline(&[second]));
        let told = trace(&mut bridges, &question(key(TCP))).actions;
        let text = Actions { actions: &told, names: None }.to_string();
        let reasons = text.split("(reason=").skip(1);
        reasons.filter_map(|rest| rest.split(',').next()?.parse().ok()).collect::<Vec<u8>>()
    };
    let both = "actions=controller:14,controller(reason=no_match)";
    assert_eq!(reasons("actions=output:4", both), [1, 0]);
    assert_eq!(reasons("actions=write_actions(output:4)", both), [3, 0]);
    assert_eq!(reasons("actions=output:4,write_actions(all)", both), [1, 0, 3, 0]);
}

#[test]
fn where_spanning_tree_sends_nothing_that_is_told() {
    let Told { text, actions, is_flooded, .. } = told(&["actions=4,2"], &["actions=3,flood"], TCP);
    assert!(is_flooded);
    assert_eq!(text.matches("     >> RSTP not in forwarding state, skipping output\n").count(), 2);
    assert_eq!(Actions { actions: &actions, names: None }.to_string(), "12,14,12");
}

#[test]
fn headers_in_front_of_all_are_told() {
    let of = |actions_text: &str| actions(&[&format!("actions={actions_text}")], TCP);
    let label = |label, bos| format!("label={label},tc=0,ttl=64,bos={bos},eth_type=0x8847");
    let address = "src=00:00:00:00:00:00,dst=00:00:00:00:00:07";
    let ethernet = "encap(ethernet),set_field:00:00:00:00:00:07->eth_dst";
    let two = "encap(mpls),set_field:5->mpls_label,encap(mpls)";
    let [inner, outer] = [label(5, 1), label(5, 0)];
    assert_eq!(
        of(&format!("{two},{ethernet},2")),
        format!("add_mpls({inner}),add_mpls({outer}),push_eth({address}),12")
    );
    assert_eq!(
        of("decap(),encap(ethernet),2"),
        format!("pop_eth,push_eth({}),12", &address.replace("07", "00"))
    );
    assert_eq!(
        of(&format!("encap(mpls),{ethernet},decap(),decap(packet_type(ns=0,type=0)),2")),
        format!(
            "add_mpls({}),push_eth({address}),pop_eth,pop_mpls(eth_type=0x6558),recirc(0x0)",
            label(0, 1)
        )
    );
    // It goes nowhere without a header of Ethernet.
    assert_eq!(of("decap(),2"), "drop");
    let Told { text, .. } = told(&["actions=encap(ethernet),2"], &[], TCP);
    assert!(text.ends_with("Translation failed (Unsupported packet type), packet is dropped.\n"));
}

#[test]
fn a_datapath_changes_what_differs() {
    let of = |actions_text: &str| actions(&[&format!("actions={actions_text}")], TCP);
    assert_eq!(of("drop"), "drop");
    assert!(!told(&["actions=2,3"], &[], TCP).is_flooded);
    assert_eq!(of("2,3"), "12,13");
    assert_eq!(of("normal"), "7,8");
    assert_eq!(of("mod_dl_dst:01:02:03:04:05:06,2"), "set(eth(dst=01:02:03:04:05:06)),12");
    assert_eq!(
        of("mod_nw_src:1.1.1.1,mod_nw_tos:8,mod_tp_dst:99,2,dec_ttl,3"),
        "set(ipv4(src=1.1.1.1,tos=0x8/0xfc)),set(tcp(dst=99)),12,set(ipv4(ttl=63)),13"
    );
    assert_eq!(
        of("mod_vlan_vid:5,2,mod_vlan_vid:6,mod_vlan_pcp:1,3,strip_vlan,2"),
        "push_vlan(vid=5,pcp=0),12,pop_vlan,push_vlan(vid=6,pcp=1),13,pop_vlan,12"
    );
    // What is written twice is not written in between.
    assert_eq!(of("mod_dl_dst:01:02:03:04:05:06,mod_dl_dst:52:54:00:00:00:02,2"), "12");
    assert_eq!(
        of("clone(mod_dl_src:01:01:01:01:01:01,2),3"),
        "set(eth(src=01:01:01:01:01:01)),12,set(eth(src=52:54:00:00:00:01)),13"
    );
    assert_eq!(of("clone(output(port=2,max_len=100),3),3"), "clone(trunc(100),12,13),13");
    assert_eq!(of("3,clone(output(port=2,max_len=100))"), "13,trunc(100),12");
    let controller = of("controller(max_len=100,id=7),2");
    assert_eq!(
        controller,
        "userspace(pid=0,controller(reason=1,dont_send=1,continuation=0,recirc_id=1,rule_cookie=0,\
         controller_id=7,max_len=100)),12"
    );
    assert_eq!(of("2,controller(pause),3"), "12", "it only stops in earnest");
}

#[test]
fn a_patch_port_leads_to_another_bridge() {
    let second = ["in_port=1,actions=mod_dl_src:02:02:02:02:02:02,2"];
    let both = |first: &str| told(&[first], &second, TCP);
    let told = both("actions=4");
    assert!(
        told.text.contains(
            "    output:4\n\nbridge(\"br1\")\n-------------\n 0. in_port=1, priority 32768\n    \
             mod_dl_src:02:02:02:02:02:02\n    output:2\n\nFinal flow: unchanged\n"
        ),
        "{}",
        told.text
    );
    let shown = |told: &Told| Actions { actions: &told.actions, names: None }.to_string();
    assert_eq!(shown(&told), "set(eth(src=02:02:02:02:02:02)),12");
    let more = both("actions=4,3");
    assert_eq!(
        shown(&more),
        "set(eth(src=02:02:02:02:02:02)),12,set(eth(src=52:54:00:00:00:01)),13"
    );
}

/// What goes wrong in another bridge takes nothing back, and in a bucket nothing but what is behind it there.
#[test]
fn what_goes_wrong_for_others_leaves_the_rest_as_it_is() {
    let second = ["in_port=1,actions=mod_dl_src:02:02:02:02:02:02,2,encap(ethernet),3"];
    let told = told(&["actions=4,3"], &second, TCP);
    let shown = Actions { actions: &told.actions, names: None }.to_string();
    assert_eq!(shown, "clone(set(eth(src=02:02:02:02:02:02)),12),13");
    assert!(!told.text.contains("Translation failed"), "{}", told.text);
    let bucket = "encap(ethernet),output:3";
    let (told, shown) =
        way_of(&mut with_group(None, &[bucket], "actions=group:7,4"), key(TCP), false);
    assert_eq!(shown, "14");
    assert!(!told.text.contains("Translation failed"), "{}", told.text);
}

#[test]
fn the_bits_that_count_are_those_that_open_vswitch_finds() {
    let mask = |rules: &[&str], matching: &str| {
        let told = told(rules, &[], matching).text;
        let line = told.lines().find_map(|line| line.strip_prefix("Megaflow: recirc_id=0,eth,"));
        line.unwrap_or_default().to_owned()
    };
    let rules =
        ["priority=5,tcp,tp_dst=80,actions=2", "priority=1,ip,nw_dst=10.0.0.64/26,actions=3"];
    // No rule has that port, and no prefix is for the address.
    assert_eq!(mask(&rules, TCP), "tcp,in_port=1,nw_dst=10.0.0.0/26,nw_frag=no,tp_dst=0x0/0xffc0");
    // Where the link layer says that no rule can be for it, nothing above counts.
    let rules = ["dl_src=01:01:01:01:01:01,tcp,tp_dst=80,actions=2"];
    assert_eq!(mask(&rules, TCP), "ip,in_port=1,dl_src=52:54:00:00:00:01,nw_frag=no");
    assert_eq!(mask(&["actions=mod_nw_ttl:5,2"], TCP), "tcp,in_port=1,nw_ttl=64,nw_frag=no");
    assert_eq!(
        mask(&["actions=normal"], &format!("{TCP},dl_vlan=5")).split(",dl_src").next(),
        Some("ip,in_port=1,dl_vlan=5")
    );
}

#[test]
fn what_goes_round_is_an_error_and_has_an_end() {
    let told_of = |rules: &[&str]| told(rules, &[], TCP);
    let text = told_of(&["actions=2,resubmit(,0)"]).text;
    assert!(text.contains(">>>> over max translation depth 64 <<<<"), "{text}");
    assert!(
        text.ends_with(
            "Datapath actions: drop\nTranslation failed (Recursion too deep), packet is dropped.\n"
        ),
        "{text}"
    );
    // Two bridges that hand it to each other twice, again and again.
    struct Loop(Arc<Pipeline>);
    impl World for Loop {
        fn pipeline(&mut self, _: &str) -> Option<Arc<Pipeline>> {
            Some(Arc::clone(&self.0))
        }

        fn outlet(&mut self, _: &str, _: u16) -> Outlet {
            Outlet::Patch("br0".to_owned(), PortNo(1))
        }

        fn normal(&mut self, _: &str, _: Option<u16>, _: &Key) -> Normal {
            Normal::default()
        }

        fn context(&mut self, _: &str, _: &PacketIn) -> u32 {
            1
        }

        fn round(&mut self, _: &str, _: &Arc<Frozen>) -> u32 {
            1
        }
    }
    let key = key(TCP);
    let question = question(key);
    let told = trace(&mut Loop(pipeline(&["actions=2,3,2,3"])), &question);
    assert_eq!(told.actions, []);
}

#[test]
fn packets_are_told_by_what_they_have() {
    let mut key = key("in_port=1,arp,arp_spa=1.2.3.4,dl_vlan=5,dl_vlan_pcp=1");
    let mac = MacAddr([2, 0, 0, 0, 0, 1]).0;
    key.set(
        slot::ARP_SHA,
        u64::from_be_bytes([0, 0, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]]).into(),
    );
    assert_eq!(
        told::packet(&key, None),
        "arp,in_port=1,dl_vlan=5,dl_vlan_pcp=1,vlan_tci1=0x0000,dl_src=00:00:00:00:00:00,\
         dl_dst=00:00:00:00:00:00,arp_spa=1.2.3.4,arp_tpa=0.0.0.0,arp_op=0,arp_sha=02:00:00:00:00:01,\
         arp_tha=00:00:00:00:00:00"
    );
    key.set(slot::VLAN_TCI, 0x0700);
    assert!(told::packet(&key, None).contains(",vlan_tci=0x0700,vlan_tci1=0x0000,"));
    let name = |port| (port == PortNo(1)).then(|| "p1".to_owned());
    assert!(told::packet(&key, Some(&name)).contains(",in_port=p1,"));
    assert_eq!([told::quoted("p1"), told::quoted("1p")], ["p1", "\"1p\""]);
    let _ = (Field::EthSrc, Instructions::default());
}

/// Labels behind the outer one are shown up to the last, of three.
#[test]
fn inner_labels_are_told_as_numbers() {
    let mut key = key("in_port=1,mpls,mpls_label=3,mpls_bos=0");
    key.set(slot::MPLS_LSE1, 0x3F00);
    assert!(told::packet(&key, None).ends_with("mpls_bos=0,mpls_lse1=16128"));
    key.set(slot::MPLS_LSE1, 0x10000);
    assert!(told::packet(&key, None).ends_with(",mpls_lse1=65536,mpls_lse2=0"));
    key.set(slot::MPLS_BOS, 1);
    assert!(told::packet(&key, None).ends_with("mpls_bos=1"));
}

/// What is taken from an empty stack is nothing that is now, and a queue that is given back is.
#[test]
fn stacks_and_queues_are_told() {
    let text = |actions: &str| {
        let told = told(&[&format!("actions={actions},output:2")], &[], "in_port=1,ip");
        told.text
    };
    assert!(!text("pop:NXM_NX_REG2[]").contains("is now"));
    assert!(text("push:NXM_NX_REG1[],pop:NXM_NX_REG2[]").contains("-> NXM_NX_REG2[] is now 0"));
    assert!(text("set_queue:1,pop_queue").contains("-> queue = 0"));
    assert!(!text("pop_queue").contains("queue = 0"));
}

#[test]
fn before_its_first_label_a_packet_becomes_what_rules_have_made_of_it() {
    let told = |rule: &str| actions(&[rule], "in_port=1,ip");
    let queue = "actions=set_queue:1,output:2,pop_queue,push_mpls:0x8847";
    assert_eq!(told(queue), "set(skb_priority(0x1)),12,set(skb_priority(0))");
    let twice = "actions=push_mpls:0x8847,output:2,set_field:3->mpls_label,push_mpls:0x8847";
    assert!(told(twice).ends_with(",12"), "{}", told(twice));
}

#[test]
fn what_the_action_set_leads_to_finds_it_empty() {
    let rules = ["actions=write_actions(resubmit(,2))", "table=2,actions=clear_actions"];
    let text = told(&rules, &[], "in_port=1").text;
    let told: Vec<&str> = text.lines().filter(|line| line.contains("-> action set")).collect();
    assert_eq!(told.len(), 2, "{text}");
    assert!(told[0].ends_with("-> action set is: resubmit(,2)"), "{text}");
    assert!(told[1].ends_with("-> action set was empty"), "{text}");
}

#[test]
fn tracked_packets_are_followed() {
    let rules = [
        "ip,actions=load:7->NXM_NX_REG1[],ct(table=1,zone=5)",
        "table=1,ct_state=+trk+new,reg1=7,ip,actions=ct(commit,zone=5,exec(set_field:9->ct_mark)),output:2",
        "table=1,ct_state=+trk+est,ip,actions=ct_clear,ct_clear,output:3",
    ];
    let mut bridges = Bridges(pipeline(&rules), pipeline(&[]));
    let key = key(TCP);
    let question = question(key);
    let text = trace(&mut bridges, &question).text;
    let (first, second) = text.split_once("\n\n====").unwrap();
    assert!(
        first.contains(
            "    ct(table=1,zone=5)\n    drop\n     -> A clone of the packet is forked to recirculate. The \
             forked pipeline will be resumed at table 1.\n     -> Sets the packet to an untracked state, and \
             clears all the conntrack fields.\n"
        ),
        "{first}"
    );
    assert!(first.ends_with("Datapath actions: ct(zone=5),recirc(0x1)"), "{first}");
    assert!(
        second.contains(
            "\nrecirc(0x1) - resume conntrack with default ct_state=trk|new (use --ct-next to customize)\n="
        ),
        "{second}"
    );
    assert!(
        second.contains(
            "\nFlow: recirc_id=0x1,ct_state=new|trk,ct_zone=5,eth,tcp,reg1=0x7,in_port=1,"
        ),
        "{second}"
    );
    assert!(
        second.contains("\n    thaw\n        Resuming from table 1\n 1. ct_state=+new+trk,"),
        "{second}"
    );
    assert!(
        second.ends_with("Datapath actions: ct(commit,zone=5,mark=0x9/0xffffffff),12"),
        "{second}"
    );
    let states = [0x22];
    let text = trace(&mut bridges, &Question { states: &states, ..question }).text;
    assert!(text.contains("resume conntrack with ct_state=est|trk\n"), "{text}");
    assert!(text.ends_with("Datapath actions: ct_clear,13"), "{text}");
}

#[test]
fn translated_packets_go_on_with_the_first_of_their_new_ends() {
    let rules = [
        "ip,actions=ct(commit,table=1,zone=5,nat(src=192.0.2.1-192.0.2.9:80-90,random),exec(set_field:9->ct_mark))",
        "table=1,nw_src=192.0.2.1,tcp,tp_src=80,actions=ct(zone=6,table=2,nat)",
        "table=2,nw_src=192.0.2.1,ip,actions=output:2",
    ];
    let mut bridges = Bridges(pipeline(&rules), pipeline(&[]));
    let question = question(key(TCP));
    let text = trace(&mut bridges, &question).text;
    let actions = "ct(commit,zone=5,mark=0x9/0xffffffff,nat(src=192.0.2.1-192.0.2.9:80-90,random)),recirc(0x1)";
    assert!(text.contains(&format!("Datapath actions: {actions}\n")), "{text}");
    assert!(
        text.contains(
            "\n    nat(src=192.0.2.1-192.0.2.9:80-90,random)\n    set_field:0x9->ct_mark\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("Replacing src/dst IP/ports to simulate NAT:\n Initial flow: nw_src="),
        "{text}"
    );
    assert!(text.contains("\n Modified flow: nw_src=192.0.2.1,tp_src=80,nw_dst="), "{text}");
    assert!(text.contains("Datapath actions: ct(zone=6,nat),recirc(0x2)\n"), "{text}");
    assert!(text.contains("simulate NAT:\n Initial flow: \n Modified flow: \n===="), "{text}");
    assert!(text.ends_with("Datapath actions: 12"), "{text}");
}

/// The same, where all ports of a bridge but the first two are bonds; of the last one, the datapath has the
/// table.
struct Bonds(Arc<Pipeline>);

impl World for Bonds {
    fn pipeline(&mut self, _: &str) -> Option<Arc<Pipeline>> {
        Some(Arc::clone(&self.0))
    }

    fn outlet(&mut self, _: &str, port: u16) -> Outlet {
        match port {
            13 => Outlet::Balanced(5),
            14 => Outlet::ByTable(6),
            port => Outlet::Port(port.into()),
        }
    }

    fn normal(&mut self, _: &str, _: Option<u16>, _: &Key) -> Normal {
        Normal::default()
    }

    fn context(&mut self, _: &str, _: &PacketIn) -> u32 {
        1
    }

    fn round(&mut self, _: &str, _: &Arc<Frozen>) -> u32 {
        1
    }
}

#[test]
fn a_packet_for_a_bond_comes_again_as_what_rules_have_made_of_it() {
    let rule = "actions=mod_dl_dst:50:54:00:00:00:09,output:2,output:3,output:4";
    let mut bonds = Bonds(pipeline(&[rule]));
    let key = key("in_port=1,dl_dst=50:54:00:00:00:01");
    let question = Question { is_flow: true, ..question(key) };
    let told = trace(&mut bonds, &question);
    let shown = Actions { actions: &told.actions, names: None }.to_string();
    let edit = "set(eth(dst=50:54:00:00:00:09))";
    assert_eq!(shown, format!("{edit},12,hash(hash_l4(0)),recirc(0x5),lb_output(6)"));
    let mut other = key;
    other.set(slot::ETH_SRC, 7);
    let again = Action::balances(&told.actions)[0].again(&other, |_| 3);
    let fields = [slot::ETH_DST, slot::ETH_SRC, slot::IN_PORT, slot::RECIRC_ID, slot::DP_HASH];
    assert_eq!(fields.map(|slot| again.get(slot)), [0x5054_0000_0009, 7, 1, 5, 3]);
}

/// A bridge with group 7 of type select, with such buckets.
fn with_group(selection: Option<Selection>, buckets: &[&str], rule: &str) -> Bridges {
    let mut pipeline = pipeline(&[]);
    let bucket = |(id, text): (u32, &&str)| Bucket {
        id,
        weight: 1,
        watch_port: PortNo::ANY,
        watch_group: ANY_GROUP,
        actions: openflow::text::instructions(text, openflow::text::Names::NONE).unwrap().apply,
    };
    let change = GroupMod {
        command: GroupCommand::AddOrModify,
        kind: GroupType::Select,
        group: 7,
        bucket: ALL_BUCKETS,
        buckets: (0..).zip(buckets).map(bucket).collect(),
        selection,
    };
    let own = Arc::get_mut(&mut pipeline).unwrap();
    own.tables.change_group(&change, 0).unwrap();
    add(own, &[rule]);
    Bridges(Arc::clone(&pipeline), pipeline)
}

/// The way of a packet, and its actions as text.
fn way_of(bridges: &mut Bridges, key: Key, is_flow: bool) -> (Told, String) {
    let question = Question { is_flow, ..question(key) };
    let told = trace(bridges, &question);
    let shown = Actions { actions: &told.actions, names: None }.to_string();
    (told, shown)
}

#[test]
fn a_packet_comes_again_for_a_bucket_and_what_is_behind_its_group() {
    let bucket = "mod_nw_src:9.9.9.9,output:3";
    let mut bridges = with_group(None, &[bucket, bucket], "ip,actions=group:7,output:2");
    let key = key(TCP);
    let (told, shown) = way_of(&mut bridges, key, true);
    assert_eq!(shown, "hash(sym_l4(0)),recirc(0x0)");
    assert_eq!(told.mask.get(slot::IPV4_SRC), 0);
    let balances = Action::balances(&told.actions);
    let [balance] = balances.as_slice() else { panic!("{balances:?}") };
    let again = balance.again(&key, |_| panic!("it is for no bond"));
    let second = resume(&mut bridges, &again, balance.onward.as_ref().unwrap());
    let shown = Actions { actions: &second.actions, names: None }.to_string();
    assert_eq!(shown, "set(ipv4(src=9.9.9.9)),13,set(ipv4(src=10.0.0.1)),12");
    let slots = [slot::DP_HASH, slot::IPV4_SRC, slot::TP_SRC];
    assert_eq!(slots.map(|slot| second.mask.get(slot)), [0xF, 0xFFFF_FFFF, 0]);
    // Whoever asks for a packet's way is told all of it.
    let text = way_of(&mut bridges, key, false).0.text;
    assert!(text.contains("using bucket ") && text.ends_with(",12"), "{text}");
}

#[test]
fn the_bucket_that_is_told_is_the_one_that_is_taken() {
    let rule = "ip,actions=set_field:3->nw_ttl,group:7";
    let mut bridges = with_group(None, &["output:2", "output:3"], rule);
    let mut taken = [0; 2];
    for source in 0..32 {
        let mut key = key(TCP);
        key.set(slot::IPV4_SRC, source);
        let (told, _) = way_of(&mut bridges, key, true);
        let balance = Action::balances(&told.actions).remove(0);
        let again = balance.again(&key, |_| 0);
        let second = resume(&mut bridges, &again, balance.onward.as_ref().unwrap());
        let path = walk(&bridges.0, &mut key, &Start::Table, None);
        let Some(flow::Op::Output(port)) = path.ops.last() else { panic!("{:?}", path.ops) };
        assert_eq!(second.actions, [Action::Output((*port).into())]);
        taken[usize::from(*port == 13)] += 1;
    }
    assert!(taken.iter().all(|count| *count > 0), "{taken:?}");
}

#[test]
fn bits_count_that_a_bucket_is_chosen_by() {
    let method = |fields| Selection { method: "hash".to_owned(), parameter: 0, fields };
    let bits = |fields| {
        let mut bridges =
            with_group(Some(method(fields)), &["output:2", "output:3"], "ip,actions=group:7");
        let mask = way_of(&mut bridges, key(TCP), true).0.mask;
        let slots = [slot::ETH_SRC, slot::ETH_DST, slot::IP_PROTO, slot::TP_SRC, slot::TP_DST];
        slots.map(|slot| mask.get(slot) == slot.ones())
    };
    assert_eq!(bits(vec![]), [true; 5]);
    // There is no port of UDP, but that has been found out by the protocol.
    let some = vec![
        (Field::EthDst, Field::EthDst.full_mask()),
        (Field::TcpDst, Field::TcpDst.full_mask()),
        (Field::UdpSrc, Field::UdpSrc.full_mask()),
    ];
    assert_eq!(bits(some), [false, true, true, false, true]);
}

#[test]
fn a_packet_comes_again_since_a_rule_says_so() {
    let rules =
        ["table=0,actions=output:2,resubmit(,1),output:2", "table=1,actions=debug_recirc,output:3"];
    let mut bridges = Bridges(pipeline(&rules), pipeline(&[]));
    let key = key(TCP);
    let (told, shown) = way_of(&mut bridges, key, false);
    assert_eq!(shown, "12,recirc(0x0)");
    assert!(told.text.ends_with("Datapath actions: 12,recirc(0x0)"), "{}", told.text);
    let balance = Action::balances(&told.actions).remove(0);
    let again = balance.again(&key, |_| panic!("it is for no bond"));
    let second = resume(&mut bridges, &again, balance.onward.as_ref().unwrap());
    assert_eq!(Actions { actions: &second.actions, names: None }.to_string(), "13,12");
    let told = "thaw\n            Resuming from table 0\n        Restoring actions: unroll_xlate(table=1, cookie=0),\
                output:3,unroll_xlate(table=0, cookie=0),output:2\n    unroll_xlate(table=1, cookie=0)\n    \
                restored state: table=1, cookie=0\n    output:3\n    unroll_xlate(table=0, cookie=0)\n    \
                restored state: table=0, cookie=0\n    output:2\n";
    assert!(second.text.contains(told), "{}", second.text);
}

#[test]
fn what_comes_again_is_followed_until_it_comes_again_once_more() {
    let rules = [
        "table=0,actions=resubmit(,1)",
        "table=1,ip,actions=debug_recirc,ct(table=2)",
        "table=2,ip,actions=ct(table=3)",
        "table=3,actions=output:3",
    ];
    let mut bridges = Bridges(pipeline(&rules), pipeline(&[]));
    let key = key(TCP);
    let balance = Action::balances(&way_of(&mut bridges, key, false).0.actions).remove(0);
    let again = balance.again(&key, |_| panic!("it is for no bond"));
    let onward = balance.onward.as_ref().unwrap();
    let second = resume(&mut bridges, &again, onward);
    assert_eq!(Actions { actions: &second.actions, names: None }.to_string(), "ct,recirc(0x2)");
    assert!(!second.text.contains("resume conntrack"), "{}", second.text);
    // Who asks how it goes on is told all.
    let question = Question { bridge: &onward.bridge, onward: Some(onward), ..question(again) };
    assert_eq!(trace(&mut bridges, &question).text.matches("resume conntrack").count(), 2);
}

#[test]
fn a_field_counts_that_says_the_zone_of_a_connection() {
    let rules = ["ip,actions=ct(commit,zone=NXM_NX_CT_LABEL[0..15]),output:3"];
    let mut bridges = Bridges(pipeline(&rules), pipeline(&[]));
    let mut key = key(TCP);
    key.set(slot::CT_LABEL, 0xFFFF_0005);
    let (told, shown) = way_of(&mut bridges, key, true);
    assert_eq!((shown.as_str(), told.mask.get(slot::CT_LABEL)), ("ct(commit,zone=5),13", 0xFFFF));
}

#[test]
fn a_network_that_rules_name_is_told_without_a_tunnel() {
    let text = told(&["actions=set_tunnel:6,output:2"], &[], TCP).text;
    assert!(text.contains("\nFinal flow: tcp,tun_id=0x6,in_port=1,"), "{text}");
}

#[test]
fn what_takes_a_slow_path_in_open_vswitch_is_told() {
    let rules = ["actions=debug_slow,output:2"];
    let mut bridges = Bridges(pipeline(&rules), pipeline(&[]));
    let (told, shown) = way_of(&mut bridges, key(TCP), false);
    assert_eq!(shown, "12");
    let reason = "This flow is handled by the userspace slow path because it:\n  - Uses action(s) not \
                  supported by datapath.";
    assert!(told.text.ends_with(reason), "{}", told.text);
    let (_, shown) = way_of(&mut bridges, key(TCP), true);
    assert_eq!(shown, "userspace(pid=0,slow_path(action))");
}

/// One bridge whose mirror copies what comes in to port 4, which may be shut; as is where all is switched.
struct Barred(Arc<Pipeline>, Outlet);

impl World for Barred {
    fn pipeline(&mut self, _: &str) -> Option<Arc<Pipeline>> {
        Some(Arc::clone(&self.0))
    }

    fn outlet(&mut self, _: &str, port: u16) -> Outlet {
        Outlet::Port(port.into())
    }

    fn normal(&mut self, _: &str, _: Option<u16>, key: &Key) -> Normal {
        let notes = vec![(false, "forwarding to learned port".to_owned())];
        Normal { notes, outputs: vec![(self.1.clone(), *key)], ..Normal::default() }
    }

    fn copies(&mut self, _: &str, key: &Key, out: Option<u16>) -> Vec<MirrorCopy> {
        let copy = MirrorCopy { outlet: self.1.clone(), key: *key, len: Some(20) };
        if out.is_none() { vec![copy] } else { Vec::new() }
    }

    fn context(&mut self, _: &str, _: &PacketIn) -> u32 {
        1
    }

    fn round(&mut self, _: &str, _: &Arc<Frozen>) -> u32 {
        1
    }
}

/// As `ofproto/trace` of Open vSwitch 3.1 told it.
#[test]
fn what_ports_are_told_not_to_do_is_told() {
    let way = |bar: fn(&mut Port), outlet: Outlet| {
        let mut pipeline = Pipeline::clone(&pipeline(&["priority=0,actions=normal"]));
        pipeline.ports.get_mut(&PortNo(1)).map(bar);
        let Told { text, actions, .. } =
            trace(&mut Barred(Arc::new(pipeline), outlet), &question(key(TCP)));
        let text = text.split_once("-------------\n").unwrap().1.split_once("\n\n").unwrap().0;
        (text.to_owned(), Actions { actions: &actions, names: None }.to_string())
    };
    let (shut, rule) = ("     -> OFPPC_NO_FWD set, skipping output\n", " 0. priority 0\n");
    let normal = "    NORMAL\n     -> forwarding to learned port";
    let all = [&format!("{rule}{normal}"), "trunc(20),4,4"].map(str::to_owned);
    assert_eq!(<[String; 2]>::from(way(|_| {}, Outlet::Port(4))), all);
    let text = format!("{rule}{shut}{normal}\n{}", shut.trim_end());
    assert_eq!(way(|_| {}, Outlet::Shut), (text, "drop".to_owned()));
    let text = rule.trim_end().to_owned();
    assert_eq!(way(|port| port.no_receive = true, Outlet::Port(4)), (text, "drop".to_owned()));
}
