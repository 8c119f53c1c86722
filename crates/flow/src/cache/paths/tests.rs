use openflow::{Action, Field, Match};

use crate::cache::changes::tests::{change_own, own, passes, rule, set};

#[test]
fn rules_that_write_other_fields_leave_exchanges_be() {
    let (mut flows, mut worker) = own();
    // From now on it counts what protocol it is.
    rule(&mut flows, (9, 7), Match::new(), vec![set(Field::UdpDst, 1)]);
    worker.update(&flows);
    let address = packet::MacAddr([0, 0, 0, 0, 0, 9]);
    let others = [
        (Action::DecTtl(None), Field::IpDst, Field::NwTtl),
        (Action::SetNwTtl(7), Field::IpDst, Field::NwTtl),
        (Action::SetNwTos(8), Field::IpDst, Field::UdpDst),
        (Action::SetNwEcn(1), Field::IpDst, Field::UdpDst),
        (Action::SetL4Dst(80), Field::IpDst, Field::IpDscp),
        (Action::SetL4Src(80), Field::IpDst, Field::IpDscp),
        (Action::SetEthSrc(address), Field::IpDst, Field::EthSrc),
        (Action::SetEthDst(address), Field::NwTtl, Field::EthDst),
        (Action::SetIpSrc(9.into()), Field::NwTtl, Field::IpDst),
        (Action::SetIpDst(9.into()), Field::NwTtl, Field::IpDst),
        (Action::PushVlan { ethertype: 0x8100 }, Field::EthDst, Field::VlanPcp),
        (Action::StripVlan, Field::EthDst, Field::VlanPcp),
    ];
    for (behind, other, own) in others {
        let actions = vec![behind.clone(), Action::resubmit_table(3)];
        rule(&mut flows, (2, 1), Match::new(), actions);
        passes(&mut flows, &mut worker, &|_| ());
        let mut walks = |field, value| {
            let change = |flows: &mut _| change_own(flows, 1, Some((&[set(field, value)], 1)));
            passes(&mut flows, &mut worker, &change).0
        };
        // At first it is another operation.
        assert_eq!([2, 3, 4].map(|value| walks(other, value))[1..], [0, 0], "{behind:?}");
        assert!([2, 3, 4].map(|value| walks(own, value))[1..] == [1, 1], "{behind:?}");
    }
    worker.check_counts().unwrap();
}
