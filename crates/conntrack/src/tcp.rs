//! TCP as somebody sees it who is neither end: states of both sides, and which sequence numbers they
//! can use.
//!
//! A packet of somebody who guesses must not change what is known of a connection. So each side has a
//! window: what it may send by what the other one has acknowledged and offered (RFC 9293, section 3.8.6;
//! Guido van Rooij, "Real Stateful TCP Packet Filtering in IP Filter", 2000). What is outside is invalid.

use packet::headers::tcp::TcpFlags;

use crate::timeout::Stage;

/// The largest shift of a window (RFC 7323, section 2.3).
const MAX_SHIFT: u8 = 14;

/// How far acknowledgments may be behind, or ahead of what was seen: the largest window without a shift,
/// and a segment that got lost between here and the end.
const MAX_SKEW: i32 = 0xFFFF + 1_500;

/// The upper end of a side of which nothing is known.
const UNSET: u32 = 1;

/// How far a side is (RFC 9293, section 3.3.2); what Open vSwitch shows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// Nothing was heard of it, or not any more.
    Closed,
    /// It has sent the first packet.
    SynSent,
    /// The other one has acknowledged that.
    Established,
    /// It has said that it ends.
    Closing,
    /// The other one has acknowledged that.
    FinWait2,
    /// The connection was reset.
    TimeWait,
}

impl TcpState {
    const ALL: [Self; 6] = [
        Self::Closed,
        Self::SynSent,
        Self::Established,
        Self::Closing,
        Self::FinWait2,
        Self::TimeWait,
    ];

    /// The state of this number.
    pub(crate) fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::TimeWait)
    }
}

/// How a side's window is to be shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scale {
    /// Not at all: that is what it has said by saying nothing.
    None,
    /// By so many bits.
    Known(u8),
    /// By nobody knows what: its first packet was not seen.
    Unknown,
}

impl Scale {
    /// As a byte.
    pub(crate) const fn to_byte(self) -> u8 {
        match self {
            Self::None => 0x80,
            Self::Known(shift) => shift,
            Self::Unknown => 0xFF,
        }
    }

    /// From one.
    pub(crate) const fn from_byte(byte: u8) -> Self {
        match byte {
            0..=MAX_SHIFT => Self::Known(byte),
            0xFF => Self::Unknown,
            _ => Self::None,
        }
    }

    const fn shift(self) -> Option<u8> {
        if let Self::Known(shift) = self { Some(shift) } else { None }
    }
}

/// What is known of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    pub(crate) state: TcpState,
    /// The end of what it has sent.
    pub(crate) low: u32,
    /// The end of what it may send.
    pub(crate) high: u32,
    /// The largest window that it has offered, before it is shifted.
    pub(crate) window: u16,
    pub(crate) scale: Scale,
}

/// What counts of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its control bits.
    pub flags: TcpFlags,
    /// Number of its first byte.
    pub sequence: u32,
    /// Number of the byte that is expected next, if the flags say so.
    pub acknowledgment: u32,
    /// What its sender offers.
    pub window: u16,
    /// Bytes of payload.
    pub len: u32,
    /// By how many bits windows are to be shifted, if it says so.
    pub scale: Option<u8>,
}

impl Segment {
    const fn has(&self, flags: TcpFlags) -> bool {
        self.flags.contains(flags)
    }

    /// Whether its control bits make sense together.
    const fn makes_sense(&self) -> bool {
        let (syn, ack) = (self.has(TcpFlags::SYN), self.has(TcpFlags::ACK));
        let (fin, rst) = (self.has(TcpFlags::FIN), self.has(TcpFlags::RST));
        let needs_ack = fin || self.has(TcpFlags::PSH) || self.has(TcpFlags::URG);
        if syn && (rst || fin) {
            return false;
        }
        ack || !needs_ack && (syn || rst)
    }

    /// Whether a connection can begin with it: the first packet, or one of a connection that was there
    /// before anybody looked.
    pub(crate) const fn can_begin(&self) -> bool {
        self.makes_sense() && !(self.has(TcpFlags::SYN) && self.has(TcpFlags::ACK))
    }

    /// The number behind its last byte; SYN and FIN have numbers, too.
    fn end(&self) -> u32 {
        let flags = u32::from(self.has(TcpFlags::SYN)) + u32::from(self.has(TcpFlags::FIN));
        self.sequence.wrapping_add(self.len).wrapping_add(flags)
    }

    fn known_scale(&self) -> Scale {
        self.scale.map_or(Scale::None, |shift| Scale::Known(shift.min(MAX_SHIFT)))
    }
}

/// What a segment is to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It cannot be of it.
    Invalid,
    /// It is its first one once more.
    First,
    /// It is of it; how far that has come, unless that does not prolong it.
    Valid(Option<Stage>),
    /// That connection is over, and this is the first one of another.
    Anew,
}

/// Whether `a` is not before `b`, by numbers that begin again at 0.
const fn reaches(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() >= 0
}

/// A connection that begins with this segment: the side that has sent it, and the other one.
pub(crate) fn begin(segment: &Segment) -> [Side; 2] {
    let is_first = segment.has(TcpFlags::SYN);
    let scale = if is_first { segment.known_scale() } else { Scale::Unknown };
    let window = unshifted(segment.window.max(1), scale.shift().unwrap_or(0));
    // One more than it has sent: the other side has offered nothing yet.
    let high = segment.end().wrapping_add(1);
    let sender = Side { state: TcpState::SynSent, low: segment.sequence, high, window, scale };
    let scale = if is_first { Scale::None } else { Scale::Unknown };
    let other = Side { state: TcpState::Closed, low: 0, high: UNSET, window: 1, scale };
    [sender, other]
}

/// A window as large as it was meant, as it would be said if it were shifted.
fn unshifted(window: u16, shift: u8) -> u16 {
    let window = u32::from(window).div_ceil(1 << shift.min(MAX_SHIFT));
    u16::try_from(window).unwrap_or(u16::MAX)
}

/// A segment of one side: what it is, and what it says of both. Without `checks`, sequence numbers may
/// be anything.
pub(crate) fn update(
    sender: &mut Side,
    other: &mut Side,
    segment: &Segment,
    checks: bool,
) -> Verdict {
    if !segment.makes_sense() {
        return Verdict::Invalid;
    }
    if segment.has(TcpFlags::SYN) && !segment.has(TcpFlags::ACK) {
        if sender.state >= TcpState::FinWait2 && other.state >= TcpState::FinWait2 {
            return Verdict::Anew;
        }
        if sender.state == TcpState::SynSent {
            // As long as nobody has answered, the numbers may be others.
            if other.state == TcpState::Closed {
                [*sender, *other] = begin(segment);
            }
            return Verdict::First;
        }
    }
    let mut pass = Pass::new(sender, other, segment);
    if pass.sender.state < TcpState::SynSent {
        pass.first_of_side();
    }
    pass.ease();
    if !checks || pass.is_in_window() {
        pass.learn();
        pass.advance();
        Verdict::Valid(Some(stage(pass.sender.state, pass.other.state)))
    } else if pass.is_nearby() {
        pass.learn();
        pass.end();
        Verdict::Valid(None)
    } else {
        Verdict::Invalid
    }
}

/// How far a connection has come.
fn stage(one: TcpState, other: TcpState) -> Stage {
    match one.min(other) {
        TcpState::FinWait2 | TcpState::TimeWait => Stage::TcpClosed,
        TcpState::Closing => Stage::TcpFinWait,
        TcpState::Closed | TcpState::SynSent => Stage::TcpOpening,
        TcpState::Established if one == other => Stage::TcpEstablished,
        TcpState::Established => Stage::TcpClosing,
    }
}

/// A segment on its way from one side to the other.
struct Pass<'p> {
    sender: &'p mut Side,
    other: &'p mut Side,
    segment: &'p Segment,
    /// By how much the sender's window is shifted, and the other one's.
    own_shift: u8,
    other_shift: u8,
    window: u16,
    /// What counts of its numbers.
    sequence: u32,
    acknowledgment: u32,
    end: u32,
    /// Whether acknowledgments may be of anything.
    is_lenient: bool,
}

impl<'p> Pass<'p> {
    fn new(sender: &'p mut Side, other: &'p mut Side, segment: &'p Segment) -> Self {
        let shifts = match (sender.scale, other.scale) {
            _ if segment.has(TcpFlags::SYN) => (0, 0),
            (Scale::Known(own), Scale::Known(others)) => (own, others),
            (Scale::Unknown, Scale::Unknown) => (MAX_SHIFT, MAX_SHIFT),
            _ => (0, 0),
        };
        let (own_shift, other_shift) = shifts;
        let has_none = !segment.has(TcpFlags::ACK)
            // Some that refuse a connection acknowledge nothing.
            || segment.acknowledgment == 0 && segment.has(TcpFlags::RST);
        let acknowledgment = if has_none { other.low } else { segment.acknowledgment };
        Self {
            segment,
            own_shift,
            other_shift,
            window: segment.window,
            sequence: segment.sequence,
            end: segment.end(),
            acknowledgment,
            is_lenient: false,
            sender,
            other,
        }
    }

    /// Nothing was heard of the sender before.
    fn first_of_side(&mut self) {
        if self.segment.has(TcpFlags::SYN)
            && let Scale::Known(others) = self.other.scale
        {
            self.sender.scale = self.segment.known_scale();
            match self.sender.scale.shift() {
                Some(own) => {
                    (self.own_shift, self.other_shift) = (own, others);
                    self.window = unshifted(self.window, own);
                }
                // Windows are shifted if both say so (RFC 7323, section 2.2).
                None => {
                    let window = u32::from(self.other.window) << others;
                    self.other.window = u16::try_from(window).unwrap_or(u16::MAX);
                    self.other.scale = Scale::None;
                }
            }
        }
        self.sender.state = TcpState::SynSent;
        self.sender.low = self.sequence;
        let high = self.end.wrapping_add(self.other_window().max(1));
        // What the other side has seen of this one is not known.
        if self.sender.high == UNSET || reaches(high, self.sender.high) {
            self.sender.high = high;
            self.is_lenient = true;
        }
        self.sender.window = self.sender.window.max(self.window);
    }

    const fn other_window(&self) -> u32 {
        (self.other.window as u32) << self.other_shift
    }

    /// What has no data may have any number.
    const fn ease(&mut self) {
        if self.sequence == self.end {
            (self.sequence, self.end) = (self.sender.low, self.sender.low);
        }
    }

    /// Whether its numbers are those of somebody who takes part.
    const fn is_in_window(&self) -> bool {
        let skew = if self.is_lenient {
            0
        } else {
            self.other.low.wrapping_sub(self.acknowledgment).cast_signed()
        };
        let least = self.sender.low.wrapping_sub(self.other_window());
        reaches(self.sender.high, self.end)
            && reaches(self.sequence, least)
            && skew >= -MAX_SKEW
            && skew <= MAX_SKEW << self.own_shift
            && (!self.segment.has(TcpFlags::RST) || self.is_next())
    }

    /// Whether it is exactly what comes next, but for one: what a reset has to be (RFC 5961, section 3).
    const fn is_next(&self) -> bool {
        self.segment.sequence.wrapping_sub(self.sender.low).wrapping_add(1) <= 2
    }

    /// Whether it may be one all the same: of a connection that begins, or was seen in the middle, or of
    /// one that is over.
    fn is_nearby(&self) -> bool {
        const NEAR: u32 = MAX_SKEW.cast_unsigned();
        let is_loose = self.other.state < TcpState::SynSent
            || self.other.state >= TcpState::FinWait2
            || self.sender.state >= TcpState::FinWait2;
        is_loose
            && reaches(self.sender.high.wrapping_add(NEAR), self.end)
            && reaches(self.sequence, self.sender.low.wrapping_sub(NEAR))
    }

    /// What its numbers say of both sides.
    fn learn(&mut self) {
        self.sender.window = self.sender.window.max(self.window);
        if reaches(self.end, self.sender.low) {
            self.sender.low = self.end;
        }
        let offered = u32::from(self.window) << self.own_shift;
        if reaches(self.acknowledgment.wrapping_add(offered), self.other.high) {
            self.other.high = self.acknowledgment.wrapping_add(offered.max(1));
        }
    }

    /// What its control bits say.
    fn advance(&mut self) {
        if self.segment.has(TcpFlags::ACK) {
            let has_all = reaches(self.acknowledgment, self.other.low);
            self.other.state = match self.other.state {
                TcpState::SynSent => TcpState::Established,
                TcpState::Closing if has_all => TcpState::FinWait2,
                state => state,
            };
        }
        self.end();
    }

    /// What those say by which it ends.
    fn end(&mut self) {
        if self.segment.has(TcpFlags::FIN) {
            self.sender.state = self.sender.state.max(TcpState::Closing);
        }
        if self.segment.has(TcpFlags::RST) {
            (self.sender.state, self.other.state) = (TcpState::TimeWait, TcpState::TimeWait);
        }
    }
}

#[cfg(test)]
mod tests;
