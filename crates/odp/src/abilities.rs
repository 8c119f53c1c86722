//! What a data path may be unable to do.

/// What a data path can, as far as what is told of a packet's way depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Labels of MPLS are put in front of a whole packet (`add_mpls`).
    pub labels: bool,
    /// Packets are cut (`trunc`).
    pub cuts: bool,
    /// Something is done with a copy (`clone`).
    pub clones: bool,
    /// How deep what is done with some packets may be within each other (`sample_nesting`).
    pub samples: u8,
    /// Something depends on a packet's length (`check_pkt_len`).
    pub lengths: bool,
}

impl Abilities {
    /// All of it.
    pub const ALL: Self =
        Self { labels: true, cuts: true, clones: true, samples: 10, lengths: true };

    /// Whether something can be done with a copy by `sample`: Open vSwitch keeps three levels for others.
    pub(crate) const fn samples_copies(self) -> bool {
        self.samples > 3
    }
}

impl Default for Abilities {
    fn default() -> Self {
        Self::ALL
    }
}
