//! Programs against libpcap's own interpreter, and what is refused.

use proptest::prelude::*;

use super::*;
use crate::libpcap::Libpcap;

fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn why(instructions: &[Instruction]) -> String {
    Program::new(instructions).unwrap_err().to_string()
}

#[test]
fn what_could_harm_is_refused() {
    let end = op(0x06, 1);
    for (instruction, expected) in [
        (op(0x3F, 0), "there is no such instruction"),
        (op(0x02, 16), "16 words of memory"),
        (op(0x61, 99), "16 words of memory"),
        (op(0x34, 0), "divides by zero"),
        (op(0x94, 0), "divides by zero"),
        (op(0x64, 32), "more than 31 bits"),
        (op(0x05, 1), "outside of the filter"),
        (op(0x05, u32::MAX), "outside of the filter"),
        (Instruction { code: 0x15, jt: 0, jf: 1, k: 0 }, "outside of the filter"),
        (op(0x18, 0), "no load of this size"),
        (op(0x68, 0), "no load of this kind"),
        (op(0xB4, 0), "no such calculation"),
        (op(0x55, 0), "no such jump"),
    ] {
        let text = why(&[instruction, end]);
        assert!(
            text.contains(expected) && text.contains("instruction 0"),
            "{instruction:?}: {text}"
        );
    }
    assert!(why(&[end, op(0x04, 1)]).contains("instruction 1"), "it must end");
    assert!(why(&[]).contains("0 instructions"));
    assert!(why(&[end; MAX_INSTRUCTIONS + 1]).contains("expected 1 to 2048"));
    assert_eq!(Program::new(&[end; MAX_INSTRUCTIONS]).unwrap().len(), MAX_INSTRUCTIONS);
}

#[test]
fn text_is_read_as_it_is_written_and_nothing_else_is() {
    let program =
        [op(0x28, 12), Instruction { code: 0x15, jt: 0, jf: 1, k: 0x806 }, op(6, 9), op(6, 0)];
    let text = to_text(&program);
    assert!(text.starts_with("002800000000000c0015000100000806"), "{text}");
    assert_eq!(text.parse::<Program>(), Program::new(&program));
    for wrong in ["002", "002800000000000g", "+02800000000000c", "0028 0000000000c"] {
        assert_eq!(wrong.parse::<Program>(), Err(BadProgram::Text), "{wrong}");
    }
    let long = "0".repeat(DIGITS * (MAX_INSTRUCTIONS + 1));
    assert_eq!(long.parse::<Program>(), Err(BadProgram::Length(MAX_INSTRUCTIONS + 1)));
}

#[test]
fn bytes_that_are_not_there_yet_are_asked_for() {
    // The byte behind an IPv4 header at 14.
    let program = Program::new(&[op(0xB1, 14), op(0x50, 14), op(0x16, 0)]).unwrap();
    let mut frame = [0; 60];
    (frame[14], frame[34]) = (0x45, 1);
    assert_eq!(program.run(&frame[..34], 60), Outcome::Unknown);
    assert_eq!(program.run(&frame[..35], 60), Outcome::Taken);
    assert_eq!(program.run(&frame[..34], 34), Outcome::Refused);
}

/// Codes of all kinds, more of them right than by chance.
fn code() -> impl Strategy<Value = u16> {
    let loads = vec![0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x80, 0x00, 0x60, 0xB1, 0x01, 0x61, 0x81];
    let others = vec![0x02, 0x03, 0x07, 0x87, 0x84, 0x05, 0x06, 0x16];
    let alu = (0_u16..=0xA, any::<bool>()).prop_map(|(alu, x)| 0x04 | alu << 4 | u16::from(x) << 3);
    let jump =
        (1_u16..=4, any::<bool>()).prop_map(|(test, x)| 0x05 | test << 4 | u16::from(x) << 3);
    prop_oneof![
        5 => prop::sample::select(loads),
        2 => prop::sample::select(others),
        3 => alu,
        3 => jump,
        1 => any::<u16>(),
    ]
}

fn instruction() -> impl Strategy<Value = Instruction> {
    let k = prop_oneof![4 => 0_u32..80, 1 => any::<u32>(), 1 => Just(u32::MAX - 3)];
    let jump = || prop_oneof![4 => 0_u8..6, 1 => any::<u8>()];
    (code(), jump(), jump(), k).prop_map(|(code, jt, jf, k)| Instruction { code, jt, jf, k })
}

/// Memory that is read before it is written is zero here, and anything in libpcap.
fn with_memory(body: &[Instruction]) -> Vec<Instruction> {
    let stores = (0..16).map(|slot| op(0x02, slot));
    stores.chain(body.iter().copied()).chain([op(0x16, 0)]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_program_says_what_libpcap_says(
        body in prop::collection::vec(instruction(), 0..24),
        frame in prop::collection::vec(any::<u8>(), 0..100),
        there in 0_usize..100,
    ) {
        let Some(libpcap) = Libpcap::for_test() else { return Ok(()) };
        // Those that are refused are left out of the program, so that long ones are tried, too.
        let mut kept: Vec<Instruction> = Vec::new();
        for instruction in body {
            kept.push(instruction);
            let filled = [with_memory(&kept), vec![op(0x06, 0); 256]].concat();
            if Program::new(&filled).is_err() { kept.pop(); }
        }
        let all = [with_memory(&kept), vec![op(0x06, 0); 256]].concat();
        let program = Program::new(&all).unwrap();
        let expected = libpcap.run(&all, &frame) != 0;
        prop_assert_eq!(program.matches(&frame), expected, "{:?} on {:?}", all, frame);
        let there = there.min(frame.len());
        match program.run(&frame[..there], frame.len()) {
            Outcome::Unknown => prop_assert!(there < frame.len()),
            known => prop_assert_eq!(known == Outcome::Taken, expected),
        }
    }

    #[test]
    fn no_instructions_make_trouble(program in prop::collection::vec(
        (any::<u16>(), any::<u8>(), any::<u8>(), any::<u32>()), 0..40,
    ), frame in prop::collection::vec(any::<u8>(), 0..100)) {
        let program: Vec<_> =
            program.into_iter().map(|(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect();
        if let Ok(program) = Program::new(&program) {
            let _ = program.matches(&frame);
        }
    }
}

#[test]
fn filters_find_the_frames_that_libpcap_finds() {
    let Some(libpcap) = Libpcap::for_test() else { return };
    let frames = frames();
    for (filter, expected) in [
        ("", 0b1111),
        ("arp", 0b0001),
        ("tcp port 80", 0b0010),
        ("vlan 7 and udp", 0b0100),
        ("ip6", 0b1000),
        ("host 10.0.0.1 and not arp", 0b0010),
        ("less 50", 0b0001),
        ("ether[12:2] = 0x86dd", 0b1000),
    ] {
        let instructions = libpcap.compile(filter).unwrap();
        let program = Program::new(&instructions).unwrap();
        let found = (0..).zip(&frames).filter(|(_, frame)| program.matches(frame));
        let found = found.fold(0, |all, (index, _)| all | 1_u32 << index);
        assert_eq!(found, expected, "{filter}: {instructions:?}");
    }
}

/// An ARP request, a TCP segment to port 80, UDP in VLAN 7, and IPv6.
fn frames() -> Vec<Vec<u8>> {
    let link = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let ipv4 = |protocol: u8| {
        [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 4, 210, 0, 80]
    };
    let arp = [
        8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2,
    ];
    let mut tagged = vec![0x81, 0, 0, 7, 8, 0];
    tagged.extend(ipv4(17));
    let mut tcp = vec![8, 0];
    tcp.extend(ipv4(6));
    let ip6 = [0x86, 0xDD, 0x60];
    [&arp[..], &tcp, &tagged, &ip6]
        .iter()
        .enumerate()
        .map(|(index, rest)| {
            let mut frame = [&link[..], rest].concat();
            frame.resize(if index == 0 { 42 } else { 80 }, 0);
            frame
        })
        .collect()
}
