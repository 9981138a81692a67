//! Files that are missing, cut off, or lie: each is an error that names the file, what was expected and what was found,
//! and none makes the reader panic or allocate what only the header promises.
#![allow(clippy::unwrap_used, reason = "tests")]

mod samples;

use std::time::Instant;

use lattice_io::{
    Attribute, PlyFormat, PointCloud, ReadOptions, read, read_from_bytes, write_npz, write_ply,
};
use proptest::prelude::*;
use rstest::rstest;
use samples::{f32s, npy, npz};

/// Largest address space this process ever had, where the system tells.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmPeak:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

/// The message of reading `bytes`, which must fail fast and small.
fn message(name: &str, bytes: impl Into<Vec<u8>>) -> String {
    let (before, start) = (peak_bytes(), Instant::now());
    let error = read_from_bytes(name, bytes.into(), &ReadOptions::default()).unwrap_err();
    if let (Some(before), Some(after)) = (before, peak_bytes()) {
        // Test threads share the process: what is looked for is terabytes.
        assert!(after - before < 2 << 30, "{} MiB", (after - before) >> 20);
    }
    assert!(start.elapsed().as_secs() < 20);
    let text = error.to_string();
    assert!(text.starts_with(name) && text.contains("expected") && text.contains("found"), "{text}");
    assert_eq!(error.path(), std::path::Path::new(name));
    text
}

const XYZ: &str = "property float x\nproperty float y\nproperty float z\n";

fn ply(vertices: &str, properties: &str, body: &[u8], encoding: &str) -> Vec<u8> {
    let head = format!("ply\nformat {encoding} 1.0\nelement vertex {vertices}\n{properties}end_header\n");
    [head.as_bytes(), body].concat()
}

#[rstest]
#[case::not_ply(b"plyx\n".to_vec(), "line 1")]
#[case::no_end(b"ply\nformat ascii 1.0\n".to_vec(), "end_header")]
#[case::no_format(b"ply\nelement vertex 0\nproperty float x\nend_header\n".to_vec(), "`format`")]
#[case::odd_format(b"ply\nformat morse 1.0\nend_header\n".to_vec(), "binary_big_endian")]
#[case::unknown_type(ply("1", "property quad x\n", b"", "ascii"), "line 4")]
#[case::property_first(b"ply\nformat ascii 1.0\nproperty float x\nend_header\n".to_vec(), "element")]
#[case::no_vertices(b"ply\nformat ascii 1.0\nelement face 0\nproperty list uchar int vertex_indices\nend_header\n".to_vec(), "vertex")]
#[case::no_columns(ply("7", "", b"", "ascii"), "properties")]
#[case::no_z(ply("1", "property float x\nproperty float y\n", b"1 2\n", "ascii"), "x, y and z")]
#[case::negative_count(ply("-1", XYZ, b"", "ascii"), "line 3")]
#[case::count_beyond_u64(ply("99999999999999999999", XYZ, b"", "ascii"), "line 3")]
#[case::lying_ascii(ply("1000000000000", XYZ, b"1 2 3\n", "ascii"), "1000000000000 rows")]
#[case::lying_binary(ply("1000000000000", XYZ, &[0; 12], "binary_little_endian"), "12 bytes of data")]
#[case::lying_overflow(ply("18446744073709551615", XYZ, &[0; 12], "binary_big_endian"), "12 bytes of data")]
#[case::lying_list(ply("1", "property list uint double l\nproperty float x\n", &[255; 20], "binary_little_endian"), "34359738360 more bytes")]
#[case::negative_list(ply("1", "property list char double l\n", &[255; 20], "binary_little_endian"), "list length")]
#[case::float_list(ply("1", "property list float double l\n", &[255; 20], "binary_little_endian"), "whole number")]
#[case::one_row_short(ply("2", XYZ, b"1 2 3 \n", "ascii"), "row")]
#[case::short_line(ply("1", XYZ, b"1.0000 2\n", "ascii"), "line 8")]
#[case::no_number(ply("1", XYZ, b"1 two 3\n", "ascii"), "`two`")]
#[case::number_too_large(
    ply("1", "property uchar x\nproperty uchar y\nproperty uchar z\n", b"1 256 3\n", "ascii"),
    "`256`"
)]
#[case::face_beyond(ply("1", &format!("{XYZ}element face 1\nproperty list uchar int vertex_indices\n"), b"1 2 3\n3 0 0 1\n", "ascii"), "vertices below 1")]
#[case::negative_face(ply("1", &format!("{XYZ}element face 1\nproperty list uchar int vertex_indices\n"), b"1 2 3\n3 0 0 -1\n", "ascii"), "0 or more")]
#[case::too_many_properties(ply("1", &"property float a\n".repeat(5000), b"", "ascii"), "4096")]
fn bad_ply_files_are_refused(#[case] bytes: Vec<u8>, #[case] says: &str) {
    let text = message("bad.ply", bytes);
    assert!(text.contains(says), "{text}");
}

fn pcd(replace: &str, by: &str, data: &str) -> Vec<u8> {
    let whole = samples::pcd(data);
    let at = whole.windows(replace.len()).position(|w| w == replace.as_bytes()).unwrap();
    [&whole[..at], by.as_bytes(), &whole[at + replace.len()..]].concat()
}

#[rstest]
#[case::lying_points(
    pcd("WIDTH 3\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 3", "POINTS 1000000000000", "binary"),
    "1000000000000 points"
)]
#[case::lying_ascii(
    pcd("WIDTH 3\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 3", "POINTS 1000000000000", "ascii"),
    "3 lines"
)]
#[case::lying_packed(
    pcd("WIDTH 3\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 3", "POINTS 1000000000000", "binary_compressed"),
    "1000000000000 points"
)]
#[case::area_overflows(pcd("WIDTH 3\nHEIGHT 1", "WIDTH 18446744073709551615\nHEIGHT 9", "binary"), "POINTS")]
#[case::absurd_size(pcd("SIZE 4", "SIZE 4000000000", "binary"), "1, 2, 4 or 8")]
#[case::absurd_count(pcd("COUNT 1 1 1 1 2 1 3", "COUNT 1 1 1 1 2 1 1000000000000", "binary"), "counts")]
#[case::count_of_zero(pcd("COUNT 1", "COUNT 0", "binary"), "counts")]
#[case::odd_type(pcd("TYPE F", "TYPE Q", "binary"), "types")]
#[case::half_float(pcd("SIZE 4", "SIZE 2", "binary"), "floats of 4 or 8")]
#[case::missing_sizes(pcd("SIZE 4 4", "SIZE 4", "binary"), "SIZE")]
#[case::zero_columns(pcd("FIELDS x y z rgb _ label normal", "FIELDS", "binary"), "FIELDS")]
#[case::no_position(pcd("FIELDS x", "FIELDS w", "binary"), "x, y and z")]
#[case::no_data(b"# .PCD v0.7\nVERSION 0.7\n".to_vec(), "DATA")]
#[case::no_points(b"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nDATA ascii\n1 2 3\n".to_vec(), "POINTS")]
#[case::unknown_data(pcd("DATA binary", "DATA json", "binary"), "DATA ascii")]
#[case::unknown_line(b"hello\n".to_vec(), "line 1")]
#[case::no_number(pcd("1 2 3", "1 2 c", "ascii"), "`c`")]
fn bad_pcd_files_are_refused(#[case] bytes: Vec<u8>, #[case] says: &str) {
    let text = message("bad.pcd", bytes);
    assert!(text.contains(says), "{text}");
}

#[rstest]
#[case::not_npy(b"hello world, hello".to_vec(), "NUMPY")]
#[case::version(b"\x93NUMPY\x09\x00aaaaaaaaaaaa".to_vec(), "version")]
#[case::header_beyond(b"\x93NUMPY\x02\x00\xff\xff\xff\xffaaaa".to_vec(), "header of 4294967295")]
#[case::header_cut(b"\x93NUMPY\x01".to_vec(), "end of the file")]
#[case::no_dictionary(npy("]", false, "(1, 3)", &[]), "dictionary")]
#[case::objects(npy("'|O'", false, "(1, 3)", &[0; 24]), "descr")]
#[case::lying(npy("'<f4'", false, "(1000000000000, 3)", &[0; 12]), "12 bytes of data")]
#[case::overflow(npy("'<f4'", false, "(18446744073709551615, 18446744073709551615)", &[0; 12]), "12 bytes of data")]
#[case::many_columns_of_nothing(npy("'<f4'", false, "(0, 1000000000000)", &[]), "4096 columns")]
#[case::cut(npy("'<f4'", false, "(2, 3)", &[0; 23]), "23 bytes of data")]
#[case::two_columns(npy("'<f4'", false, "(2, 2)", &[0; 16]), "3 columns")]
#[case::zero_columns(npy("'<f4'", false, "(2, 0)", &[]), "3 columns")]
#[case::one_axis(npy("'<f4'", false, "(3,)", &[0; 12]), "3 columns")]
#[case::three_axes(npy("'<f4'", false, "(1, 3, 1)", &[0; 12]), "shape")]
#[case::no_axes(npy("'<f4'", false, "()", &[0; 4]), "shape")]
fn bad_npy_files_are_refused(#[case] bytes: Vec<u8>, #[case] says: &str) {
    let text = message("bad.npy", bytes);
    assert!(text.contains(says), "{text}");
}

#[rstest]
#[case::not_zip(b"hello".to_vec(), "zip")]
#[case::no_array(npz(&[]), "xyz")]
#[case::no_positions(npz(&[("a", npy("'<f4'", false, "(2,)", &[0; 8]))]), "a [2]")]
#[case::lying_member(npz(&[("xyz", npy("'<f4'", false, "(1000000000000, 3)", &[0; 12]))]), "member `xyz`")]
#[case::broken_member(npz(&[("xyz", b"hello".to_vec())]), "member `xyz`")]
fn bad_npz_files_are_refused(#[case] bytes: Vec<u8>, #[case] says: &str) {
    let text = message("bad.npz", bytes);
    assert!(text.contains(says), "{text}");
}

#[rstest]
#[case::short_header(samples::las(3, false, 1)[..100].to_vec(), "header of 227")]
#[case::not_las(vec![7; 500], "LASF")]
#[case::cut(samples::las(3, false, 5)[..500].to_vec(), "5 points")]
#[case::no_points(samples::las(3, false, 5)[..375].to_vec(), "5 points")]
fn bad_las_files_are_refused(#[case] bytes: Vec<u8>, #[case] says: &str) {
    let text = message("bad.las", bytes);
    assert!(text.contains(says), "{text}");
}

#[rstest]
#[case::point_count(107, &u32::MAX.to_le_bytes())]
#[case::points_at(96, &u32::MAX.to_le_bytes())]
#[case::points_in_the_header(96, &[10, 0, 0, 0])]
#[case::records(100, &u32::MAX.to_le_bytes())]
#[case::header_size(94, &[255, 255])]
#[case::version(24, &[2])]
#[case::records_behind_the_points(235, &[255; 12])]
#[case::point_format(104, &[0x80 | 63])]
#[case::record_length(105, &[0, 0])]
#[case::scale(131, &f64::NAN.to_le_bytes())]
#[case::zero_scale(139, &[0; 8])]
#[case::offset(155, &f64::INFINITY.to_le_bytes())]
fn lying_las_headers_are_refused(
    #[case] at: usize,
    #[case] by: &[u8],
    #[values(("a.las", 3, false), ("a.laz", 3, true), ("a.laz", 8, true))] file: (&str, u8, bool),
) {
    let (name, format, packed) = file;
    let mut bytes = samples::las(format, packed, 300);
    bytes[at..at + by.len()].copy_from_slice(by);
    message(name, bytes);
}

#[test]
fn a_laz_file_cannot_ask_for_layers_or_chunks_beyond_its_size() {
    let whole = samples::las(6, true, 300);
    let points_at = u32::from_le_bytes(whole[96..100].try_into().unwrap()) as usize;
    let mut layers = whole.clone();
    layers[points_at + 8 + 30 + 4..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(message("a.laz", layers).contains("bytes of layers"));
    let table_at = u64::from_le_bytes(whole[points_at..points_at + 8].try_into().unwrap()) as usize;
    let mut chunks = whole.clone();
    chunks[table_at + 4..table_at + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(message("a.laz", chunks).contains("chunks"));
    let mut nowhere = whole;
    nowhere[points_at..points_at + 8].copy_from_slice(&i64::MAX.to_le_bytes());
    assert!(message("a.laz", nowhere).contains("chunk table"));
}

#[rstest]
#[case::does_not_divide("a.bin", vec![0; 17], "1 left over")]
#[case::five_do_not_divide("a.pcd.bin", vec![0; 16], "rows of 5")]
#[case::words("a.xyz", b"hello world\n1 2 3\n".to_vec(), "line 1")]
#[case::two_columns("a.xyz", b"1 2\n".to_vec(), "3 columns")]
#[case::two_named_columns("a.csv", b"x,y\n1,2\n".to_vec(), "3 columns")]
#[case::ragged("a.xyz", b"1 2 3\n4 5\n".to_vec(), "line 2")]
#[case::longer("a.xyz", b"1 2 3\n4 5 6 7\n".to_vec(), "line 2")]
#[case::no_number("a.xyz", b"1 2 3\n4 b 6\n".to_vec(), "`b`")]
#[case::only_a_header("a.csv", b"x,y,z\n".to_vec(), "without points")]
#[case::binary_as_text("a.xyz", samples::npy("'<f4'", false, "(1, 3)", &[0; 12]), "NPY")]
#[case::noise("a.txt", vec![0xfe; 1000], "line 1")]
#[case::extension("a.docx", b"hello".to_vec(), "`.docx`")]
#[case::no_extension("cloud", b"hello".to_vec(), "no extension")]
fn bad_raw_and_text_files_are_refused(#[case] name: &str, #[case] bytes: Vec<u8>, #[case] says: &str) {
    let text = message(name, bytes);
    assert!(text.contains(says), "{text}");
}

#[rstest]
fn empty_files_are_refused(
    #[values("ply", "pcd", "las", "laz", "npy", "npz", "bin", "xyz")] extension: &str,
) {
    assert!(message(&format!("a.{extension}"), Vec::new()).contains("empty file"));
}

#[rstest]
fn absurd_column_options_are_refused(#[values(0, 2, 257, usize::MAX)] columns: usize) {
    let options = ReadOptions::default().with_columns(columns);
    let error = read_from_bytes("a.bin", f32s(&[0.0; 8]), &options).unwrap_err().to_string();
    assert!(error.contains("columns") && error.contains("3 to 256"), "{error}");
}

#[test]
fn missing_files_folders_and_devices_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = ReadOptions::default();
    let missing = read(folder.path().join("a.ply"), &options).unwrap_err().to_string();
    assert!(missing.contains("no such file") && missing.contains("check the path"), "{missing}");
    let is_folder = read(folder.path(), &options).unwrap_err().to_string();
    assert!(is_folder.contains("a folder"), "{is_folder}");
    if cfg!(unix) {
        let device = read("/dev/null", &options).unwrap_err().to_string();
        assert!(device.contains("a device"), "{device}");
    }
}

#[test]
fn unwritable_places_are_refused_and_stay_clean() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = PointCloud { positions: vec![[1.0, 2.0, 3.0]], ..PointCloud::default() };
    let nowhere = write_npz(folder.path().join("no/such/folder.npz"), &cloud).unwrap_err().to_string();
    assert!(nowhere.contains("make its folder first"), "{nowhere}");
    assert!(lattice_io::write_text(folder.path().join("no/report.json"), "{}").is_err());
    let onto = write_ply(folder.path(), &cloud, PlyFormat::Ascii).unwrap_err().to_string();
    assert!(onto.contains("not a folder"), "{onto}");
    std::fs::write(folder.path().join("file"), b"").unwrap();
    let below = write_npz(folder.path().join("file/a.npz"), &cloud).unwrap_err().to_string();
    assert!(below.contains("a part of its path is a file"), "{below}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[rstest]
#[case::length("label", vec![1, 2], "1 values")]
#[case::space("my label", vec![1], "visible ASCII")]
#[case::position("X", vec![1], "other than x, y, z")]
#[case::folder("../a", vec![1], "visible ASCII")]
fn attributes_that_no_file_can_hold_are_refused(
    #[case] name: &str,
    #[case] values: Vec<u8>,
    #[case] says: &str,
) {
    let folder = tempfile::tempdir().unwrap();
    let mut cloud = PointCloud { positions: vec![[1.0, 2.0, 3.0]], ..PointCloud::default() };
    cloud.attributes.insert(name.to_owned(), Attribute::U8(values));
    for text in [
        write_ply(folder.path().join("a.ply"), &cloud, PlyFormat::Ascii).unwrap_err().to_string(),
        write_npz(folder.path().join("a.npz"), &cloud).unwrap_err().to_string(),
    ] {
        assert!(text.contains(says), "{text}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn no_cut_of_any_sample_panics() {
    for (name, bytes) in samples::all() {
        for length in 0..bytes.len().min(3000) {
            let _ = read_from_bytes(name, bytes[..length].to_vec(), &ReadOptions::default());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn no_flipped_bytes_panic_or_allocate_absurdly(
        file in 0usize..16,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        head in any::<bool>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        thread_local!(static SAMPLES: Vec<(&'static str, Vec<u8>)> = samples::all());
        let (name, mut bytes) = SAMPLES.with(|s| s[file].clone());
        // Most of what can lie stands at the beginning.
        let within = if head { bytes.len().min(400) } else { bytes.len() };
        for (at, value) in flips {
            bytes[at.index(within)] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()) + 1);
        }
        let start = Instant::now();
        let _ = read_from_bytes(name, bytes, &ReadOptions::default());
        prop_assert!(start.elapsed().as_secs() < 10);
        prop_assert!(peak_bytes().is_none_or(|p| p < 8 << 30));
    }
}
