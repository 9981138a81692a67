//! Small valid files of every format, made in memory.

use std::io::Cursor;

/// Little-endian bytes of float32 values.
pub fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub fn ply(encoding: &str) -> Vec<u8> {
    let mut out = format!(
        "ply\nformat {encoding} 1.0\ncomment made by hand\nelement vertex 4\nproperty float x\nproperty double y\n\
         property short z\nproperty uchar red\nproperty uchar green\nproperty uchar blue\nproperty list uchar int near\n\
         property int label\nelement face 2\nproperty uchar flags\nproperty list uchar int vertex_indices\n\
         element edge 1\nproperty int vertex1\nproperty int vertex2\nend_header\n"
    )
    .into_bytes();
    if encoding == "ascii" {
        out.extend(
            b"1.5 2 -3 255 128 0 2 7 8 -1\n0 0.1 4 1 2 3 0 5\n\n2 1 1 9 9 9 0 6\r\n3 1 1 9 9 9 1 4 7\n",
        );
        out.extend(b"0 3 0 1 2\n1 4 0 1 2 3\n0 1\n");
        return out;
    }
    let big = encoding == "binary_big_endian";
    let mut put = |le: &[u8]| {
        let mut bytes = le.to_vec();
        if big {
            bytes.reverse();
        }
        out.extend(bytes);
    };
    type Row<'a> = (f32, f64, i16, [u8; 3], &'a [i32], i32);
    let rows: [Row; 4] = [
        (1.5, 2.0, -3, [255, 128, 0], &[7, 8], -1),
        (0.0, 0.1, 4, [1, 2, 3], &[], 5),
        (2.0, 1.0, 1, [9; 3], &[], 6),
        (3.0, 1.0, 1, [9; 3], &[4], 7),
    ];
    for (x, y, z, rgb, near, label) in rows {
        put(&x.to_le_bytes());
        put(&y.to_le_bytes());
        put(&z.to_le_bytes());
        rgb.iter().for_each(|&c| put(&[c]));
        put(&[near.len() as u8]);
        near.iter().for_each(|v| put(&v.to_le_bytes()));
        put(&label.to_le_bytes());
    }
    for (flags, corners) in [(0u8, &[0i32, 1, 2][..]), (1, &[0, 1, 2, 3])] {
        put(&[flags]);
        put(&[corners.len() as u8]);
        corners.iter().for_each(|v| put(&v.to_le_bytes()));
    }
    put(&0i32.to_le_bytes());
    put(&1i32.to_le_bytes());
    out
}

/// Packs as LZF with literals alone.
fn lzf(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(32).flat_map(|c| std::iter::once(c.len() as u8 - 1).chain(c.iter().copied())).collect()
}

pub fn pcd(data: &str) -> Vec<u8> {
    let mut out = format!(
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z rgb _ label normal\n\
         SIZE 4 4 4 4 1 2 4\nTYPE F F F F U U F\nCOUNT 1 1 1 1 2 1 3\nWIDTH 3\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\n\
         POINTS 3\nDATA {data}\n"
    )
    .into_bytes();
    let colour = f32::from_bits(0x00_ff_80_01);
    let rows: [([f32; 3], u16); 3] =
        [([1.0, 2.0, 3.0], 7), ([f32::NAN, 0.0, 0.0], 8), ([-1.0, 0.5, 0.25], 65535)];
    match data {
        "ascii" => {
            for (p, label) in rows {
                let [x, y, z] = p.map(|v| v.to_string().to_lowercase());
                out.extend(format!("{x} {y} {z} {colour:e} 0 0 {label} 0 0 1\n").bytes());
            }
        }
        "binary" => {
            for (p, label) in rows {
                out.extend(f32s(&p));
                out.extend(colour.to_le_bytes());
                out.extend([9, 9]);
                out.extend(label.to_le_bytes());
                out.extend(f32s(&[0.0, 0.0, 1.0]));
            }
        }
        _ => {
            let mut body = Vec::new();
            for axis in 0..3 {
                rows.iter().for_each(|(p, _)| body.extend(p[axis].to_le_bytes()));
            }
            rows.iter().for_each(|_| body.extend(colour.to_le_bytes()));
            body.extend([9; 6]);
            rows.iter().for_each(|(_, l)| body.extend(l.to_le_bytes()));
            rows.iter().for_each(|_| body.extend(f32s(&[0.0, 0.0, 1.0])));
            let packed = lzf(&body);
            out.extend((packed.len() as u32).to_le_bytes());
            out.extend((body.len() as u32).to_le_bytes());
            out.extend(packed);
        }
    }
    out
}

/// An NPY file of version 1.
pub fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let fortran = if fortran { "True" } else { "False" };
    let text = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.bytes());
    out.extend(data);
    out
}

pub fn npz(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A LAS file, or LAZ when `packed`, with points at (100, 200, 300) + (i, -i, 2i) * 0.25.
pub fn las(format: u8, packed: bool, n: usize) -> Vec<u8> {
    let mut format = las::point::Format::new(format).unwrap();
    format.is_compressed = packed;
    let mut builder = las::Builder::from((1, 4));
    builder.point_format = format;
    let axis = |offset| las::Transform { scale: 0.25, offset };
    builder.transforms = las::Vector { x: axis(100.0), y: axis(200.0), z: axis(300.0) };
    let mut writer = las::Writer::new(Cursor::new(Vec::new()), builder.into_header().unwrap()).unwrap();
    for i in 0..n {
        let d = i as f64 * 0.25;
        let point = las::Point {
            x: 100.0 + d,
            y: 200.0 - d,
            z: 300.0 + 2.0 * d,
            intensity: i as u16,
            return_number: 1,
            number_of_returns: 2,
            gps_time: format.has_gps_time.then_some(d),
            color: format.has_color.then_some(las::Color { red: 65535, green: 257 * 7, blue: 0 }),
            nir: format.has_nir.then_some(5),
            ..las::Point::default()
        };
        writer.write_point(point).unwrap();
    }
    writer.close().unwrap();
    writer.into_inner().unwrap().into_inner()
}

/// Every format's sample, with a name that tells the format.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let xyz = npy("'<f4'", false, "(2, 3)", &f32s(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    vec![
        ("ascii.ply", ply("ascii")),
        ("little.ply", ply("binary_little_endian")),
        ("big.ply", ply("binary_big_endian")),
        ("ascii.pcd", pcd("ascii")),
        ("binary.pcd", pcd("binary")),
        ("packed.pcd", pcd("binary_compressed")),
        ("a.npy", xyz.clone()),
        ("fortran.npy", npy("'>f8'", true, "(1, 3)", &[0; 24])),
        (
            "fields.npy",
            npy("[('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('t', '|u1')]", false, "(1,)", &[0; 13]),
        ),
        ("a.npz", npz(&[("xyz", xyz), ("label", npy("'|u1'", false, "(2,)", &[3, 4]))])),
        ("a.las", las(3, false, 5)),
        ("six.las", las(6, false, 5)),
        ("a.laz", las(3, true, 300)),
        ("layers.laz", las(8, true, 300)),
        ("a.bin", f32s(&[1.0, 2.0, 3.0, 0.5])),
        ("a.xyz", b"x,y,z,label\n1,2,3,4\n5,6,7,8\n".to_vec()),
    ]
}
