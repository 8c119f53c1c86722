//! vhost-user: protocol, sessions, and the device side of virtio-net.
