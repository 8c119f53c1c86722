//! The state of a device on its way to another back-end; that of a network device is tested with it.

use super::*;

#[test]
fn a_state_moves_while_no_ring_runs() {
    let mut bench = Bench::ready(|_| ());
    bench.start(1);
    let transfer = StateTransfer { direction: StateTransfer::LOAD, phase: 0 };
    let answer = bench.send(&M::SetDeviceStateFd(transfer, null()), false).unwrap();
    assert!(answer.refused.unwrap().to_string().contains("ring 1 runs"));
    bench.ok(M::GetVringBase(state(1, 0)));
    let answer = bench.send(&M::SetDeviceStateFd(transfer, null()), false).unwrap();
    assert!(answer.refused.is_none() && answer.attached.is_some());
    bench.start(1);
    let answer = bench.send(&M::CheckDeviceState, false).unwrap();
    assert!(answer.refused.unwrap().to_string().contains("ring 1 runs"));
    // A device that has none says so.
    bench.ok(M::GetVringBase(state(1, 0)));
    let saving = StateTransfer::default();
    let answer = bench.send(&M::SetDeviceStateFd(saving, null()), false).unwrap();
    assert!(answer.refused.unwrap().to_string().contains("no state of its own"));
}
