//! Channel counts of a convolution.

/// Channels and groups of a weight `[taps, c_in / groups, c_out]`; output channel `j` belongs to group `j / (c_out / groups)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Input channels, a multiple of `groups`.
    pub c_in: usize,
    /// Output channels, a multiple of `groups`.
    pub c_out: usize,
    /// Groups, at least one.
    pub groups: usize,
}

impl ConvShape {
    /// One group.
    pub const fn dense(c_in: usize, c_out: usize) -> Self {
        Self { c_in, c_out, groups: 1 }
    }

    /// Numbers of a weight of so many taps.
    pub const fn weights(&self, taps: usize) -> usize {
        taps * (self.c_in / self.groups) * self.c_out
    }

    /// Panics unless the groups divide the channels.
    pub(crate) fn check(&self, op: &str) {
        let divides = |c: usize| self.groups > 0 && c.is_multiple_of(self.groups);
        assert!(
            divides(self.c_in) && divides(self.c_out),
            "{op}: the groups of {self:?} do not divide the channels"
        );
    }
}
