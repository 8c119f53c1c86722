//! Files against another reader, and ours on what is broken.

use pcap_parser::pcapng::{Block as Theirs, OptionCode};
use pcap_parser::traits::PcapReaderIterator as _;
use pcap_parser::{PcapBlockOwned, PcapError, PcapNGReader};
use proptest::prelude::*;

use super::*;

const TIME: u64 = 1_800_000_000_123_456_789;

fn sample(bytes: &[u8]) -> Packet<'_> {
    Packet {
        interface: 1,
        time: TIME,
        bytes,
        len: 1_514,
        direction: Some(Direction::Out),
        lost: 7,
        comment: Some("dropped: ring_full"),
    }
}

fn file(bytes: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    section(&mut file, "ringway 0.1");
    for name in ["vm1", "vm2"] {
        let filter = Some("udp");
        interface(&mut file, &Interface { name, description: "tap:rw0", filter, snaplen: 96 });
    }
    packet(&mut file, &sample(bytes));
    packet(&mut file, &Packet { direction: None, lost: 0, comment: None, ..sample(bytes) });
    statistics(&mut file, &Statistics { interface: 1, time: TIME, captured: 2, missed: 7 });
    file
}

#[test]
fn another_reader_finds_what_was_written() {
    for len in 0..70 {
        let bytes = vec![7; len];
        let file = file(&bytes);
        let mut reader = PcapNGReader::new(1 << 16, &*file).unwrap();
        let mut found = Vec::new();
        loop {
            match reader.next() {
                Ok((offset, PcapBlockOwned::NG(block))) => {
                    found.push(describe(&block, &bytes));
                    reader.consume(offset);
                }
                Err(PcapError::Eof) => break,
                Err(PcapError::Incomplete(_)) => reader.refill().unwrap(),
                Ok(_) => panic!("no block of pcapng"),
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(
            found,
            [
                "section",
                "vm1 tap:rw0 1e-9 udp 96",
                "vm2 tap:rw0 1e-9 udp 96",
                "1 1800000000123456789 1514 flags 2 lost 7 'dropped: ring_full'",
                "1 1800000000123456789 1514",
                "statistics of 1: 7 missed, 2 captured",
            ]
        );
    }
}

fn describe(block: &Theirs<'_>, bytes: &[u8]) -> String {
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    match block {
        Theirs::SectionHeader(_) => "section".to_owned(),
        Theirs::InterfaceDescription(block) => {
            let find = |code| {
                block.options.iter().find(|option| option.code == code).unwrap().as_bytes().unwrap()
            };
            let (name, what) = (text(find(OptionCode(2))), text(find(OptionCode(3))));
            let filter = text(&find(OptionCode(11))[1..]);
            format!("{name} {what} 1e-{} {filter} {}", block.if_tsresol, block.snaplen)
        }
        Theirs::EnhancedPacket(block) => {
            assert_eq!(&block.data[..bytes.len()], bytes);
            assert_eq!(block.caplen as usize, bytes.len());
            let time = u64::from(block.ts_high) << 32 | u64::from(block.ts_low);
            let mut line = format!("{} {time} {}", block.if_id, block.origlen);
            for option in &block.options {
                match option.code {
                    OptionCode(2) => line += &format!(" flags {}", option.value[0]),
                    OptionCode(4) => line += &format!(" lost {}", option.value[0]),
                    OptionCode(1) => line += &format!(" '{}'", text(option.as_bytes().unwrap())),
                    _ => {}
                }
            }
            line
        }
        Theirs::InterfaceStatistics(block) => {
            let find = |code| {
                let option = block.options.iter().find(|option| option.code == OptionCode(code));
                option.unwrap().value[0]
            };
            format!("statistics of {}: {} missed, {} captured", block.if_id, find(5), find(8))
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn files_are_read_as_they_were_written() {
    let bytes = [5; 61];
    let file = file(&bytes);
    let mut blocks = Blocks::new(&*file);
    let mut copied = Vec::new();
    let mut count = 0;
    while let Some((raw, block)) = blocks.next_block().unwrap() {
        copied.extend_from_slice(raw);
        match (count, block) {
            (0, Block::Section) | (1, Block::Interface("vm1")) | (2, Block::Interface("vm2")) => {}
            (3, Block::Packet(packet)) => assert_eq!(packet, sample(&bytes)),
            (4, Block::Packet(packet)) => assert_eq!((packet.lost, packet.comment), (0, None)),
            (5, Block::Statistics(found)) => assert_eq!((found.captured, found.missed), (2, 7)),
            other => panic!("{other:?}"),
        }
        count += 1;
    }
    assert_eq!((copied, count), (file, 6));
}

#[test]
fn texts_of_any_length_are_cut_where_a_character_ends() {
    let mut file = Vec::new();
    let name = "ä".repeat(700);
    interface(&mut file, &Interface { name: &name[2..], ..Interface::default() });
    interface(&mut file, &Interface { name: &format!("x{name}"), ..Interface::default() });
    let mut blocks = Blocks::new(&*file);
    for expected in ["ä".repeat(512), format!("x{}", "ä".repeat(511))] {
        let (_, block) = blocks.next_block().unwrap().unwrap();
        assert_eq!(block, Block::Interface(&expected));
    }
}

proptest! {
    #[test]
    fn broken_files_end_with_an_error(
        flips in prop::collection::vec((0_usize..600, any::<u8>()), 1..8),
        end in 0_usize..600,
    ) {
        let mut file = file(&[1; 60]);
        for (at, byte) in flips {
            let at = at % file.len();
            file[at] = byte;
        }
        file.truncate(end);
        let mut blocks = Blocks::new(&*file);
        let mut bytes = 0;
        while let Ok(Some((raw, _))) = blocks.next_block() {
            bytes += raw.len();
        }
        prop_assert!(bytes <= file.len());
    }
}
