//! Mirrors of bridges with rules: what comes in is copied as it came, and what goes out as it goes.

use super::*;
use crate::datapath::mirror_tests::tap;
use crate::mirror::taps::To;

#[test]
fn what_comes_in_is_copied_before_rules_change_it() {
    let (a, b, c) = (station(1), station(2), station(3));
    let (mut bench, _) = bench(&[
        (0, to(a), vec![]),
        (0, to(b), vec![write(Field::EthDst, c.into()), output(PortNo::IN_PORT.0), output(2)]),
    ]);
    let came = [frame(a, c), frame(b, c)];
    let to = || To::Port(3);
    bench.mirror(vec![tap(&[0], &[], to())]);
    let got = bench.send(0, &came);
    assert_eq!(counts(&got), [1, 1, 0, 2], "also what is dropped, and what goes to two ports once");
    assert_eq!((&got[3], &got[1]), (&came.to_vec(), &vec![frame(c, c)]));
    // Whoever has it already gets no other one for that it goes out, by whichever mirror.
    for mirrors in
        [vec![tap(&[0], &[0, 1], to())], vec![tap(&[0], &[], to()), tap(&[], &[0, 1], to())]]
    {
        bench.mirror(mirrors);
        assert_eq!(bench.send(0, &came)[3], came);
    }
    // What came in elsewhere is copied as it goes out.
    assert_eq!(bench.send(2, &came)[3], [frame(c, c)]);
}
