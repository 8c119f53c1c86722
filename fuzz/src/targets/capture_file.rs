//! A capture file, pcap or pcapng, as a `pcap` port receives it.

use std::os::fd::AsRawFd;

use packet::{BURST, MAX_FRAME_LEN};

use crate::guest::file;
use crate::input::Input;

/// Bursts of one input; the file is received more than once.
const BURSTS: usize = 100;

/// Plays one input.
pub(super) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let again = input.pick(&["", ",loop=2", ",loop=on"]);
    let capture = file(0);
    rustix::io::pwrite(&capture, input.rest(), 0).unwrap();
    let device = format!("pcap:/proc/self/fd/{}{again}", capture.as_raw_fd());
    let Ok(mut port) = drivers::open("fuzz", &device, &drivers::Drivers::new()) else { return };
    for _ in 0..BURSTS {
        let burst = port.rx[0].rx_burst(BURST);
        for frame in burst.frames() {
            assert!((14..=MAX_FRAME_LEN).contains(&frame.len()));
            assert_eq!(frame.to_vec().len(), frame.len());
        }
        if burst.frames().is_empty() {
            break;
        }
    }
}
