//! Any bytes are a compressed cloud or an error; what is accepted can be written again and read back.
#![no_main]

use lattice_codec::{CompressOptions, Limits, Model, Reader, compress, decompress};
use libfuzzer_sys::fuzz_target;

/// Small enough that a run is short, large enough for several levels and blocks.
const LIMITS: Limits = Limits { max_voxels: 1 << 14 };
/// Magic, version, length of the body.
const HEAD: usize = 14;

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes([word[0], word[1], word[2], word[3]]) as usize)
}

/// Writes the checksum of `from..to` behind it.
fn seal(bytes: &mut [u8], from: usize, to: usize) -> Option<()> {
    let sum = crc32fast::hash(bytes.get(from..to)?);
    bytes.get_mut(to..to + 4)?.copy_from_slice(&sum.to_le_bytes());
    Some(())
}

/// Mends checksums, which no fuzzer finds by chance: first the head's, then those of the blocks that it announces.
fn seal_all(bytes: &mut [u8]) -> Option<()> {
    let mut at = HEAD + word(bytes, 10)?;
    seal(bytes, 0, at)?;
    at += 4;
    let n_sections = {
        let reader = Reader::open(&*bytes, LIMITS).ok()?;
        1 + usize::from(reader.header().has_counts) + reader.header().attributes().len()
    };
    loop {
        let lengths: Option<usize> = (0..n_sections).map(|k| word(bytes, at + 17 + 4 * k)).sum();
        let end = (at + 17 + 4 * n_sections).checked_add(lengths?)?;
        seal(bytes, at, end)?;
        at = end + 4;
    }
}

fuzz_target!(|data: &[u8]| {
    let _ = decompress(data, LIMITS, |_| {});
    let mut sealed = data.to_vec();
    let _ = seal_all(&mut sealed);
    if let Ok((header, cloud)) = decompress(sealed.as_slice(), LIMITS, |_| {}) {
        for model in Model::ALL {
            let mut options = CompressOptions::default();
            options.model = model;
            options.sensor = header.sensor;
            let mut again = Vec::new();
            let written = compress(&cloud, header.grid, &options, &mut again, |_| {});
            written.expect("what was read is distinct, in order and complete");
            let (head, back) = decompress(again.as_slice(), LIMITS, |_| {}).expect("our own stream");
            assert_eq!(head.model, model);
            assert_eq!(back.voxels, cloud.voxels);
            assert_eq!(back.counts, cloud.counts);
        }
    }
});
