use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;
use crate::qemu::Vm;

/// Gives `eth0` of a guest an address and takes it up.
///
/// # Errors
/// When the guest has no `eth0`.
pub fn configure(vm: &mut Vm, address: &str, mtu: u32) -> Result<()> {
    let command = format!(
        "ip link set eth0 mtu {mtu} && ip address add {address}/24 dev eth0 && \
         ip link set eth0 up"
    );
    vm.sh(&command).map(drop)
}

/// Sends `mib` mebibytes of random bytes over TCP from a guest to the guest with `address`,
/// which sends their digest back; gives the time that it took.
///
/// # Errors
/// When the digests differ or the transfer does not end.
pub fn transfer(from: &mut Vm, to: &mut Vm, address: &str, mib: u32) -> Result<Duration> {
    to.sh("nc -l -p 5000 -e md5sum >/dev/null 2>&1 & \
         until netstat -ltn | grep -q ':5000 '; do usleep 10000; done")?;
    let bytes = u64::from(mib) << 20;
    let digest = from.sh(&format!(
        "head -c {bytes} /dev/urandom >/tmp/data && [ $(stat -c %s /tmp/data) = {bytes} ] && \
         md5sum </tmp/data"
    ))?;
    let start = Instant::now();
    let running = from.begin(&format!("nc {address} 5000 </tmp/data; rm /tmp/data"))?;
    let arrived = from.finish(&running, Duration::from_secs(180)).context("TCP transfer")?.text;
    ensure!(
        digest.len() > 32 && digest == arrived,
        "{mib} MiB to {address}: digest {digest:?} sent, {arrived:?} arrived"
    );
    Ok(start.elapsed())
}

/// As [`transfer`], from a network namespace of the host to one with `address`.
///
/// # Errors
/// As [`transfer`].
pub fn transfer_between(from: &Netns, to: &Netns, address: &str, mib: u32) -> Result<Duration> {
    let mut server = to.spawn("busybox nc -l -p 5000 -e md5sum")?;
    to.sh("until busybox netstat -ltn | grep -q ':5000 '; do sleep 0.01; done")?;
    let bytes = u64::from(mib) << 20;
    let start = Instant::now();
    let text = from.sh(&format!(
        "data=$(mktemp) && head -c {bytes} /dev/urandom >$data && md5sum <$data && \
         timeout 60 busybox nc {address} 5000 <$data; rm $data"
    ))?;
    let time = start.elapsed();
    same_digests(&text).with_context(|| format!("{mib} MiB to {address}"))?;
    server.wait(Duration::from_secs(10))?;
    Ok(time)
}

/// As [`transfer`], from a network namespace of the host to a guest with `address`.
///
/// # Errors
/// As [`transfer`].
pub fn transfer_to_guest(from: &Netns, to: &mut Vm, address: &str, mib: u32) -> Result<()> {
    to.sh("nc -l -p 5000 -e md5sum >/dev/null 2>&1 & \
         until netstat -ltn | grep -q ':5000 '; do usleep 10000; done")?;
    let bytes = u64::from(mib) << 20;
    let text = from.sh(&format!(
        "data=$(mktemp) && head -c {bytes} /dev/urandom >$data && md5sum <$data && \
         timeout 120 busybox nc {address} 5000 <$data; rm $data"
    ))?;
    same_digests(&text)
}

/// As [`transfer`], from a guest to a network namespace of the host with `address`.
///
/// # Errors
/// As [`transfer`].
pub fn transfer_from_guest(from: &mut Vm, to: &Netns, address: &str, mib: u32) -> Result<()> {
    let mut server = to.spawn("busybox nc -l -p 5000 -e md5sum")?;
    to.sh("until busybox netstat -ltn | grep -q ':5000 '; do sleep 0.01; done")?;
    let bytes = u64::from(mib) << 20;
    let command = format!(
        "head -c {bytes} /dev/urandom >/tmp/data; md5sum </tmp/data; \
         nc {address} 5000 </tmp/data; rm /tmp/data"
    );
    let running = from.begin(&command)?;
    let text = from.finish(&running, Duration::from_secs(180)).context("TCP transfer")?.text;
    server.wait(Duration::from_secs(10))?;
    same_digests(&text)
}

/// Two lines: the digest of what was sent, and of what arrived.
fn same_digests(text: &str) -> Result<()> {
    let (sent, arrived) = text.split_once('\n').unwrap_or_default();
    ensure!(
        sent.len() >= 32 && sent == arrived.trim_end(),
        "digest {sent:?} sent, {arrived:?} arrived"
    );
    Ok(())
}
