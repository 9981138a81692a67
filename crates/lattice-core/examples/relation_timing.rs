//! Times what happens between raw coordinates and the maps that kernels read.
//!
//! ```text
//! relation_timing FILE.i32 [REPEATS [THREADS]]
//! ```
//! The file holds little-endian `i32` rows `batch, x, y, z`. Rows are taken as they are and once more shuffled, since a user's
//! rows may come in any order. Every step prints its smallest and median time in milliseconds.

use std::time::Instant;

use lattice_core::{KernelSpec, Relation, Result, Support, SupportPolicy};

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let Some(path) = args.get(1) else {
        return Err("usage: relation_timing FILE.i32 [REPEATS [THREADS]]".into());
    };
    let repeats = args.get(2).map_or(Ok(15), |n| n.parse())?;
    if let Some(threads) = args.get(3) {
        rayon::ThreadPoolBuilder::new().num_threads(threads.parse()?).build_global()?;
    }
    let rows = read_rows(path)?;
    println!("{path}: {} rows, {} threads", rows.len(), rayon::current_num_threads());
    println!("{:<44} {:>9} {:>9}", "rows in the file's order", "min ms", "median ms");
    time_steps(&rows, repeats)?;
    println!("rows shuffled");
    time_steps(&shuffled(&rows), repeats)?;
    Ok(())
}

fn time_steps(rows: &[[i32; 4]], repeats: usize) -> Result<()> {
    let cube = KernelSpec::cube(3, 1)?;
    let support = time("support", repeats, || rows.to_vec(), Support::try_new)?;
    let same = time("submanifold 3x3x3", repeats, || (), |()| Relation::submanifold(&support, &cube))?;
    time(
        "rows to submanifold 3x3x3",
        repeats,
        || rows.to_vec(),
        |rows| Relation::submanifold(&Support::try_new(rows)?, &cube),
    )?;
    println!("  {} pairs", same.n_pairs());
    let canonical = time("canonical support", repeats, || rows.to_vec(), Support::canonical)?;
    time(
        "submanifold 3x3x3 on the canonical support",
        repeats,
        || (),
        |()| Relation::submanifold(&canonical, &cube),
    )?;
    for (size, stride) in [(2, 2), (3, 2)] {
        let spec = KernelSpec::cube(size, stride)?;
        let forward = || Relation::forward(&support, &spec, SupportPolicy::Floor);
        let down = time(&format!("forward size {size} stride {stride}"), repeats, || (), |()| forward())?;
        println!("  {} rows, {} pairs", down.n_out(), down.n_pairs());
        let up = || Relation::target_transposed(down.target(), &support, &spec);
        time(&format!("target-transposed size {size} stride {stride}"), repeats, || (), |()| up())?;
        let grown = || Relation::transposed(down.target(), &spec);
        time(&format!("transposed size {size} stride {stride}"), repeats, || (), |()| grown())?;
        time(&format!("transpose, size {size} stride {stride}"), repeats, forward, |r| {
            r.map(|r| r.transpose())
        })?;
    }
    let up = KernelSpec::cube(2, 2)?;
    time(
        "generative size 2 stride 2",
        repeats,
        || (),
        |()| Relation::generative(&canonical, up.size, up.stride),
    )?;
    time(
        "rows to forward size 2 stride 2",
        repeats,
        || rows.to_vec(),
        |rows| Relation::forward(&Support::try_new(rows)?, &up, SupportPolicy::Floor),
    )?;
    for (size, dilation) in [(5, 1), (7, 1), (3, 2)] {
        let spec = KernelSpec::try_new([size; 3], [1; 3], [0; 3], [dilation; 3])?;
        let name = format!("submanifold size {size} dilation {dilation}");
        let wide = time(&name, repeats, || (), |()| Relation::submanifold(&support, &spec))?;
        println!("  {} pairs", wide.n_pairs());
    }
    time(
        "rows to submanifold 3x3x3 and its tap tiles",
        repeats,
        || rows.to_vec(),
        |rows| {
            let relation = Relation::submanifold(&Support::try_new(rows)?, &cube)?;
            relation.tap_tiles();
            Ok(relation)
        },
    )?;
    let fresh = || Relation::submanifold(&support, &cube);
    time("transpose, submanifold", repeats, fresh, |r| r.map(|r| r.transpose()))?;
    time("by input", repeats, fresh, |r| r.map(|r| r.by_input().splits.len()))?;
    time("by tap", repeats, fresh, |r| r.map(|r| r.by_tap().splits.len()))?;
    time("neighbour table", repeats, fresh, |r| r.map(|r| r.neighbour_table().words))?;
    time("sorted table, with the neighbour table", repeats, fresh, |r| r.map(|r| r.sorted_table().words))?;
    time("tap tiles", repeats, fresh, |r| r.map(|r| r.tap_tiles().block))?;
    Ok(())
}

/// Runs `step` on fresh inputs and prints its times; inputs and results are made and dropped outside the clock.
fn time<I, O>(name: &str, repeats: usize, input: impl Fn() -> I, step: impl Fn(I) -> Result<O>) -> Result<O> {
    let mut millis = Vec::new();
    let result = loop {
        let input = input();
        let start = Instant::now();
        let result = step(input)?;
        millis.push(start.elapsed().as_secs_f64() * 1e3);
        if millis.len() >= repeats {
            break result;
        }
    };
    millis.sort_by(f64::total_cmp);
    println!("  {name:<42} {:>9.3} {:>9.3}", millis[0], millis[millis.len() / 2]);
    Ok(result)
}

fn read_rows(path: &str) -> std::io::Result<Vec<[i32; 4]>> {
    let bytes = std::fs::read(path)?;
    let value = |b: &[u8]| i32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    Ok(bytes
        .chunks_exact(16)
        .map(|row| [value(row), value(&row[4..]), value(&row[8..]), value(&row[12..])])
        .collect())
}

/// The rows in an order without locality, the same on every run.
fn shuffled(rows: &[[i32; 4]]) -> Vec<[i32; 4]> {
    let mut rows = rows.to_vec();
    let mut state = 1u64;
    for i in (1..rows.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        rows.swap(i, (state >> 33) as usize % (i + 1));
    }
    rows
}
