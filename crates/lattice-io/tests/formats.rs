//! Each format from small bytes made by hand, and round trips through our own writers.
#![allow(clippy::unwrap_used, reason = "tests")]

mod samples;

use lattice_io::{
    Attribute, Format, NpyArray, PlyFormat, PointCloud, ReadOptions, read, read_from_bytes, read_npy_array,
    write_npy, write_npy_array, write_npz, write_ply,
};
use proptest::prelude::*;
use rstest::rstest;
use samples::{f32s, npy, npz};

fn parse(name: &str, bytes: impl Into<Vec<u8>>) -> PointCloud {
    read_from_bytes(name, bytes.into(), &ReadOptions::default()).unwrap()
}

#[rstest]
fn ply_reads_alike_in_every_encoding(
    #[values("ascii", "binary_little_endian", "binary_big_endian")] encoding: &str,
) {
    let cloud = parse("a.ply", samples::ply(encoding));
    // It has faces, so its minimum corner moves to the origin.
    assert_eq!(cloud.origin, [0.0, 0.1, -3.0]);
    assert_eq!(cloud.positions[0], [1.5, 1.9, 0.0]);
    assert_eq!(cloud.positions[1], [0.0, 0.0, 7.0]);
    assert_eq!(cloud.attributes["rgb"], Attribute::Rgb(vec![[255, 128, 0], [1, 2, 3], [9; 3], [9; 3]]));
    assert_eq!(cloud.attributes["label"], Attribute::I32(vec![-1, 5, 6, 7]));
    assert_eq!(cloud.attributes.len(), 2);
    assert_eq!(cloud.triangles, [[0, 1, 2], [0, 1, 2], [0, 2, 3]]);
}

#[test]
fn ply_without_faces_keeps_its_coordinates() {
    let text = "ply\r\nformat ascii 1.0\r\nelement vertex 1\r\nproperty float x\r\nproperty float y\r\nproperty float z\r\nend_header\r\n5 6 7\r\n";
    let cloud = parse("a.ply", text);
    assert_eq!((cloud.positions[0], cloud.origin), ([5.0, 6.0, 7.0], [0.0; 3]));
}

#[test]
fn triangles_of_dropped_points_go_with_them() {
    let text = "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n\
                property uchar label\nelement face 2\nproperty list uchar int vertex_index\nend_header\n\
                nan 0 0 1\n0 0 0 2\n1 0 0 3\n0 1 0 4\n3 0 1 2\n3 1 2 3\n";
    let cloud = parse("a.ply", text);
    assert_eq!((cloud.len(), cloud.dropped), (3, 1));
    assert_eq!(cloud.triangles, [[0, 1, 2]]);
    assert_eq!(cloud.attributes["label"], Attribute::U8(vec![2, 3, 4]));
}

#[rstest]
fn pcd_reads_alike_in_every_encoding(#[values("ascii", "binary", "binary_compressed")] data: &str) {
    let cloud = parse("a.pcd", samples::pcd(data));
    assert_eq!(cloud.positions, [[1.0, 2.0, 3.0], [-1.0, 0.5, 0.25]]);
    assert_eq!((cloud.dropped, cloud.origin), (1, [0.0; 3]));
    assert_eq!(cloud.attributes["rgb"], Attribute::Rgb(vec![[255, 128, 1]; 2]));
    assert_eq!(cloud.attributes["label"], Attribute::U16(vec![7, 65535]));
    assert_eq!(cloud.attributes["normal_2"], Attribute::F32(vec![1.0; 2]));
    assert_eq!(cloud.attributes.len(), 5);
}

#[rstest]
fn las_and_laz_read_alike(#[values(0, 1, 2, 3, 6, 7, 8)] format: u8, #[values(false, true)] packed: bool) {
    let cloud = parse(if packed { "a.laz" } else { "a.las" }, samples::las(format, packed, 60_000));
    assert_eq!(cloud.len(), 60_000);
    let depth = 59_999.0 * 0.25;
    assert_eq!(cloud.origin, [100.0, 200.0 - depth, 300.0]);
    for (i, p) in cloud.positions.iter().enumerate() {
        let d = i as f64 * 0.25;
        assert_eq!(*p, [d, depth - d, 2.0 * d]);
    }
    let Attribute::U16(intensity) = &cloud.attributes["intensity"] else { panic!() };
    assert_eq!(intensity[59_999], 59_999);
    assert_eq!(cloud.attributes.contains_key("gps_time"), format != 0 && format != 2);
    if [2, 3, 7, 8].contains(&format) {
        assert_eq!(cloud.attributes["rgb"], Attribute::Rgb(vec![[255, 7, 0]; 60_000]));
    }
    assert_eq!(cloud.attributes.contains_key("nir"), format == 8);
}

#[test]
fn bin_has_four_columns_and_pcd_bin_five() {
    let values: Vec<f32> = (0..20).map(|i| i as f32).collect();
    let four = parse("a.bin", f32s(&values));
    assert_eq!((four.len(), four.positions[4]), (5, [16.0, 17.0, 18.0]));
    assert_eq!(four.attributes["intensity"], Attribute::F32(vec![3.0, 7.0, 11.0, 15.0, 19.0]));
    let five = parse("a.PCD.bin", f32s(&values));
    assert_eq!(five.attributes["ring"], Attribute::U8(vec![4, 9, 14, 19]));
    let ten = read_from_bytes("a.pcd.bin", f32s(&values), &ReadOptions::default().with_columns(10)).unwrap();
    assert_eq!((ten.len(), ten.attributes["column_9"].get(1)), (2, 19.0));
    let dropped = parse("a.bin", f32s(&[0.0, f32::INFINITY, 0.0, 1.0, 1.0, 2.0, 3.0, 4.0]));
    assert_eq!((dropped.dropped, dropped.attributes["intensity"].get(0)), (1, 4.0));
}

fn cells(values: [f64; 6], encode: impl Fn(f64) -> Vec<u8>) -> Vec<u8> {
    values.into_iter().flat_map(encode).collect()
}

#[rstest]
#[case("'<f4'", |v: f64| (v as f32).to_le_bytes().to_vec())]
#[case("'>f4'", |v: f64| (v as f32).to_be_bytes().to_vec())]
#[case("'<f8'", |v: f64| v.to_le_bytes().to_vec())]
#[case("'>f8'", |v: f64| v.to_be_bytes().to_vec())]
#[case("'<f2'", |v: f64| half::f16::from_f64(v).to_le_bytes().to_vec())]
#[case("'>f2'", |v: f64| half::f16::from_f64(v).to_be_bytes().to_vec())]
#[case("'|i1'", |v: f64| (v as i8).to_le_bytes().to_vec())]
#[case("'<i2'", |v: f64| (v as i16).to_le_bytes().to_vec())]
#[case("'>i4'", |v: f64| (v as i32).to_be_bytes().to_vec())]
#[case("'<i8'", |v: f64| (v as i64).to_le_bytes().to_vec())]
fn npy_takes_every_number_type_and_order(#[case] descr: &str, #[case] encode: fn(f64) -> Vec<u8>) {
    let expected = [[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]];
    let c_order = npy(descr, false, "(2, 3)", &cells([1.0, -2.0, 3.0, -4.0, 5.0, -6.0], encode));
    assert_eq!(parse("a.npy", c_order).positions, expected);
    let fortran = npy(descr, true, "(2, 3)", &cells([1.0, -4.0, -2.0, 5.0, 3.0, -6.0], encode));
    assert_eq!(parse("a.npy", fortran).positions, expected);
}

#[test]
fn npy_extra_columns_and_named_fields_become_attributes() {
    let four = npy("'<f4'", false, "(1, 4)", &f32s(&[1.0, 2.0, 3.0, 0.5]));
    assert_eq!(parse("a.npy", four).attributes["intensity"], Attribute::F32(vec![0.5]));
    let six = npy("'<f4'", false, "(1, 6)", &f32s(&[1.0, 2.0, 3.0, 9.0, 8.0, 7.0]));
    assert_eq!(parse("a.npy", six).attributes["rgb"], Attribute::Rgb(vec![[9, 8, 7]]));
    let mut row = f32s(&[1.0, 2.0, 3.0]);
    row.extend([0, 0, 7]);
    let fields = "[('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('', '|V2'), ('label', '|u1')]";
    let cloud = parse("a.npy", npy(fields, false, "(1,)", &row));
    assert_eq!(cloud.attributes["label"], Attribute::U8(vec![7]));
}

#[test]
fn npz_finds_positions_and_attributes() {
    let xyz = npy("'<f4'", false, "(2, 3)", &f32s(&[1.0, 2.0, 3.0, 4.0, f32::NAN, 6.0]));
    let label = npy("'<i8'", false, "(2, 1)", &[7i64.to_le_bytes(), 8i64.to_le_bytes()].concat());
    let colours = npy("'|u1'", false, "(2, 3)", &[1, 2, 3, 4, 5, 6]);
    let other = npy("'<f4'", false, "(5,)", &[0; 20]);
    let texts = npy("'<U4'", false, "(2,)", &[0; 32]);
    let cloud = parse(
        "a.npz",
        npz(&[
            ("label", label),
            ("colors", colours),
            ("other", other),
            ("texts", texts),
            ("points", xyz.clone()),
        ]),
    );
    assert_eq!((cloud.len(), cloud.dropped), (1, 1));
    assert_eq!(cloud.attributes.keys().collect::<Vec<_>>(), ["label", "rgb"]);
    assert_eq!(cloud.attributes["label"], Attribute::I32(vec![7]));
    let two = read_from_bytes("a.npz", npz(&[("a", xyz.clone()), ("b", xyz)]), &ReadOptions::default());
    assert!(two.unwrap_err().to_string().contains("xyz"));
}

#[rstest]
#[case::spaces("1 2 3\n4 5 6\n", None)]
#[case::commas_and_header("X,Y,Z\n1,2,3\n4,5,6", None)]
#[case::semicolons_intensity("1;2;3;0.5\r\n4;5;6;0.25\r\n", Some(("intensity", Attribute::F64(vec![0.5, 0.25]))))]
#[case::colours("1\t2\t3\t255\t0\t9\n4 5 6 1 2 3\n", Some(("rgb", Attribute::Rgb(vec![[255, 0, 9], [1, 2, 3]]))))]
#[case::pts("2\n1 2 3 10 1 2 3\n4 5 6 20 4 5 6\n", Some(("intensity", Attribute::U8(vec![10, 20]))))]
#[case::commented_names("//X Y Z Label\n1 2 3 4\n# note\n4 5 6 -1\n", Some(("Label", Attribute::I32(vec![4, -1]))))]
#[case::names_in_any_order("\"label\" \"z\" \"x\" \"y\"\n300 3 1 2\n4 6 4 5\n", Some(("label", Attribute::U16(vec![300, 4]))))]
#[case::byte_order_mark("\u{feff}1 2 3\n4 5 6\n", None)]
fn text_columns_are_understood(#[case] text: &str, #[case] attribute: Option<(&str, Attribute)>) {
    let cloud = parse("a.xyz", text);
    assert_eq!(cloud.positions, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    match attribute {
        Some((name, values)) => assert_eq!(cloud.attributes[name], values),
        None => assert!(cloud.attributes.is_empty()),
    }
}

#[test]
fn unknown_extensions_go_by_their_first_bytes() {
    for (name, bytes) in samples::all() {
        let known = Format::from_path(name.as_ref()).unwrap();
        if !matches!(known, Format::Bin | Format::Xyz) {
            assert_eq!(Format::from_head(&bytes), Some(known), "{name}");
            assert_eq!(parse("a.data", bytes.clone()), parse(name, bytes));
        }
    }
    let text = read_from_bytes("a.data", b"1 2 3".to_vec(), &ReadOptions::default().with_format(Format::Xyz));
    assert_eq!(text.unwrap().len(), 1);
}

#[test]
fn semantic_kitti_labels_split_into_class_and_instance() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.bin"), f32s(&[1.0, 2.0, 3.0, 0.5])).unwrap();
    std::fs::write(folder.path().join("a.label"), (3u32 << 16 | 10).to_le_bytes()).unwrap();
    let options = ReadOptions::default().with_labels(folder.path().join("a.label"));
    let cloud = read(folder.path().join("a.bin"), &options).unwrap();
    assert_eq!(cloud.attributes["label"], Attribute::U16(vec![10]));
    assert_eq!(cloud.attributes["instance"], Attribute::U16(vec![3]));
}

fn cloud() -> impl Strategy<Value = PointCloud> {
    (0usize..30, any::<bool>()).prop_flat_map(|(n, small)| {
        let axis =
            move || if small { (-1e3f32..1e3).prop_map(f64::from).boxed() } else { (-1e9..1e9).boxed() };
        let positions = prop::collection::vec([axis(), axis(), axis()], n);
        let columns = (
            prop::collection::vec(any::<u8>(), n),
            prop::collection::vec(any::<u16>(), n),
            prop::collection::vec(any::<u32>(), n),
            prop::collection::vec(any::<i32>(), n),
            prop::collection::vec(-1e30f32..1e30, n),
            prop::collection::vec(-1e300..1e300, n),
            prop::collection::vec(any::<[u8; 3]>(), n),
        );
        (positions, columns).prop_map(|(positions, (a, b, c, d, e, f, g))| {
            let attributes = [
                ("a", Attribute::U8(a)),
                ("b2", Attribute::U16(b)),
                ("c", Attribute::U32(c)),
                ("d", Attribute::I32(d)),
                ("intensity", Attribute::F32(e)),
                ("time", Attribute::F64(f)),
                ("rgb", Attribute::Rgb(g)),
            ];
            let attributes = attributes.map(|(name, v)| (name.to_owned(), v)).into();
            PointCloud { positions, attributes, ..PointCloud::default() }
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn what_is_written_reads_back_bit_for_bit(cloud in cloud()) {
        let folder = tempfile::tempdir().unwrap();
        for format in [PlyFormat::Ascii, PlyFormat::BinaryLittleEndian, PlyFormat::BinaryBigEndian] {
            let path = folder.path().join("a.ply");
            write_ply(&path, &cloud, format).unwrap();
            prop_assert_eq!(&read(&path, &ReadOptions::default()).unwrap(), &cloud);
        }
        let path = folder.path().join("a.npz");
        write_npz(&path, &cloud).unwrap();
        prop_assert_eq!(&read(&path, &ReadOptions::default()).unwrap(), &cloud);
        let path = folder.path().join("a.npy");
        write_npy(&path, &cloud).unwrap();
        prop_assert_eq!(&read(&path, &ReadOptions::default()).unwrap().positions, &cloud.positions);
    }
}

#[test]
fn the_origin_is_added_back_and_triangles_survive() {
    let folder = tempfile::tempdir().unwrap();
    let mesh = parse("a.ply", samples::ply("ascii"));
    for name in ["b.ply", "b.npz"] {
        let path = folder.path().join(name);
        if name == "b.ply" {
            write_ply(&path, &mesh, PlyFormat::Ascii).unwrap();
        } else {
            write_npz(&path, &mesh).unwrap();
        }
        let back = read(&path, &ReadOptions::default()).unwrap();
        assert_eq!(back.triangles, mesh.triangles);
        assert_eq!(back.world(0), [1.5, 2.0, -3.0]);
        // Only mesh files of PLY move their corner.
        assert_eq!(back.origin == [0.0; 3], name == "b.npz");
    }
}

#[test]
fn arrays_of_any_shape_survive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let array = NpyArray { shape: vec![2, 3, 1, 2], data: Attribute::I32((0..12).collect()) };
    write_npy_array(&path, &array).unwrap();
    assert_eq!(read_npy_array(&path).unwrap(), array);
    assert_eq!(std::fs::read(&path).unwrap().len(), 128 + 48);
    let lying = NpyArray { shape: vec![5], ..array };
    assert!(write_npy_array(&path, &lying).unwrap_err().to_string().contains("12 values"));
    // Fortran order of shape (2, 3, 2): first index fastest.
    let fortran: Vec<u8> = (0..12).collect();
    std::fs::write(&path, npy("'|u1'", true, "(2, 3, 2)", &fortran)).unwrap();
    let back = read_npy_array(&path).unwrap();
    assert_eq!(back.data, Attribute::U8(vec![0, 6, 2, 8, 4, 10, 1, 7, 3, 9, 5, 11]));
}
