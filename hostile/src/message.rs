//! Messages as raw bytes (vhost-user chapter "Message specification"). Nothing here checks
//! anything: whatever can be written can be sent.

/// Numbers of the front-end's messages.
pub mod request {
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const RESET_OWNER: u32 = 4;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_LOG_BASE: u32 = 6;
    pub const SET_LOG_FD: u32 = 7;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const SEND_RARP: u32 = 19;
    pub const NET_SET_MTU: u32 = 20;
    pub const SET_BACKEND_REQ_FD: u32 = 21;
    pub const IOTLB_MSG: u32 = 22;
    pub const GET_CONFIG: u32 = 24;
    pub const SET_CONFIG: u32 = 25;
    pub const CREATE_CRYPTO_SESSION: u32 = 26;
    pub const POSTCOPY_ADVISE: u32 = 28;
    pub const POSTCOPY_LISTEN: u32 = 29;
    pub const POSTCOPY_END: u32 = 30;
    pub const GET_INFLIGHT_FD: u32 = 31;
    pub const SET_INFLIGHT_FD: u32 = 32;
    pub const RESET_DEVICE: u32 = 34;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
    pub const SET_STATUS: u32 = 39;
    pub const GET_STATUS: u32 = 40;
    pub const SET_DEVICE_STATE_FD: u32 = 42;
    pub const CHECK_DEVICE_STATE: u32 = 43;
    /// The highest number that any specification has given out.
    pub const LAST: u32 = 45;
}

/// Bits of the header's flags.
pub mod flags {
    pub const VERSION: u32 = 1;
    pub const REPLY: u32 = 4;
    pub const NEED_REPLY: u32 = 8;
}

/// Bits of SET_FEATURES.
pub mod feature {
    pub const CSUM: u64 = 1 << 0;
    pub const HOST_TSO4: u64 = 1 << 11;
    pub const HOST_TSO6: u64 = 1 << 12;
    pub const HOST_UFO: u64 = 1 << 14;
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const CTRL_VQ: u64 = 1 << 17;
    pub const CTRL_RX: u64 = 1 << 18;
    pub const CTRL_VLAN: u64 = 1 << 19;
    pub const MQ: u64 = 1 << 22;
    pub const CTRL_MAC_ADDR: u64 = 1 << 23;
    pub const LOG_ALL: u64 = 1 << 26;
    pub const INDIRECT_DESC: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    pub const PROTOCOL_FEATURES: u64 = 1 << 30;
    pub const VERSION_1: u64 = 1 << 32;
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    pub const RING_PACKED: u64 = 1 << 34;
    pub const IN_ORDER: u64 = 1 << 35;
    pub const HOST_USO: u64 = 1 << 56;
    /// Everything that lets a guest hand over unfinished frames.
    pub const HOST_OFFLOADS: u64 = CSUM | HOST_TSO4 | HOST_TSO6 | HOST_UFO | HOST_USO;
}

/// Bits of SET_PROTOCOL_FEATURES.
pub mod protocol {
    pub const MQ: u64 = 1 << 0;
    pub const LOG_SHMFD: u64 = 1 << 1;
    pub const RARP: u64 = 1 << 2;
    pub const REPLY_ACK: u64 = 1 << 3;
    pub const MTU: u64 = 1 << 4;
    pub const BACKEND_REQ: u64 = 1 << 5;
    pub const CONFIG: u64 = 1 << 9;
    pub const INFLIGHT_SHMFD: u64 = 1 << 12;
    pub const RESET_DEVICE: u64 = 1 << 13;
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    pub const STATUS: u64 = 1 << 16;
    pub const DEVICE_STATE: u64 = 1 << 19;
    /// What a front-end here asks for, of what is offered.
    pub const WANTED: u64 = MQ
        | LOG_SHMFD
        | RARP
        | REPLY_ACK
        | MTU
        | BACKEND_REQ
        | CONFIG
        | INFLIGHT_SHMFD
        | RESET_DEVICE
        | CONFIGURE_MEM_SLOTS
        | DEVICE_STATE;
}

/// A header.
pub fn header(request: u32, flags: u32, size: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&request.to_ne_bytes());
    bytes[4..8].copy_from_slice(&flags.to_ne_bytes());
    bytes[8..].copy_from_slice(&size.to_ne_bytes());
    bytes
}

/// A ring and a number.
pub fn state(index: u32, num: u32) -> Vec<u8> {
    [index.to_ne_bytes(), num.to_ne_bytes()].concat()
}

/// A 64-bit number.
pub fn number(value: u64) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// Numbers of 64 bits in a row.
pub fn numbers(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// The addresses of a ring, in the front-end's address space.
pub fn addresses(index: u32, flags: u32, [desc, used, avail, log]: [u64; 4]) -> Vec<u8> {
    [state(index, flags), numbers(&[desc, used, avail, log])].concat()
}

/// One region of memory.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    pub guest: u64,
    pub size: u64,
    pub user: u64,
    pub offset: u64,
}

impl Region {
    fn bytes(&self) -> Vec<u8> {
        numbers(&[self.guest, self.size, self.user, self.offset])
    }
}

/// A memory table that says it has `count` regions.
pub fn table(count: u32, regions: &[Region]) -> Vec<u8> {
    let regions = regions.iter().flat_map(Region::bytes);
    state(count, 0).into_iter().chain(regions).collect()
}

/// The payload of ADD_MEM_REG and REM_MEM_REG.
pub fn slot(region: &Region) -> Vec<u8> {
    [number(0), region.bytes()].concat()
}

/// The payload of GET_INFLIGHT_FD and SET_INFLIGHT_FD.
pub fn inflight(size: u64, offset: u64, queues: u16, queue_size: u16) -> Vec<u8> {
    let counts = [queues.to_ne_bytes(), queue_size.to_ne_bytes()].concat();
    // The structure is as long as its alignment makes it.
    [numbers(&[size, offset]), counts, vec![0; 4]].concat()
}

/// The payload of an IOTLB message.
pub fn iotlb(iova: u64, size: u64, user: u64, permission: u8, kind: u8) -> Vec<u8> {
    [numbers(&[iova, size, user]), vec![permission, kind, 0, 0, 0, 0, 0, 0]].concat()
}

/// The payload of GET_CONFIG and SET_CONFIG.
pub fn config(offset: u32, size: u32, flags: u32, bytes: &[u8]) -> Vec<u8> {
    [&offset.to_ne_bytes()[..], &size.to_ne_bytes(), &flags.to_ne_bytes(), bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_layout_of_the_specification() {
        assert_eq!(header(1, 9, 8).len(), 12);
        assert_eq!(state(1, 2), [1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(addresses(0, 0, [0; 4]).len(), 40);
        let region = Region { guest: 1, size: 2, user: 3, offset: 4 };
        assert_eq!(table(2, &[region; 2]).len(), 8 + 2 * 32);
        assert_eq!(slot(&region).len(), 40);
        assert_eq!(inflight(0, 0, 0, 0).len(), 24);
        assert_eq!(iotlb(0, 0, 0, 0, 0).len(), 32);
        assert_eq!(config(0, 4, 0, &[0; 4]).len(), 16);
    }
}
