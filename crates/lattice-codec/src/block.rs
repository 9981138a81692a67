//! One block: a run of voxels in canonical order, coded without any other.

use std::io::Read;

use lattice_core::canonical_cmp;

use crate::coder::{Decoder, Encoder};
use crate::error::{CodecError, Result};
use crate::geometry::{self, BlockShape, Coded};
use crate::header::{Fields, Header, check_sum, read_exactly};
use crate::residual;

/// Most voxels of a block: what bounds the memory of a reader (about 100 MB a block while it is coded).
pub const MAX_BLOCK_VOXELS: usize = 1 << 18;
/// Bytes of a block's head before the lengths of its sections: voxels, depth, place.
const HEAD_BYTES: usize = 4 + 1 + 12;
/// Most bytes of a section, a voxel: far more than any coder of this crate writes.
const MAX_SECTION_PER_VOXEL: u64 = 1024;

/// Voxels of one block and the whole numbers of its sections.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockData {
    pub(crate) voxels: Vec<[i32; 3]>,
    /// Counts first, where they are kept, then one a channel; three numbers a voxel for colours.
    pub(crate) numbers: Vec<Vec<i64>>,
}

/// Sections beside the geometry: numbers a voxel.
fn widths(header: &Header) -> Vec<usize> {
    let counts = header.has_counts.then_some(1);
    counts.into_iter().chain(header.channels.iter().map(|c| c.kind.channels())).collect()
}

/// A coordinate counted from the low corner of the cube of `2^bits` voxels around 0, and back.
fn to_cube(v: i32, bits: u32) -> u32 {
    (i64::from(v) + (1 << (bits - 1))) as u32
}

/// What the coders must know of a block.
fn shape(header: &Header, n_voxels: usize, depth: u32, corner: [u32; 3]) -> BlockShape {
    let half = 1i64 << (header.axis_bits() - 1);
    let sensor = [0, 1, 2].map(|a| i64::from(header.sensor[a]) + half - i64::from(corner[a]));
    BlockShape { depth, n_voxels, sensor }
}

/// The smallest aligned cube that holds a run of voxels in canonical order, as its depth and place; voxels become places in it.
fn enclose(voxels: &mut [[u32; 3]]) -> (u32, [u32; 3]) {
    let first = voxels[0];
    // In canonical order all bits above the highest that differs are equal.
    let differ = voxels.iter().flat_map(|v| (0..3).map(move |a| v[a] ^ first[a])).fold(0, |all, d| all | d);
    let depth = 32 - differ.leading_zeros();
    let place = first.map(|v| if depth == 32 { 0 } else { v >> depth });
    let corner = corner_of(depth, place);
    voxels.iter_mut().for_each(|v| *v = [0, 1, 2].map(|a| v[a] - corner[a]));
    (depth, place)
}

/// The low corner of a cube of `2^depth` voxels an edge.
fn corner_of(depth: u32, place: [u32; 3]) -> [u32; 3] {
    place.map(|p| if depth == 32 { 0 } else { p << depth })
}

/// A cloud as one block, for [`crate::observe()`]: its shape and its voxels in it.
pub(crate) fn whole(voxels: &[[i32; 3]], sensor: [i32; 3]) -> Result<(BlockShape, Vec<[u32; 3]>)> {
    const OP: &str = "observe";
    let n = voxels.len();
    if !(1..=MAX_BLOCK_VOXELS).contains(&n) {
        let expected = format!("1 to {MAX_BLOCK_VOXELS} voxels");
        return Err(CodecError::value(OP, expected, n.to_string(), "take a part of the cloud"));
    }
    let coord = |[x, y, z]: [i32; 3]| [0, x, y, z];
    if let Some(row) = (1..n).find(|&r| canonical_cmp(&coord(voxels[r - 1]), &coord(voxels[r])).is_ge()) {
        let expected = "distinct voxels in canonical order";
        return Err(CodecError::value(
            OP,
            expected,
            format!("{:?} at row {row}", voxels[row]),
            "sort them with `Occupied::of`",
        ));
    }
    // In the largest cube, which holds every coordinate.
    let mut inside: Vec<[u32; 3]> = voxels.iter().map(|v| v.map(|a| to_cube(a, 32))).collect();
    let (depth, place) = enclose(&mut inside);
    let corner = corner_of(depth, place);
    let sensor = [0, 1, 2].map(|a| i64::from(to_cube(sensor[a], 32)) - i64::from(corner[a]));
    Ok((BlockShape { depth, n_voxels: n, sensor }, inside))
}

/// The bytes of a block: its head, the lengths and bytes of its sections, a checksum of it all.
pub(crate) fn encode(header: &Header, mut block: BlockData) -> Vec<u8> {
    let bits = header.axis_bits();
    let mut voxels: Vec<[u32; 3]> = block.voxels.iter().map(|v| v.map(|a| to_cube(a, bits))).collect();
    let (depth, place) = enclose(&mut voxels);
    let corner = corner_of(depth, place);
    let (geometry, coded) =
        geometry::encode(header.model, shape(header, voxels.len(), depth, corner), &voxels);
    let mut sections = vec![geometry];
    if !block.numbers.is_empty() {
        let near = coded.neighbours();
        for (numbers, width) in block.numbers.iter_mut().zip(widths(header)) {
            let mut coder = Encoder::new();
            residual::code(&mut coder, &near.around(&coded.voxels), width, numbers);
            sections.push(coder.finish());
        }
    }
    let mut bytes = (voxels.len() as u32).to_le_bytes().to_vec();
    bytes.push(depth as u8);
    place.iter().for_each(|p| bytes.extend(p.to_le_bytes()));
    sections.iter().for_each(|s| bytes.extend((s.len() as u32).to_le_bytes()));
    sections.iter().for_each(|s| bytes.extend(s));
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// A block as it was read: checked against its checksum, not yet decoded.
#[derive(Debug)]
pub(crate) struct RawBlock {
    name: String,
    n_voxels: usize,
    depth: u32,
    corner: [u32; 3],
    sections: Vec<Vec<u8>>,
}

impl RawBlock {
    /// Reads block `number`; at most `left` voxels may come.
    pub(crate) fn read(header: &Header, input: &mut impl Read, number: u32, left: u64) -> Result<Self> {
        let name = format!("block {number}");
        let n_sections = 1 + widths(header).len();
        let head = read_exactly(input, HEAD_BYTES + 4 * n_sections, &name)?;
        let mut fields = Fields { rest: &head, place: &name };
        let n_voxels = fields.u32()?;
        let most = left.min(MAX_BLOCK_VOXELS as u64);
        if n_voxels == 0 || u64::from(n_voxels) > most {
            return Err(CodecError::damaged(&name, format!("1 to {most} voxels"), n_voxels.to_string()));
        }
        let (depth, bits) = (u32::from(fields.u8()?), header.axis_bits());
        let place = [fields.u32()?, fields.u32()?, fields.u32()?];
        let mut corner = [0; 3];
        for (corner, place) in corner.iter_mut().zip(place) {
            if depth > bits || u64::from(place) >= 1 << (bits - depth) {
                let expected = format!("a cube inside the one of 2^{bits} voxels");
                return Err(CodecError::damaged(
                    &name,
                    expected,
                    format!("place {place} of cubes of 2^{depth}"),
                ));
            }
            *corner = (u64::from(place) << depth) as u32;
        }
        let mut sections = Vec::with_capacity(n_sections);
        for _ in 0..n_sections {
            let length = fields.u32()?;
            let most = (u64::from(n_voxels) + 1) * MAX_SECTION_PER_VOXEL;
            if u64::from(length) > most {
                return Err(CodecError::damaged(
                    &name,
                    format!("sections of at most {most} bytes"),
                    length.to_string(),
                ));
            }
            sections.push(length as usize);
        }
        let sections =
            sections.into_iter().map(|n| read_exactly(input, n, &name)).collect::<Result<Vec<_>>>()?;
        let sum = read_exactly(input, 4, &name)?;
        let parts: Vec<&[u8]> =
            std::iter::once(head.as_slice()).chain(sections.iter().map(Vec::as_slice)).collect();
        check_sum(&name, &parts, &sum)?;
        Ok(Self { name, n_voxels: n_voxels as usize, depth, corner, sections })
    }

    pub(crate) fn n_voxels(&self) -> usize {
        self.n_voxels
    }

    /// Decodes the block. Time and memory are bounded by its number of voxels, 32 levels and its sections.
    pub(crate) fn decode(&self, header: &Header) -> Result<BlockData> {
        let damaged = |expected: String, found: String| CodecError::damaged(&self.name, expected, found);
        let shape = shape(header, self.n_voxels, self.depth, self.corner);
        let Some((coded, spent)) = geometry::decode(header.model, shape, &self.sections[0]) else {
            return Err(damaged(format!("{} voxels", self.n_voxels), "more".to_owned()));
        };
        if coded.voxels.len() != self.n_voxels || !spent {
            let found =
                format!("{}{}", coded.voxels.len(), if spent { "" } else { " and bytes behind them" });
            return Err(damaged(format!("{} voxels", self.n_voxels), found));
        }
        let half = 1i64 << (header.axis_bits() - 1);
        let [low, high] = header.bounds;
        let mut voxels = Vec::with_capacity(self.n_voxels);
        for v in &coded.voxels {
            let at = [0, 1, 2].map(|a| i64::from(self.corner[a]) + i64::from(v[a]) - half);
            if (0..3).any(|a| at[a] < i64::from(low[a]) || at[a] > i64::from(high[a])) {
                return Err(damaged(format!("voxels in {low:?} to {high:?}"), format!("{at:?}")));
            }
            voxels.push(at.map(|v| v as i32));
        }
        let mut numbers = Vec::new();
        if self.sections.len() > 1 {
            numbers = self.decode_numbers(header, &coded)?;
        }
        Ok(BlockData { voxels, numbers })
    }

    fn decode_numbers(&self, header: &Header, coded: &Coded) -> Result<Vec<Vec<i64>>> {
        let near = coded.neighbours();
        let counts = header.has_counts.then_some(("counts", 1, i64::from(u32::MAX)));
        let ranges =
            counts.into_iter().chain(header.channels.iter().map(|c| (c.name.as_str(), c.low, c.high)));
        let mut all = Vec::new();
        for ((width, section), (name, low, high)) in
            widths(header).into_iter().zip(&self.sections[1..]).zip(ranges)
        {
            let mut numbers = vec![0; self.n_voxels * width];
            let mut coder = Decoder::new(section);
            residual::code(&mut coder, &near.around(&coded.voxels), width, &mut numbers);
            if let Some(v) = numbers.iter().find(|v| !(low..=high).contains(*v)) {
                let expected = format!("values of `{}` from {low} to {high}", name.escape_default());
                return Err(CodecError::damaged(&self.name, expected, v.to_string()));
            }
            if !coder.is_spent() {
                let expected = format!("the end of `{}`", name.escape_default());
                return Err(CodecError::damaged(&self.name, expected, "more bytes"));
            }
            all.push(numbers);
        }
        Ok(all)
    }
}
