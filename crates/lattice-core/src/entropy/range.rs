//! The range coder: a bit string, most significant bit first.

use super::cdf::cdf_of;
use super::{CdfTable, MARK_BYTES, Probability, after_header, check_symbols, header};
use crate::Result;

const MARK: &[u8; MARK_BYTES] = b"MLXGERNG01";
const HALF: u32 = 1 << 31;
const QUARTER: u32 = 1 << 30;

/// What is left of the interval of numbers; `low <= high`, and wider than a quarter between symbols.
struct Interval {
    low: u32,
    high: u32,
}

impl Interval {
    fn whole() -> Self {
        Self { low: 0, high: u32::MAX }
    }

    fn width(&self) -> u64 {
        u64::from(self.high - self.low) + 1
    }

    /// Keeps the part of a symbol. A frequency of 1 or more of 65,536 keeps at least 2^14 numbers.
    fn narrow(&mut self, (lower, upper): (u32, u32)) {
        let (width, low) = (self.width(), u64::from(self.low));
        self.high = (low + width * u64::from(upper) / 65_536 - 1) as u32;
        self.low = (low + width * u64::from(lower) / 65_536) as u32;
    }

    /// What to subtract from both ends before they are doubled, and the bit that is settled (`None`: a bit that is still pending);
    /// nothing when the interval is wide enough.
    fn step(&self) -> Option<(u32, Option<bool>)> {
        if self.high < HALF {
            Some((0, Some(false)))
        } else if self.low >= HALF {
            Some((HALF, Some(true)))
        } else if self.low >= QUARTER && self.high < HALF + QUARTER {
            Some((QUARTER, None))
        } else {
            None
        }
    }

    fn double(&mut self, less: u32) {
        self.low = (self.low - less) << 1;
        self.high = (self.high - less) << 1 | 1;
    }
}

/// Bits behind whole bytes.
struct BitWriter {
    bytes: Vec<u8>,
    part: u8,
    n_bits: u32,
    pending: u64,
}

impl BitWriter {
    fn push(&mut self, bit: bool) {
        self.part = self.part << 1 | u8::from(bit);
        self.n_bits += 1;
        if self.n_bits == 8 {
            self.bytes.push(self.part);
            (self.part, self.n_bits) = (0, 0);
        }
    }

    /// A settled bit, and the pending ones, which are its opposite.
    fn emit(&mut self, bit: bool) {
        self.push(bit);
        for _ in 0..std::mem::take(&mut self.pending) {
            self.push(!bit);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        while self.n_bits > 0 {
            self.push(false);
        }
        self.bytes
    }
}

/// Bits of a slice; 0 past its end.
struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl BitReader<'_> {
    fn next(&mut self) -> u32 {
        let bit = self.bytes.get(self.at / 8).map_or(0, |byte| byte >> (7 - self.at % 8) & 1);
        self.at += 1;
        u32::from(bit)
    }
}

/// The stream of the symbols, each coded with its row of the table.
///
/// # Layout
/// `MLXGERNG01`, rows and alphabet as little-endian `u32`, then the bits, padded with zeros to a byte.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) unless there is one symbol a row; [`Error::OutOfRange`](crate::Error::OutOfRange) for a symbol
/// outside the alphabet; [`Error::Limit`](crate::Error::Limit) for 2^32 rows or more.
pub fn range_encode(cdf: &CdfTable, symbols: &[i32]) -> Result<Vec<u8>> {
    encode("range_encode", cdf, symbols)
}

/// [`range_encode`] with the table that [`normalized_cdf`](crate::normalized_cdf) makes of `[rows, alphabet]` probabilities.
///
/// # Errors
/// As both.
pub fn range_encode_from_prob<P: Probability>(
    prob: &[P],
    shape: [usize; 2],
    symbols: &[i32],
) -> Result<Vec<u8>> {
    const OP: &str = "range_encode_from_prob";
    encode(OP, &cdf_of(OP, prob, shape)?, symbols)
}

fn encode(op: &'static str, cdf: &CdfTable, symbols: &[i32]) -> Result<Vec<u8>> {
    check_symbols(op, cdf, symbols)?;
    let mut out = BitWriter { bytes: header(op, MARK, cdf)?, part: 0, n_bits: 0, pending: 0 };
    let mut interval = Interval::whole();
    for (row, &symbol) in symbols.iter().enumerate() {
        interval.narrow(cdf.span(row, symbol as usize));
        while let Some((less, bit)) = interval.step() {
            match bit {
                Some(bit) => out.emit(bit),
                None => out.pending += 1,
            }
            interval.double(less);
        }
    }
    out.pending += 1;
    out.emit(interval.low >= QUARTER);
    Ok(out.finish())
}

/// The symbols of a stream, one a row of the table that it was written with.
///
/// Bits past the end read as 0 and bytes past the last symbol are ignored: the format has no mark of its end, so a stream whose payload
/// was damaged decodes to other symbols. Time and memory depend on the table alone.
///
/// # Errors
/// [`Error::Stream`](crate::Error::Stream) for a wrong mark, a truncated header, or rows and alphabet that are not the table's.
pub fn range_decode(cdf: &CdfTable, stream: &[u8]) -> Result<Vec<i32>> {
    decode("range_decode", cdf, stream)
}

/// [`range_decode`] with the table that [`normalized_cdf`](crate::normalized_cdf) makes of `[rows, alphabet]` probabilities.
///
/// # Errors
/// As both.
pub fn range_decode_from_prob<P: Probability>(
    prob: &[P],
    shape: [usize; 2],
    stream: &[u8],
) -> Result<Vec<i32>> {
    const OP: &str = "range_decode_from_prob";
    decode(OP, &cdf_of(OP, prob, shape)?, stream)
}

fn decode(op: &'static str, cdf: &CdfTable, stream: &[u8]) -> Result<Vec<i32>> {
    let mut bits = BitReader { bytes: after_header(op, MARK, cdf, stream)?, at: 0 };
    let mut code = (0..32).fold(0u32, |code, _| code << 1 | bits.next());
    let mut interval = Interval::whole();
    let mut symbols = Vec::with_capacity(cdf.rows());
    for row in 0..cdf.rows() {
        // The code lies in the interval, so the target is below 65,536.
        let target = ((u64::from(code - interval.low) + 1) * 65_536 - 1) / interval.width();
        let symbol = cdf.symbol_at(row, target as u32);
        symbols.push(symbol as i32);
        interval.narrow(cdf.span(row, symbol));
        while let Some((less, _)) = interval.step() {
            interval.double(less);
            code = (code - less) << 1 | bits.next();
        }
    }
    Ok(symbols)
}
