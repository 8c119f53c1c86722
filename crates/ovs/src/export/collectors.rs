//! The sockets of collectors. Nothing waits for one.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use export::Tally;

/// A collector.
#[derive(Debug)]
struct Collector {
    address: SocketAddr,
    socket: Option<UdpSocket>,
    /// Whether what was sent last was not taken, which was told.
    fails: bool,
}

/// All collectors of a bridge.
#[derive(Debug)]
pub(super) struct Collectors {
    all: Vec<Collector>,
    tally: Tally,
    /// How many datagrams were sent, and how many were not.
    datagrams: [u64; 2],
}

impl Collectors {
    pub(super) fn new(addresses: &[SocketAddr]) -> Self {
        Self::counted_with(addresses, Tally::default())
    }

    /// What they are sent counts with what others are.
    pub(super) fn counted_with(addresses: &[SocketAddr], tally: Tally) -> Self {
        let collector =
            |address: &SocketAddr| Collector { address: *address, socket: None, fails: false };
        Self { all: addresses.iter().map(collector).collect(), tally, datagrams: [0; 2] }
    }

    /// How many datagrams were sent, and how many were not.
    pub(super) const fn datagrams(&self) -> [u64; 2] {
        self.datagrams
    }

    /// What has become of what they were sent.
    pub(super) const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Sends a datagram with so many records to all of them.
    pub(super) fn send(&mut self, bytes: &[u8], records: u64) {
        let [sent, failed] = &mut self.datagrams;
        for collector in &mut self.all {
            match collector.send(bytes) {
                Ok(()) => {
                    *sent = sent.wrapping_add(1);
                    collector.fails = false;
                    self.tally.add_sent(records);
                }
                Err(error) => {
                    *failed = failed.wrapping_add(1);
                    self.tally.add_lost(records);
                    if !std::mem::replace(&mut collector.fails, true) {
                        let address = collector.address;
                        tracing::warn!(target: "collectors", "{address}: sending to collector failed ({error})");
                    }
                }
            }
        }
    }
}

impl Collector {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open(self.address)?,
        };
        let mut sent = socket.send(bytes);
        // That is about what was sent before, to a collector that was not there.
        if sent.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            sent = socket.send(bytes);
        }
        // One that says anything else is made anew, as the host may have other addresses by then.
        if sent.is_ok() || sent.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            self.socket = Some(socket);
        }
        sent.map(drop)
    }
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
    }?;
    socket.set_nonblocking(true)?;
    socket.connect(address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_collector_gets_all() {
        let there = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let addresses = there.each_ref().map(|socket| socket.local_addr().unwrap());
        let mut collectors = Collectors::new(&addresses);
        collectors.send(b"one", 5);
        collectors.send(b"two", 6);
        for socket in &there {
            let mut bytes = [0; 9];
            for expected in [b"one", b"two"] {
                let count = socket.recv(&mut bytes).unwrap();
                assert_eq!(bytes.get(..count), Some(&expected[..]));
            }
        }
        assert_eq!((collectors.tally().sent(), collectors.tally().lost()), (22, 0));
    }

    #[test]
    fn what_is_not_taken_is_lost_and_the_next_is_sent() {
        let there = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let mut collectors = Collectors::new(&[there.local_addr().unwrap()]);
        // More than a datagram can have.
        collectors.send(&[0; 70_000], 3);
        assert_eq!((collectors.tally().sent(), collectors.tally().lost()), (0, 3));
        collectors.send(b"there", 1);
        assert_eq!((collectors.tally().sent(), collectors.tally().lost()), (1, 3));
        let mut bytes = [0; 9];
        assert_eq!(there.recv(&mut bytes).unwrap(), 5);
    }
}
