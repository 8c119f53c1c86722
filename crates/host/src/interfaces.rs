//! Network interfaces of the host: what ip-link(8) and ethtool(8) ask and set, by ioctl.
//!
//! Facts: netdevice(7), Linux `include/uapi/linux/ethtool.h`.

use std::ffi::{c_int, c_short, c_ulong};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use packet::MacAddr;
use rustix::net::netdevice::{index_to_name, name_to_index};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Longest name of an interface, in bytes (IFNAMSIZ without the final NUL).
const MAX_NAME: usize = libc::IFNAMSIZ - 1;

/// From `linux/ethtool.h`: which driver the interface has.
const ETHTOOL_GDRVINFO: u32 = 0x0000_0003;

/// From `linux/ethtool.h`: whether the interface has a carrier.
const ETHTOOL_GLINK: u32 = 0x0000_000A;

/// From `linux/ethtool.h`: ask for and change a few features of the interface.
const ETHTOOL_GFLAGS: u32 = 0x0000_0025;
const ETHTOOL_SFLAGS: u32 = 0x0000_0026;

/// The feature of taking VLAN tags out of received frames (`ETH_FLAG_RXVLAN`).
const FLAG_RXVLAN: u32 = 1 << 8;

/// From `linux/ethtool.h`: how many queues the interface has.
const ETHTOOL_GCHANNELS: u32 = 0x0000_003C;

/// `struct ethtool_value`.
#[derive(Debug, Default)]
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_channels`.
#[derive(Debug, Default)]
#[repr(C)]
struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ethtool_drvinfo`.
#[derive(Debug)]
#[repr(C)]
struct DriverFacts {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rom: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// Which driver an interface has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Driver {
    /// Its name, such as `veth`.
    pub(crate) name: String,
    /// Whether no device is behind it.
    pub(crate) is_virtual: bool,
}

/// The names of all interfaces in the calling thread's network namespace.
pub(crate) fn names() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(name, _)| name.trim().to_owned()).collect()
}

/// What is wrong with an interface's name, if anything (Linux: `dev_valid_name`).
pub(crate) fn name_problem(name: &str) -> Option<String> {
    if name.len() > MAX_NAME {
        let len = name.len();
        return Some(format!("the name of an interface has at most {MAX_NAME} bytes, not {len}"));
    }
    let wrong = |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control();
    if matches!(name, "." | "..") || name.contains(wrong) {
        return Some(format!("'{name}' cannot be the name of an interface"));
    }
    None
}

/// A request for interface `name`; a longer name than fits is cut.
pub(crate) fn request(name: &str) -> libc::ifreq {
    // SAFETY: an ifreq is plain bytes, pointers among them; all zero is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(MAX_NAME)) {
        *to = from.cast_signed();
    }
    request
}

/// The name in a request that the kernel has answered.
pub(crate) fn name_of(request: &libc::ifreq) -> String {
    let bytes = request.ifr_name.iter().take_while(|byte| **byte != 0);
    let bytes: Vec<u8> = bytes.map(|byte| byte.cast_unsigned()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The address in a request that the kernel has answered. In another one it means nothing.
pub(crate) fn hardware_address(request: &libc::ifreq) -> MacAddr {
    // SAFETY: bytes for an address are in the union whatever was last written to it.
    let data = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    let mut mac = MacAddr::default();
    for (to, from) in mac.0.iter_mut().zip(data) {
        *to = from.cast_unsigned();
    }
    mac
}

/// Asks the kernel about the interface that `request` names.
///
/// # Safety
/// `code` must be an ioctl that takes an `ifreq`, and what the request points to, if that ioctl
/// follows a pointer in it, must be valid.
pub(crate) unsafe fn ioctl(
    fd: BorrowedFd<'_>,
    code: c_ulong,
    request: &mut libc::ifreq,
) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the caller vouches for the rest.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), code as _, &raw mut *request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The low 16 bits of interface flags, which is all that an ifreq has room for.
pub(crate) fn low_16(flags: c_int) -> c_short {
    let [low, high, ..] = flags.to_le_bytes();
    c_short::from_le_bytes([low, high])
}

/// A socket for asking about interfaces, in the network namespace of the thread that made it.
#[derive(Debug)]
pub(crate) struct Interfaces(OwnedFd);

impl Interfaces {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        Ok(Self(socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?))
    }

    /// # Safety
    /// As for [`ioctl`].
    unsafe fn ask(&self, code: c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: the caller vouches for it.
        unsafe { ioctl(self.0.as_fd(), code, request) }
    }

    /// Whether there is an interface of this name.
    pub(crate) fn exists(&self, name: &str) -> bool {
        // SAFETY: SIOCGIFINDEX fills in an ifreq.
        unsafe { self.ask(libc::SIOCGIFINDEX as c_ulong, &mut request(name)) }.is_ok()
    }

    /// The interface's flags, `IFF_UP` and so on.
    pub(crate) fn flags(&self, name: &str) -> io::Result<c_int> {
        let mut request = request(name);
        // SAFETY: SIOCGIFFLAGS fills in an ifreq.
        unsafe { self.ask(libc::SIOCGIFFLAGS as c_ulong, &mut request)? };
        // SAFETY: SIOCGIFFLAGS has filled in the flags.
        Ok(c_int::from(unsafe { request.ifr_ifru.ifru_flags }))
    }

    /// Switches the interface on.
    pub(crate) fn set_up(&self, name: &str) -> io::Result<()> {
        let flags = self.flags(name)? | libc::IFF_UP;
        self.set_flags(name, flags)
    }

    /// Switches the interface off.
    pub(crate) fn set_down(&self, name: &str) -> io::Result<()> {
        let flags = self.flags(name)? & !libc::IFF_UP;
        self.set_flags(name, flags)
    }

    fn set_flags(&self, name: &str, flags: c_int) -> io::Result<()> {
        let mut request = request(name);
        request.ifr_ifru.ifru_flags = low_16(flags);
        // SAFETY: SIOCSIFFLAGS takes an ifreq and follows no pointer in it.
        unsafe { self.ask(libc::SIOCSIFFLAGS as c_ulong, &mut request) }
    }

    /// The interface's MTU in bytes.
    pub(crate) fn mtu(&self, name: &str) -> io::Result<u16> {
        let mut request = request(name);
        // SAFETY: SIOCGIFMTU fills in an ifreq.
        unsafe { self.ask(libc::SIOCGIFMTU as c_ulong, &mut request)? };
        // SAFETY: SIOCGIFMTU has filled in the MTU.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
    }

    /// Changes the MTU.
    pub(crate) fn set_mtu(&self, name: &str, mtu: u16) -> io::Result<()> {
        let mut request = request(name);
        request.ifr_ifru.ifru_mtu = c_int::from(mtu);
        // SAFETY: SIOCSIFMTU takes an ifreq and follows no pointer in it.
        unsafe { self.ask(libc::SIOCSIFMTU as c_ulong, &mut request) }
    }

    /// The interface's MAC address.
    pub(crate) fn mac(&self, name: &str) -> io::Result<MacAddr> {
        let mut request = request(name);
        // SAFETY: SIOCGIFHWADDR fills in an ifreq.
        unsafe { self.ask(libc::SIOCGIFHWADDR as c_ulong, &mut request)? };
        Ok(hardware_address(&request))
    }

    /// Changes the MAC address.
    pub(crate) fn set_mac(&self, name: &str, mac: MacAddr) -> io::Result<()> {
        let mut request = request(name);
        let mut sa_data = [0; 14];
        for (to, from) in sa_data.iter_mut().zip(mac.0) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_hwaddr = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data };
        // SAFETY: SIOCSIFHWADDR takes an ifreq and follows no pointer in it.
        unsafe { self.ask(libc::SIOCSIFHWADDR as c_ulong, &mut request) }
    }

    /// Whether the interface has a carrier: for a TAP, whether some process has it open.
    pub(crate) fn has_carrier(&self, name: &str) -> io::Result<bool> {
        let mut value = Value { command: ETHTOOL_GLINK, data: 0 };
        // SAFETY: ETHTOOL_GLINK takes and fills in a `Value`.
        unsafe { self.ethtool(name, &mut value)? };
        Ok(value.data != 0)
    }

    /// # Safety
    /// `question` must begin with an ethtool command, and be what that command takes and fills
    /// in.
    unsafe fn ethtool<T>(&self, name: &str, question: &mut T) -> io::Result<()> {
        let mut request = request(name);
        request.ifr_ifru.ifru_data = (&raw mut *question).cast();
        // SAFETY: SIOCETHTOOL follows the pointer to `question`, which outlives the call and,
        // as the caller vouches, is what the command takes.
        unsafe { self.ask(libc::SIOCETHTOOL, &mut request) }
    }

    /// Whether the interface takes VLAN tags out of received frames.
    pub(crate) fn strips_tags(&self, name: &str) -> io::Result<bool> {
        self.features(name).map(|flags| flags & FLAG_RXVLAN != 0)
    }

    /// Has the interface take VLAN tags out of received frames, or leave them in.
    pub(crate) fn strip_tags(&self, name: &str, on: bool) -> io::Result<()> {
        let flags = self.features(name)? & !FLAG_RXVLAN;
        let data = if on { flags | FLAG_RXVLAN } else { flags };
        // SAFETY: ETHTOOL_SFLAGS takes a `Value`.
        unsafe { self.ethtool(name, &mut Value { command: ETHTOOL_SFLAGS, data }) }
    }

    fn features(&self, name: &str) -> io::Result<u32> {
        let mut value = Value { command: ETHTOOL_GFLAGS, data: 0 };
        // SAFETY: ETHTOOL_GFLAGS takes and fills in a `Value`.
        unsafe { self.ethtool(name, &mut value)? };
        Ok(value.data)
    }

    /// How many receive queues the interface has, where its driver tells.
    pub(crate) fn queues(&self, name: &str) -> Option<u32> {
        let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
        // SAFETY: ETHTOOL_GCHANNELS takes and fills in a `Channels`.
        unsafe { self.ethtool(name, &mut channels) }.ok()?;
        Some(channels.rx.saturating_add(channels.combined)).filter(|count| *count > 0)
    }

    /// Which driver the interface has, if it tells.
    pub(crate) fn driver(&self, name: &str) -> Option<Driver> {
        let none = [0; 32];
        let mut facts = DriverFacts {
            command: ETHTOOL_GDRVINFO,
            driver: none,
            version: none,
            firmware: none,
            bus: none,
            rom: none,
            reserved: [0; 12],
            counts: [0; 5],
        };
        // SAFETY: ETHTOOL_GDRVINFO takes and fills in a `DriverFacts`.
        unsafe { self.ethtool(name, &mut facts) }.ok()?;
        let text = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
        };
        let bus = text(&facts.bus);
        let is_virtual = matches!(bus.as_str(), "" | "tap" | "tun" | "N/A");
        Some(Driver { name: text(&facts.driver), is_virtual })
    }

    /// The number that the kernel knows the interface by.
    pub(crate) fn index(&self, name: &str) -> io::Result<u32> {
        Ok(name_to_index(&self.0, name)?)
    }

    /// The interface's name now.
    pub(crate) fn name(&self, index: u32) -> io::Result<String> {
        Ok(index_to_name(&self.0, index)?)
    }

    /// Does something to the interface of a number by the name that it has. The kernel takes names
    /// alone, and the interface may get another one before it comes to that; then by its new name.
    pub(crate) fn by_name<T>(
        &self,
        index: u32,
        mut act: impl FnMut(&str) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut name = self.name(index)?;
        for _ in 0..MAX_RENAMES {
            let done = act(&name);
            let Err(cause) = &done else { return done };
            if !says_gone(cause) {
                return done;
            }
            let now = self.name(index)?;
            if now == name {
                return done;
            }
            name = now;
        }
        act(&name)
    }
}

/// How often an interface may be renamed while something is done to it.
const MAX_RENAMES: usize = 8;

/// Whether an error says that there is no such interface.
pub(crate) fn says_gone(cause: &io::Error) -> bool {
    matches!(cause.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_namespace, ip, veth_pair};

    #[test]
    fn what_is_done_to_an_interface_follows_it_to_its_new_name() {
        in_namespace(|| {
            veth_pair(1500);
            let asker = Interfaces::new().unwrap();
            let index = asker.index("rw0").unwrap();
            let mut names = vec!["rw2", "rw3"];
            let set = asker.by_name(index, |name| {
                if let Some(other) = names.pop() {
                    ip(&format!("link set {name} down"));
                    ip(&format!("link set {name} name {other}"));
                }
                asker.set_mtu(name, 1400)
            });
            set.unwrap();
            assert_eq!((asker.index("rw2").unwrap(), asker.mtu("rw2").unwrap()), (index, 1400));
            // What the kernel refuses for another reason is not tried again.
            let mut times = 0;
            let refused = asker.by_name(index, |name| {
                times += 1;
                asker.set_mtu(name, 10)
            });
            assert_eq!((refused.unwrap_err().raw_os_error(), times), (Some(libc::EINVAL), 1));
            ip("link delete rw2");
            let gone = asker.by_name(index, |name| asker.set_mtu(name, 1500));
            assert!(says_gone(&gone.unwrap_err()));
        });
    }
}
