//! Damaged, truncated and hostile streams: a clear error, in bounded time and memory; never a panic.
#![allow(clippy::unwrap_used, reason = "tests")]

use lattice_codec::{
    Attribute, CodecError, CompressOptions, Grid, Limits, Model, Occupied, Values, VoxelCloud, compress,
    decompress,
};
use rstest::rstest;

const GRID: Grid = Grid { voxel_size: 0.1, origin: [0.0; 3] };
/// Magic, version, length of the body.
const HEAD: usize = 14;

struct Noise(u64);

impl Noise {
    fn next(&mut self) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize
    }
}

/// Some hundred voxels with counts and attributes of every scheme, in three blocks.
fn sample(model: Model) -> Vec<u8> {
    let mut noise = Noise(1);
    let cells: Vec<[i32; 4]> = (0..400).map(|i| [0, i % 20, i / 20, (noise.next() % 3) as i32 - 1]).collect();
    let occupied = Occupied::of(&cells).unwrap();
    let n = occupied.voxels.len();
    let list = |name: &str, values: Values| Attribute { name: name.into(), values };
    let attributes = vec![
        list("rgb", Values::Rgb((0..n).map(|i| [i as u8, 7, 250]).collect())),
        list("palette", Values::F32((0..n).map(|i| (i % 4) as f32).collect())),
        list("bits", Values::F64((0..n).map(|i| (i as f64).sqrt()).collect())),
    ];
    let cloud = VoxelCloud { voxels: occupied.voxels, counts: Some(occupied.counts), attributes };
    let mut options = CompressOptions::default();
    options.block_voxels = 150;
    options.model = model;
    let mut stream = Vec::new();
    compress(&cloud, GRID, &options, &mut stream, |_| {}).unwrap();
    stream
}

fn read(stream: &[u8]) -> Result<usize, CodecError> {
    decompress(stream, Limits::default(), |_| {}).map(|(_, cloud)| cloud.voxels.len())
}

#[track_caller]
fn refused(stream: &[u8], part: &str) {
    let text = read(stream).unwrap_err().to_string();
    assert!(text.contains(part), "expected `{part}` in: {text}");
}

/// Length of the head, checksum included.
fn head_bytes(stream: &[u8]) -> usize {
    HEAD + u32::from_le_bytes(stream[10..14].try_into().unwrap()) as usize + 4
}

/// Mends the checksum of the head, so that what is inside is believed.
fn seal_head(stream: &mut [u8]) {
    let end = head_bytes(stream) - 4;
    let sum = crc32fast::hash(&stream[..end]);
    stream[end..end + 4].copy_from_slice(&sum.to_le_bytes());
}

/// Mends the checksums of all blocks whose lengths lie inside the stream.
fn seal_blocks(stream: &mut [u8], n_sections: usize) {
    let mut at = head_bytes(stream);
    while at + 17 + 4 * n_sections <= stream.len() {
        let lengths = stream[at + 17..at + 17 + 4 * n_sections].chunks(4);
        let total: usize = lengths.map(|l| u32::from_le_bytes(l.try_into().unwrap()) as usize).sum();
        let end = at + 17 + 4 * n_sections + total;
        if end + 4 > stream.len() {
            return;
        }
        let sum = crc32fast::hash(&stream[at..end]);
        stream[end..end + 4].copy_from_slice(&sum.to_le_bytes());
        at = end + 4;
    }
}

#[rstest]
fn truncated_streams_are_refused_at_every_length(#[values(Model::Contexts, Model::Learned)] model: Model) {
    let stream = sample(model);
    assert!(read(&stream).is_ok());
    for end in 0..stream.len() {
        let text = read(&stream[..end]).unwrap_err().to_string();
        assert!(text.contains("found the end after"), "{end}: {text}");
    }
}

#[rstest]
fn every_flipped_bit_is_found(#[values(Model::Contexts, Model::Learned)] model: Model) {
    let stream = sample(model);
    for at in 0..stream.len() {
        let mut bad = stream.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(read(&bad).is_err(), "byte {at}");
    }
}

#[rstest]
fn faults_are_named(#[values(Model::Contexts, Model::Learned)] model: Model) {
    let stream = sample(model);
    refused(
        b"ply\nformat ascii 1.0\n",
        "expected a compressed point cloud, found a file that begins with `ply",
    );
    refused(&[], "head: expected 14 bytes, found the end after 0");
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = stream.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        seal_head(&mut bad);
        bad
    };
    let mut version = stream.clone();
    version[8] = 9;
    refused(&version, "expected version 1 or 2, found version 9; read it with the release that wrote it");
    let mut long = stream.clone();
    long[10..14].copy_from_slice(&u32::MAX.to_le_bytes());
    refused(&long, "found a length of 4294967295");
    let mut sum = stream.clone();
    sum[HEAD] ^= 1;
    refused(&sum, "head: expected the checksum");
    refused(&with(HEAD, &f64::NAN.to_le_bytes()), "a finite voxel size above 0");
    refused(&with(HEAD + 32, &i32::MAX.to_le_bytes()), "bounds from low to high");
    // Voxels: more than the box holds, more than the limit, more than the blocks bring.
    refused(&with(HEAD + 68, &u64::MAX.to_le_bytes()), "counts that fit each other");
    let mut huge = with(HEAD + 32, &[0x80u8; 0]);
    for (at, v) in
        [(32, i32::MIN), (36, i32::MIN), (40, i32::MIN), (44, i32::MAX), (48, i32::MAX), (52, i32::MAX)]
    {
        huge[HEAD + at..HEAD + at + 4].copy_from_slice(&v.to_le_bytes());
    }
    huge[HEAD + 68..HEAD + 84].copy_from_slice(&[u64::MAX.to_le_bytes(), u64::MAX.to_le_bytes()].concat());
    seal_head(&mut huge);
    refused(&huge, "head: expected at most 268435456 voxels, found 18446744073709551615");
    let n = read(&stream).unwrap() as u64;
    refused(
        &with(HEAD + 68, &[(n + 1).to_le_bytes(), (n + 9).to_le_bytes()].concat()),
        &format!("blocks: expected {} voxels, found {n}", n + 1),
    );
    refused(&with(HEAD + 68, &(n - 1).to_le_bytes()), "block 2: expected 1 to");
    refused(&with(HEAD + 84, &2u32.to_le_bytes()), "blocks: expected");
    refused(&[&stream[..], b"x"].concat(), "the end: expected nothing after the last block");
}

#[test]
fn a_stream_of_another_model_is_refused() {
    let stream = sample(Model::Learned);
    let end = head_bytes(&stream) - 4;
    // The model's number and its weights are the last five bytes of the head.
    let with = |at: usize, byte: u8| {
        let mut bad = stream.clone();
        bad[at] = byte;
        seal_head(&mut bad);
        bad
    };
    for number in [0, 2, 255] {
        refused(&with(end - 5, number), &format!("head: expected 1 for the model, found {number}"));
    }
    let weights = u32::from_le_bytes(stream[end - 4..end].try_into().unwrap());
    refused(
        &with(end - 1, stream[end - 1] ^ 0x10),
        &format!(
            "head: expected the learned model {weights:08x}, found {:08x}; read it with the release that wrote it",
            weights ^ 0x1000_0000
        ),
    );
    // Each version with the other's head.
    refused(&with(8, 1), "head: expected its end, found 5 more bytes");
    let mut plain = sample(Model::Contexts);
    plain[8] = 2;
    seal_head(&mut plain);
    refused(&plain, "head: expected 1 more bytes, found 0");
    // The blocks of one model are another's noise, and refused where they do not happen to have as many voxels in order.
    let mut head = sample(Model::Contexts);
    head.truncate(head_bytes(&head));
    let mixed = [&head[..], &stream[head_bytes(&stream)..]].concat();
    assert!(read(&mixed).is_err());
}

#[rstest]
fn faults_of_blocks_are_named(#[values(Model::Contexts, Model::Learned)] model: Model) {
    let stream = sample(model);
    let first = head_bytes(&stream);
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = stream.clone();
        bad[first + at..first + at + bytes.len()].copy_from_slice(bytes);
        seal_blocks(&mut bad, 5);
        bad
    };
    refused(&with(0, &0u32.to_le_bytes()), "block 0: expected 1 to");
    refused(&with(0, &(1u32 << 20).to_le_bytes()), "block 0: expected 1 to");
    refused(&with(0, &100u32.to_le_bytes()), "block 0: expected 100 voxels");
    refused(&with(4, &[33]), "block 0: expected a cube inside the one of 2^");
    refused(&with(5, &u32::MAX.to_le_bytes()), "block 0: expected a cube inside");
    refused(&with(17, &u32::MAX.to_le_bytes()), "block 0: expected sections of at most");
    // A geometry of zeros and of ones, with the right checksum.
    let length = u32::from_le_bytes(stream[first + 17..first + 21].try_into().unwrap()) as usize;
    for byte in [0, 0xff] {
        assert!(read(&with(37, &vec![byte; length])).is_err());
    }
    let mut sum = stream.clone();
    sum[first + 40] ^= 1;
    refused(&sum, "block 0: expected the checksum");
    // The same block twice: voxels are out of order.
    let end = first
        + 37
        + (0..5)
            .map(|k| u32::from_le_bytes(stream[first + 17 + 4 * k..][..4].try_into().unwrap()) as usize)
            .sum::<usize>()
        + 4;
    let again = [&stream[..end], &stream[first..]].concat();
    refused(&again, "block 1: expected voxels after");
}

#[rstest]
fn mutated_streams_with_right_checksums_never_panic(#[values(Model::Contexts, Model::Learned)] model: Model) {
    let stream = sample(model);
    let (mut noise, mut accepted) = (Noise(77), 0);
    for round in 0..800 {
        let mut bad = stream.clone();
        for _ in 0..1 + noise.next() % 4 {
            // Half of the changes in the head and the first block's head, where they do most.
            let reach = if noise.next().is_multiple_of(2) { head_bytes(&stream) + 40 } else { bad.len() };
            let at = HEAD + noise.next() % (reach - HEAD);
            bad[at] = match noise.next() % 4 {
                0 => 0,
                1 => 0xff,
                2 => bad[at] ^ 1 << (noise.next() % 8),
                _ => noise.next() as u8,
            };
        }
        if noise.next().is_multiple_of(8) {
            bad.truncate(noise.next() % bad.len());
        }
        if bad.len() > head_bytes(&stream) {
            seal_head(&mut bad);
            seal_blocks(&mut bad, 5);
        }
        // What is accepted is a cloud of as many voxels as were declared.
        match read(&bad) {
            Ok(n) => {
                assert!(n < 10_000, "round {round}: {n}");
                accepted += 1;
            }
            Err(CodecError::Damaged { .. } | CodecError::Limit { .. }) => {}
            Err(other) => panic!("round {round}: {other}"),
        }
    }
    assert!(accepted < 800);
}

#[rstest]
fn a_stream_of_few_bytes_that_claims_much_is_bounded(
    #[values(Model::Contexts, Model::Learned)] model: Model,
) {
    // One block that claims all it may, with an empty geometry: the walk ends as soon as there are too many cells, or too few at the end.
    let mut noise = Noise(3);
    let stream = {
        let cloud = VoxelCloud { voxels: vec![[-1, -1, -1], [0, 0, 0]], ..VoxelCloud::default() };
        let mut stream = Vec::new();
        let mut options = CompressOptions::default();
        options.model = model;
        compress(&cloud, GRID, &options, &mut stream, |_| {}).unwrap();
        stream
    };
    let first = head_bytes(&stream);
    for _ in 0..40 {
        let mut bad = stream[..first].to_vec();
        for (at, v) in
            [(32, i32::MIN), (36, i32::MIN), (40, i32::MIN), (44, i32::MAX), (48, i32::MAX), (52, i32::MAX)]
        {
            bad[HEAD + at..HEAD + at + 4].copy_from_slice(&v.to_le_bytes());
        }
        let n = (noise.next() % (1 << 18)) as u64 + 1;
        bad[HEAD + 68..HEAD + 84].copy_from_slice(&[n.to_le_bytes(), n.to_le_bytes()].concat());
        seal_head(&mut bad);
        let payload: Vec<u8> = (0..noise.next() % 60).map(|_| noise.next() as u8).collect();
        let mut block = (n as u32).to_le_bytes().to_vec();
        block.push(32);
        block.extend([0; 12]);
        block.extend((payload.len() as u32).to_le_bytes());
        block.extend(&payload);
        block.extend(crc32fast::hash(&block).to_le_bytes());
        bad.extend(block);
        assert!(read(&bad).is_err());
    }
}
