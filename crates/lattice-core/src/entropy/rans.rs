//! The rANS coder: bytes, a state of 32 bits.

use super::cdf::cdf_of;
use super::{CdfTable, HEADER_BYTES, MARK_BYTES, Probability, after_header, check_symbols, header};
use crate::{Error, Result};

const MARK: &[u8; MARK_BYTES] = b"MLXGERNS01";
/// The state is never below this between symbols.
const LEAST: u32 = 1 << 23;

/// The stream of the symbols, each coded with its row of the table.
///
/// # Layout
/// `MLXGERNS01`, rows, alphabet and final state as little-endian `u32`, then the payload in the order in which it is read.
///
/// # Errors
/// As [`range_encode`](crate::range_encode).
pub fn rans_encode(cdf: &CdfTable, symbols: &[i32]) -> Result<Vec<u8>> {
    encode("rans_encode", cdf, symbols)
}

/// [`rans_encode`] with the table that [`normalized_cdf`](crate::normalized_cdf) makes of `[rows, alphabet]` probabilities.
///
/// # Errors
/// As both.
pub fn rans_encode_from_prob<P: Probability>(
    prob: &[P],
    shape: [usize; 2],
    symbols: &[i32],
) -> Result<Vec<u8>> {
    const OP: &str = "rans_encode_from_prob";
    encode(OP, &cdf_of(OP, prob, shape)?, symbols)
}

fn encode(op: &'static str, cdf: &CdfTable, symbols: &[i32]) -> Result<Vec<u8>> {
    check_symbols(op, cdf, symbols)?;
    let mut stream = header(op, MARK, cdf)?;
    let mut state = LEAST;
    let mut payload = Vec::new();
    for (row, &symbol) in symbols.iter().enumerate().rev() {
        let (lower, upper) = cdf.span(row, symbol as usize);
        // Two symbols or more share the total, so the frequency is below 65,536 and the limit fits.
        let frequency = upper - lower;
        let limit = (LEAST >> 16) * 256 * frequency;
        while state >= limit {
            payload.push(state as u8);
            state >>= 8;
        }
        state = (state / frequency) * 65_536 + state % frequency + lower;
    }
    stream.extend(state.to_le_bytes());
    stream.extend(payload.iter().rev());
    Ok(stream)
}

/// The symbols of a stream, one a row of the table that it was written with.
///
/// A stream holds all its bytes and no more, and the coder ends in the state that it began with: damage is found, if not all of it.
/// Time and memory depend on the table and the stream's length alone.
///
/// # Errors
/// [`Error::Stream`] for a wrong mark, a truncated header, rows and alphabet that are not the table's, a payload that ends too early or
/// goes on after the last symbol, or an end in the wrong state.
pub fn rans_decode(cdf: &CdfTable, stream: &[u8]) -> Result<Vec<i32>> {
    decode("rans_decode", cdf, stream)
}

/// [`rans_decode`] with the table that [`normalized_cdf`](crate::normalized_cdf) makes of `[rows, alphabet]` probabilities.
///
/// # Errors
/// As both.
pub fn rans_decode_from_prob<P: Probability>(
    prob: &[P],
    shape: [usize; 2],
    stream: &[u8],
) -> Result<Vec<i32>> {
    const OP: &str = "rans_decode_from_prob";
    decode(OP, &cdf_of(OP, prob, shape)?, stream)
}

fn decode(op: &'static str, cdf: &CdfTable, stream: &[u8]) -> Result<Vec<i32>> {
    let refuse = |byte: usize, what: String| Error::Stream { op, byte, what };
    let rest = after_header(op, MARK, cdf, stream)?;
    let Some((state, payload)) = rest.split_first_chunk::<4>() else {
        let what =
            format!("expected a header of {} bytes, found {}; copy it again", HEADER_BYTES + 4, stream.len());
        return Err(refuse(stream.len(), what));
    };
    let mut state = u32::from_le_bytes(*state);
    let mut bytes = payload.iter();
    let mut symbols = Vec::with_capacity(cdf.rows());
    for row in 0..cdf.rows() {
        let slot = state & 65_535;
        let symbol = cdf.symbol_at(row, slot);
        let (lower, upper) = cdf.span(row, symbol);
        symbols.push(symbol as i32);
        // At most 65,535 * 65,535 + 65,534: it fits for any state.
        state = (upper - lower) * (state >> 16) + slot - lower;
        while state < LEAST {
            let Some(&byte) = bytes.next() else {
                let what = format!(
                    "expected more payload at symbol {row} of {}, found the end; copy it again",
                    cdf.rows()
                );
                return Err(refuse(stream.len(), what));
            };
            state = state << 8 | u32::from(byte);
        }
    }
    let left = bytes.as_slice().len();
    if left > 0 {
        let what = format!(
            "expected the end after the last symbol, found {left} more bytes; the stream is damaged or has another table"
        );
        return Err(refuse(stream.len() - left, what));
    }
    if state != LEAST {
        let what = format!(
            "expected the state {LEAST:#x} at the end, found {state:#x}; the stream is damaged or has another table"
        );
        return Err(refuse(stream.len(), what));
    }
    Ok(symbols)
}
