use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::guest::Guest;
use crate::netns::Netns;
use crate::process::Process;
use crate::qemu::Vm;

/// How long a transfer may take.
const LIMIT: Duration = Duration::from_secs(180);

/// A shell line that takes `mib` mebibytes on port 5000, and answers with their digest.
#[must_use]
pub fn receiver(mib: u32) -> String {
    format!("busybox nc -l -p 5000 -e sh -c 'dd {} | md5sum'", blocks(mib))
}

/// A shell line that waits until one of [`receiver`] in the same namespace can be reached.
pub const RECEIVER_LISTENS: &str =
    "until busybox netstat -ltn | grep -q ':5000 '; do busybox usleep 10000; done";

/// A shell line that sends a file of `mib` mebibytes to a [`receiver`] and prints its answer.
///
/// 64 KiB are written at once, by dd: what nc itself reads and writes is less than a frame has,
/// and then it is a matter of timing whether TCP finds enough waiting for a large segment.
#[must_use]
pub fn sender(file: &str, address: &str, mib: u32) -> String {
    let (limit, blocks) = (LIMIT.as_secs(), blocks(mib));
    format!(
        "timeout {limit} busybox nc {address} 5000 -e \
             sh -c 'dd if={file} {blocks}; cat >{file}.sum'; \
         cat {file}.sum; rm {file}.sum"
    )
}

/// Mebibytes of a file of random bytes that differ from all others of it: as many take a guest under
/// emulation a fifth of a second.
const PART: u32 = 4;

/// A shell line that fills a file with `mib` mebibytes of random bytes: [`PART`] of them again and
/// again, each time behind its number, so that nothing is where it would be in another place.
#[must_use]
pub fn random_file(file: &str, mib: u32) -> String {
    let (part, times) = (blocks(mib.min(PART)), mib.div_ceil(PART));
    format!(
        "{{ part=$(mktemp) && dd if=/dev/urandom of=$part {part} && \
            for n in $(seq {times}); do echo $n; cat $part; done >{file} && rm $part && \
            truncate -s {mib}M {file}; }}"
    )
}

/// Operands of dd for `mib` mebibytes in whole blocks, even where a socket gives a part of one.
fn blocks(mib: u32) -> String {
    format!("bs=64k iflag=fullblock count={} 2>/dev/null", mib * 16)
}

/// What has an end of a TCP connection: a guest, or a network namespace of the host.
pub trait Station {
    /// Runs a shell line and gives its standard output.
    ///
    /// # Errors
    /// When its status is not 0, or it takes longer than [`LIMIT`].
    fn sh(&mut self, line: &str) -> Result<String>;

    /// Starts a shell line that ends by itself; the process, where it is one of the host.
    ///
    /// # Errors
    /// When it cannot be started.
    fn start(&mut self, line: &str) -> Result<Option<Process>>;
}

impl Station for &mut Guest {
    fn sh(&mut self, line: &str) -> Result<String> {
        self.sh_within(line, LIMIT)
    }

    fn start(&mut self, line: &str) -> Result<Option<Process>> {
        Guest::sh(self, &format!("{line} >/dev/null 2>&1 &")).map(|_| None)
    }
}

impl Station for &mut Vm {
    fn sh(&mut self, line: &str) -> Result<String> {
        let mut guest: &mut Guest = self;
        Station::sh(&mut guest, line)
    }

    fn start(&mut self, line: &str) -> Result<Option<Process>> {
        let mut guest: &mut Guest = self;
        guest.start(line)
    }
}

impl Station for &Netns {
    fn sh(&mut self, line: &str) -> Result<String> {
        Netns::sh(self, line)
    }

    fn start(&mut self, line: &str) -> Result<Option<Process>> {
        self.spawn(line).map(Some)
    }
}

/// Gives `eth0` of a guest an address and takes it up.
///
/// # Errors
/// When the guest has no `eth0`.
pub fn configure(guest: &mut Guest, address: &str, mtu: u32) -> Result<()> {
    let command = format!(
        "ip link set eth0 mtu {mtu} && ip address add {address}/24 dev eth0 && \
         ip link set eth0 up"
    );
    guest.sh(&command).map(drop)
}

/// Sends `mib` mebibytes of random bytes over TCP to the station with `address`, which sends
/// their digest back; gives the time that it took.
///
/// # Errors
/// When the digests differ or the transfer does not end.
pub fn transfer(
    mut from: impl Station,
    mut to: impl Station,
    address: &str,
    mib: u32,
) -> Result<Duration> {
    let mut server = to.start(&receiver(mib))?;
    to.sh(RECEIVER_LISTENS)?;
    let make = random_file("$data", mib);
    let made = from.sh(&format!("data=$(mktemp) && {make} && md5sum $data"))?;
    let (sent, file) = made.trim_end().split_once("  ").context("no answer from md5sum")?;
    let start = Instant::now();
    let arrived = from.sh(&sender(file, address, mib));
    let time = start.elapsed();
    from.sh(&format!("rm {file}"))?;
    let arrived = arrived.with_context(|| format!("{mib} MiB to {address}"))?;
    ensure!(
        sent.len() == 32 && arrived.starts_with(sent),
        "{mib} MiB to {address}: digest {sent:?} sent, {arrived:?} arrived"
    );
    if let Some(server) = &mut server {
        server.wait(Duration::from_secs(60))?;
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::sh;

    #[test]
    fn a_random_file_is_as_large_as_asked_for_and_no_part_is_in_the_place_of_another() {
        let dir = tempfile::tempdir().unwrap();
        for mib in [1, PART, 2 * PART + 1] {
            let file = dir.path().join(mib.to_string());
            sh(&random_file(&file.display().to_string(), mib)).unwrap();
            let bytes = std::fs::read(file).unwrap();
            let mebibyte = 1 << 20;
            assert_eq!(bytes.len(), usize::try_from(mib).unwrap() * mebibyte);
            let parts: std::collections::BTreeSet<_> = bytes.chunks(mebibyte).collect();
            assert_eq!(parts.len(), usize::try_from(mib).unwrap());
        }
    }
}
