//! Tests of what people write.

use super::*;
use crate::message::flow_mod::{Command, FlowMod};
use crate::testing::Random;
use crate::{Version, testing};

fn add(text: &str) -> Result<FlowMod, TextError> {
    flow_mod(text, Command::Add, Names::NONE)
}

#[test]
fn what_is_shown_is_read() {
    let mut random = Random::new(7);
    for _ in 0..300 {
        let flow = testing::flow_mod(&mut random, Version::V13);
        let matching = flow.matching.to_string();
        let read = matching.parse::<Match>().unwrap_or_else(|error| panic!("{error}: {matching}"));
        assert_eq!(read.to_string(), matching);
        let actions = flow.instructions.to_string();
        let read = actions.parse::<Instructions>();
        let read = read.unwrap_or_else(|error| panic!("{error}: {actions}"));
        assert_eq!(read.to_string(), actions);
    }
}

#[test]
fn recorded_flows_are_read() {
    for line in include_str!("../../tests/flow_mods.txt").lines() {
        let flow = add(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let (_, actions) = line.split_once("actions=").unwrap();
        // Controllers without ids are those with id 0.
        assert_eq!(flow.instructions.to_string(), actions.replace("dec_ttl()", "dec_ttl"));
        let head = line.split_once(" actions=").map_or("", |(head, _)| head);
        assert!(head.ends_with(&flow.matching.to_string()), "{line}: {}", flow.matching);
    }
}

#[test]
fn parts_of_fields_and_names_are_read() {
    let names = Names { port: &|name| (name == "vm1").then_some(PortNo(7)) };
    let read = matching("in_port=vm1,reg0[0..3]=5,reg0[8]=1,nw_src=10.1.0.0/255.255.0.0", names);
    assert_eq!(read.unwrap().to_string(), "reg0=0x105/0x10f,in_port=7,nw_src=10.1.0.0/16");
    let actions = instructions("output:vm1,vm1,local,resubmit(vm1,3)", names).unwrap();
    assert_eq!(actions.to_string(), "output:7,output:7,LOCAL,resubmit(7,3)");
    let read = add("cookie=0x12, duration=3s, table=2, n_packets=7, idle_timeout=5, ip actions=2");
    let read = read.unwrap();
    assert_eq!((read.table, read.new_cookie, read.idle_timeout), (2, 0x12, 5));
    let delete = flow_mod("cookie=1/-1,out_port=3", Command::Delete, Names::NONE).unwrap();
    assert_eq!((delete.cookie, delete.out_port), ((1, u64::MAX), PortNo(3)));
}

#[test]
fn what_is_wrong_is_said() {
    let wrong = [
        ("in_port=1", "expected actions=... at the end"),
        ("in_port=eth9,actions=drop", "in_port: 'eth9' is no port"),
        ("nw_src=10.0.0.256,actions=drop", "nw_src: '10.0.0.256' is no IPv4 address"),
        ("nw_src=10.0.0.0/33,actions=drop", "nw_src: /33 is beyond 32 bits"),
        ("dl_type=0x12345,actions=drop", "dl_type: 0x12345 has more than 2 bytes"),
        ("nw_proto=6/3,actions=drop", "nw_proto: it cannot have the mask of 6/3"),
        ("ct_state=+new-new,actions=drop", "ct_state: the flag 'new' is there twice"),
        ("speed=9,actions=drop", "unknown keyword speed"),
        ("actions=fly", "unknown action fly"),
        ("actions=drop,2", "drop is there alone, or not at all"),
        ("actions=mod_vlan_vid:4096", "mod_vlan_vid: 4096 is no number of a VLAN"),
        ("actions=load:8->reg0[0..2]", "load: 8->reg0[0..2] has more than 3 bits"),
        ("actions=load:1->reg0[33]", "load: reg0[33] is not within the 32 bits of reg0"),
        ("actions=set_field:1->eth_type", "set_field: eth_type is read-only"),
        ("actions=resubmit()", "resubmit: expected a port, a table, or both"),
        ("actions=goto_table:1,2", "2 is in the wrong place, or there twice"),
        (
            "actions=set_field:1->nw_ttl",
            "the actions do not fit the match (OFPBAC_MATCH_INCONSISTENT)",
        ),
        (
            "actions=conjunction(1,3/2)",
            "conjunction: expected (id,clause/clauses) with 2 to 64 clauses",
        ),
    ];
    for (text, error) in wrong {
        let found = add(text).map(|flow| flow.to_string()).map_err(|error| error.to_string());
        assert_eq!(found, Err(error.to_owned()), "{text}");
    }
    let deep = format!("{}2{}", "clone(".repeat(40), ")".repeat(40));
    assert!(deep.parse::<Instructions>().unwrap_err().to_string().ends_with("actions in actions"));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read(text in "[a-z_=:,()/0-9.\\[\\]> +-]{0,80}") {
        let _ = text.parse::<Match>();
        let _ = text.parse::<Instructions>();
        let _ = add(&format!("{text},actions={text}"));
    }
}
