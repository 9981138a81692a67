//! From the named columns of a file to a cloud: which columns are positions, which are colours, which points to drop.

use std::collections::BTreeMap;

use crate::error::{Fault, Place};
use crate::scalar::Column;
use crate::{Attribute, PointCloud};

/// Columns a file may have; more is a broken header, not a point cloud.
pub(crate) const MAX_COLUMNS: usize = 4096;

/// Names of red, green and blue, lower case.
const COLOUR_NAMES: [[&str; 3]; 3] =
    [["red", "green", "blue"], ["r", "g", "b"], ["diffuse_red", "diffuse_green", "diffuse_blue"]];

/// Builds a cloud from columns of equal length. `subtract_min` moves the minimum corner to the origin.
pub(crate) fn assemble(
    mut columns: Vec<Column>,
    triangles: Vec<[u32; 3]>,
    subtract_min: bool,
) -> Result<PointCloud, Fault> {
    let mut axes = Vec::with_capacity(3);
    for axis in ["x", "y", "z"] {
        let Some(at) = columns.iter().position(|c| c.name.eq_ignore_ascii_case(axis)) else {
            let names: Vec<&str> = columns.iter().take(20).map(|c| c.name.as_str()).collect();
            return Err(Fault::new(
                Place::File,
                "columns x, y and z",
                format!("columns [{}]", names.join(", ")),
                "name the position columns x, y and z",
            ));
        };
        axes.push(columns.remove(at));
    }
    let n = axes[0].len();
    let positions = (0..n).map(|i| [axes[0].get(i), axes[1].get(i), axes[2].get(i)]).collect();
    drop(axes);
    let mut cloud = PointCloud { positions, triangles, ..PointCloud::default() };
    for names in COLOUR_NAMES {
        take_colours(&mut columns, names, &mut cloud.attributes);
    }
    for column in columns {
        let packed = column.name.eq_ignore_ascii_case("rgb") || column.name.eq_ignore_ascii_case("rgba");
        let (name, values) = if packed && n > 0 && column.bits(0).is_some() {
            let unpack = |i| {
                let [b, g, r, _] = column.bits(i).unwrap_or(0).to_le_bytes();
                [r, g, b]
            };
            ("rgb".to_owned(), Attribute::Rgb((0..n).map(unpack).collect()))
        } else {
            (column.name.clone(), column.into_attribute())
        };
        insert(&mut cloud.attributes, name, values);
    }
    finish(cloud, subtract_min)
}

/// Drops points that are not finite and, if asked, moves the minimum corner to the origin.
pub(crate) fn finish(mut cloud: PointCloud, subtract_min: bool) -> Result<PointCloud, Fault> {
    if cloud.positions.len() >= u32::MAX as usize {
        return Err(Fault::new(
            Place::File,
            "fewer than 2^32 - 1 points (points are numbered in 32 bits)",
            format!("{} points", cloud.positions.len()),
            "cut the scan into tiles",
        ));
    }
    cloud.drop_non_finite();
    if subtract_min && let Some((min, _)) = cloud.bounds() {
        for p in &mut cloud.positions {
            for a in 0..3 {
                p[a] -= min[a];
            }
        }
        cloud.origin = min;
    }
    Ok(cloud)
}

/// Inserts under a free name: the second `t` becomes `t_2`.
pub(crate) fn insert(attributes: &mut BTreeMap<String, Attribute>, name: String, values: Attribute) {
    let mut free = name.clone();
    let mut number = 2;
    while attributes.contains_key(&free) {
        free = format!("{name}_{number}");
        number += 1;
    }
    attributes.insert(free, values);
}

/// Replaces three colour columns by one attribute `rgb`, if all three are there.
fn take_colours(columns: &mut Vec<Column>, names: [&str; 3], attributes: &mut BTreeMap<String, Attribute>) {
    let find = |name: &str| columns.iter().position(|c| c.name.eq_ignore_ascii_case(name));
    let [Some(r), Some(g), Some(b)] = names.map(find) else { return };
    let channels = [&columns[r], &columns[g], &columns[b]];
    let n = channels[0].len();
    let float = channels.iter().any(|c| c.scalar.is_float());
    let max = channels.iter().flat_map(|c| (0..n).map(|i| c.get(i))).fold(0.0, f64::max);
    let scale = colour_scale(max, float);
    let rgb = (0..n).map(|i| channels.map(|c| (c.get(i) * scale).round_ties_even().clamp(0.0, 255.0) as u8));
    let rgb = Attribute::Rgb(rgb.collect());
    let mut gone = [r, g, b];
    gone.sort_unstable();
    for at in gone.into_iter().rev() {
        columns.remove(at);
    }
    insert(attributes, "rgb".to_owned(), rgb);
}

/// What to multiply colours by to reach 0..=255: they come as 0..1 floats, as bytes, or as 16-bit numbers.
pub(crate) fn colour_scale(max: f64, float: bool) -> f64 {
    if float && max <= 1.0 {
        255.0
    } else if max > 255.0 {
        255.0 / 65535.0
    } else {
        1.0
    }
}

/// Names for the columns after x, y, z where a file gives none: one is an intensity, three whole numbers of 0..=255
/// are a colour, four are an intensity and a colour; anything else is numbered from 3.
pub(crate) fn name_extra_columns(extra: &[Column]) -> Vec<String> {
    let byte =
        |c: &Column| (0..c.len()).all(|i| c.get(i).fract() == 0.0 && (0.0..=255.0).contains(&c.get(i)));
    let own = |names: &[&str]| names.iter().map(|s| (*s).to_owned()).collect();
    match extra.len() {
        1 => own(&["intensity"]),
        3 if extra.iter().all(byte) => own(&["red", "green", "blue"]),
        4 if extra[1..].iter().all(byte) => own(&["intensity", "red", "green", "blue"]),
        n => (3..3 + n).map(|i| format!("column_{i}")).collect(),
    }
}
