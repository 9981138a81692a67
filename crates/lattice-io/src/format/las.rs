//! LAS 1.0 to 1.4 and LAZ, through the crates `las` and `laz`.
//!
//! Those trust headers, so the header is checked against the file's size before they see it, points come in batches, and
//! a panic of theirs on a damaged stream becomes an error. Positions stay integers until the minimum is subtracted:
//! position = (X - X_min) * scale, rounded once, and origin = X_min * scale + offset.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::laz_layers;
use crate::error::{Fault, Place};
use crate::read::{FormatReader, Input, SharedBytes};
use crate::table::colour_scale;
use crate::{Attribute, PointCloud};

pub(crate) struct Las;

/// Points decoded at a time.
const BATCH: u64 = 50_000;
/// Points that one byte of a LAZ file may stand for; real files hold less than one point a byte, constant ones about 20.
const MAX_POINTS_PER_BYTE: u64 = 256;

const HELP: &str = "the file is damaged: copy it again, or repair it with a LAS tool";

/// What is needed of the public header block.
pub(super) struct Header {
    pub(super) header_size: usize,
    pub(super) points_at: usize,
    pub(super) n_vlrs: u64,
    pub(super) compressed: bool,
    pub(super) record_bytes: usize,
    pub(super) n_points: u64,
    scale: [f64; 3],
    offset: [f64; 3],
}

impl FormatReader for Las {
    fn name(&self) -> &'static str {
        "LAS/LAZ"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["las", "laz"]
    }

    fn sniff(&self, head: &[u8]) -> bool {
        head.starts_with(b"LASF")
    }

    fn read(&self, input: &Input<'_>) -> Result<PointCloud, Fault> {
        let bytes = input.bytes.as_ref();
        let header = check_header(bytes)?;
        if header.compressed {
            laz_layers::check(bytes, &header)?;
        }
        let shared = input.bytes.clone();
        let decoded = catch_unwind(AssertUnwindSafe(|| decode(shared, &header)));
        decoded.unwrap_or_else(|_| Err(broken(header.points_at, "data that cannot be unpacked")))
    }
}

fn broken(byte: usize, found: impl Into<String>) -> Fault {
    Fault::new(Place::Byte(byte as u64), "sound LAS/LAZ data", found, HELP)
}

/// The `N` bytes at `at`, which lie within the header that [`check_header`] has measured.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(found) = at.checked_add(N).and_then(|end| bytes.get(at..end)) {
        out.copy_from_slice(found);
    }
    out
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn check_header(bytes: &[u8]) -> Result<Header, Fault> {
    if !bytes.starts_with(b"LASF") {
        return Err(Fault::new(
            Place::Byte(0),
            "`LASF`",
            format!("{:02x?}", &bytes[..bytes.len().min(4)]),
            "this is not a LAS or LAZ file: check its name",
        ));
    }
    if bytes.len() < 227 {
        return Err(Fault::truncated(
            bytes.len(),
            "a header of 227 bytes or more",
            format!("{} bytes", bytes.len()),
        ));
    }
    let (major, minor) = (bytes[24], bytes[25]);
    if major != 1 || minor > 4 {
        return Err(Fault::new(Place::Byte(24), "version 1.0 to 1.4", format!("{major}.{minor}"), HELP));
    }
    let header_size = usize::from(u16_at(bytes, 94));
    let points_at = u32_at(bytes, 96) as usize;
    let n_vlrs = u64::from(u32_at(bytes, 100));
    let compressed = bytes[104] & 0x80 != 0;
    let format = bytes[104] & 0x3f;
    let record_bytes = usize::from(u16_at(bytes, 105));
    let least = if minor >= 4 { 375 } else { 227 };
    if header_size < least || header_size > points_at || points_at > bytes.len() {
        return Err(Fault::new(
            Place::Byte(94),
            format!("a header of {least} bytes or more, then points within the file's {} bytes", bytes.len()),
            format!("header size {header_size}, points at byte {points_at}"),
            HELP,
        ));
    }
    // Every record before the points has a header of 54 bytes.
    if n_vlrs * 54 > (points_at - header_size) as u64 {
        return Err(Fault::new(
            Place::Byte(100),
            format!("variable length records that fit before byte {points_at}"),
            format!("{n_vlrs} records"),
            HELP,
        ));
    }
    if minor >= 4 {
        check_extended_record(bytes)?;
    }
    const RECORD_BYTES: [usize; 11] = [20, 28, 26, 34, 57, 63, 30, 36, 38, 59, 67];
    if RECORD_BYTES.get(usize::from(format)).is_none_or(|&least| record_bytes < least) {
        return Err(Fault::new(
            Place::Byte(104),
            "a point format of 0 to 10 with records long enough for it",
            format!("format {format}, records of {record_bytes} bytes"),
            HELP,
        ));
    }
    let mut n_points = u64::from(u32_at(bytes, 107));
    if n_points == 0 && minor >= 4 {
        n_points = u64::from_le_bytes(array(bytes, 247));
    }
    let have = (bytes.len() - points_at) as u64;
    let fits = if compressed {
        n_points <= have.saturating_mul(MAX_POINTS_PER_BYTE) && n_points < u64::from(u32::MAX)
    } else {
        n_points.checked_mul(record_bytes as u64).is_some_and(|needed| needed <= have)
            && n_points < u64::from(u32::MAX)
    };
    if !fits {
        return Err(Fault::truncated(
            bytes.len(),
            format!("{n_points} points of {record_bytes} bytes"),
            format!("{have} bytes of {}data", if compressed { "packed " } else { "" }),
        ));
    }
    let axis = |at: usize| [0, 8, 16].map(|i| f64::from_le_bytes(array(bytes, at + i)));
    let (scale, offset) = (axis(131), axis(155));
    // Beyond 1e200 the products below could leave f64.
    let sane = |v: &f64| v.is_finite() && v.abs() < 1e200;
    if !scale.iter().all(|s| sane(s) && *s != 0.0) || !offset.iter().all(sane) {
        return Err(Fault::new(
            Place::Byte(131),
            "scales other than 0 and offsets, all finite",
            format!("scale {scale:?}, offset {offset:?}"),
            HELP,
        ));
    }
    Ok(Header { header_size, points_at, n_vlrs, compressed, record_bytes, n_points, scale, offset })
}

/// The first record behind the points must lie within the file: `las` reads it whole.
fn check_extended_record(bytes: &[u8]) -> Result<(), Fault> {
    let (start, n) = (u64::from_le_bytes(array(bytes, 235)), u32_at(bytes, 243));
    if start == 0 || n == 0 {
        return Ok(());
    }
    let size = bytes.len() as u64;
    let data_at = start.saturating_add(60);
    let length = if data_at <= size { u64::from_le_bytes(array(bytes, start as usize + 20)) } else { 0 };
    if data_at.saturating_add(length) > size {
        return Err(Fault::truncated(
            bytes.len(),
            format!("an extended record at byte {start} with {length} bytes of data"),
            format!("{size} bytes in all"),
        ));
    }
    Ok(())
}

/// Columns of the file, in its own integers.
#[derive(Default)]
struct Columns {
    raw: Vec<[i32; 3]>,
    intensity: Vec<u16>,
    return_number: Vec<u8>,
    number_of_returns: Vec<u8>,
    classification: Vec<u8>,
    scan_angle: Vec<f32>,
    user_data: Vec<u8>,
    point_source_id: Vec<u16>,
    gps_time: Vec<f64>,
    colour: Vec<[u16; 3]>,
    nir: Vec<u16>,
}

fn decode(bytes: SharedBytes, header: &Header) -> Result<PointCloud, Fault> {
    let mut reader =
        las::Reader::new(Cursor::new(bytes)).map_err(|e| broken(header.header_size, format!("`{e}`")))?;
    let mut columns = Columns::default();
    let mut batch = las::PointDataBuilder::new().for_header(reader.header()).build();
    let mut done = 0;
    while done < header.n_points {
        let n = reader.fill_points(BATCH.min(header.n_points - done), &mut batch).map_err(|e| {
            broken(
                header.points_at,
                format!("`{e}` between points {done} and {}", (done + BATCH).min(header.n_points)),
            )
        })?;
        if n == 0 {
            return Err(broken(header.points_at, format!("{done} points, {} promised", header.n_points)));
        }
        done += n;
        let xyz = batch.x_raw().zip(batch.y_raw()).zip(batch.z_raw());
        columns.raw.extend(xyz.map(|((x, y), z)| [x, y, z]));
        columns.intensity.extend(batch.intensity());
        columns.return_number.extend(batch.return_number());
        columns.number_of_returns.extend(batch.number_of_returns());
        columns.classification.extend(batch.classification());
        columns.scan_angle.extend(batch.scan_angle_degrees());
        columns.user_data.extend(batch.user_data());
        columns.point_source_id.extend(batch.point_source_id());
        columns.gps_time.extend(batch.gps_time().into_iter().flatten());
        columns.colour.extend(batch.rgb().into_iter().flatten().map(|(r, g, b)| [r, g, b]));
        columns.nir.extend(batch.nir().into_iter().flatten());
    }
    Ok(columns.into_cloud(header))
}

impl Columns {
    fn into_cloud(self, header: &Header) -> PointCloud {
        let n = self.raw.len();
        let mut min = [i32::MAX; 3];
        for p in &self.raw {
            for a in 0..3 {
                min[a] = min[a].min(p[a]);
            }
        }
        let mut cloud = PointCloud::default();
        if n > 0 {
            let steps = header.scale.map(Step::new);
            // A negative scale makes the smallest integer the largest coordinate: mirror it.
            let base: [i64; 3] = std::array::from_fn(|a| {
                let largest = || self.raw.iter().map(|p| p[a]).max().unwrap_or(0);
                i64::from(if header.scale[a] < 0.0 { largest() } else { min[a] })
            });
            cloud.origin = std::array::from_fn(|a| steps[a].times(base[a]) + header.offset[a]);
            let relative = |p: &[i32; 3]| std::array::from_fn(|a| steps[a].times(i64::from(p[a]) - base[a]));
            cloud.positions = self.raw.iter().map(relative).collect();
        }
        let largest = self.colour.iter().flatten().copied().max().unwrap_or(0);
        let scale = colour_scale(f64::from(largest), false);
        let rgb = self.colour.iter().map(|c| c.map(|v| (f64::from(v) * scale).round() as u8)).collect();
        for (name, values) in [
            ("intensity", Attribute::U16(self.intensity)),
            ("return_number", Attribute::U8(self.return_number)),
            ("number_of_returns", Attribute::U8(self.number_of_returns)),
            ("classification", Attribute::U8(self.classification)),
            ("scan_angle", Attribute::F32(self.scan_angle)),
            ("user_data", Attribute::U8(self.user_data)),
            ("point_source_id", Attribute::U16(self.point_source_id)),
            ("gps_time", Attribute::F64(self.gps_time)),
            ("rgb", Attribute::Rgb(rgb)),
            ("nir", Attribute::U16(self.nir)),
        ] {
            if values.len() == n {
                cloud.attributes.insert(name.to_owned(), values);
            }
        }
        cloud
    }
}

/// Multiplies integers by a scale such as 0.01 with one rounding: 0.01 is no f64, but its reciprocal 100 is, so whole
/// multiples of 100 come out as whole numbers.
#[derive(Clone, Copy)]
enum Step {
    DivideBy(f64),
    MultiplyBy(f64),
}

impl Step {
    fn new(scale: f64) -> Self {
        let whole = (1.0 / scale).round();
        // 1/whole is the f64 nearest to the true step exactly when it is the stored one.
        if whole != 0.0 && whole.abs() < 1e15 && 1.0 / whole == scale {
            Self::DivideBy(whole)
        } else {
            Self::MultiplyBy(scale)
        }
    }

    fn times(self, n: i64) -> f64 {
        match self {
            Self::DivideBy(d) => n as f64 / d,
            Self::MultiplyBy(s) => n as f64 * s,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_multiples_of_a_decimal_scale_are_whole() {
        let step = Step::new(0.01);
        assert!((0..1_000_000).all(|n| step.times(n * 100) == n as f64));
        assert_eq!(Step::new(0.25).times(3), 0.75);
        assert_eq!(Step::new(3.0).times(3), 9.0);
    }
}
