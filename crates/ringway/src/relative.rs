//! Paths in the device strings of commands: they are meant from the folder of whoever gives the
//! command, and not from that of the switch.

use std::path::Path;

/// `device` with its paths from `folder` on.
pub fn absolute(device: &str, folder: &Path) -> String {
    let Some((driver, rest)) = device.split_once(':') else { return device.to_owned() };
    // What stands behind the driver is a path, unless it is one of the second keys; and so are the
    // first ones.
    let (options, no_path): (&[&str], &[&str]) = match driver {
        "vhost-user" | "virtio-user" => (&[], &[]),
        "pcap" => (&["rx", "tx"], &["loop", "snaplen"]),
        "vdpa" => (&["socket"], &[]),
        _ => return device.to_owned(),
    };
    // Commas of paths are written twice, and a device string has no NUL.
    let folder = folder.to_string_lossy().replace(',', "\0\0");
    let rest = rest.replace(",,", "\0\0");
    let parts = rest.split(',').enumerate().map(|(index, part)| match part.split_once('=') {
        Some((key, path)) if options.contains(&key) => format!("{key}={}", from(&folder, path)),
        Some((key, _)) if no_path.contains(&key) => part.to_owned(),
        _ if index == 0 && driver != "vdpa" => from(&folder, part),
        _ => part.to_owned(),
    });
    format!("{driver}:{}", parts.collect::<Vec<_>>().join(",")).replace("\0\0", ",,")
}

/// A path, and none where nothing is given.
fn from(folder: &str, path: &str) -> String {
    if path.is_empty() || path.starts_with('/') {
        return path.to_owned();
    }
    format!("{}/{path}", folder.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_meant_from_the_folder_of_the_command() {
        for (device, expected) in [
            ("vhost-user:vm1.sock", "vhost-user:/home/a,,b/vm1.sock"),
            ("vhost-user:run/x,,y.sock,mode=0660", "vhost-user:/home/a,,b/run/x,,y.sock,mode=0660"),
            ("virtio-user:/run/vm1.sock,queues=2", "virtio-user:/run/vm1.sock,queues=2"),
            ("pcap:in.pcap,tx=out.pcap", "pcap:/home/a,,b/in.pcap,tx=/home/a,,b/out.pcap"),
            ("pcap:tx=out.pcap,snaplen=64", "pcap:tx=/home/a,,b/out.pcap,snaplen=64"),
            ("pcap:snaplen=64,tx=out.pcap", "pcap:snaplen=64,tx=/home/a,,b/out.pcap"),
            ("vhost-user:a=b.sock", "vhost-user:/home/a,,b/a=b.sock"),
            ("vdpa:vhost-vdpa:net0,socket=s", "vdpa:vhost-vdpa:net0,socket=/home/a,,b/s"),
            ("tap:rw0,mtu=1400", "tap:rw0,mtu=1400"),
            ("vhost-user:", "vhost-user:"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(absolute(device, Path::new("/home/a,b")), expected);
        }
    }
}
