//! Generated scenes beside real ones: voxels, neighbours, histograms, ranges, pyramids of seeds 0..=7.
//!
//! `cargo run --release -p lattice-scenes --example scene_statistics [lidar|32|128|room|fragment|object] [seeds]`

#[path = "../tests/support/mod.rs"]
mod support;

use lattice_io::PointCloud;
use lattice_scenes::{Beams, RoomSampling, SceneKind, SceneOptions, class_names, generate};
use support::targets::{
    FRAGMENT, LIDAR_32, LIDAR_64, LIDAR_128, OBJECT_HISTOGRAM, OBJECT_NEIGHBOURS, OBJECT_VOXELS, ROOM, SIZES,
    Target,
};
use support::{Occupancy, column, distance, halve, heights, labels, occupancy, ranges, voxelize};

fn main() {
    let only = std::env::args().nth(1).unwrap_or_else(|| "all".to_owned());
    let seeds = std::env::args().nth(2).and_then(|s| s.parse().ok()).unwrap_or(8);
    let default = SceneOptions::default();
    let rows = [
        ("lidar", SceneKind::Lidar, default.clone(), &LIDAR_64),
        ("32", SceneKind::Lidar, default.clone().with_beams(Beams::B32), &LIDAR_32),
        ("128", SceneKind::Lidar, default.clone().with_beams(Beams::B128), &LIDAR_128),
        ("room", SceneKind::Indoor, default.clone(), &ROOM),
        ("fragment", SceneKind::Indoor, default.clone().with_room(RoomSampling::DenseFragment), &FRAGMENT),
    ];
    for (name, kind, options, target) in rows {
        if only == "all" || only == name {
            let clouds: Vec<PointCloud> = (0..seeds).map(|seed| generate(kind, seed, &options)).collect();
            compare(&clouds, kind, target);
        }
    }
    if only == "all" || only == "object" {
        println!("\n### object surface");
        compare_objects(seeds, &default);
        // 16 million samples are what the meshes of the real objects were measured with.
        compare_objects(seeds.min(4), &default.with_density(8.0));
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn spread(values: &[f64], digits: usize) -> String {
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), &v| (l.min(v), h.max(v)));
    format!("{:.digits$} ({low:.digits$}..{high:.digits$})", mean(values))
}

fn inside(values: &[f64], band: [f64; 2]) -> String {
    let n = values.iter().filter(|v| **v >= band[0] && **v <= band[1]).count();
    format!("{n}/{}", values.len())
}

fn compare(clouds: &[PointCloud], kind: SceneKind, target: &Target) {
    println!("\n### {}\n", target.name);
    let points: Vec<f64> = clouds.iter().map(|c| c.len() as f64).collect();
    let [low, high] = target.points;
    println!(
        "Points: {}, band {low}..{high}, inside {}.\n",
        spread(&points, 0),
        inside(&points, target.points)
    );
    println!("| voxel size | quantity | generated, mean (min..max) | band of real scans | seeds inside |");
    println!("|---|---|---|---|---|");
    let mut histograms = Vec::new();
    for (i, size) in SIZES.into_iter().enumerate() {
        let scales: Vec<_> = clouds.iter().map(|c| occupancy(&voxelize(c, size))).collect();
        let quantities: [(&str, usize, Vec<f64>); 3] = [
            ("voxels", 0, scales.iter().map(|o| o.voxels as f64).collect()),
            ("average neighbours", 2, scales.iter().map(|o| o.neighbours()).collect()),
            ("% alone", 2, scales.iter().map(|o| o.histogram[0]).collect()),
        ];
        for (j, (name, digits, values)) in quantities.into_iter().enumerate() {
            let (band, count) = match target.bands[i] {
                Some(bands) => (format!("{}..{}", bands[j][0], bands[j][1]), inside(&values, bands[j])),
                None => ("-".to_owned(), "-".to_owned()),
            };
            println!("| {size} | {name} | {} | {band} | {count} |", spread(&values, digits));
        }
        histograms.push(scales);
    }
    println!(
        "\n| voxel size | distance of a seed's histogram to the real mean | of the mean histogram | real to real |"
    );
    println!("|---|---|---|---|");
    for (i, size) in SIZES.into_iter().enumerate() {
        let real = column(&target.histogram, i);
        let each: Vec<f64> = histograms[i].iter().map(|o| distance(&o.histogram, &real)).collect();
        let middle =
            std::array::from_fn(|k| mean(&histograms[i].iter().map(|o| o.histogram[k]).collect::<Vec<_>>()));
        let pairs = target.real_distance.map_or("one scan".to_owned(), |d| format!("{:.3}", d[i]));
        println!("| {size} | {} | {:.3} | {pairs} |", spread(&each, 3), distance(&middle, &real));
    }
    let mean_of = |f: &dyn Fn(&PointCloud) -> Vec<f64>| -> Vec<f64> {
        let rows: Vec<Vec<f64>> = clouds.iter().map(f).collect();
        (0..rows[0].len()).map(|k| mean(&rows.iter().map(|r| r[k]).collect::<Vec<_>>())).collect()
    };
    let list = |v: &[f64], d: usize| v.iter().map(|x| format!("{x:.d$}")).collect::<Vec<_>>().join(" | ");
    if let (Some(real), Some(z)) = (target.ranges, target.heights) {
        println!(
            "\n| % of points at | 0-5 m | 5-10 | 10-20 | 20-30 | 30-40 | 40-60 | 60-80 | >80 | z 1 % | z 50 % | z 99 % |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
        let (r, h) = (mean_of(&|c| ranges(c).to_vec()), mean_of(&|c| heights(c).to_vec()));
        println!("| generated | {} | {} |", list(&r, 1), list(&h, 2));
        println!("| real | {} | {} |", list(&real, 1), list(&z, 2));
    }
    println!("\n| pyramid | 0.05 m | 0.1 m | 0.2 m | 0.4 m | 0.8 m | 1.6 m |\n|---|---|---|---|---|---|---|");
    let pyramid = mean_of(&|c| {
        let mut voxels = voxelize(c, 0.05);
        let mut row = Vec::new();
        for _ in 0..6 {
            let o = occupancy(&voxels);
            row.extend([o.voxels as f64, o.neighbours()]);
            voxels = halve(&voxels);
        }
        row
    });
    let cells =
        |v: &[f64]| v.chunks(2).map(|c| format!("{:.0} ({:.1})", c[0], c[1])).collect::<Vec<_>>().join(" | ");
    println!("| generated | {} |\n| real | {} |", cells(&pyramid), cells(target.pyramid.as_flattened()));
    let shares = mean_of(&|c| {
        let mut counts = vec![0.0; class_names(kind).len() + 1];
        let last = counts.len() - 1;
        for &l in labels(c) {
            counts[(l as usize).min(last)] += 100.0 / c.len() as f64;
        }
        counts
    });
    let names = class_names(kind).iter().chain([&"ignored"]);
    let shares: Vec<String> = names.zip(shares).map(|(n, s)| format!("{n} {s:.1}")).collect();
    println!("\nLabels, % of the points: {}.", shares.join(", "));
}

fn compare_objects(seeds: u64, options: &SceneOptions) {
    // One object at a time: 16 million points are 400 MB.
    let mut points = 0;
    let objects: Vec<Vec<_>> = (0..seeds)
        .map(|seed| {
            let cloud = generate(SceneKind::Object, seed, options);
            points = cloud.len();
            let at = |n: u32| occupancy(&voxelize(&cloud, 1.0 / f64::from(n)));
            [32, 64, 128, 256, 512].map(at).into_iter().collect()
        })
        .collect();
    println!("\n{points} points, {seeds} seeds.\n");
    println!(
        "| side / n | voxels, mean (min..max) | real | average neighbours | real | histogram distance to the real mean |"
    );
    println!("|---|---|---|---|---|---|");
    for (i, n) in [32, 64, 128, 256, 512].into_iter().enumerate() {
        let real = column(&OBJECT_HISTOGRAM, i);
        let of = |f: &dyn Fn(&Occupancy) -> f64| objects.iter().map(|o| f(&o[i])).collect::<Vec<_>>();
        let (voxels, neighbours) = (OBJECT_VOXELS[i], OBJECT_NEIGHBOURS[i]);
        println!(
            "| {n} | {} | {}..{} | {} | {}..{} | {} |",
            spread(&of(&|o| o.voxels as f64), 0),
            voxels[0],
            voxels[1],
            spread(&of(&|o| o.neighbours()), 2),
            neighbours[0],
            neighbours[1],
            spread(&of(&|o| distance(&o.histogram, &real)), 3),
        );
    }
}
