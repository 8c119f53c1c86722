//! Writes test frames: headers that were made before, with the fields that differ from frame to
//! frame filled in and the checksums brought up to date.
//!
//! Nothing here allocates, and nothing is summed up that does not change: a checksum is that of the
//! template plus what the fields add.

use crate::stamp::{STAMP_LEN, Stamp, halves};

/// Checksums that a field can be part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// The IPv4 header around a tunnel.
    OuterIp,
    /// The IPv4 header.
    Ip,
    /// UDP or TCP with its pseudo header.
    Transport,
}

/// Number of them.
pub const AREAS: usize = 3;

/// Bytes that a field has on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// A port, or the rest of a VLAN tag.
    Two,
    /// An IPv4 address, or a VXLAN network identifier and the byte behind it.
    Four,
    /// A MAC address.
    Six,
    /// The lower half of an IPv6 address.
    Eight,
}

/// A field that differs from flow to flow.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Where it is in the frame.
    pub at: usize,
    /// How wide.
    pub width: Width,
    /// Its first value, how many it takes in turn, and how far they are apart.
    pub first: u64,
    /// At least 1.
    pub count: u32,
    /// From one to the next.
    pub step: u64,
    /// All ones for the checksums that it is part of, zero for the others.
    pub masks: [u64; AREAS],
}

impl Field {
    #[inline]
    fn value(&self, flow: u32) -> u64 {
        let index =
            if flow < self.count { flow } else { flow.checked_rem(self.count).unwrap_or(0) };
        // Ranges end within what a field holds.
        self.first.wrapping_add(u64::from(index).wrapping_mul(self.step))
    }

    #[inline]
    fn put(&self, head: &mut [u8], value: u64) {
        let Some(to) = head.get_mut(self.at..) else { return };
        let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
        match self.width {
            Width::Two => to.first_chunk_mut().map(|to| *to = [g, h]),
            Width::Four => to.first_chunk_mut().map(|to| *to = [e, f, g, h]),
            Width::Six => to.first_chunk_mut().map(|to| *to = [c, d, e, f, g, h]),
            Width::Eight => to.first_chunk_mut().map(|to| *to = [a, b, c, d, e, f, g, h]),
        };
    }
}

/// A 16-bit length in a header.
#[derive(Clone, Copy, Debug)]
pub struct Length {
    /// Where it is in the frame.
    pub at: usize,
    /// Its value when the headers carry nothing.
    pub base: u16,
}

/// A checksum in a header.
#[derive(Clone, Copy, Debug)]
pub struct Sum {
    /// Where it is in the frame.
    pub at: usize,
    /// What it covers.
    pub area: Area,
    /// Whether 0 would mean that there is none (RFC 768).
    pub zero_is_none: bool,
}

/// Headers, and what is to be done to them frame by frame.
#[derive(Clone, Debug, Default)]
pub struct Template {
    /// The headers, with 0 in all fields, lengths and checksums that are filled in.
    pub head: Vec<u8>,
    /// What differs from flow to flow.
    pub fields: Vec<Field>,
    /// Lengths.
    pub lengths: Vec<Length>,
    /// Checksums.
    pub sums: Vec<Sum>,
    /// One's complement sum of everything else that a checksum covers, for each area.
    pub base: [u64; AREAS],
    /// How often the length of what the headers carry is part of it.
    pub lengths_in: [u64; AREAS],
}

/// Writes test frames of one run.
#[derive(Clone, Debug)]
pub struct Builder {
    template: Template,
    run: u16,
    pattern: bool,
    first_flow: u32,
}

impl Builder {
    /// A builder of frames with the headers of `template`. Frames of different runs are never
    /// confused.
    pub const fn new(template: Template, run: u16, pattern: bool) -> Self {
        Self { template, run, pattern, first_flow: 0 }
    }

    /// The same with stamps whose flows begin with another number.
    #[must_use]
    pub const fn with_first_flow(mut self, first_flow: u32) -> Self {
        self.first_flow = first_flow;
        self
    }

    /// Bytes that a frame has at least: its headers.
    pub const fn least(&self) -> usize {
        self.template.head.len()
    }

    /// Writes what all frames have in common to the beginning of `frame`; [`write`](Self::write)
    /// needs that once.
    pub fn begin(&self, frame: &mut [u8]) {
        if let Some(head) = frame.get_mut(..self.least()) {
            head.copy_from_slice(&self.template.head);
        }
    }

    /// Writes a frame that fills `frame`, which [`begin`](Self::begin) has seen. Where the headers
    /// leave no room for a stamp there is none; where there is to be no pattern, what is behind the
    /// stamp has to be zero and stays it. A frame that is shorter than its headers, or longer than
    /// 65,535 bytes, is left alone.
    #[inline]
    pub fn write(&self, frame: &mut [u8], flow: u32, sequence: u32, time: u64) {
        if frame.len() > usize::from(u16::MAX) {
            return;
        }
        let template = &self.template;
        let Some((head, payload)) = frame.split_at_mut_checked(self.least()) else { return };
        let len = payload.len();
        let mut sums = template.base;
        for (sum, times) in sums.iter_mut().zip(template.lengths_in) {
            *sum = sum.wrapping_add(times.wrapping_mul(len as u64));
        }
        for field in &template.fields {
            let value = field.value(flow);
            field.put(head, value);
            let value = halves(value);
            for (sum, mask) in sums.iter_mut().zip(field.masks) {
                *sum = sum.wrapping_add(value & mask);
            }
        }
        for length in &template.lengths {
            #[allow(clippy::cast_possible_truncation, reason = "looked at above")]
            put_u16(head, length.at, length.base.wrapping_add(len as u16));
        }
        let [.., transport] = &mut sums;
        if let Some((stamp, rest)) = payload.split_first_chunk_mut::<STAMP_LEN>() {
            let flow = self.first_flow.wrapping_add(flow);
            let written = Stamp::new(self.run, self.pattern, flow, sequence, time);
            *transport = transport.wrapping_add(written.write(stamp, len));
            if self.pattern {
                *transport = transport.wrapping_add(written.fill_pattern(rest));
            }
        } else {
            payload.fill(0);
        }
        let [outer, ip, transport] = sums;
        for sum in &template.sums {
            let total = match sum.area {
                Area::OuterIp => outer,
                Area::Ip => ip,
                Area::Transport => transport,
            };
            let checksum = !fold(total);
            let none = sum.zero_is_none && checksum == 0;
            put_u16(head, sum.at, if none { 0xFFFF } else { checksum });
        }
    }
}

#[inline]
fn put_u16(head: &mut [u8], at: usize, value: u16) {
    if let Some(to) = head.get_mut(at..).and_then(|to| to.first_chunk_mut()) {
        *to = value.to_be_bytes();
    }
}

/// The one's complement sum of 16-bit words of which `sum` is a sum.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "at most 0xFFFF after two folds of each half")]
const fn fold(sum: u64) -> u16 {
    let sum = halves(halves(sum));
    let sum = (sum >> 16) + (sum & 0xFFFF);
    let sum = (sum >> 16) + (sum & 0xFFFF);
    let sum = (sum >> 16) + (sum & 0xFFFF);
    sum as u16
}
