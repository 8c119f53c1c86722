//! The table of messages: what each is, by its numbers in each version, and how long it may be.
//!
//! A line has the name of a message and, for each of its forms: the form, the number, the first and
//! the last version that have it so, how many bytes its body has at least, and of what more of them
//! is a multiple (0: there are no more).

use super::Form;
use crate::version::Version::{self, V10, V11, V12, V13, V14, V15};

/// How a message is written in some versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub form: Form,
    pub number: u32,
    pub from: Version,
    pub to: Version,
    /// Bytes of its body.
    pub least: usize,
    /// What may follow is a multiple of this; 0: nothing.
    pub unit: usize,
}

impl Row {
    pub(super) fn is_in(&self, version: Version) -> bool {
        (self.from..=self.to).contains(&version)
    }

    /// Whether a body may have this many bytes.
    pub(super) const fn allows(&self, length: usize) -> bool {
        match (length.checked_sub(self.least), self.unit) {
            (None, _) => false,
            (Some(more), 0) => more == 0,
            (Some(more), unit) => more.is_multiple_of(unit),
        }
    }
}

macro_rules! kinds {
    ($($kind:ident [
        $($form:ident $number:literal $from:ident $to:ident $least:literal $unit:literal),+ $(,)?
    ])*) => {
        /// What a message is, whatever its version.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $(#[doc = concat!("Messages `", stringify!($kind), "`.")] $kind,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            pub(super) const fn rows(self) -> &'static [Row] {
                match self {
                    $(Self::$kind => const { &[$(Row {
                        form: Form::$form,
                        number: $number,
                        from: $from,
                        to: $to,
                        least: $least,
                        unit: $unit,
                    }),+] },)*
                }
            }
        }
    };
}

impl Kind {
    /// Whether `version` has such messages.
    #[must_use]
    pub fn is_in(self, version: Version) -> bool {
        self.forms(version).next().is_some()
    }

    /// The forms in which `version` has such messages, each with its number; what this side sends has the first one.
    pub fn forms(self, version: Version) -> impl Iterator<Item = (Form, u32)> {
        self.rows().iter().filter(move |row| row.is_in(version)).map(|row| (row.form, row.number))
    }
}

kinds! {
    Hello [Of 0 V10 V15 0 1]
    Error [Of 1 V10 V15 4 1]
    EchoRequest [Of 2 V10 V15 0 1]
    EchoReply [Of 3 V10 V15 0 1]
    FeaturesRequest [Of 5 V10 V15 0 0]
    FeaturesReply [Of 6 V10 V10 24 48, Of 6 V11 V12 24 64, Of 6 V13 V15 24 0]
    GetConfigRequest [Of 7 V10 V15 0 0]
    GetConfigReply [Of 8 V10 V15 4 0]
    SetConfig [Of 9 V10 V15 4 0]
    PacketIn [
        Of 10 V10 V10 10 1,
        Of 10 V11 V11 16 1,
        Of 10 V12 V12 8 1,
        Of 10 V13 V15 16 1,
        Nx 30 V10 V15 0 8,
        Nx 17 V10 V15 24 1,
    ]
    FlowRemoved [Of 11 V10 V10 80 0, Of 11 V11 V14 40 8, Of 11 V15 V15 16 8, Nx 14 V10 V15 40 8]
    PortStatus [Of 12 V10 V10 56 0, Of 12 V11 V13 72 0, Of 12 V14 V15 48 8]
    PacketOut [Of 13 V10 V10 8 1, Of 13 V11 V14 16 1, Of 13 V15 V15 8 1]
    FlowMod [Of 14 V10 V10 64 8, Of 14 V11 V15 40 8, Nx 13 V10 V15 32 8]
    GroupMod [Nx 31 V10 V10 16 8, Of 15 V11 V14 8 8, Of 15 V15 V15 16 8]
    PortMod [Of 15 V10 V10 24 0, Of 16 V11 V13 32 0, Of 16 V14 V15 24 8]
    TableMod [Of 17 V11 V13 8 0, Of 17 V14 V15 8 8]
    BarrierRequest [Of 18 V10 V10 0 0, Of 20 V11 V15 0 0]
    BarrierReply [Of 19 V10 V10 0 0, Of 21 V11 V15 0 0]
    QueueGetConfigRequest [Of 20 V10 V10 4 0, Of 22 V11 V13 8 0, Request 15 V14 V15 8 0]
    QueueGetConfigReply [Of 21 V10 V10 8 8, Of 23 V11 V13 8 8, Reply 15 V14 V15 0 8]
    RoleRequest [Of 24 V12 V15 16 0, Nx 10 V10 V15 4 0]
    RoleReply [Of 25 V12 V15 16 0, Nx 11 V10 V15 4 0]
    GetAsyncRequest [Of 26 V13 V15 0 0]
    GetAsyncReply [Of 27 V13 V13 24 0, Of 27 V14 V15 0 8]
    SetAsyncConfig [Nx 19 V10 V15 24 0, Nx 27 V10 V13 0 8, Of 28 V13 V13 24 0, Of 28 V14 V15 0 8]
    MeterMod [Of 29 V13 V15 8 8]
    RoleStatus [Onf 1911 V13 V13 16 8, Of 30 V14 V15 16 8]
    RequestForward [Nx 132 V10 V12 8 8, Onf 2350 V13 V13 8 8, Of 32 V14 V15 8 8]
    TableStatus [Of 31 V14 V15 8 8]
    BundleControl [Of 33 V14 V15 8 8, Onf 2300 V13 V13 8 8]
    BundleAdd [Of 34 V14 V15 8 1, Onf 2301 V13 V13 8 1]
    DescRequest [Request 0 V10 V15 0 0]
    DescReply [Reply 0 V10 V15 1056 0]
    FlowStatsRequest [Request 1 V10 V10 44 0, Request 1 V11 V15 32 8, NxRequest 0 V10 V10 8 8]
    FlowStatsReply [Reply 1 V10 V15 0 1, NxReply 0 V10 V10 0 1]
    AggregateStatsRequest [Request 2 V10 V10 44 0, Request 2 V11 V15 32 8, NxRequest 1 V10 V10 8 8]
    AggregateStatsReply [Reply 2 V10 V14 24 0, Reply 2 V15 V15 0 1, NxReply 1 V10 V10 24 0]
    TableStatsRequest [Request 3 V10 V15 0 0]
    TableStatsReply [
        Reply 3 V10 V10 0 64,
        Reply 3 V11 V11 0 88,
        Reply 3 V12 V12 0 128,
        Reply 3 V13 V15 0 24,
    ]
    PortStatsRequest [Request 4 V10 V15 8 0]
    PortStatsReply [Reply 4 V10 V12 0 104, Reply 4 V13 V13 0 112, Reply 4 V14 V15 0 8]
    QueueStatsRequest [Request 5 V10 V15 8 0]
    QueueStatsReply [Reply 5 V10 V12 0 32, Reply 5 V13 V13 0 40, Reply 5 V14 V15 0 8]
    GroupStatsRequest [NxRequest 7 V10 V10 8 0, Request 6 V11 V15 8 0]
    GroupStatsReply [NxReply 7 V10 V10 0 8, Reply 6 V11 V15 0 8]
    GroupDescRequest [NxRequest 8 V10 V10 8 0, Request 7 V11 V14 0 0, Request 7 V15 V15 8 0]
    GroupDescReply [NxReply 8 V10 V10 0 8, Reply 7 V11 V15 0 8]
    GroupFeaturesRequest [NxRequest 9 V10 V11 0 0, Request 8 V12 V15 0 0]
    GroupFeaturesReply [NxReply 9 V10 V11 40 0, Reply 8 V12 V15 40 0]
    MeterStatsRequest [Request 9 V13 V15 8 0]
    MeterStatsReply [Reply 9 V13 V15 0 8]
    MeterConfigRequest [Request 10 V13 V15 8 0]
    MeterConfigReply [Reply 10 V13 V15 0 8]
    MeterFeaturesRequest [Request 11 V13 V15 0 0]
    MeterFeaturesReply [Reply 11 V13 V15 16 0]
    TableFeaturesRequest [Request 12 V13 V15 0 8]
    TableFeaturesReply [Reply 12 V13 V15 64 8]
    TableDescRequest [Request 14 V14 V15 0 0]
    TableDescReply [Reply 14 V14 V15 8 8]
    PortDescRequest [Request 13 V10 V14 0 0, Request 13 V15 V15 8 0]
    PortDescReply [Reply 13 V10 V10 0 48, Reply 13 V11 V13 0 64, Reply 13 V14 V15 0 8]
    FlowMonitorRequest [
        Request 16 V14 V15 0 8,
        OnfRequest 1870 V13 V13 0 8,
        NxRequest 2 V10 V12 0 8,
    ]
    FlowMonitorReply [Reply 16 V14 V15 0 8, OnfReply 1870 V13 V13 0 8, NxReply 2 V10 V12 0 8]
    SetFlowFormat [Nx 12 V10 V10 4 0]
    FlowModTableId [Nx 15 V10 V15 8 0]
    SetPacketInFormat [Nx 16 V10 V15 4 0]
    FlowAge [Nx 18 V10 V15 0 0]
    SetControllerId [Nx 20 V10 V15 8 0]
    TlvTableMod [Nx 24 V10 V15 8 8]
    TlvTableRequest [Nx 25 V10 V15 0 0]
    TlvTableReply [Nx 26 V10 V15 16 8]
    Resume [Nx 28 V10 V15 0 8]
    IpfixBridgeStatsRequest [NxRequest 3 V10 V15 0 0]
    IpfixBridgeStatsReply [NxReply 3 V10 V15 88 0]
    IpfixFlowStatsRequest [NxRequest 4 V10 V15 0 0]
    IpfixFlowStatsReply [NxReply 4 V10 V15 0 88]
    CtFlushZone [Nx 29 V10 V15 8 0]
    CtFlush [Nx 32 V10 V15 8 8]
    FlowMonitorCancel [Nx 21 V10 V12 4 0, Onf 1870 V13 V13 4 0]
    FlowMonitorPaused [Nx 22 V10 V12 0 0, Onf 1871 V13 V13 0 0]
    FlowMonitorResumed [Nx 23 V10 V12 0 0, Onf 1872 V13 V13 0 0]
}
