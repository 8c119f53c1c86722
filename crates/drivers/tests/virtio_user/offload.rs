//! Frames with offloads, through our own driver and our own device.

use packet::builder::FrameBuilder;
use packet::headers::{Ethernet, Ipv4, Tcp, TcpFlags};
use packet::{Capabilities, Gso, Offload, OffloadRequest};

use super::*;

fn tcp(payload: &[u8]) -> Vec<u8> {
    let mac = |n| MacAddr([2, 0, 0, 0, 0, n]);
    let builder = FrameBuilder::new(mac(1), mac(2)).ip([10, 0, 0, 1], [10, 0, 0, 2]);
    builder.tcp((1, 2), 0, 0, TcpFlags::ACK).payload(payload).build().unwrap()
}

fn request(gso_size: u16) -> OffloadRequest {
    OffloadRequest {
        needs_csum: true,
        gso: (gso_size > 0).then_some(Gso::TcpV4),
        gso_size,
        csum_start: 34,
        csum_offset: 16,
        ..OffloadRequest::default()
    }
}

fn checked(request: &OffloadRequest, bytes: &[u8]) -> Offload {
    let head = &bytes[..bytes.len().min(packet::frame::HEAD_CAPACITY)];
    Offload::check(request, Capabilities::all(), head, bytes.len()).unwrap()
}

/// Sends frames and returns what arrives until `bytes` of TCP payload have.
fn send(
    from: &mut OpenPort,
    to: &mut OpenPort,
    frames: &[(Vec<u8>, Offload)],
    bytes: usize,
) -> Vec<(Vec<u8>, Offload)> {
    let frames: Vec<Frame<'_>> = frames
        .iter()
        .map(|(bytes, offload)| Frame::from_bytes(bytes).with_offload(*offload))
        .collect();
    let deadline = Instant::now() + PATIENCE;
    let (mut sent, mut got, mut received) = (0, Vec::new(), 0);
    while received < bytes {
        sent += from.tx[0].tx_burst(&frames[sent..]);
        for frame in to.rx[0].rx_burst(BURST).frames() {
            received += payload(&frame.to_vec()).len();
            got.push((frame.to_vec(), frame.offload()));
        }
        assert!(Instant::now() < deadline, "{received} of {bytes} bytes came");
    }
    assert_eq!((sent, received), (frames.len(), bytes));
    got
}

fn payload(frame: &[u8]) -> Vec<u8> {
    let ip = Ipv4::parse(Ethernet::parse(frame).unwrap().payload()).unwrap();
    Tcp::parse(ip.payload()).unwrap().payload().to_vec()
}

#[test]
fn offloads_pass_with_the_frame_and_leave_no_trace() {
    for options in ["", ",mrg_rxbuf=off", ",indirect=off", ",version_1=off,queue_size=64"] {
        let bench = Bench::new();
        let (mut back, mut front) = bench.pair("", options);
        let data: Vec<u8> = (0..64_000).map(|at: usize| at.to_le_bytes()[0]).collect();
        let (large, small) = (tcp(&data), tcp(&data[..1000]));
        let large = (large.clone(), checked(&request(1448), &large));
        let begun = (small.clone(), checked(&request(0), &small));
        let valid = (small.clone(), Offload::DATA_VALID);
        let plain = (small, Offload::NONE);
        let mut frames = vec![begun.clone(), plain.clone(), large.clone(), plain.clone(), begun];
        // More than there are slots, so that each is used again.
        frames.extend(std::iter::repeat_n(plain, 300));
        let bytes = 64_000 + 304 * 1000;
        // To the device: what a driver knows about its frames does not count.
        frames[1] = valid.clone();
        let got = send(&mut front, &mut back, &frames, bytes);
        frames[1].1 = Offload::NONE;
        assert!(got == frames, "{options}: to the back-end");
        // To the driver, whose buffers must be mergeable for large segments.
        frames[1] = valid;
        let got = send(&mut back, &mut front, &frames, bytes);
        if options.contains("mrg_rxbuf=off") {
            assert_eq!(got.len(), frames.len() - 1 + 64_000_usize.div_ceil(1448));
            assert!(got[3].1.needs() == Capabilities::CSUM, "the parts' checksums are begun");
        } else {
            assert!(got == frames, "{options}: to the front-end");
        }
    }
}

#[test]
fn whoever_takes_no_offloads_gets_complete_frames() {
    for (back, front) in [(",offloads=off", ""), ("", ",offloads=off")] {
        let bench = Bench::new();
        let (mut back, mut front) = bench.pair(back, front);
        let data: Vec<u8> = (0..60_000).map(|at: usize| at.to_le_bytes()[0]).collect();
        let large = tcp(&data);
        let frames = [(large.clone(), checked(&request(1448), &large))];
        for towards_back in [true, false] {
            let got = if towards_back {
                send(&mut front, &mut back, &frames, data.len())
            } else {
                send(&mut back, &mut front, &frames, data.len())
            };
            assert_eq!(got.len(), 42);
            assert!(got.iter().all(|(frame, offload)| frame.len() <= 1514 && offload.is_none()));
            let together: Vec<u8> = got.iter().flat_map(|(frame, _)| payload(frame)).collect();
            assert!(together == data);
        }
    }
}
