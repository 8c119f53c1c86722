//! Mirrors of bridges with rules: what comes in is copied as it came, and what goes out as it goes.

use super::*;
use crate::mirror::taps::{Tap, Taps, To};
use crate::port_set::PortSet;

/// Has mirrors copy what comes in on the first ports and goes out on the others to port 3.
fn mirror(bench: &mut Bench, all: &[(&[u16], &[u16])]) {
    let ports = |ports: &[u16]| ports.iter().copied().collect::<PortSet>();
    let tap = |(src, dst): &(&[u16], &[u16])| Tap {
        src: ports(src),
        dst: ports(dst),
        vlans: None,
        to: To::Port(3),
        snaplen: usize::MAX,
        counters: Arc::default(),
        recorder: None,
        reflects: false,
    };
    let taps = Taps::new(all.iter().map(tap).collect(), ports(&[3]));
    bench.change(0, BridgeChange::Mirror(Some(Box::new(taps))));
}

#[test]
fn what_comes_in_is_copied_before_rules_change_it() {
    let (a, b, c) = (station(1), station(2), station(3));
    let (mut bench, _) = bench(&[
        (0, to(a), vec![]),
        (0, to(b), vec![write(Field::EthDst, c.into()), output(PortNo::IN_PORT.0), output(2)]),
    ]);
    let came = [frame(a, c), frame(b, c)];
    mirror(&mut bench, &[(&[0], &[])]);
    let got = bench.send(0, &came);
    assert_eq!(counts(&got), [1, 1, 0, 2], "also what is dropped, and what goes to two ports once");
    assert_eq!((&got[3], &got[1]), (&came.to_vec(), &vec![frame(c, c)]));
    // Whoever has it already gets no other one for that it goes out, by whichever mirror.
    for mirrors in [&[(&[0][..], &[0, 1][..])][..], &[(&[0], &[]), (&[], &[0, 1])]] {
        mirror(&mut bench, mirrors);
        assert_eq!(bench.send(0, &came)[3], came);
    }
    // What came in elsewhere is copied as it goes out.
    assert_eq!(bench.send(2, &came)[3], [frame(c, c)]);
}
