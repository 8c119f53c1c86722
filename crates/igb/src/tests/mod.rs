//! The driver on a device in software.

mod control;
mod receive;
mod transmit;

use ethdev::{RxQueue, TxQueue};
use packet::{BURST, Frame};

use super::model::Device;
use super::*;

/// Opens the device with MSI-X.
fn open_on(device: &Device, options: &str) -> Result<OpenPort, Error> {
    open_with(device, options, 10, false)
}

fn open_with(device: &Device, options: &str, vectors: u16, line: bool) -> Result<OpenPort, Error> {
    open_by(&Time::system(), device, options, vectors, line)
}

fn open_by(
    time: &Time,
    device: &Device,
    options: &str,
    vectors: u16,
    line: bool,
) -> Result<OpenPort, Error> {
    let text = format!("igb:0000:01:00.0{options}");
    let options = Options::parse(text.parse().unwrap()).unwrap();
    let pci = device.pci(vectors, line);
    let model = devices::find(pci.info().vendor, pci.info().device).unwrap();
    start("p0", &text, options, pci, device.clone(), model, time)
}

/// A device and its port.
fn opened(options: &str) -> (Device, OpenPort) {
    let device = Device::new();
    let port = open_on(&device, options).unwrap();
    (device, port)
}

/// A UDP datagram over IPv4 to the model, `len` bytes long in all, from port `from` to port `to`.
fn datagram(from: u16, to: u16, len: usize) -> Vec<u8> {
    let mut frame = vec![0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 1, 8, 0];
    let ip_len = u16::try_from(len - 14).unwrap().to_be_bytes();
    frame.extend([
        0x45, 0, ip_len[0], ip_len[1], 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ]);
    frame.extend(from.to_be_bytes());
    frame.extend(to.to_be_bytes());
    frame.extend((u16::try_from(len - 34).unwrap()).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend((frame.len()..len).map(|n| u8::try_from(n % 251).unwrap()));
    frame
}

/// The frames of one burst, as bytes.
fn received(queue: &mut RxQueue) -> Vec<Vec<u8>> {
    queue.rx_burst(BURST).frames().iter().map(Frame::to_vec).collect()
}

fn send(queue: &mut TxQueue, frames: &[Vec<u8>]) -> usize {
    let frames: Vec<Frame<'_>> = frames.iter().map(|bytes| Frame::from_bytes(bytes)).collect();
    queue.tx_burst(&frames)
}
