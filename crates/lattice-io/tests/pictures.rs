//! Pictures: any cloud gives one, the same every time, and the colours are where they should be.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use lattice_io::{
    Attribute, ColourBy, PointCloud, Ramp, ReadOptions, RenderOptions, Up, View, class_colour, read, render,
    render_png,
};
use proptest::prelude::*;
use rstest::rstest;

fn small() -> RenderOptions {
    RenderOptions::default().with_size(320, 160)
}

/// A flat square of side 10 at height 0 with a tower of side 2 and height 4 in its middle.
fn tower() -> PointCloud {
    let mut positions = Vec::new();
    let mut label = Vec::new();
    for x in -50..=50 {
        for y in -50..=50 {
            let inside = i32::max(x, -x) <= 10 && i32::max(y, -y) <= 10;
            positions.push([f64::from(x) * 0.1, f64::from(y) * 0.1, if inside { 4.0 } else { 0.0 }]);
            label.push(if inside { 5 } else { 1 });
        }
    }
    let rgb = Attribute::Rgb(vec![[250, 10, 10]; positions.len()]);
    let attributes = [("label".to_owned(), Attribute::U8(label)), ("rgb".to_owned(), rgb)].into();
    PointCloud { positions, attributes, ..PointCloud::default() }
}

/// How far apart two colours are, brightness left out.
fn hue_distance(a: [u8; 3], b: [u8; 3]) -> f64 {
    let unit = |c: [u8; 3]| {
        let length = c.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt().max(1.0);
        c.map(|v| f64::from(v) / length)
    };
    let (a, b) = (unit(a), unit(b));
    (0..3).map(|i| (a[i] - b[i]).abs()).sum()
}

#[test]
fn classes_stand_where_they_belong_in_the_view_from_above() {
    let picture = render(&tower(), &small().with_view(View::Top)).unwrap();
    let at = |x: usize, y: usize| picture.pixels[y * picture.width + x];
    assert!(hue_distance(at(160, 80), class_colour(5)) < 0.15, "{:?}", at(160, 80));
    assert!(hue_distance(at(200, 110), class_colour(1)) < 0.15, "{:?}", at(200, 110));
    // The square fills the height, so the sides show the background.
    assert!(at(20, 60).iter().all(|&v| v < 50));
}

#[test]
fn own_colours_win_where_asked_for() {
    let picture = render(&tower(), &small().with_view(View::Top).with_colour(ColourBy::Rgb)).unwrap();
    assert!(hue_distance(picture.pixels[80 * 320 + 160], [250, 10, 10]) < 0.1);
}

#[rstest]
fn any_cloud_gives_a_picture(
    #[values(View::Both, View::Top, View::Perspective)] view: View,
    #[values(0, 1, 2, 3, 4, 5, 6)] kind: usize,
    #[values(Up::Auto, Up::Y)] up: Up,
) {
    let positions: Vec<[f64; 3]> = match kind {
        0 => vec![],
        1 => vec![[1e6, -1e6, 3.0]],
        2 => vec![[0.0; 3]; 100],
        3 => (0..100).map(|i| [f64::from(i), 0.0, 0.0]).collect(),
        4 => (0..100).map(|i| [0.0, 0.0, f64::from(i) * 1e-9]).collect(),
        5 => (0..100).map(|i| [f64::from(i) * 1e150, 1e300, -f64::from(i)]).collect(),
        _ => vec![[f64::NAN, f64::INFINITY, 0.0]; 5],
    };
    let n = positions.len();
    let mut cloud = PointCloud { positions, ..PointCloud::default() };
    cloud.attributes.insert("intensity".into(), Attribute::F32(vec![f32::NAN; n]));
    let options = small().with_view(view).with_up(up).with_ramp(Ramp::Viridis).with_title("a caption");
    let picture = render(&cloud, &options).unwrap();
    assert_eq!(picture.pixels.len(), 320 * 160);
    render(&cloud, &options.with_colour(ColourBy::Attribute("intensity".into()))).unwrap();
    cloud.triangles = if n > 2 { vec![[0, 1, 2], [0, 0, 0]] } else { vec![] };
    render(&cloud, &small().with_view(view)).unwrap();
}

#[test]
fn a_mesh_is_filled() {
    let mut cloud = PointCloud {
        positions: vec![[0.0, 0.0, 0.0], [10.0, 0.0, 0.0], [10.0, 0.0, 10.0], [0.0, 0.0, 10.0]],
        triangles: vec![[0, 1, 2], [0, 2, 3]],
        ..PointCloud::default()
    };
    cloud.attributes.insert("rgb".into(), Attribute::Rgb(vec![[10, 200, 10]; 4]));
    let picture = render(&cloud, &small().with_view(View::Top).with_up(Up::Y)).unwrap();
    for (x, y) in [(130, 60), (160, 80), (190, 100)] {
        assert!(hue_distance(picture.pixels[y * 320 + x], [10, 200, 10]) < 0.2);
    }
}

#[rstest]
#[case::attribute(small().with_colour(ColourBy::Attribute("warmth".into())), "attributes [label, rgb]")]
#[case::classes(small().with_colour(ColourBy::Classes { attribute: "kind".into(), names: vec![] }), "`kind`")]
#[case::no_size(small().with_size(0, 100), "16 to 16384")]
#[case::huge(small().with_size(100, usize::MAX), "16 to 16384")]
fn what_cannot_be_drawn_is_refused(#[case] options: RenderOptions, #[case] says: &str) {
    let folder = tempfile::tempdir().unwrap();
    let error = render_png(folder.path().join("a.png"), &tower(), &options).unwrap_err().to_string();
    assert!(error.contains(says) && error.contains("a.png"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn pictures_are_the_same_every_time_and_sound_png_files() {
    let folder = tempfile::tempdir().unwrap();
    let options = small().with_unit("m").by_class("label", ["a", "ground"]);
    let paths = ["a.png", "b.png"].map(|name| folder.path().join(name));
    paths.iter().for_each(|p| render_png(p, &tower(), &options).unwrap());
    let bytes = paths.map(|p| std::fs::read(p).unwrap());
    assert_eq!(bytes[0], bytes[1]);
    let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes[0])).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    let flat: Vec<u8> = render(&tower(), &options).unwrap().pixels.into_iter().flatten().collect();
    assert_eq!(pixels, flat);
}

#[test]
fn a_scan_with_labels_is_drawn() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/noncommercial"));
    if !folder.is_dir() {
        println!("skipped: no scan folder");
        return;
    }
    let labels = folder.join("outdoor_semantickitti_000700_label.npy");
    let options = ReadOptions::default().with_labels(labels);
    let cloud = read(folder.join("outdoor_semantickitti_000700_xyz.npy"), &options).unwrap();
    let picture = render(&cloud, &small()).unwrap();
    // Most of the picture is not background.
    let bright = picture.pixels.iter().filter(|p| p.iter().any(|&v| v > 70)).count();
    assert!(bright > 320 * 160 / 10, "{bright}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn no_positions_or_sizes_panic(
        positions in prop::collection::vec(any::<[f64; 3]>(), 0..40),
        size in (16usize..200, 16usize..200),
        point in prop::option::of(any::<f64>()),
    ) {
        let cloud = PointCloud { positions, ..PointCloud::default() };
        let mut options = RenderOptions::default().with_size(size.0, size.1);
        options.point_size = point;
        prop_assert_eq!(render(&cloud, &options).unwrap().pixels.len(), size.0 * size.1);
    }
}
