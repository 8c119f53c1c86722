//! One module per kind of port: vhost-user, virtio-user, TAP, pcap, null.
