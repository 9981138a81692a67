//! Whole streams: writing all blocks of a cloud, and reading them one batch after the other.

use std::io::{Read, Write};

use lattice_core::canonical_cmp;
use rayon::prelude::*;

use crate::block::{self, BlockData, MAX_BLOCK_VOXELS, RawBlock};
use crate::channel::Channel;
use crate::cloud::{Attribute, Grid, VoxelCloud};
use crate::error::{CodecError, Result};
use crate::header::Header;
use crate::model::Model;

/// How a cloud is compressed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CompressOptions {
    /// Points that fell into the voxels; only written down. At least the number of voxels.
    pub n_points: u64,
    /// Step that float attributes are rounded to; 0 keeps every bit. Integers and colours are rounded where it is above 1.
    pub attribute_step: f64,
    /// The voxel that the sensor stands in. A wrong one costs size, nothing else.
    pub sensor: [i32; 3],
    /// Voxels a block, 1 to [`MAX_BLOCK_VOXELS`]. Smaller blocks need less memory and cost size: each learns anew.
    pub block_voxels: usize,
    /// How the geometry is coded.
    pub model: Model,
}

impl Default for CompressOptions {
    fn default() -> Self {
        Self {
            n_points: 0,
            attribute_step: 0.0,
            sensor: [0; 3],
            block_voxels: MAX_BLOCK_VOXELS,
            model: Model::default(),
        }
    }
}

/// Writes a cloud as a stream; `progress` hears the number of voxels after each batch of blocks.
///
/// What comes back from [`Reader`] has the same voxels in the same order, the same counts, and attributes that differ by no more than
/// [`Header::attributes`] says. Blocks are coded on the threads of the current pool, a batch at a time; the bytes do not depend on how
/// many there are. Returns the header and the number of bytes.
///
/// # Errors
/// [`CodecError::Value`] for voxels that are not distinct and in canonical order, attributes that are not one a voxel, or options out of
/// range; [`CodecError::Io`] when `out` refuses.
pub fn compress(
    cloud: &VoxelCloud,
    grid: Grid,
    options: &CompressOptions,
    out: &mut impl Write,
    mut progress: impl FnMut(u64),
) -> Result<(Header, u64)> {
    const OP: &str = "compress";
    grid.check(OP)?;
    cloud.check(OP)?;
    let most = options.block_voxels;
    if !(1..=MAX_BLOCK_VOXELS).contains(&most) {
        let expected = format!("blocks of 1 to {MAX_BLOCK_VOXELS} voxels");
        return Err(CodecError::value(OP, expected, most.to_string(), "leave the size of blocks alone"));
    }
    let step = options.attribute_step;
    if !step.is_finite() || step < 0.0 {
        return Err(CodecError::value(
            OP,
            "a finite attribute step of 0 or more",
            step.to_string(),
            "use 0 to lose nothing",
        ));
    }
    let n = cloud.voxels.len();
    let n_blocks = n.div_ceil(most);
    let Ok(blocks) = u32::try_from(n_blocks) else {
        return Err(CodecError::value(
            OP,
            "fewer than 2^32 blocks",
            n_blocks.to_string(),
            "use larger blocks",
        ));
    };
    let mut channels = Vec::new();
    let mut numbers: Vec<(Vec<i64>, usize)> = Vec::new();
    if let Some(counts) = &cloud.counts {
        numbers.push((counts.iter().map(|&c| i64::from(c)).collect(), 1));
    }
    for attribute in &cloud.attributes {
        let (channel, values) = Channel::of(OP, &attribute.name, &attribute.values, step)?;
        numbers.push((values, channel.kind.channels()));
        channels.push(channel);
    }
    let bounds = cloud.voxels.iter().fold(None, |bounds: Option<[[i32; 3]; 2]>, v| {
        let [low, high] = bounds.unwrap_or([*v; 2]);
        Some([[0, 1, 2].map(|a| low[a].min(v[a])), [0, 1, 2].map(|a| high[a].max(v[a]))])
    });
    let header = Header {
        grid,
        bounds: bounds.unwrap_or_default(),
        sensor: options.sensor,
        n_voxels: n as u64,
        n_points: options.n_points.max(n as u64),
        n_blocks: blocks,
        has_counts: cloud.counts.is_some(),
        model: options.model,
        channels,
    };
    let refuse = |source| CodecError::Io { op: OP, source };
    let mut counted = Counted { out, bytes: 0 };
    header.write(&mut counted).map_err(refuse)?;
    // Blocks of equal size, so that none is small and learns little.
    let bound = |k: usize| (k as u128 * n as u128 / n_blocks.max(1) as u128) as usize;
    let code = |k: usize| {
        let rows = bound(k)..bound(k + 1);
        let part =
            |(values, width): &(Vec<i64>, usize)| values[rows.start * width..rows.end * width].to_vec();
        let numbers = numbers.iter().map(part).collect();
        block::encode(&header, BlockData { voxels: cloud.voxels[rows].to_vec(), numbers })
    };
    let batch = rayon::current_num_threads().max(1);
    for first in (0..n_blocks).step_by(batch) {
        let last = (first + batch).min(n_blocks);
        let coded: Vec<Vec<u8>> = (first..last).into_par_iter().map(code).collect();
        coded.iter().try_for_each(|block| counted.write_all(block)).map_err(refuse)?;
        progress(bound(last) as u64);
    }
    counted.flush().map_err(refuse)?;
    let bytes = counted.bytes;
    Ok((header, bytes))
}

/// Counts what passes.
struct Counted<'a, W> {
    out: &'a mut W,
    bytes: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// What a reader takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most voxels of a stream. A stream of a few bytes may stand for very many voxels; this bounds what a reader makes of it.
    pub max_voxels: u64,
}

impl Default for Limits {
    /// 2^28 voxels, 268 million: 3 GB of coordinates.
    fn default() -> Self {
        Self { max_voxels: 1 << 28 }
    }
}

/// Reads a stream a batch of blocks at a time: memory is bounded by the blocks in flight, one a thread, whatever the stream says.
pub struct Reader<R> {
    input: R,
    header: Header,
    next_block: u32,
    voxels_left: u64,
    /// The last voxel so far: the next one must come after it.
    last: Option<[i32; 3]>,
}

impl<R: Read> Reader<R> {
    /// Reads and checks the head of a stream.
    ///
    /// # Errors
    /// [`CodecError::Damaged`] for another kind of file, another version or a damaged head; [`CodecError::Limit`] for more voxels than
    /// `limits` allows; [`CodecError::Io`] when `input` refuses.
    pub fn open(mut input: R, limits: Limits) -> Result<Self> {
        let header = Header::read(&mut input)?;
        if header.n_voxels > limits.max_voxels {
            return Err(CodecError::Limit {
                place: "head".to_owned(),
                limit: limits.max_voxels,
                what: "voxels",
                found: header.n_voxels,
                fix: "raise the limit if the stream can be trusted",
            });
        }
        Ok(Self { input, voxels_left: header.n_voxels, header, next_block: 0, last: None })
    }

    /// What the stream says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The voxels of the next blocks, as many as there are threads; `None` after the last, when the input ends there too.
    ///
    /// # Errors
    /// [`CodecError::Damaged`] naming the block: a wrong checksum, a truncated block, more or fewer voxels than declared, voxels out of
    /// order or out of bounds, values out of range, bytes after the last block. [`CodecError::Io`] when the input refuses.
    pub fn next_batch(&mut self) -> Result<Option<VoxelCloud>> {
        let mut raw = Vec::new();
        while self.next_block < self.header.n_blocks && raw.len() < rayon::current_num_threads().max(1) {
            let block = RawBlock::read(&self.header, &mut self.input, self.next_block, self.voxels_left)?;
            self.voxels_left -= block.n_voxels() as u64;
            self.next_block += 1;
            raw.push(block);
        }
        if self.next_block == self.header.n_blocks {
            self.check_end()?;
        }
        if raw.is_empty() {
            return Ok(None);
        }
        let first = self.next_block - raw.len() as u32;
        // In order, so that the first fault is the one reported.
        let blocks: Vec<Result<BlockData>> = raw.par_iter().map(|block| block.decode(&self.header)).collect();
        let mut voxels = Vec::new();
        let mut numbers: Vec<Vec<i64>> = Vec::new();
        for (block, number) in blocks.into_iter().zip(first..) {
            let block = block?;
            self.check_order(&block, number)?;
            voxels.extend(block.voxels);
            numbers.resize(block.numbers.len(), Vec::new());
            numbers.iter_mut().zip(block.numbers).for_each(|(all, part)| all.extend(part));
        }
        let mut numbers = numbers.into_iter();
        // Inside 1..=u32::MAX by the block's check.
        let counts = if self.header.has_counts { numbers.next() } else { None };
        let counts = counts.map(|c| c.into_iter().map(|v| v as u32).collect());
        let attribute = |(channel, numbers): (&Channel, Vec<i64>)| Attribute {
            name: channel.name.clone(),
            values: channel.values(&numbers),
        };
        let attributes = self.header.channels.iter().zip(numbers).map(attribute).collect();
        Ok(Some(VoxelCloud { voxels, counts, attributes }))
    }

    /// Blocks follow each other in canonical order: together their voxels are distinct.
    fn check_order(&mut self, block: &BlockData, number: u32) -> Result<()> {
        let coord = |[x, y, z]: [i32; 3]| [0, x, y, z];
        if let (Some(last), Some(first)) = (self.last, block.voxels.first())
            && canonical_cmp(&coord(last), &coord(*first)).is_ge()
        {
            let place = format!("block {number}");
            return Err(CodecError::damaged(
                place,
                format!("voxels after {last:?} in canonical order"),
                format!("{first:?}"),
            ));
        }
        self.last = block.voxels.last().copied();
        Ok(())
    }

    fn check_end(&mut self) -> Result<()> {
        if self.voxels_left > 0 {
            let n = self.header.n_voxels;
            return Err(CodecError::damaged(
                "blocks",
                format!("{n} voxels"),
                format!("{}", n - self.voxels_left),
            ));
        }
        let mut byte = [0];
        let more =
            self.input.read(&mut byte).map_err(|source| CodecError::Io { op: "decompress", source })?;
        if more > 0 {
            return Err(CodecError::damaged("the end", "nothing after the last block", "more bytes"));
        }
        Ok(())
    }
}

/// Reads a whole stream; `progress` hears the number of voxels after each batch of blocks.
///
/// # Errors
/// As [`Reader::open`] and [`Reader::next_batch`].
pub fn decompress(
    input: impl Read,
    limits: Limits,
    mut progress: impl FnMut(u64),
) -> Result<(Header, VoxelCloud)> {
    let mut reader = Reader::open(input, limits)?;
    let channels = reader.header.channels.iter();
    let empty = channels.map(|c| Attribute { name: c.name.clone(), values: c.values(&[]) }).collect();
    let mut cloud =
        VoxelCloud { voxels: Vec::new(), counts: reader.header.has_counts.then(Vec::new), attributes: empty };
    while let Some(batch) = reader.next_batch()? {
        cloud.append(batch);
        progress(cloud.voxels.len() as u64);
    }
    Ok((reader.header, cloud))
}
