//! What each kind of port needs of the system, for a process that gives up everything else.

use std::path::{Path, PathBuf};

use eal::sandbox::{Calls, CapabilitySet, Needs, Reach, paths};
use ethdev::DeviceSpec;

/// What a socket at `path` needs: to be made and removed, or, with `connects`, to be connected to.
#[must_use]
pub fn socket(path: &Path, connects: bool) -> Needs {
    let needs = Needs::new().folder_of(path, Reach::SOCKETS);
    let right = CapabilitySet::DAC_OVERRIDE;
    if connects && !path.exists() {
        // Whoever makes it may keep it to themselves, and root connects all the same.
        return needs.wish(right);
    }
    let checked = if connects { Some(path) } else { path.parent() };
    let checked = checked.filter(|path| !path.as_os_str().is_empty());
    match paths::overrides_permissions(checked) {
        Ok(true) => needs.capabilities(right),
        _ => needs,
    }
}

/// A device on the PCI bus, at the address in `text`; any, if it is empty.
#[must_use]
pub fn pci(text: &str) -> Needs {
    let address = text.parse::<eal::pci::PciAddress>().ok();
    let driver = address.and_then(|address| {
        let link = format!("/sys/bus/pci/devices/{address}/driver");
        Some(std::fs::read_link(link).ok()?.file_name()?.to_string_lossy().into_owned())
    });
    let vfio = Needs::new()
        .capabilities(CapabilitySet::IPC_LOCK)
        .path("/sys", Reach::READ)
        .path("/dev/vfio", Reach::DEVICE);
    // Without an IOMMU the process has to see physical addresses, whatever gives it the device.
    let is_guarded =
        driver.as_deref() == Some("vfio-pci") && nodes("/dev/vfio", "noiommu").is_empty();
    if is_guarded {
        return vfio;
    }
    let physical = CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_RAWIO;
    let needs = vfio.capabilities(physical).path("/sys/devices", Reach::READ | Reach::WRITE);
    with_nodes(needs, "/dev", "uio")
}

/// `needs` and the device nodes of `folder` that begin with `prefix`.
#[must_use]
pub fn with_nodes(needs: Needs, folder: &str, prefix: &str) -> Needs {
    nodes(folder, prefix).into_iter().fold(needs, |needs, node| needs.path(node, Reach::DEVICE))
}

fn nodes(folder: &str, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    named.map(|entry| entry.path()).collect()
}

pub(crate) fn vhost_user(spec: &mut DeviceSpec) -> Needs {
    let connects = spec.take_switch("client", false).unwrap_or(false);
    named_socket(spec, connects)
}

pub(crate) fn virtio_user(spec: &mut DeviceSpec) -> Needs {
    let listens = spec.take_switch("server", false).unwrap_or(false);
    named_socket(spec, !listens)
}

fn named_socket(spec: &mut DeviceSpec, connects: bool) -> Needs {
    let needs = match spec.target() {
        "" => Needs::new(),
        path => socket(Path::new(path), connects),
    };
    if spec.take("group").is_some() { needs.wish(CapabilitySet::CHOWN) } else { needs }
}

pub(crate) fn pci_device(spec: &mut DeviceSpec) -> Needs {
    pci(spec.target())
}

pub(crate) fn tap(_: &mut DeviceSpec) -> Needs {
    Needs::new().capabilities(CapabilitySet::NET_ADMIN).path("/dev/net/tun", Reach::DEVICE)
}

pub(crate) fn af_packet(_: &mut DeviceSpec) -> Needs {
    Needs::new()
        .capabilities(CapabilitySet::NET_RAW | CapabilitySet::NET_ADMIN)
        .calls(Calls::RAW_SOCKETS)
        .path("/sys", Reach::READ)
}

pub(crate) fn af_xdp(spec: &mut DeviceSpec) -> Needs {
    af_packet(spec)
        .capabilities(CapabilitySet::BPF | CapabilitySet::IPC_LOCK)
        .calls(Calls::BPF)
        // How long the interrupts of an interface rest.
        .path("/sys/devices", Reach::READ | Reach::WRITE)
}

pub(crate) fn vduse(spec: &mut DeviceSpec) -> Needs {
    crate::vduse::load_modules(spec.take("bind").as_deref());
    let change = Reach::READ | Reach::WRITE;
    Needs::new()
        .capabilities(CapabilitySet::NET_ADMIN)
        .path("/sys", Reach::READ)
        .path("/sys/bus/vdpa", change)
        .path("/sys/devices", change)
        // The kernel makes nodes there for each device.
        .path("/dev", Reach::DEVICE)
}

pub(crate) fn pcap(spec: &mut DeviceSpec) -> Needs {
    if spec.allow_option_as_target(&["rx", "tx", "loop", "snaplen"]).is_err() {
        return Needs::new();
    }
    let (target, rx, tx) = (spec.target().to_owned(), spec.take("rx"), spec.take("tx"));
    let rx = rx.or(Some(target)).filter(|path| !path.is_empty());
    let needs = rx.into_iter().fold(Needs::new(), |needs, path| needs.path(path, Reach::READ));
    tx.into_iter().fold(needs, |needs, path| needs.folder_of(path, Reach::FILES))
}

pub(crate) fn nothing(_: &mut DeviceSpec) -> Needs {
    Needs::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(device: &str) -> Needs {
        crate::needs(device).unwrap()
    }

    #[test]
    fn every_kind_says_what_it_needs_without_a_target_too() {
        let some = ["igb", "virtio-pci", "af-xdp", "af-packet", "vduse", "tap"];
        for info in crate::list() {
            let needs = of(&format!("{}:", info.name));
            assert_eq!(needs == Needs::new(), !some.contains(&info.name), "{}", info.name);
        }
        assert!(crate::needs("tpa:x").is_err());
        assert!(crate::needs("tap").is_err());
    }

    #[test]
    fn a_socket_needs_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s").display().to_string();
        let folder = Needs::new().path(dir.path(), Reach::SOCKETS);
        assert_eq!(of(&format!("vhost-user:{path},queues=2")), folder);
        assert_eq!(of(&format!("virtio-user:{path},server=on")), folder);
        // Whoever makes the socket may make it for themselves.
        let connects = folder.clone().wish(CapabilitySet::DAC_OVERRIDE);
        assert_eq!(of(&format!("vhost-user:{path},client=on")), connects);
        assert_eq!(of(&format!("virtio-user:{path}")), connects);
        let _made = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(of(&format!("virtio-user:{path}")), folder);
        let group = folder.wish(CapabilitySet::CHOWN);
        assert_eq!(of(&format!("vhost-user:{path},group=kvm")), group);
    }

    #[test]
    fn a_folder_of_others_takes_roots_right() {
        let dir = tempfile::tempdir().unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o500);
        std::fs::set_permissions(dir.path(), mode).unwrap();
        let needs = of(&format!("vhost-user:{}", dir.path().join("s").display()));
        let folder = Needs::new().path(dir.path(), Reach::SOCKETS);
        assert_eq!(needs, folder.capabilities(CapabilitySet::DAC_OVERRIDE));
    }

    #[test]
    fn captures_need_their_files() {
        let read = Needs::new().path("/a/in.pcap", Reach::READ);
        assert_eq!(of("pcap:/a/in.pcap,loop=on"), read);
        assert_eq!(of("pcap:rx=/a/in.pcap"), read);
        let both = read.path("/b", Reach::FILES);
        assert_eq!(of("pcap:/a/in.pcap,tx=/b/out.pcap"), both);
        assert_eq!(of("pcap:tx=out.pcap"), Needs::new().path(".", Reach::FILES));
    }
}
