//! The numbers and names of messages (chapters "Front-end message types" and "Back-end message
//! types").

use super::ProtocolError;

/// An enum of request numbers, with names as the specification writes them.
macro_rules! requests {
    ($(#[$meta:meta])* $enum:ident { $($(#[$doc:meta])* $variant:ident = $number:literal $name:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $enum {
            $($(#[$doc])* $variant = $number,)*
        }

        impl $enum {
            /// All of them, by number.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The number in the header.
            #[must_use]
            pub const fn number(self) -> u32 {
                self as u32
            }

            /// The name in the specification, without its prefix.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }

        impl TryFrom<u32> for $enum {
            type Error = ProtocolError;

            fn try_from(number: u32) -> Result<Self, ProtocolError> {
                match number {
                    $($number => Ok(Self::$variant),)*
                    _ => Err(ProtocolError::UnknownRequest(number)),
                }
            }
        }
    };
}

requests! {
    /// Messages from the front-end to the back-end. Numbers that are not here are not implemented
    /// by either side of Ringway, and their protocol features are not offered.
    FrontendRequest {
        /// Asks for the device's feature bits.
        GetFeatures = 1 "GET_FEATURES",
        /// Sets the feature bits that the driver accepted.
        SetFeatures = 2 "SET_FEATURES",
        /// Starts the session.
        SetOwner = 3 "SET_OWNER",
        /// Deprecated; has no effect.
        ResetOwner = 4 "RESET_OWNER",
        /// Shares the guest's memory, all of it.
        SetMemTable = 5 "SET_MEM_TABLE",
        /// Shares the log of written pages.
        SetLogBase = 6 "SET_LOG_BASE",
        /// An eventfd for changes of the log.
        SetLogFd = 7 "SET_LOG_FD",
        /// Sets the size of a ring.
        SetVringNum = 8 "SET_VRING_NUM",
        /// Sets the addresses of a ring.
        SetVringAddr = 9 "SET_VRING_ADDR",
        /// Sets where in a ring the device goes on.
        SetVringBase = 10 "SET_VRING_BASE",
        /// Stops a ring and asks where the device was in it.
        GetVringBase = 11 "GET_VRING_BASE",
        /// The eventfd by which the driver notifies the device; starts the ring.
        SetVringKick = 12 "SET_VRING_KICK",
        /// The eventfd by which the device notifies the driver.
        SetVringCall = 13 "SET_VRING_CALL",
        /// The eventfd by which the device tells of a broken ring.
        SetVringErr = 14 "SET_VRING_ERR",
        /// Asks for the protocol feature bits.
        GetProtocolFeatures = 15 "GET_PROTOCOL_FEATURES",
        /// Sets the protocol feature bits that both sides know.
        SetProtocolFeatures = 16 "SET_PROTOCOL_FEATURES",
        /// Asks for the number of queues; for a network device, of queue pairs.
        GetQueueNum = 17 "GET_QUEUE_NUM",
        /// Enables or disables a ring.
        SetVringEnable = 18 "SET_VRING_ENABLE",
        /// Announces the guest in the network after a migration.
        SendRarp = 19 "SEND_RARP",
        /// Tells the MTU that the guest was told.
        NetSetMtu = 20 "NET_SET_MTU",
        /// Opens the channel for messages of the back-end.
        SetBackendReqFd = 21 "SET_BACKEND_REQ_FD",
        /// Gives a translation of I/O virtual addresses, or takes some back.
        IotlbMsg = 22 "IOTLB_MSG",
        /// Reads the device's configuration space.
        GetConfig = 24 "GET_CONFIG",
        /// Writes the device's configuration space.
        SetConfig = 25 "SET_CONFIG",
        /// Asks for the file over which the front-end serves page faults of a post-copy migration.
        PostcopyAdvise = 28 "POSTCOPY_ADVISE",
        /// The guest starts to run while pages of its memory are still missing.
        PostcopyListen = 29 "POSTCOPY_LISTEN",
        /// All of the guest's memory has arrived.
        PostcopyEnd = 30 "POSTCOPY_END",
        /// Asks for a region to record chains in flight in.
        GetInflightFd = 31 "GET_INFLIGHT_FD",
        /// Hands such a region over.
        SetInflightFd = 32 "SET_INFLIGHT_FD",
        /// Resets the device.
        ResetDevice = 34 "RESET_DEVICE",
        /// Notifies the device of a ring.
        VringKick = 35 "VRING_KICK",
        /// Asks how many memory regions the back-end can hold.
        GetMaxMemSlots = 36 "GET_MAX_MEM_SLOTS",
        /// Shares one more memory region.
        AddMemReg = 37 "ADD_MEM_REG",
        /// Takes one memory region back.
        RemMemReg = 38 "REM_MEM_REG",
        /// Sets the device status byte.
        SetStatus = 39 "SET_STATUS",
        /// Asks for the device status byte.
        GetStatus = 40 "GET_STATUS",
        /// Begins to move the state of the device out of the back-end, or into it.
        SetDeviceStateFd = 42 "SET_DEVICE_STATE_FD",
        /// Asks whether it has moved.
        CheckDeviceState = 43 "CHECK_DEVICE_STATE",
    }
}

requests! {
    /// Messages from the back-end to the front-end, over the channel of SET_BACKEND_REQ_FD.
    BackendRequest {
        /// A translation of an I/O virtual address is missing.
        IotlbMsg = 1 "IOTLB_MSG",
        /// The device configuration has changed.
        ConfigChangeMsg = 2 "CONFIG_CHANGE_MSG",
        /// A doorbell that can be mapped into the guest.
        VringHostNotifierMsg = 3 "VRING_HOST_NOTIFIER_MSG",
        /// Notifies the driver of a ring.
        VringCall = 4 "VRING_CALL",
        /// A ring is broken.
        VringErr = 5 "VRING_ERR",
    }
}

impl FrontendRequest {
    /// Whether the back-end always answers it, asked or not.
    #[must_use]
    pub const fn has_reply(self) -> bool {
        matches!(
            self,
            Self::GetFeatures
                | Self::SetLogBase
                | Self::GetVringBase
                | Self::GetProtocolFeatures
                | Self::GetQueueNum
                | Self::GetConfig
                | Self::PostcopyAdvise
                | Self::PostcopyEnd
                | Self::GetInflightFd
                | Self::GetMaxMemSlots
                | Self::GetStatus
                | Self::SetDeviceStateFd
                | Self::CheckDeviceState
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_both_ways() {
        for &request in FrontendRequest::ALL {
            assert_eq!(FrontendRequest::try_from(request.number()), Ok(request));
        }
        for &request in BackendRequest::ALL {
            assert_eq!(BackendRequest::try_from(request.number()), Ok(request));
        }
        for number in [0, 23, 26, 41, 0x1_0001, u32::MAX] {
            let error = ProtocolError::UnknownRequest(number);
            assert_eq!(FrontendRequest::try_from(number), Err(error));
        }
    }
}
