//! Tests of capture files: written by us, by hand, and by nobody in their right mind.

use std::io::Cursor;
use std::path::Path;

use packet::Segment;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{Drivers, open};

fn open_pcap(device: &str) -> OpenPort {
    open("p0", device, &Drivers::new()).unwrap()
}

fn refusal(device: &str) -> String {
    open("p0", device, &Drivers::new()).unwrap_err().to_string()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Receives until nothing comes for a while.
fn receive_all(queue: &mut RxQueue) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut empty = 0;
    while empty < 10 {
        let burst = queue.rx_burst(BURST);
        all.extend(burst.frames().iter().map(Frame::to_vec));
        empty = if burst.frames().is_empty() { empty + 1 } else { 0 };
    }
    all
}

/// A pcap file, by the book.
fn pcap_file(big_endian: bool, magic: u32, link_type: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let u32 = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let version = if big_endian { [0, 2, 0, 4] } else { [2, 0, 4, 0] };
    let mut file = u32(magic).to_vec();
    file.extend(version);
    for value in [0, 0, 65_535, link_type] {
        file.extend(u32(value));
    }
    for frame in frames {
        let len = u32::try_from(frame.len()).unwrap();
        for value in [1, 2, len, len] {
            file.extend(u32(value));
        }
        file.extend(frame);
    }
    file
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(12 + body.len().next_multiple_of(4)).unwrap().to_le_bytes();
    let mut block = kind.to_le_bytes().to_vec();
    block.extend(len);
    block.extend(body);
    block.resize(block.len().next_multiple_of(4), 0);
    block.extend(len);
    block
}

/// A pcapng file: interface 0 is Ethernet, interface 1 is not and has one packet in between.
fn pcapng_file(frames: &[Vec<u8>]) -> Vec<u8> {
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let mut file = block(0x0A0D_0D0A, &words(&[0x1A2B_3C4D, 1, u32::MAX, u32::MAX]));
    file.extend(block(1, &words(&[1, 0])));
    file.extend(block(1, &words(&[101, 0])));
    for (index, frame) in frames.iter().enumerate() {
        let len = u32::try_from(frame.len()).unwrap();
        if index == 1 {
            file.extend(block(6, &words(&[1, 0, 0, 4, 4, 0xDEAD_BEEF])));
        }
        let body = if index % 2 == 0 {
            (6, [words(&[0, 0, 0, len, len]), frame.clone()].concat())
        } else {
            (3, [words(&[len]), frame.clone()].concat())
        };
        file.extend(block(body.0, &body.1));
    }
    file
}

fn sample() -> Vec<Vec<u8>> {
    (0..100_u8).map(|index| vec![index; 60 + usize::from(index)]).collect()
}

/// Reads a file in memory to its end.
fn read(file: Vec<u8>) -> Result<Vec<Vec<u8>>, String> {
    let mut reader = CaptureReader::new("test", Cursor::new(file))?;
    let mut frames = Vec::new();
    let mut slot = vec![0; MAX_SLOT_LEN + 1];
    loop {
        match reader.step(&mut slot) {
            Step::Frame(len) => frames.push(slot[..len].to_vec()),
            Step::TooLong | Step::Other => {}
            Step::End => break,
        }
    }
    assert_eq!(reader.step(&mut slot), Step::End, "an end is for good");
    Ok(frames)
}

#[test]
fn what_is_sent_to_a_file_is_received_from_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a,b=c.pcap");
    let name = text(&path).replace(',', ",,");
    let mut writer = open_pcap(&format!("pcap:tx={name}"));
    let frames = sample();
    let refs: Vec<Frame<'_>> = frames.iter().map(|frame| Frame::from_bytes(frame)).collect();
    assert_eq!(writer.tx[0].tx_burst(&refs), 100);
    // A frame of many pieces, as a guest sends it.
    let body = [9_u8; 70_000];
    let pieces: Vec<Segment<'_>> = body[..65_000].chunks(1000).map(Segment::from_bytes).collect();
    let large = Frame::from_parts(&[1; 64], &pieces).unwrap();
    assert_eq!(writer.tx[0].tx_burst(&[large]), 1);
    assert_eq!(writer.port.stats().tx_total().packets, 101);
    writer.tx[0].flush();

    let mut reader = open_pcap(&format!("pcap:{name}"));
    let received = receive_all(&mut reader.rx[0]);
    assert_eq!(received[..100], frames);
    assert_eq!(received[100], large.to_vec());
    assert_eq!(received.len(), 101);
    assert_eq!(reader.port.stats().rx_total().packets, 101);
    assert_eq!(reader.port.control().details(), [("rx file".into(), text(&path).into())]);
}

#[test]
fn what_is_buffered_is_written_when_the_queue_goes() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("out.pcap");
    let mut writer = open_pcap(&format!("pcap:tx={},snaplen=20", text(&path)));
    writer.tx[0].tx_burst(&[Frame::from_bytes(&[7; 100])]);
    drop(writer);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 24 + 16 + 20);
    assert_eq!(bytes[..4], [0x4D, 0x3C, 0xB2, 0xA1]);
    assert_eq!((bytes[32], bytes[36]), (20, 100), "captured and original length");
    assert_eq!(read(bytes).unwrap(), [vec![7; 20]]);
}

#[test]
fn files_of_every_byte_order_and_time_unit_are_read() {
    let frames = sample();
    for big_endian in [false, true] {
        for magic in [0xA1B2_C3D4, 0xA1B2_3C4D] {
            assert_eq!(read(pcap_file(big_endian, magic, 1, &frames)).unwrap(), frames);
        }
    }
    assert_eq!(read(pcapng_file(&frames)).unwrap(), frames);
}

#[test]
fn a_file_is_repeated_as_often_as_asked() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("in.pcap");
    let frames = &sample()[..5];
    std::fs::write(&path, pcap_file(false, 0xA1B2_C3D4, 1, frames)).unwrap();
    let mut three = open_pcap(&format!("pcap:{},loop=3", text(&path)));
    assert_eq!(receive_all(&mut three.rx[0]), [frames, frames, frames].concat());
    let mut always = open_pcap(&format!("pcap:rx={},loop=on", text(&path)));
    for round in 0..100 {
        let burst = always.rx[0].rx_burst(BURST);
        assert_eq!(burst.frames().len(), BURST);
        assert_eq!(burst.frames()[0].to_vec(), frames[round * BURST % 5]);
    }
    let OpenPort { port, mut rx, .. } = always;
    drop(port);
    assert_eq!(rx[0].rx_burst(BURST).frames().len(), 0);
}

#[test]
fn frames_that_are_no_frames_are_dropped_with_a_reason() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("in.pcap");
    let frames = [vec![1; 13], vec![2; 14], vec![3; MAX_SLOT_LEN], vec![4; MAX_SLOT_LEN + 1]];
    std::fs::write(&path, pcap_file(false, 0xA1B2_C3D4, 1, &frames)).unwrap();
    let mut port = open_pcap(&format!("pcap:{}", text(&path)));
    assert_eq!(receive_all(&mut port.rx[0]), frames[1..3]);
    let stats = port.port.stats().rx_total();
    assert_eq!(stats.dropped_for(DropReason::TooShort), 1);
    assert_eq!(stats.dropped_for(DropReason::TooLong), 1);
}

#[test]
fn a_full_disk_drops_frames_and_says_so() {
    if !Path::new("/dev/full").exists() {
        println!("skipped: there is no /dev/full");
        return;
    }
    let mut port = open_pcap("pcap:tx=/dev/full");
    let frames = [Frame::from_bytes(&[1; 60_000]); 4];
    assert_eq!(port.tx[0].tx_burst(&frames), 4);
    let stats = port.port.stats().tx_total();
    assert!(stats.dropped_for(DropReason::DeviceError) >= 3, "{stats:?}");
    assert_eq!(stats.packets + stats.dropped(), 4);
}

#[test]
fn without_a_file_to_write_frames_are_swallowed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("in.pcap");
    std::fs::write(&path, pcap_file(false, 0xA1B2_C3D4, 1, &[])).unwrap();
    let mut port = open_pcap(&format!("pcap:{}", text(&path)));
    assert_eq!(port.tx[0].tx_burst(&[Frame::from_bytes(&[1; 60])]), 1);
    assert!(receive_all(&mut port.rx[0]).is_empty());
}

#[test]
fn what_cannot_be_opened_is_explained() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        text(&path).to_owned()
    };
    let good = file("good", &pcap_file(false, 0xA1B2_C3D4, 1, &sample()));
    let none = file("none", &pcap_file(false, 0xA1B2_C3D4, 1, &[]));
    for (device, part) in [
        ("pcap:".to_owned(), "expected a file"),
        ("pcap:/nowhere/at-all".to_owned(), "'/nowhere/at-all': cannot open it: No such file"),
        ("pcap:tx=/nowhere/at-all".to_owned(), "cannot write to it"),
        (format!("pcap:{good},loop=0"), "loop=0: expected on, or how often"),
        (format!("pcap:{good},rx={good}"), "given twice"),
        (format!("pcap:{good},snaplen=1"), "snaplen=1: expected a number from 14"),
        (format!("pcap:{good},tx={good}"), "both received from and written to"),
        (format!("pcap:{none},loop=on"), "at least one Ethernet frame"),
        (format!("pcap:{}", file("empty", b"")), "the file is empty"),
        (format!("pcap:{}", file("cut", &[0xD4, 0xC3, 0xB2, 0xA1, 2])), "within its header"),
        (format!("pcap:{}", file("text", &[b'a'; 100])), "no capture file"),
        (
            format!("pcap:{}", file("wifi", &pcap_file(true, 0xA1B2_C3D4, 105, &[]))),
            "link type 105",
        ),
    ] {
        let error = refusal(&device);
        assert!(error.contains(part), "{device}: {error}");
    }
    assert_eq!(read(std::fs::read(&good).unwrap()).unwrap().len(), 100, "it was not overwritten");
}

#[test]
fn a_file_that_is_cut_off_anywhere_yields_what_is_whole() {
    let frames: Vec<Vec<u8>> = sample().into_iter().take(3).collect();
    for file in [pcap_file(false, 0xA1B2_3C4D, 1, &frames), pcapng_file(&frames)] {
        let mut longest = 0;
        for len in 0..=file.len() {
            let Ok(got) = read(file[..len].to_vec()) else { continue };
            assert_eq!(got, frames[..got.len()]);
            assert!(got.len() >= longest, "a longer file has no fewer frames");
            longest = got.len();
        }
        assert_eq!(longest, 3);
    }
}

#[test]
fn a_length_beyond_all_bounds_ends_the_file() {
    for len in [0x0010_0000, 0x7FFF_FFFF, u32::MAX - 4, u32::MAX] {
        let mut file = pcap_file(false, 0xA1B2_C3D4, 1, &sample());
        // The second record's captured length.
        let at = 24 + 16 + 60 + 8;
        file[at..at + 4].copy_from_slice(&len.to_le_bytes());
        file.resize(3 << 20, 0);
        assert_eq!(read(file).unwrap(), sample()[..1]);
    }
}

/// So many bytes without a pattern (splitmix64).
fn noise((len, seed): (usize, u64)) -> Vec<u8> {
    let word = |number: u64| {
        let mixed = seed.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)).to_ne_bytes()
    };
    (0..).flat_map(word).take(len).collect()
}

proptest! {
    #[test]
    fn random_bytes_never_panic(
        start in prop::sample::select(vec![
            Vec::new(),
            pcap_file(false, 0xA1B2_C3D4, 1, &[]),
            pcap_file(true, 0xA1B2_C3D4, 1, &[]),
            pcapng_file(&[]),
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let _ = read([start, rest].concat());
    }

    #[test]
    fn damaged_files_never_panic(
        ng in any::<bool>(),
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select(vec![0_u8, 1, 4, 0x7F, 0xFC, 0xFF])),
            1..20,
        ),
    ) {
        let frames = &sample()[..8];
        let mut file =
            if ng { pcapng_file(frames) } else { pcap_file(false, 0xA1B2_C3D4, 1, frames) };
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let _ = read(file);
    }

    #[test]
    fn frames_of_any_kind_come_back(
        // What is in them comes of one number: a choice of each byte takes seconds.
        frames in prop::collection::vec((14..3000_usize, any::<u64>()).prop_map(noise), 0..80),
    ) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("x.pcap");
        let mut writer = open_pcap(&format!("pcap:tx={}", text(&path)));
        let refs: Vec<Frame<'_>> = frames.iter().map(|frame| Frame::from_bytes(frame)).collect();
        prop_assert_eq!(writer.tx[0].tx_burst(&refs), frames.len());
        drop(writer);
        let mut reader = open_pcap(&format!("pcap:{}", text(&path)));
        prop_assert_eq!(receive_all(&mut reader.rx[0]), frames);
    }
}
