use std::fmt;

use clap::ValueEnum;

/// Sizes of the frames on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// All alike, in bytes without FCS.
    Fixed(u16),
    /// A third each of 64, 576 and 1500 bytes: what testpmd can make of the Internet's mix.
    Mix,
}

impl Size {
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "mix" {
            return Ok(Self::Mix);
        }
        match text.parse() {
            Ok(size @ 60..=1514) => Ok(Self::Fixed(size)),
            _ => Err(format!("{text}: expected 60 to 1514 bytes, or mix")),
        }
    }

    /// Testpmd's commands to send frames of it.
    pub fn commands(self) -> Vec<String> {
        match self {
            Self::Fixed(size) => vec![format!("set txpkts {size}")],
            // A frame is the first one, two or three of these segments, chosen at random.
            Self::Mix => vec!["set txpkts 64,512,924".into(), "set txsplit rand".into()],
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Mix => f.write_str("mix"),
        }
    }
}

/// Format of the rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ring {
    Split,
    Packed,
}

/// Whether receive buffers may be merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mergeable {
    On,
    Off,
}

/// One column of the matrix: what the two guests are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub size: Size,
    pub ring: Ring,
    pub mergeable: Mergeable,
    pub queues: u16,
}

impl Cell {
    /// Arguments of a virtio-user device of testpmd.
    pub fn device_arguments(self) -> String {
        let packed = u8::from(self.ring == Ring::Packed);
        let merge = u8::from(self.mergeable == Mergeable::On);
        let queues = self.queues;
        format!("packed_vq={packed},mrg_rxbuf={merge},queues={queues},cq=1")
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ring = if self.ring == Ring::Split { "split" } else { "packed" };
        let merge = if self.mergeable == Mergeable::On { "mergeable" } else { "not mergeable" };
        let plural = if self.queues == 1 { "" } else { "s" };
        write!(f, "{} bytes, {ring}, {merge}, {} queue{plural}", self.size, self.queues)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_and_shown() {
        assert_eq!(Size::parse("64"), Ok(Size::Fixed(64)));
        assert_eq!(Size::parse("mix").unwrap().to_string(), "mix");
        assert!(Size::parse("59").is_err() && Size::parse("1515").is_err());
        let cell =
            Cell { size: Size::Mix, ring: Ring::Packed, mergeable: Mergeable::Off, queues: 4 };
        assert_eq!(cell.to_string(), "mix bytes, packed, not mergeable, 4 queues");
        assert_eq!(cell.device_arguments(), "packed_vq=1,mrg_rxbuf=0,queues=4,cq=1");
    }
}
