use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use e2e::testpmd::RunningTestpmd;
use e2e::{Testpmd, frames};
use packet::checksum::checksum;

use super::super::back_end::DRIVER_CPU;
use super::bridge::{MACS, VLAN};

const LIMIT: Duration = Duration::from_secs(60);

/// Frames that are put on the way in each direction and go round; each may be a flow of its own.
pub const ROUND: u32 = 256;

/// What two guests send to each other, both of which are one testpmd with virtio-user: frames of UDP of
/// 64 bytes, or of 60 and a tag that there may be where they are replayed.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    /// Flows in each direction.
    pub flows: u32,
    /// Whether the second guest is at a trunk.
    pub trunk: bool,
}

impl Traffic {
    /// Whether frames come from files, and those that are received are thrown away. Otherwise they go
    /// round: to the other guest's ring, and from there through the switch again, which they cannot where
    /// they get a tag on the way.
    fn is_replayed(self) -> bool {
        self.flows > ROUND || self.trunk
    }

    /// The guests, which listen on `sockets` and whose traffic is still to be started.
    pub fn driver(self, sockets: &[PathBuf; 2], dir: &Path) -> Result<RunningTestpmd> {
        let mut driver = Testpmd::new().cpu(DRIVER_CPU);
        for (n, socket) in sockets.iter().enumerate() {
            if self.is_replayed() {
                let file = dir.join(format!("frames{n}.pcap"));
                frames::write_pcap(&file, &self.frames(n))?;
                driver = driver.vdev(replay(n, &file));
            }
            driver = driver.vdev(guest(n, socket));
        }
        let arguments = self.arguments();
        driver.memory_mib(384).arguments(arguments.iter().map(String::as_str)).start()
    }

    /// Of testpmd.
    fn arguments(self) -> Vec<String> {
        if self.is_replayed() {
            // Room for all frames of both files, which are kept there.
            return vec![format!("--total-num-mbufs={}", 2 * self.flows + 16_384)];
        }
        // Frames that go out by a port are from its address, and for the other one.
        let peers = [0, 1].map(|n| format!("--eth-peer={n},{}", shown(MACS[1 - n])));
        let mut arguments = peers.to_vec();
        arguments.push(format!("--burst={ROUND}"));
        if self.flows > 1 {
            arguments.push("--txonly-multi-flow".into());
        }
        arguments
    }

    /// Starts it and lets the rate settle.
    pub fn start(self, driver: &mut RunningTestpmd) -> Result<()> {
        let (command, port) =
            if self.is_replayed() { ("start", 1) } else { ("start tx_first 1", 0) };
        driver.command(command)?;
        driver.wait_stats(port, LIMIT, |stats| stats.rx_packets > 200_000)?;
        Ok(())
    }

    /// What guest `n` sends: each flow is from an address of its own.
    fn frames(self, n: usize) -> Vec<Vec<u8>> {
        let tag = if self.trunk && n == 1 { tag() } else { Vec::new() };
        let flows = (0..self.flows).cycle().take(self.flows.max(ROUND) as usize);
        flows.map(|flow| [addresses(n), tag.clone(), datagram(flow)].concat()).collect()
    }
}

fn guest(n: usize, socket: &Path) -> String {
    let (path, mac) = (socket.display(), shown(MACS[n]));
    format!("net_virtio_user{n},path={path},server=1,cq=1,mrg_rxbuf=1,mac={mac}")
}

/// A port that receives the frames of a file, again and again, and throws away what is sent to it.
fn replay(n: usize, file: &Path) -> String {
    format!("net_pcap{n},rx_pcap={},infinite_rx=1", file.display())
}

fn shown(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn addresses(n: usize) -> Vec<u8> {
    [MACS[1 - n], MACS[n]].concat()
}

/// IEEE 802.1Q.
fn tag() -> Vec<u8> {
    [[0x81, 0x00], VLAN.to_be_bytes()].concat()
}

/// From the `EtherType` on: IPv4 and UDP without a checksum, from 10.0.0.0 and following to 198.18.0.1.
fn datagram(flow: u32) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0];
    ip.extend((0x0A00_0000 | flow).to_be_bytes());
    ip.extend([198, 18, 0, 1]);
    let sum = checksum(&ip);
    ip.splice(10..12, sum.to_be_bytes());
    let udp = [0, 9, 0, 9, 0, 26, 0, 0];
    [&[8, 0], &ip[..], &udp, &[0; 18]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_flows_without_tags_go_round() {
        let arguments = |flows| Traffic { flows, trunk: false }.arguments().join(" ");
        let one = arguments(1);
        assert!(one.starts_with("--eth-peer=0,52:54:00:00:00:01 --eth-peer=1,"), "{one}");
        assert!(one.contains("--burst=256") && !one.contains("flow"), "{one}");
        assert!(arguments(ROUND).ends_with("--txonly-multi-flow"));
    }

    #[test]
    fn many_flows_and_tagged_ones_are_replayed() {
        assert_eq!(Traffic { flows: 1, trunk: true }.frames(1).len(), 256);
        let frames = |n| Traffic { flows: 1000, trunk: true }.frames(n);
        let (first, second) = (frames(0), frames(1));
        assert_eq!(first[999].len(), 60);
        assert_eq!(checksum(&first[999][14..34]), 0);
        assert_ne!(first[1], first[999]);
        assert_eq!(second[0][..18], [&addresses(1)[..], &[0x81, 0, 0, 10], &[8, 0]].concat());
    }
}
