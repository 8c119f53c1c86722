//! Connections that others announce.

use super::*;

/// Who is inside is known outside by another address, and FTP's control connections are looked at.
const FTP: [&str; 6] = [
    "in_port=1,tcp,tp_dst=21,actions=ct(table=1,zone=5,nat)",
    "table=1,ct_state=+new,tcp,actions=ct(commit,alg=ftp,zone=5,nat(src=10.0.0.240)),output:2",
    "table=1,in_port=1,ct_state=+est-inv,tcp,actions=output:2",
    "in_port=2,tcp,actions=ct(table=2,zone=5,nat)",
    "table=2,ct_state=+est-inv,tcp,actions=output:1",
    "table=2,ct_state=+new+rel,tcp,actions=ct(commit,zone=5,nat),output:3",
];

/// A segment of a control connection, there or back, or of the connection that it announces.
fn segment(
    (from, to): ([u8; 4], [u8; 4]),
    ports: (u16, u16),
    (sequence, acknowledgment): (u32, u32),
    flags: TcpFlags,
    text: &str,
) -> Vec<u8> {
    FrameBuilder::new(MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]))
        .ip(from, to)
        .tcp(ports, sequence, acknowledgment, flags)
        .payload(text.as_bytes())
        .build()
        .unwrap()
}

#[test]
fn addresses_in_what_is_said_are_translated_and_connections_come_that_were_announced() {
    let (mut bench, all) = connected(&FTP);
    let (inside, outside) = ((ONE, OTHER), ([10, 0, 0, 240], OTHER));
    let back = |(from, to): ([u8; 4], [u8; 4])| (to, from);
    let (syn, ack) = (TcpFlags::SYN, TcpFlags::ACK);
    let there = |ends, numbers, flags, text: &str| segment(ends, (5000, 21), numbers, flags, text);
    let answer = |ends, numbers, flags, text: &str| segment(ends, (21, 5000), numbers, flags, text);
    let mut pass = |port: u16, frame: Vec<u8>, to: usize, expected: Vec<u8>| {
        let got = bench.send(port, &[frame]);
        assert_eq!(got[to], [expected], "{got:?}");
    };
    pass(0, there(inside, (100, 0), syn, ""), 1, there(outside, (100, 0), syn, ""));
    let both = syn | ack;
    let sent = answer(back(outside), (900, 101), both, "");
    pass(1, sent, 0, answer(back(inside), (900, 101), both, ""));
    let third = (101, 901);
    pass(0, there(inside, third, ack, ""), 1, there(outside, third, ack, ""));
    // It has become longer by two: 22 bytes were sent.
    let (said, told) = ("PORT 10,0,0,1,200,10\r\n", "PORT 10,0,0,240,200,10\r\n");
    for _ in 0..2 {
        pass(0, there(inside, third, ack, said), 1, there(outside, third, ack, told));
    }
    let sent = answer(back(outside), (901, 125), ack, "200 OK\r\n");
    pass(1, sent, 0, answer(back(inside), (901, 123), ack, "200 OK\r\n"));
    let next = |number| (number, 909);
    let sent = there(inside, next(123), ack, "LIST\r\n");
    pass(0, sent, 1, there(outside, next(125), ack, "LIST\r\n"));
    // What is kept of both sides is as it was sent: whoever takes part has numbers like these.
    let stale = there(inside, next(123 + 200_000), ack, "");
    pass(0, stale, 1, there(outside, next(125 + 200_000), ack, ""));
    let data = |(from, to), ports, numbers| segment((from, to), ports, numbers, syn, "");
    let first = data(back(outside), (20, 51_210), (1, 0));
    pass(1, first, 2, data(back(inside), (20, 51_210), (1, 0)));
    assert_eq!(all.count(), 2);
}

#[test]
fn who_announces_what_is_not_his_is_invalid() {
    let (mut bench, _) = connected(&[
        "in_port=1,tcp,actions=ct(commit,alg=ftp,table=1)",
        "table=1,ct_state=+inv,tcp,actions=output:3",
        "table=1,tcp,actions=output:2",
        "in_port=2,tcp,actions=ct(table=2)",
        "table=2,ct_state=+est,tcp,actions=output:1",
        "table=2,ct_state=+rel,tcp,actions=output:4",
    ]);
    let there =
        |numbers, flags, text: &str| segment((ONE, OTHER), (5000, 21), numbers, flags, text);
    let (syn, ack) = (TcpFlags::SYN, TcpFlags::ACK);
    bench.send(0, &[there((100, 0), syn, "")]);
    bench.send(1, &[segment((OTHER, ONE), (21, 5000), (900, 101), syn | ack, "")]);
    bench.send(0, &[there((101, 901), ack, "")]);
    let got = bench.send(0, &[there((101, 901), ack, "PORT 10,0,0,9,200,10\r\n")]);
    assert_eq!(counts(&got), [0, 0, 1, 0]);
    let got = bench.send(0, &[there((101, 901), ack, "PORT 10,0,0,1,200,10\r\n")]);
    assert_eq!(counts(&got), [0, 1, 0, 0]);
    let first = |port| segment((OTHER, ONE), (20, port), (1, 0), syn, "");
    assert_eq!(counts(&bench.send(1, &[first(51_211), first(51_210)])), [0, 0, 0, 1]);
}
