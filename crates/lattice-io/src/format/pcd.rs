//! PCD v0.7 of the Point Cloud Library: ascii, binary, binary_compressed.
//!
//! A reader of our own: the registry's PCD crates reserve memory for as many points as the header promises; here the
//! promise is checked against the file's size first. Fields with COUNT n > 1 become n attributes `name_0`, `name_1`, ...;
//! padding fields (`_`) are skipped; a 4-byte field `rgb` or `rgba` is 0xAARRGGBB and becomes `rgb`.

use super::lzf;
use super::text::Lines;
use crate::error::{Fault, Place, quote};
use crate::read::{FormatReader, Input};
use crate::scalar::{Column, Scalar};
use crate::table::MAX_COLUMNS;
use crate::{PointCloud, table};

pub(crate) struct Pcd;

#[derive(Debug, Clone)]
struct Field {
    name: String,
    scalar: Scalar,
    count: usize,
}

impl Field {
    fn bytes(&self) -> usize {
        self.scalar.size() * self.count
    }

    fn is_padding(&self) -> bool {
        self.name == "_"
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Ascii,
    Binary,
    Compressed,
}

struct Header {
    fields: Vec<Field>,
    points: u64,
    encoding: Encoding,
    body_at: usize,
    lines: u64,
}

const HELP: &str = "export it again as PCD v0.7";

impl FormatReader for Pcd {
    fn name(&self) -> &'static str {
        "PCD"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["pcd"]
    }

    fn sniff(&self, head: &[u8]) -> bool {
        head.starts_with(b"# .PCD") || head.starts_with(b"VERSION 0.7") || head.starts_with(b"VERSION .7")
    }

    fn read(&self, input: &Input<'_>) -> Result<PointCloud, Fault> {
        let bytes = input.bytes.as_ref();
        let header = parse_header(bytes)?;
        let body = &bytes[header.body_at..];
        let mut columns: Vec<Column> = Vec::new();
        // For each field the number of its first column.
        let mut first_column = Vec::with_capacity(header.fields.len());
        for field in &header.fields {
            first_column.push((!field.is_padding()).then_some(columns.len()));
            if !field.is_padding() {
                columns.extend((0..field.count).map(|i| {
                    let name =
                        if field.count == 1 { field.name.clone() } else { format!("{}_{i}", field.name) };
                    Column::new(name, field.scalar, 0)
                }));
            }
        }
        match header.encoding {
            Encoding::Ascii => read_ascii(&header, body, &first_column, &mut columns)?,
            Encoding::Binary => {
                let (n, record) = check_size(&header, body.len() as u64, bytes.len())?;
                for row in body.chunks_exact(record).take(n) {
                    let mut at = 0;
                    for (field, first) in header.fields.iter().zip(&first_column) {
                        if let Some(first) = first {
                            let values = row[at..at + field.bytes()].chunks_exact(field.scalar.size());
                            for (column, value) in columns[*first..].iter_mut().zip(values) {
                                column.push(field.scalar.read(value, false));
                            }
                        }
                        at += field.bytes();
                    }
                }
            }
            Encoding::Compressed => read_compressed(&header, body, bytes.len(), &first_column, &mut columns)?,
        }
        table::assemble(columns, Vec::new(), false)
    }
}

/// Points and bytes of a point, once the data is known to hold them.
fn check_size(header: &Header, have: u64, file_bytes: usize) -> Result<(usize, usize), Fault> {
    let record: usize = header.fields.iter().map(Field::bytes).sum();
    match header.points.checked_mul(record as u64) {
        Some(needed) if needed <= have => Ok((header.points as usize, record)),
        _ => Err(Fault::truncated(
            file_bytes,
            format!("{} points of {record} bytes", header.points),
            format!("{have} bytes of data"),
        )),
    }
}

fn read_ascii(
    header: &Header,
    body: &[u8],
    first_column: &[Option<usize>],
    columns: &mut [Column],
) -> Result<(), Fault> {
    let mut lines = Lines::new(body);
    for point in 0..header.points {
        let Some(line) = lines.next_filled() else {
            return Err(Fault::truncated(
                header.body_at + body.len(),
                format!("{} points", header.points),
                format!("{point} lines of data"),
            ));
        };
        let place = Place::Line(header.lines + lines.number);
        let mut words = line.split_ascii_whitespace();
        for (field, first) in header.fields.iter().zip(first_column) {
            for i in 0..field.count {
                let word = words.next().ok_or_else(|| {
                    let expected = format!("a value of `{}`", field.name);
                    Fault::new(
                        place.clone(),
                        expected,
                        "the end of the line",
                        "the line is too short: export it again",
                    )
                })?;
                let Some(first) = first else { continue };
                let value = field.scalar.parse(word).ok_or_else(|| {
                    let expected = format!("a number for `{}` ({:?})", field.name, field.scalar);
                    Fault::new(
                        place.clone(),
                        expected,
                        quote(word),
                        "correct the number or the header's TYPE",
                    )
                })?;
                columns[first + i].push(value);
            }
        }
    }
    Ok(())
}

fn read_compressed(
    header: &Header,
    body: &[u8],
    file_bytes: usize,
    first_column: &[Option<usize>],
    columns: &mut [Column],
) -> Result<(), Fault> {
    let Some((sizes, packed)) = body.split_at_checked(8) else {
        let found = format!("{} bytes", body.len());
        return Err(Fault::truncated(file_bytes, "8 bytes: the packed and the unpacked size", found));
    };
    let size_at =
        |at: usize| u64::from(u32::from_le_bytes([sizes[at], sizes[at + 1], sizes[at + 2], sizes[at + 3]]));
    let (packed_size, unpacked_size) = (size_at(0), size_at(4));
    let (n, _) = check_size(header, unpacked_size, file_bytes)?;
    if packed_size > packed.len() as u64 {
        return Err(Fault::truncated(
            file_bytes,
            format!("{packed_size} packed bytes"),
            format!("{} bytes", packed.len()),
        ));
    }
    let data = lzf::unpack(&packed[..packed_size as usize], unpacked_size as usize).map_err(|at| {
        Fault::new(
            Place::Byte((header.body_at + 8 + at) as u64),
            format!("LZF data of {unpacked_size} bytes when unpacked"),
            "a stream that breaks here",
            "the file is damaged: copy or export it again",
        )
    })?;
    // Field after field, each for all points.
    let mut at = 0;
    for (field, first) in header.fields.iter().zip(first_column) {
        let all = &data[at..at + n * field.bytes()];
        at += all.len();
        if let Some(first) = first {
            for row in all.chunks_exact(field.bytes()) {
                for (column, value) in columns[*first..].iter_mut().zip(row.chunks_exact(field.scalar.size()))
                {
                    column.push(field.scalar.read(value, false));
                }
            }
        }
    }
    Ok(())
}

fn parse_header(bytes: &[u8]) -> Result<Header, Fault> {
    let mut lines = Lines::new(bytes);
    let mut names: Vec<String> = Vec::new();
    let (mut sizes, mut types, mut counts): (Vec<usize>, Vec<char>, Vec<usize>) = (vec![], vec![], vec![]);
    let (mut width, mut height, mut points) = (None, None, None);
    let encoding = loop {
        let Some(line) = lines.next_text() else {
            let found = format!("the end of the file after {} lines", lines.number);
            return Err(Fault::truncated(bytes.len(), "a line `DATA ascii|binary|binary_compressed`", found));
        };
        let at = Place::Line(lines.number);
        let wrong = |expected: &str| Fault::new(at.clone(), expected, quote(&line), HELP);
        let mut words = line.split_ascii_whitespace();
        let Some(key) = words.next() else { continue };
        let rest: Vec<&str> = words.collect();
        if rest.len() > MAX_COLUMNS {
            return Err(wrong("at most 4096 fields"));
        }
        let whole = |word: &&str| word.parse::<u64>().map_err(|_| wrong("whole numbers of 0 or more"));
        let one = || rest.first().ok_or_else(|| wrong("a number")).and_then(whole);
        match key {
            _ if key.starts_with('#') => {}
            "VERSION" | "VIEWPOINT" => {}
            "FIELDS" | "COLUMNS" => names = rest.iter().map(|s| (*s).to_owned()).collect(),
            "SIZE" => {
                for word in &rest {
                    match whole(word)? {
                        size @ (1 | 2 | 4 | 8) => sizes.push(size as usize),
                        _ => return Err(wrong("sizes of 1, 2, 4 or 8 bytes")),
                    }
                }
            }
            "TYPE" => {
                for word in &rest {
                    match *word {
                        "I" | "U" | "F" => types.extend(word.chars()),
                        _ => return Err(wrong("types I, U or F")),
                    }
                }
            }
            "COUNT" => {
                for word in &rest {
                    match whole(word)? {
                        count if (1..=MAX_COLUMNS as u64).contains(&count) => counts.push(count as usize),
                        _ => return Err(wrong("counts of 1 to 4096")),
                    }
                }
            }
            "WIDTH" => width = Some(one()?),
            "HEIGHT" => height = Some(one()?),
            "POINTS" => points = Some(one()?),
            "DATA" => match rest.as_slice() {
                ["ascii"] => break Encoding::Ascii,
                ["binary"] => break Encoding::Binary,
                ["binary_compressed"] => break Encoding::Compressed,
                _ => return Err(wrong("DATA ascii, binary or binary_compressed")),
            },
            _ => {
                return Err(wrong(
                    "a PCD header line (FIELDS, SIZE, TYPE, COUNT, WIDTH, HEIGHT, POINTS, DATA)",
                ));
            }
        }
    };
    let at = Place::Line(lines.number);
    let wrong = |expected: String, found: String| Fault::new(at.clone(), expected, found, HELP);
    if names.is_empty() {
        return Err(wrong("a FIELDS line that names columns".into(), "none".into()));
    }
    if counts.is_empty() {
        counts = vec![1; names.len()];
    }
    for (key, n) in [("SIZE", sizes.len()), ("TYPE", types.len()), ("COUNT", counts.len())] {
        if n != names.len() {
            return Err(wrong(format!("{} values of {key}, one a field", names.len()), format!("{n}")));
        }
    }
    if counts.iter().sum::<usize>() > MAX_COLUMNS {
        return Err(wrong("at most 4096 columns in all".into(), format!("{}", counts.iter().sum::<usize>())));
    }
    let mut fields = Vec::with_capacity(names.len());
    for (i, name) in names.into_iter().enumerate() {
        let scalar = match (types[i], sizes[i]) {
            ('I', 1) => Scalar::I8,
            ('I', 2) => Scalar::I16,
            ('I', 4) => Scalar::I32,
            ('I', _) => Scalar::I64,
            ('U', 1) => Scalar::U8,
            ('U', 2) => Scalar::U16,
            ('U', 4) => Scalar::U32,
            ('U', _) => Scalar::U64,
            ('F', 4) => Scalar::F32,
            ('F', 8) => Scalar::F64,
            (_, size) => {
                return Err(wrong(
                    "floats of 4 or 8 bytes".into(),
                    format!("{size} bytes for field {}", quote(&name)),
                ));
            }
        };
        fields.push(Field { name, scalar, count: counts[i] });
    }
    let area = width.map(|w| w.saturating_mul(height.unwrap_or(1)));
    let points = match (points, area) {
        (Some(p), Some(a)) if p != a => {
            return Err(wrong(format!("POINTS = WIDTH * HEIGHT = {a}"), format!("POINTS {p}")));
        }
        (Some(p), _) => p,
        (None, Some(a)) => a,
        (None, None) => return Err(wrong("a POINTS line".into(), "none".into())),
    };
    Ok(Header { fields, points, encoding, body_at: lines.at, lines: lines.number })
}
