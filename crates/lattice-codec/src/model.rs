//! The models of geometry by name.

use std::fmt;
use std::str::FromStr;

/// How the probabilities of a block's geometry are found. A stream says which one it was written with; readers take them all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Model {
    /// Contexts that learn as they go: fast.
    #[default]
    Contexts,
    /// The contexts and a small trained network: fewer bits, at about half the speed.
    Learned,
}

impl Model {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Contexts, Self::Learned];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Contexts => "contexts",
            Self::Learned => "learned",
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no model has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseModelError(String);

impl fmt::Display for ParseModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "model: expected contexts or learned, found `{}`", self.0)
    }
}

impl std::error::Error for ParseModelError {}

impl FromStr for Model {
    type Err = ParseModelError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|m| m.name() == s).ok_or_else(|| ParseModelError(s.to_owned()))
    }
}
