//! Cumulative frequencies: from probabilities, in the stored form, and how a symbol is found.

use crate::{Error, Result};

/// All frequencies of a row add up to this.
pub(super) const TOTAL: u32 = 1 << 16;

/// A float that a probability can be given in.
pub trait Probability: Copy {
    /// The value, exactly.
    fn to_f32(self) -> f32;
}

impl Probability for f32 {
    #[inline]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Probability for half::f16 {
    #[inline]
    fn to_f32(self) -> f32 {
        half::f16::to_f32(self)
    }
}

/// Cumulative frequencies of the symbols of every row: symbol `s` of row `r` owns `[bound(r, s), bound(r, s + 1))` of 65,536.
///
/// # Layout
/// `[rows, alphabet]` lower bounds in 16 bits, row after row; the upper bound 65,536 of every last symbol is not stored. Every symbol
/// has a frequency of 1 or more: [`CdfTable::from_stored`] checks it, [`normalized_cdf`] makes it so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdfTable {
    rows: usize,
    alphabet: usize,
    lower: Vec<u16>,
}

impl CdfTable {
    /// A table from its stored form: `[rows, alphabet + 1]` cumulative frequencies wrapped to `i16`, the last column 0 for 65,536.
    ///
    /// # Errors
    /// [`Error::Shape`] when the values are not that many; [`Error::Value`] unless `2 <= alphabet < 65536`; [`Error::OutOfRange`] naming
    /// the first row that does not begin with 0, rise strictly and end with 65,536.
    pub fn from_stored(stored: &[i16], [rows, columns]: [usize; 2]) -> Result<Self> {
        const OP: &str = "CdfTable::from_stored";
        check_shape(OP, stored.len(), [rows, columns])?;
        let alphabet = columns.saturating_sub(1);
        check_alphabet(OP, alphabet)?;
        let mut lower = Vec::with_capacity(rows * alphabet);
        for (row, values) in stored.chunks_exact(columns).enumerate() {
            let (last, bounds) = (values[alphabet], &values[..alphabet]);
            let fault = if bounds[0] != 0 {
                format!("expected cumulative frequencies that begin with 0, found {}", bounds[0] as u16)
            } else if let Some(at) = bounds.windows(2).position(|w| w[0] as u16 >= w[1] as u16) {
                let [a, b] = [bounds[at] as u16, bounds[at + 1] as u16];
                format!("expected cumulative frequencies that rise strictly, found {a}, {b} at symbol {at}")
            } else if last != 0 {
                format!("expected 65536 (stored as 0) behind the last symbol, found {}", last as u16)
            } else {
                lower.extend(bounds.iter().map(|&v| v as u16));
                continue;
            };
            return Err(Error::OutOfRange {
                op: OP,
                row,
                what: format!("{fault}; make tables with normalized_cdf"),
            });
        }
        Ok(Self { rows, alphabet, lower })
    }

    /// The stored form: see [`CdfTable::from_stored`].
    pub fn to_stored(&self) -> Vec<i16> {
        let mut stored = Vec::with_capacity(self.rows * (self.alphabet + 1));
        for row in self.lower.chunks_exact(self.alphabet) {
            stored.extend(row.iter().map(|&v| v as i16));
            stored.push(0);
        }
        stored
    }

    /// Rows, one a symbol to code.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Symbols that each row tells apart.
    pub fn alphabet(&self) -> usize {
        self.alphabet
    }

    /// Cumulative frequency below `symbol`, 65,536 for the alphabet's size.
    ///
    /// # Panics
    /// When `row` is not below `rows()`, or `symbol` above `alphabet()`.
    #[inline]
    pub fn bound(&self, row: usize, symbol: usize) -> u32 {
        let bounds = self.row(row);
        if symbol == self.alphabet { TOTAL } else { u32::from(bounds[symbol]) }
    }

    #[inline]
    fn row(&self, row: usize) -> &[u16] {
        &self.lower[row * self.alphabet..(row + 1) * self.alphabet]
    }

    /// Lower and upper bound of a symbol inside the alphabet.
    #[inline]
    pub(super) fn span(&self, row: usize, symbol: usize) -> (u32, u32) {
        let bounds = self.row(row);
        (u32::from(bounds[symbol]), bounds.get(symbol + 1).map_or(TOTAL, |&v| u32::from(v)))
    }

    /// The symbol with `lower <= target < upper`, for a target below 65,536.
    #[inline]
    pub(super) fn symbol_at(&self, row: usize, target: u32) -> usize {
        // The first bound is 0, so at least one bound is at or below the target.
        self.row(row).partition_point(|&lower| u32::from(lower) <= target) - 1
    }
}

/// Cumulative frequencies of probabilities, `[rows, alphabet]` row after row: every symbol gets a frequency of 1 or more, rows are not
/// renormalised, and the last symbol takes what is left (its probability is never read).
///
/// With `run` the sum in `f32` of the probabilities up to symbol `j - 1`, each clamped to 0..=1, bound `j` is
/// `round(run · (65536 - alphabet)) + j`, clamped to `j ..= 65536 - alphabet + j`; halves are rounded away from 0.
///
/// # Errors
/// [`Error::Shape`] when the probabilities are not `rows · alphabet`; [`Error::Value`] unless `2 <= alphabet < 65536`;
/// [`Error::OutOfRange`] naming the first row with a NaN or an infinity among the probabilities that are read.
pub fn normalized_cdf<P: Probability>(prob: &[P], shape: [usize; 2]) -> Result<CdfTable> {
    cdf_of("normalized_cdf", prob, shape)
}

/// [`normalized_cdf`] on behalf of `op`.
pub(super) fn cdf_of<P: Probability>(
    op: &'static str,
    prob: &[P],
    [rows, alphabet]: [usize; 2],
) -> Result<CdfTable> {
    check_shape(op, prob.len(), [rows, alphabet])?;
    check_alphabet(op, alphabet)?;
    let span = TOTAL as usize - alphabet;
    let scale = span as f32;
    let mut lower = Vec::with_capacity(prob.len());
    for (row, prob) in prob.chunks_exact(alphabet).enumerate() {
        let mut run = 0f32;
        lower.push(0);
        for (j, p) in (1..alphabet).zip(prob) {
            let p = p.to_f32();
            if !p.is_finite() {
                let what = format!("expected finite probabilities, found {p} at symbol {}", j - 1);
                return Err(Error::OutOfRange { op, row, what });
            }
            run += p.clamp(0.0, 1.0);
            // At most `span + j`, which is below 65,536 for every j below the alphabet.
            lower.push(((run * scale).round() as usize).min(span) as u16 + j as u16);
        }
    }
    Ok(CdfTable { rows, alphabet, lower })
}

fn check_alphabet(op: &'static str, alphabet: usize) -> Result<()> {
    if (2..TOTAL as usize).contains(&alphabet) {
        return Ok(());
    }
    Err(Error::Value { op, what: format!("expected an alphabet of 2 to 65535 symbols, found {alphabet}") })
}

fn check_shape(op: &'static str, found: usize, [rows, columns]: [usize; 2]) -> Result<()> {
    if rows.checked_mul(columns) == Some(found) {
        return Ok(());
    }
    let expected = format!("{rows} rows of {columns} values");
    Err(Error::Shape { op, expected, found: format!("{found} values") })
}
