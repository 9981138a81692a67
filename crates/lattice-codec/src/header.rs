//! The head of a stream: what it holds, checked before anything is allocated for it.

use std::io::{Read, Write};

use crate::channel::{Channel, Kind, MAX_PALETTE, Scheme};
use crate::cloud::{Grid, MAX_ATTRIBUTES};
use crate::error::{CodecError, Result};
use crate::model::Model;
use crate::network;

/// First bytes of every stream; the line ends show a transfer as text.
pub(crate) const MAGIC: &[u8; 8] = b"\x89LAT\r\n\x1a\n";
/// Version of a stream whose geometry the contexts code alone.
const VERSION: u16 = 1;
/// Version of a stream that names its model, behind everything else: its number, then what tells which weights it needs.
const VERSION_WITH_MODEL: u16 = 2;
/// Number of [`Model::Learned`] in a stream.
const LEARNED: u8 = 1;
/// Most bytes of the head's body: enough for every attribute with its longest list.
const MAX_BODY: u32 = 64 << 20;

/// What a stream says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Where the voxels lie.
    pub grid: Grid,
    /// Smallest and largest voxel along each axis, inclusive; zeros without voxels.
    pub bounds: [[i32; 3]; 2],
    /// The voxel that the sensor stands in; a hint for the models, which matters for the size alone.
    pub sensor: [i32; 3],
    /// Voxels of all blocks.
    pub n_voxels: u64,
    /// Points that fell into them.
    pub n_points: u64,
    /// Blocks that follow.
    pub n_blocks: u32,
    /// Whether the number of points of each voxel is kept.
    pub has_counts: bool,
    /// How the geometry is coded.
    pub model: Model,
    pub(crate) channels: Vec<Channel>,
}

/// An attribute of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct AttributeInfo {
    /// Its name.
    pub name: String,
    /// Greatest difference between a value that comes back and the one that was compressed; 0 where nothing is lost.
    pub greatest_error: f64,
}

impl Header {
    /// Attributes of the stream, in its order.
    pub fn attributes(&self) -> Vec<AttributeInfo> {
        let info = |c: &Channel| AttributeInfo { name: c.name.clone(), greatest_error: c.greatest_error() };
        self.channels.iter().map(info).collect()
    }

    /// Bits that hold every coordinate as a signed number: the cube that all blocks lie in has `2^bits` voxels an edge.
    pub(crate) fn axis_bits(&self) -> u32 {
        let bits = |v: &i32| 33 - ((v ^ (v >> 31)) as u32).leading_zeros();
        self.bounds.iter().flatten().map(bits).max().unwrap_or(1)
    }

    pub(crate) fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mut body = Vec::new();
        body.extend(self.grid.voxel_size.to_le_bytes());
        self.grid.origin.iter().for_each(|v| body.extend(v.to_le_bytes()));
        self.bounds.iter().flatten().chain(&self.sensor).for_each(|v| body.extend(v.to_le_bytes()));
        body.extend(self.n_voxels.to_le_bytes());
        body.extend(self.n_points.to_le_bytes());
        body.extend(self.n_blocks.to_le_bytes());
        body.push(u8::from(self.has_counts));
        body.extend((self.channels.len() as u16).to_le_bytes());
        for c in &self.channels {
            body.push(c.name.len() as u8);
            body.extend(c.name.as_bytes());
            body.push(c.kind as u8);
            body.extend(c.low.to_le_bytes());
            body.extend(c.high.to_le_bytes());
            match &c.scheme {
                Scheme::Exact => body.push(0),
                Scheme::Step(step) => {
                    body.push(1);
                    body.extend(step.to_le_bytes());
                }
                Scheme::Palette(palette) => {
                    body.push(2);
                    body.extend((palette.len() as u16).to_le_bytes());
                    palette.iter().for_each(|v| body.extend(v.to_le_bytes()));
                }
                Scheme::Bits => body.push(3),
            }
        }
        // Streams of the contexts have the bytes that they always had.
        let version = match self.model {
            Model::Contexts => VERSION,
            Model::Learned => {
                body.push(LEARNED);
                body.extend(network::checksum().to_le_bytes());
                VERSION_WITH_MODEL
            }
        };
        let mut head = MAGIC.to_vec();
        head.extend(version.to_le_bytes());
        head.extend((body.len() as u32).to_le_bytes());
        head.extend(body);
        head.extend(crc32fast::hash(&head).to_le_bytes());
        out.write_all(&head)
    }

    pub(crate) fn read(input: &mut impl Read) -> Result<Self> {
        let mut head = read_exactly(input, MAGIC.len() + 6, "head")?;
        if head[..8] != *MAGIC {
            let found = head[..8].escape_ascii().to_string();
            return Err(CodecError::Damaged {
                place: "head".to_owned(),
                expected: "a compressed point cloud".to_owned(),
                found: format!("a file that begins with `{found}`"),
                fix: "name a file that `lattice compress` wrote",
            });
        }
        let version = u16::from_le_bytes([head[8], head[9]]);
        if ![VERSION, VERSION_WITH_MODEL].contains(&version) {
            return Err(CodecError::Damaged {
                place: "head".to_owned(),
                expected: format!("version {VERSION} or {VERSION_WITH_MODEL}"),
                found: format!("version {version}"),
                fix: "read it with the release that wrote it",
            });
        }
        let length = u32::from_le_bytes([head[10], head[11], head[12], head[13]]);
        if length > MAX_BODY {
            return Err(CodecError::damaged(
                "head",
                format!("at most {MAX_BODY} bytes"),
                format!("a length of {length}"),
            ));
        }
        head.extend(read_exactly(input, length as usize + 4, "head")?);
        let sum = head.split_off(head.len() - 4);
        check_sum("head", &[&head], &sum)?;
        let mut fields = Fields { rest: &head[14..], place: "head" };
        let mut header = Self::parse(&mut fields)?;
        if version == VERSION_WITH_MODEL {
            header.model = read_model(&mut fields)?;
        }
        if !fields.rest.is_empty() {
            return Err(CodecError::damaged("head", "its end", format!("{} more bytes", fields.rest.len())));
        }
        header.check()?;
        Ok(header)
    }

    fn parse(fields: &mut Fields<'_>) -> Result<Self> {
        let voxel_size = fields.f64()?;
        let origin = [fields.f64()?, fields.f64()?, fields.f64()?];
        let mut corner = || Ok([fields.i32()?, fields.i32()?, fields.i32()?]);
        let (bounds, sensor) = ([corner()?, corner()?], corner()?);
        let (n_voxels, n_points, n_blocks) = (fields.u64()?, fields.u64()?, fields.u32()?);
        let has_counts = fields.below(2, "0 or 1 for counts")? == 1;
        let n_channels = usize::from(fields.u16()?);
        if n_channels > MAX_ATTRIBUTES {
            return Err(CodecError::damaged(
                "head",
                format!("at most {MAX_ATTRIBUTES} attributes"),
                n_channels.to_string(),
            ));
        }
        let mut channels = Vec::new();
        for _ in 0..n_channels {
            let length = usize::from(fields.u8()?);
            let name = String::from_utf8(fields.take(length)?.to_vec())
                .map_err(|_| CodecError::damaged("head", "an attribute's name in UTF-8", "other bytes"))?;
            let kind = Kind::ALL[fields.below(Kind::ALL.len(), "the type of an attribute")?];
            let (low, high) = (fields.i64()?, fields.i64()?);
            let scheme = match fields.below(4, "the scheme of an attribute")? {
                0 => Scheme::Exact,
                1 => Scheme::Step(fields.f64()?),
                2 => {
                    let n = usize::from(fields.u16()?);
                    let values = (0..n.min(MAX_PALETTE + 1)).map(|_| fields.u64());
                    Scheme::Palette(values.collect::<Result<_>>()?)
                }
                _ => Scheme::Bits,
            };
            channels.push(Channel { name, kind, scheme, low, high });
        }
        let grid = Grid { voxel_size, origin };
        Ok(Self {
            grid,
            bounds,
            sensor,
            n_voxels,
            n_points,
            n_blocks,
            has_counts,
            model: Model::Contexts,
            channels,
        })
    }

    fn check(&self) -> Result<()> {
        let refuse = |expected: &str, found: String| Err(CodecError::damaged("head", expected, found));
        if self.grid.check("head").is_err() {
            return refuse("a finite voxel size above 0 and a finite origin", format!("{:?}", self.grid));
        }
        let [low, high] = self.bounds;
        if (0..3).any(|a| low[a] > high[a]) {
            return refuse("bounds from low to high", format!("{low:?} to {high:?}"));
        }
        let (voxels, points, blocks) = (self.n_voxels, self.n_points, self.n_blocks);
        let room = (0..3).map(|a| high[a].abs_diff(low[a]) as u128 + 1).product::<u128>();
        if u128::from(voxels) > room
            || points < voxels
            || (voxels == 0) != (blocks == 0)
            || u64::from(blocks) > voxels
        {
            let found =
                format!("{voxels} voxels, {points} points and {blocks} blocks in {low:?} to {high:?}");
            return refuse("counts that fit each other", found);
        }
        for (k, c) in self.channels.iter().enumerate() {
            let fits = match &c.scheme {
                Scheme::Exact => !c.kind.is_float(),
                Scheme::Step(step) => step.is_finite() && *step > 0.0,
                Scheme::Palette(palette) => {
                    c.kind.is_float()
                        && palette.len() <= MAX_PALETTE
                        && c.low >= 0
                        && (voxels == 0 || c.high < palette.len() as i64)
                }
                Scheme::Bits => c.kind.is_float(),
            };
            if !fits
                || c.low > c.high
                || c.name.is_empty()
                || self.channels[..k].iter().any(|b| b.name == c.name)
            {
                let name = c.name.escape_default();
                return refuse(
                    "attributes whose names, types and ranges fit",
                    format!("attribute {k} (`{name}`) with values {} to {}", c.low, c.high),
                );
            }
        }
        Ok(())
    }
}

/// The model of a stream, whose weights must be those of this release.
fn read_model(fields: &mut Fields<'_>) -> Result<Model> {
    let model = fields.u8()?;
    if model != LEARNED {
        return Err(CodecError::damaged("head", format!("{LEARNED} for the model"), model.to_string()));
    }
    let (weights, ours) = (fields.u32()?, network::checksum());
    if weights != ours {
        return Err(CodecError::Damaged {
            place: "head".to_owned(),
            expected: format!("the learned model {ours:08x}"),
            found: format!("{weights:08x}"),
            fix: "read it with the release that wrote it",
        });
    }
    Ok(Model::Learned)
}

/// Whether a checksum is that of the parts, one after the other.
pub(crate) fn check_sum(place: &str, parts: &[&[u8]], sum: &[u8]) -> Result<()> {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    let expected = hasher.finalize();
    if sum == expected.to_le_bytes() {
        return Ok(());
    }
    let found = sum.iter().rev().map(|b| format!("{b:02x}")).collect::<String>();
    Err(CodecError::damaged(place, format!("the checksum {expected:08x} of its bytes"), found))
}

/// Reads `n` bytes; memory grows with what is there, not with what is asked for.
pub(crate) fn read_exactly(input: &mut impl Read, n: usize, place: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(n.min(1 << 16));
    input
        .take(n as u64)
        .read_to_end(&mut bytes)
        .map_err(|source| CodecError::Io { op: "decompress", source })?;
    if bytes.len() < n {
        return Err(CodecError::damaged(
            place,
            format!("{n} bytes"),
            format!("the end after {}", bytes.len()),
        ));
    }
    Ok(bytes)
}

/// Fields of a head, one after the other.
pub(crate) struct Fields<'a> {
    pub(crate) rest: &'a [u8],
    pub(crate) place: &'a str,
}

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(n) else {
            return Err(CodecError::damaged(
                self.place,
                format!("{n} more bytes"),
                format!("{}", self.rest.len()),
            ));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    /// A byte that is a number below `n`.
    fn below(&mut self, n: usize, what: &str) -> Result<usize> {
        let found = usize::from(self.u8()?);
        if found < n {
            return Ok(found);
        }
        Err(CodecError::damaged(self.place, format!("{what} below {n}"), found.to_string()))
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    fn f64(&mut self) -> Result<f64> {
        Ok(f64::from_le_bytes(self.array()?))
    }
}
