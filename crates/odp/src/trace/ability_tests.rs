//! Ways as they are told of a data path that cannot do all.

use super::tests::{key, pipeline, question};
use super::*;
use crate::Actions;

/// A bridge whose data path can do so much, and the length of the packet, if there is one.
struct Able(Arc<Pipeline>, Abilities, Option<usize>);

impl World for Able {
    fn pipeline(&mut self, _: &str) -> Option<Arc<Pipeline>> {
        Some(Arc::clone(&self.0))
    }

    fn outlet(&mut self, _: &str, port: u16) -> Outlet {
        Outlet::Port(port.into())
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

    fn abilities(&self) -> Abilities {
        self.1
    }

    fn packet_len(&self) -> Option<usize> {
        self.2
    }
}

fn told(can: Abilities, len: Option<usize>, rules: &[&str]) -> (String, String) {
    let question = question(key("in_port=1,tcp"));
    let told = trace(&mut Able(pipeline(rules), can, len), &question);
    (Actions { actions: &told.actions, names: None }.to_string(), told.text)
}

const SLOW: &str = "slow path because it:\n  - Uses action(s) not supported by datapath.";

#[test]
fn copies_are_told_by_what_there_is() {
    let of = |clones, samples| {
        let can = Abilities { clones, samples, ..Abilities::ALL };
        told(can, None, &["ip,actions=clone(ct(commit),2),3"])
    };
    assert_eq!(of(true, 0).0, "clone(ct(commit),12),13");
    assert_eq!(of(false, 10).0, "sample(sample=100.0%,actions(ct(commit),12)),13");
    let (actions, text) = of(false, 3);
    assert_eq!(actions, "13");
    assert!(text.contains("Failed to compose clone action"), "{text}");
    // What can be undone, and what nothing follows, needs none.
    let plain = Abilities { clones: false, samples: 0, ..Abilities::ALL };
    assert_eq!(
        told(plain, None, &["ip,actions=clone(2),clone(ct(commit),3)"]).0,
        "12,ct(commit),13"
    );
}

#[test]
fn packets_that_cannot_be_cut_take_the_slow_path() {
    let of = |cuts| {
        let can = Abilities { cuts, ..Abilities::ALL };
        told(can, None, &["actions=output(port=2,max_len=100),3"])
    };
    assert_eq!((of(true).0, of(false).0), ("trunc(100),12,13".into(), "trunc(100),12,13".into()));
    assert!(!of(true).1.contains(SLOW) && of(false).1.ends_with(SLOW));
}

#[test]
fn a_length_that_cannot_be_asked_for_is_that_of_the_packet() {
    let rules = [
        "actions=check_pkt_larger(200)->NXM_NX_REG0[0],resubmit(,1)",
        "table=1,reg0=1/1,actions=2",
        "table=1,priority=0,actions=3",
    ];
    let of = |lengths, len| told(Abilities { lengths, ..Abilities::ALL }, len, &rules);
    assert_eq!(of(true, None).0, "check_pkt_len(size=200,gt(12),le(13))");
    assert_eq!((of(false, None).0.as_str(), of(false, Some(200)).0.as_str()), ("13", "13"));
    let (actions, text) = of(false, Some(201));
    assert_eq!(actions, "12");
    assert!(text.ends_with(SLOW), "{text}");
}
