//! Bounds of a LAZ file, checked before it is unpacked.
//!
//! The unpacker allocates what three numbers of the file say: the number of chunks, the sizes of a chunk's layers (point
//! formats 6 to 10), and the sizes of a point's items. Here each is compared with the file's size.
//!
//! A layered chunk is: one point as it is, its number of points (u32), the byte size of each layer (u32), the layers.

use super::las::{Header, array, u16_at, u32_at};
use crate::error::{Fault, Place};

const HELP: &str = "the file is damaged: copy it again, or pack it again from its LAS file";

fn fault(byte: usize, expected: impl Into<String>, found: impl Into<String>) -> Fault {
    Fault::new(Place::Byte(byte as u64), expected, found, HELP)
}

/// Refuses a LAZ file whose unpacking could allocate beyond what its size allows.
pub(super) fn check(bytes: &[u8], header: &Header) -> Result<(), Fault> {
    let vlr = find_vlr(bytes, header)?;
    let (at, data) = vlr;
    let compressor = u16_at(data, 0);
    let n_items = usize::from(u16_at(data, 32));
    let Some(items) = data.get(34..34 + 6 * n_items) else {
        return Err(fault(
            at,
            format!("{n_items} items in the LASzip record"),
            format!("{} bytes", data.len()),
        ));
    };
    let mut n_layers = 0;
    let mut point_bytes = 0;
    for item in items.chunks_exact(6) {
        let (kind, size) = (u16_at(item, 0), usize::from(u16_at(item, 2)));
        let (fixed, layers) = match kind {
            0 => (None, 0),
            6 => (Some(20), 0),
            7 => (Some(8), 0),
            8 => (Some(6), 0),
            9 | 13 => (Some(29), usize::from(kind == 13)),
            10 => (Some(30), 9),
            11 => (Some(6), 1),
            12 => (Some(8), 2),
            14 => (None, size),
            _ => return Err(fault(at, "LASzip items of kinds 0 and 6 to 14", format!("kind {kind}"))),
        };
        if fixed.is_some_and(|f| f != size) || size == 0 {
            return Err(fault(
                at,
                "LASzip items of their standard sizes",
                format!("kind {kind} of {size} bytes"),
            ));
        }
        n_layers += layers;
        point_bytes += size;
    }
    if point_bytes != header.record_bytes {
        return Err(fault(
            at,
            format!("LASzip items of {} bytes in all", header.record_bytes),
            format!("{point_bytes}"),
        ));
    }
    if header.n_points == 0 || compressor < 2 {
        return Ok(());
    }
    let table_at = chunk_table(bytes, header)?;
    if compressor == 3 {
        check_layers(bytes, header.points_at + 8, table_at, point_bytes, n_layers)?;
    }
    Ok(())
}

/// The record that LASzip leaves among the variable length records: where it stands, and its data.
fn find_vlr<'a>(bytes: &'a [u8], header: &Header) -> Result<(usize, &'a [u8]), Fault> {
    let mut at = header.header_size;
    for _ in 0..header.n_vlrs {
        let length = usize::from(u16_at(bytes, at + 20));
        let data_at = at + 54;
        let Some(data) = bytes[..header.points_at].get(data_at..data_at + length) else {
            let expected = format!("a variable length record that ends before byte {}", header.points_at);
            return Err(fault(at, expected, format!("{length} bytes")));
        };
        if array::<14>(bytes, at + 2) == *b"laszip encoded" && u16_at(bytes, at + 18) == 22204 {
            return if length >= 34 {
                Ok((data_at, data))
            } else {
                Err(fault(data_at, "34 bytes or more in the LASzip record", format!("{length}")))
            };
        }
        at = data_at + length;
    }
    Err(fault(header.header_size, "a LASzip record in a compressed file", "none"))
}

/// Where the chunk table stands, once its length is known to fit.
fn chunk_table(bytes: &[u8], header: &Header) -> Result<usize, Fault> {
    let start = header.points_at + 8;
    let mut offset = i64::from_le_bytes(array(bytes, header.points_at));
    if offset < start as i64 {
        // Writers that could not go back put it at the end.
        offset = i64::from_le_bytes(array(bytes, bytes.len().saturating_sub(8)));
    }
    let table_at = usize::try_from(offset).ok().filter(|&t| t >= start && t.saturating_add(8) <= bytes.len());
    let Some(table_at) = table_at else {
        return Err(Fault::truncated(
            bytes.len(),
            format!("a chunk table between byte {start} and the end"),
            format!("one promised at byte {offset}"),
        ));
    };
    // Every chunk begins with one point as it is.
    let n_chunks = u32_at(bytes, table_at + 4) as usize;
    if n_chunks.saturating_mul(header.record_bytes) > table_at - start {
        let expected = format!("chunks that fit into {} bytes", table_at - start);
        return Err(fault(table_at + 4, expected, format!("{n_chunks} chunks")));
    }
    Ok(table_at)
}

fn check_layers(
    bytes: &[u8],
    start: usize,
    end: usize,
    point_bytes: usize,
    n_layers: usize,
) -> Result<(), Fault> {
    let mut at = start;
    while at < end {
        let sizes_at = at + point_bytes + 4;
        let body_at = sizes_at + 4 * n_layers;
        let layers: u64 = (0..n_layers).map(|l| u64::from(u32_at(bytes, sizes_at + 4 * l))).sum();
        if body_at > end || layers > (end - body_at) as u64 {
            let found = format!("{layers} bytes of layers");
            return Err(fault(at, format!("a chunk that ends before byte {end}"), found));
        }
        at = body_at + layers as usize;
    }
    Ok(())
}
