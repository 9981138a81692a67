//! Entropy coding of symbols whose distributions are known, in two frozen formats.
//!
//! Symbol `i` is coded with row `i` of a [`CdfTable`]. [`range_encode`] writes a bit string one symbol after the other; [`rans_encode`]
//! writes bytes and is faster to read. Both are integer code: the same bytes on every machine. Neither format can be split, so
//! independent parts go into streams of their own. Point clouds have a codec and a coder of their own, in `lattice-codec`.

mod cdf;
mod range;
mod rans;

pub use cdf::{CdfTable, Probability, normalized_cdf};
pub use range::{range_decode, range_decode_from_prob, range_encode, range_encode_from_prob};
pub use rans::{rans_decode, rans_decode_from_prob, rans_encode, rans_encode_from_prob};

use crate::{Error, Result};

/// Bytes of the mark that a stream begins with.
const MARK_BYTES: usize = 10;
/// Bytes before what a stream holds beside its payload: mark, rows, alphabet.
const HEADER_BYTES: usize = MARK_BYTES + 8;

/// The beginning of a stream: its mark and the shape of its table.
fn header(op: &'static str, mark: &[u8; MARK_BYTES], cdf: &CdfTable) -> Result<Vec<u8>> {
    let rows = u32::try_from(cdf.rows()).map_err(|_| Error::Limit {
        op,
        what: format!("expected fewer than 2^32 rows, found {}; write several streams", cdf.rows()),
    })?;
    let mut stream = mark.to_vec();
    stream.extend(rows.to_le_bytes());
    // below 65,536 by construction
    stream.extend((cdf.alphabet() as u32).to_le_bytes());
    Ok(stream)
}

/// Checks the beginning of a stream against the table that it is to be read with; what follows it.
fn after_header<'a>(
    op: &'static str,
    mark: &[u8; MARK_BYTES],
    cdf: &CdfTable,
    stream: &'a [u8],
) -> Result<&'a [u8]> {
    let refuse = |byte: usize, what: String| Error::Stream { op, byte, what };
    if stream.len() < HEADER_BYTES {
        let what =
            format!("expected a header of {HEADER_BYTES} bytes, found {} bytes; copy it again", stream.len());
        return Err(refuse(stream.len(), what));
    }
    let (found, rest) = stream.split_at(MARK_BYTES);
    if found != mark {
        let [expected, found] = [mark.as_slice(), found].map(|m| m.escape_ascii().to_string());
        return Err(refuse(
            0,
            format!("expected `{expected}`, found `{found}`; this is another kind of stream"),
        ));
    }
    let (shape, payload) = rest.split_at(8);
    let number =
        |at: usize| u32::from_le_bytes([shape[at], shape[at + 1], shape[at + 2], shape[at + 3]]) as usize;
    for (at, name, expected) in [(0, "rows", cdf.rows()), (4, "symbols in the alphabet", cdf.alphabet())] {
        if number(at) != expected {
            let what = format!(
                "expected {expected} {name}, as the table has, found {}; read it with the table it was written with",
                number(at)
            );
            return Err(refuse(MARK_BYTES + at, what));
        }
    }
    Ok(payload)
}

/// One symbol a row, each inside the alphabet.
fn check_symbols(op: &'static str, cdf: &CdfTable, symbols: &[i32]) -> Result<()> {
    if symbols.len() != cdf.rows() {
        let expected = format!("{} symbols, one a row", cdf.rows());
        return Err(Error::Shape { op, expected, found: symbols.len().to_string() });
    }
    let outside = |&symbol: &i32| usize::try_from(symbol).map_or(true, |s| s >= cdf.alphabet());
    match symbols.iter().position(outside) {
        None => Ok(()),
        Some(row) => {
            let what = format!("expected a symbol in 0..{}, found {}", cdf.alphabet(), symbols[row]);
            Err(Error::OutOfRange { op, row, what })
        }
    }
}
