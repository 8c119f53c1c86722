//! Real devices, over VFIO or UIO, whichever they are bound to. They need a machine whose devices
//! nobody else uses, so they are run by the end-to-end tests, in a guest, with the PCI address of an
//! Intel 82576 in `RINGWAY_TEST_IGB`.
//!
//! The registers are those of the 82576 datasheet, chapter 8, with their names; those of the first
//! interrupts by the addresses of older devices, which it also has.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use eal::event::{Epoll, Events, Interest};
use eal::pci::{Bar, PciAddress, PciDevice, Spaces};
use eal::{DmaBuffer, EventFd};

const CTRL: usize = 0x0;
const RST: u32 = 1 << 26;
const TCTL: usize = 0x400;
const TCTL_ENABLE: u32 = 1 << 1;
const ICR: usize = 0xc0;
const ICS: usize = 0xc8;
const IMS: usize = 0xd0;
const IMC: usize = 0xd8;
/// The cause "link status change".
const LSC: u32 = 1 << 2;
const GPIE: usize = 0x1514;
const MULTIPLE_MSIX: u32 = 1 << 4;
const EICS: usize = 0x1520;
const EIMS: usize = 0x1524;
const EICR: usize = 0x1580;
const TDBAL: usize = 0xe000;
const TDBAH: usize = 0xe004;
const TDLEN: usize = 0xe008;
const TDH: usize = 0xe010;
const TDT: usize = 0xe018;
const TXDCTL: usize = 0xe028;
const TXDCTL_ENABLE: u32 = 1 << 25;

const LIMIT: Duration = Duration::from_secs(10);

fn address() -> PciAddress {
    std::env::var("RINGWAY_TEST_IGB").unwrap().parse().unwrap()
}

fn is_readable(fd: impl AsFd, limit: Duration) -> bool {
    let (epoll, mut events) = (Epoll::new().unwrap(), Events::new());
    epoll.add(fd, 0, Interest::READ).unwrap();
    epoll.wait(&mut events, Some(limit)).unwrap();
    !events.as_slice().is_empty()
}

/// Fires the line interrupt and waits for it; then it is masked, until it is unmasked.
fn check_line(device: &dyn PciDevice, bar: &Bar) {
    let line = device.line_interrupt().unwrap();
    bar.write32(IMC, u32::MAX);
    let _ = bar.read32(ICR);
    bar.write32(IMS, LSC);
    for _ in 0..3 {
        device.unmask_line_interrupt().unwrap();
        assert!(!is_readable(line, Duration::ZERO));
        bar.write32(ICS, LSC);
        assert!(is_readable(line, LIMIT));
        // The device lowers its line when the cause is read.
        assert_ne!(bar.read32(ICR) & LSC, 0);
    }
    bar.write32(IMC, u32::MAX);
}

/// Fires MSI-X vectors one by one; each is heard by its own event alone.
fn check_msix(device: &dyn PciDevice, bar: &Bar) {
    let events: Vec<EventFd> = (0..3).map(|_| EventFd::new().unwrap()).collect();
    let none = vec![None; usize::from(device.msix_vectors()) + 1];
    assert!(device.set_msix(&none).is_err());
    for round in 0..2 {
        let event = |index: usize| Some(events[index].as_fd());
        device.set_msix(&[event(0), None, event(2 - round)]).unwrap();
        bar.write32(GPIE, MULTIPLE_MSIX);
        bar.write32(EICR, u32::MAX);
        bar.write32(EIMS, 0b101);
        bar.write32(EICS, 0b100);
        assert!(is_readable(&events[2 - round], LIMIT));
        events[2 - round].drain().unwrap();
        assert!(events.iter().all(|event| !event.drain().unwrap()));
    }
    device.set_msix(&[]).unwrap();
}

/// Has the device send a frame from `packet`, whose descriptor is in `ring`; both are DMA memory.
fn transmit(bar: &Bar, ring: &DmaBuffer, packet: &DmaBuffer, payload: &[u8]) {
    let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 0x88, 0xb5], payload].concat();
    let to = packet.slice(64, 60.max(frame.len())).unwrap();
    let descriptor = ring.slice(0, 16).unwrap();
    // Data descriptor; extended, report status, insert FCS, end of packet.
    let command = 0x3 << 20 | 1 << 29 | 1 << 27 | 1 << 25 | 1 << 24 | to.len() as u64;
    // SAFETY: both buffers are alive, and the device looks at them only after TDT is written.
    unsafe {
        to.host().copy_from_nonoverlapping((&frame[0]).into(), frame.len());
        let words = descriptor.host().cast::<u64>();
        words.write_volatile(to.device());
        words.add(1).write_volatile((to.len() as u64) << 46 | command);
    }
    bar.write32(TCTL, TCTL_ENABLE);
    bar.write32(TDBAL, (ring.device_address(0).unwrap() & 0xffff_ffff) as u32);
    bar.write32(TDBAH, (ring.device_address(0).unwrap() >> 32) as u32);
    bar.write32(TDLEN, 128);
    bar.write32(TDH, 0);
    bar.write32(TXDCTL, TXDCTL_ENABLE);
    bar.write32(TDT, 1);
    let start = Instant::now();
    // SAFETY: the buffer is alive; the device writes the word whenever it likes.
    while unsafe { descriptor.host().cast::<u64>().add(1).read_volatile() } >> 32 & 1 == 0 {
        assert!(start.elapsed() < LIMIT, "the device does not write back");
        std::thread::yield_now();
    }
    bar.write32(TXDCTL, 0);
}

/// Opens the device with its registers, reset, allowed to reach memory.
fn open(spaces: &Spaces) -> (Box<dyn PciDevice>, Bar) {
    let device = eal::pci::open(address(), spaces).unwrap();
    device.reset().unwrap();
    let bar = device.map_bar(0).unwrap();
    bar.write32(CTRL, RST);
    device.set_bus_master(true).unwrap();
    (device, bar)
}

#[test]
#[ignore = "needs a device; run by the end-to-end tests in a guest"]
fn interrupts_are_heard_and_masked() {
    let spaces = Spaces::new();
    let (device, bar) = open(&spaces);
    check_line(device.as_ref(), &bar);
    if device.msix_vectors() > 0 {
        check_msix(device.as_ref(), &bar);
        // The kernel has one kind on at a time; changing over is our affair.
        bar.write32(GPIE, 0);
        check_line(device.as_ref(), &bar);
    } else {
        assert!(device.set_msix(&[None]).is_err() && device.set_msix(&[]).is_ok());
    }
}

#[test]
#[ignore = "needs a device; run by the end-to-end tests in a guest"]
fn the_device_sends_from_our_memory_and_memory_outlives_it() {
    let spaces = Spaces::new();
    let (device, bar) = open(&spaces);
    let space = spaces.in_use().unwrap();
    assert!(space.is_same(device.dma()));
    let allocate = |bytes| space.allocate("test", bytes).unwrap();
    let (ring, first) = (allocate(4096), allocate(3 << 20));
    transmit(&bar, &ring, &first, b"first");
    // Two of a device are one too many.
    assert!(eal::pci::open(address(), &Spaces::new()).is_err());
    drop((device, bar));
    // No device is there; memory is, and comes and goes.
    let second = allocate(8192);
    drop(first);
    let (device, bar) = open(&spaces);
    let third = allocate(8192);
    transmit(&bar, &ring, &second, b"second");
    transmit(&bar, &ring, &third, b"third");
    // The registers may outlive the device value.
    drop(device);
    assert_ne!(bar.read32(CTRL), u32::MAX);
}

#[test]
#[ignore = "needs a device; run by the end-to-end tests in a guest"]
fn holds_the_device_until_it_is_killed() {
    let spaces = Spaces::new();
    let (device, bar) = open(&spaces);
    let buffers = [4096, 3 << 20].map(|bytes| device.dma().allocate("test", bytes).unwrap());
    transmit(&bar, &buffers[0], &buffers[1], b"held");
    println!("held");
    loop {
        std::thread::park();
    }
}

#[test]
#[ignore = "needs a device; run by the end-to-end tests in a guest"]
fn memory_that_cannot_be_had_is_told() {
    let spaces = Spaces::new();
    let (device, _bar) = open(&spaces);
    // Locked memory is limited (VFIO), or there are no huge pages (UIO).
    let error = device.dma().allocate("test", 1 << 20).unwrap_err().to_string();
    let expected = std::env::var("RINGWAY_TEST_EXPECTED").unwrap();
    assert!(error.contains(&expected), "{expected:?} is not in: {error}");
}

#[test]
#[ignore = "needs a device; run by the end-to-end tests in a guest"]
fn a_device_that_cannot_be_had_is_told() {
    let spaces = Spaces::new();
    let error = eal::pci::open(address(), &spaces).unwrap_err().to_string();
    let expected = std::env::var("RINGWAY_TEST_EXPECTED").unwrap();
    assert!(error.contains(&expected), "{expected:?} is not in: {error}");
    assert!(spaces.in_use().is_none());
}
