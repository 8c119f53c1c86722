//! What each kind of port needs of the system.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use eal::sandbox::{CapabilitySet, Needs, Reach};

fn of(device: &str) -> Needs {
    drivers::needs(device).unwrap()
}

#[test]
fn every_kind_says_what_it_needs_without_a_target_too() {
    let some = ["igb", "virtio-pci", "af-xdp", "af-packet", "vduse", "tap"];
    for info in drivers::list() {
        let needs = of(&format!("{}:", info.name));
        assert_eq!(needs == Needs::new(), !some.contains(&info.name), "{}", info.name);
    }
    assert!(drivers::needs("tpa:x").is_err());
    assert!(drivers::needs("tap").is_err());
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
