//! What collectors are told by IPFIX, as controllers ask for it.

use openflow::message::stats::ipfix::IpfixStats;

use super::*;

/// What is counted, by the kind of request, of a bridge of which this is told.
fn asked(version: Version, kind: Kind, told: &[(Option<u32>, u64)]) -> Result<Vec<u64>, ErrorCode> {
    let (mut bridge, id) = connected(version, Origin::Service);
    let counts = |(set, flows): &(Option<u32>, u64)| {
        (*set, IpfixStats { flows: *flows, set: set.unwrap_or(0), ..IpfixStats::default() })
    };
    let mut datapath = Recorder { ipfix: told.iter().map(counts).collect(), ..Recorder::default() };
    let request = Message::new(version, kind, 9).finish();
    bridge.receive(id, &request, &mut datapath, Instant::now()).unwrap();
    let answers = sent(&mut bridge, id);
    let raw = Raw::read(&answers[0]).unwrap();
    if raw.kind == Kind::Error {
        return Err(error(&answers));
    }
    let all = IpfixStats::decode_all(raw.body).unwrap();
    Ok(all.iter().map(|stats| stats.flows).collect())
}

#[test]
fn counts_of_a_bridge_and_of_what_its_rules_sample_are_told_apart() {
    for version in Version::ALL {
        let told = [(None, 7), (Some(0), 8), (Some(5), 9)];
        let [bridge, flow] = [Kind::IpfixBridgeStatsRequest, Kind::IpfixFlowStatsRequest];
        assert_eq!(asked(version, bridge, &told), Ok(vec![7]));
        assert_eq!(asked(version, flow, &told), Ok(vec![8, 9]));
        let none = Err(ErrorCode::NxstNotConfigured);
        assert_eq!(asked(version, bridge, &told[1..]), none);
        assert_eq!(asked(version, flow, &told[..1]), none);
    }
}
