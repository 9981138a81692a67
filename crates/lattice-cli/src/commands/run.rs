//! `lattice run`: the eight-stage workflow on one scan.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_lattice::core::VoxelGrid;
use burn_lattice::ops;
use burn_lattice::routes::{DeviceClass, PACKED_ROUTES};
use burn_lattice::trace::{self, LayerRecord};
use lattice_io::{Attribute, PointCloud, RenderOptions};
use lattice_scenes::{SceneKind, SceneOptions};
use lattice_train::best_classes;
use serde::Serialize;

use crate::features::{self, Feature};
use crate::segmenter::{self, Segmenter, Source};
use crate::{Shared, folder::OutFolder, output, progress::Steps, routes, scene, shipped, table};

/// What the command writes.
const FILES: [&str; 3] = ["points.ply", "picture.png", "report.json"];

/// Arguments of `lattice run`.
#[derive(clap::Args)]
pub struct Args {
    /// A scan; without one a lidar sweep is generated.
    scene: Option<PathBuf>,
    /// Network: minkunet14, minkunet18 or minkunet34, each also with a, b, c or d appended for other decoder widths; minkunet42, spvcnn,
    /// ptv3, minkunet-bench, minkunet-small. The one that the weights name, else minkunet18, by default; with a name and no weights they
    /// are drawn from the seed.
    #[arg(long)]
    model: Option<String>,
    /// What the network is told of each point, in this order: one, place (3), height, xyz (3), intensity, rgb (3); one,place,height by
    /// default.
    #[arg(long)]
    features: Option<String>,
    /// Trained weights (.safetensors), such as best.safetensors of `lattice train`. Without --weights, --model and --features an outdoor
    /// scan (30 to 300 m across) is segmented with weights that come with the command; everything else with weights drawn
    /// from the seed, whose classes mean nothing.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Voxel size in the scan's unit; that of the training or one suited to the extent by default.
    #[arg(long, allow_negative_numbers = true)]
    voxel_size: Option<f64>,
    /// Folder for points.ply, picture.png and report.json.
    #[arg(long, default_value = "out")]
    out: PathBuf,
    /// Seed of the generated scene and of untrained weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Columns of a .bin file.
    #[arg(long)]
    columns: Option<usize>,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Serialize)]
struct Report {
    scene: String,
    device: String,
    model: String,
    seed: u64,
    weights: String,
    points: usize,
    dropped: usize,
    voxels: usize,
    voxel_size: f64,
    classes: Vec<Class>,
    stages: Vec<Stage>,
    layers: Vec<Layer>,
    relation_bytes: usize,
    /// Tables that a GPU holds for relations, row maps and joins.
    device_table_bytes: usize,
    notes: Vec<String>,
    /// A first pass that compiled a GPU's kernels and is not in the stages; 0 on the CPU.
    warmup_ms: f64,
    total_ms: f64,
}

#[derive(Serialize)]
struct Class {
    id: usize,
    name: String,
    points: usize,
}

/// One of the workflow's eight stages.
#[derive(Serialize)]
struct Stage {
    stage: usize,
    name: &'static str,
    status: &'static str,
    detail: String,
    ms: f64,
}

#[derive(Serialize)]
struct Layer {
    name: String,
    kind: String,
    rows_in: usize,
    rows_out: usize,
    pairs: usize,
    c_in: usize,
    c_out: usize,
    route: &'static str,
    map_ms: f64,
    ms: f64,
}

impl From<LayerRecord> for Layer {
    fn from(r: LayerRecord) -> Self {
        Self {
            name: r.name,
            kind: r.kind,
            rows_in: r.rows_in,
            rows_out: r.rows_out,
            pairs: r.pairs,
            c_in: r.c_in,
            c_out: r.c_out,
            route: r.route,
            map_ms: r.map_ms,
            ms: r.ms,
        }
    }
}

/// What the network said of a cloud.
struct Segmentation {
    labels: Vec<u8>,
    voxels: usize,
    relation_bytes: usize,
    device_table_bytes: usize,
    stages: Vec<Stage>,
    layers: Vec<Layer>,
    network_ms: f64,
    warmup_ms: f64,
}

/// Runs the command.
///
/// # Errors
/// A scan, weights or folder that cannot be used; an unknown model; a device that is not there.
pub fn run(args: &Args) -> Result<()> {
    let chosen = args.shared.prepare()?;
    let told = match &args.features {
        Some(list) => features::parse(list)?,
        None => features::DEFAULT.to_vec(),
    };
    let choose = || {
        let choice = segmenter::choose(
            args.model.as_deref(),
            args.weights.as_deref(),
            features::channels(&told),
            segmenter::DEFAULT,
        )?;
        features::check(&told, choice.spec.in_channels)?;
        anyhow::Ok(choice)
    };
    let asked = args.model.is_some() || args.weights.is_some() || args.features.is_some();
    // What was asked for is refused before the scan is read.
    let early = asked.then(choose).transpose()?;
    routes::check_for_networks(&chosen.device, DType::F32)?;

    let steps = Steps::new(5);
    let start = Instant::now();
    steps.begin("scene");
    let (cloud, scene_name) = match &args.scene {
        Some(path) => (scene::load(path, args.columns)?, path.display().to_string()),
        None => {
            let cloud = lattice_scenes::generate(SceneKind::Lidar, args.seed, &SceneOptions::default());
            (cloud, format!("generated lidar, seed {}", args.seed))
        }
    };
    if cloud.is_empty() {
        bail!(
            "{scene_name}: expected points, found none ({} left out because they are not finite); check the file",
            cloud.dropped
        );
    }
    let network = match early {
        Some(choice) => choice,
        None if shipped::is_outdoors(&cloud) => shipped::choice(),
        None => choose()?,
    };
    let (spec, names) = (&network.spec, &network.classes);
    let voxel_size = scene::voxel_size(args.voxel_size.or(network.voxel_size), &cloud)?;
    steps.done();

    steps.begin(format!("{}: weights", spec.name));
    let model = Segmenter::load(&network, args.seed, &chosen.device)?;
    steps.done();
    // Find out before the work that the results have a place.
    let out = OutFolder::prepare(&args.out, &FILES)?;
    let work = format!("{} on {} points", spec.name, table::count(cloud.len()));
    if DeviceClass::of(&chosen.device).is_gpu() {
        steps.begin(format!("{work}, first pass: compiles the kernels that are not known yet"));
    }
    let found = segment(&model, &cloud, &told, voxel_size, &chosen.device, || steps.begin(work))
        .map_err(|e| e.context(format!("{scene_name} at voxel size {voxel_size}")))?;
    steps.done();

    steps.begin("points.ply and picture.png");
    let classified = with_classes(&cloud, &found.labels, names);
    lattice_io::write_ply(out.file(FILES[0]), &classified, lattice_io::PlyFormat::BinaryLittleEndian)
        .map_err(|e| anyhow!("--out: {e}"))?;
    let options = RenderOptions::default().by_class("label", names.iter().cloned());
    lattice_io::render_png(out.file(FILES[1]), &classified, &options).map_err(|e| anyhow!("--out: {e}"))?;
    steps.done();

    let report = Report {
        scene: scene_name,
        device: chosen.name,
        model: spec.name.clone(),
        seed: args.seed,
        weights: match network.source {
            Source::File(path) => path.display().to_string(),
            Source::Shipped => shipped::NAME.into(),
            Source::Seed => format!("untrained (seed {})", args.seed),
        },
        points: cloud.len(),
        dropped: cloud.dropped,
        voxels: found.voxels,
        voxel_size,
        classes: names
            .iter()
            .enumerate()
            .map(|(id, name)| Class {
                id,
                name: name.clone(),
                points: found.labels.iter().filter(|&&l| usize::from(l) == id).count(),
            })
            .collect(),
        stages: found.stages,
        layers: found.layers,
        relation_bytes: found.relation_bytes,
        device_table_bytes: found.device_table_bytes,
        notes: scene::precision_note(&cloud, voxel_size).into_iter().collect(),
        warmup_ms: found.warmup_ms,
        total_ms: start.elapsed().as_secs_f64() * 1e3,
    };
    let text = serde_json::to_string_pretty(&report)?;
    lattice_io::write_text(out.file(FILES[2]), &text).map_err(|e| anyhow!("--out: {e}"))?;
    let written = FILES.map(|f| out.file(f).display().to_string());
    out.keep();
    steps.done();
    drop(steps);
    if args.shared.json {
        output::line(text)
    } else {
        output::line(summary(&report, &written, found.network_ms))
    }
}

/// Scores and labels a cloud; says when the pass that is measured begins.
fn segment(
    model: &Segmenter,
    cloud: &PointCloud,
    told: &[Feature],
    voxel_size: f64,
    device: &Device,
    begin: impl FnOnce(),
) -> Result<Segmentation> {
    let start = Instant::now();
    let positions = scene::positions_f32(cloud);
    let flat: Vec<f32> = positions.iter().flatten().copied().collect();
    let points = Tensor::<2>::from_data(TensorData::new(flat, [cloud.len(), 3]), device);
    let features = features::of_points(cloud, &positions, told, voxel_size as f32, device)?;
    let channels = features.dims()[1];
    let grid = VoxelGrid::cubic(voxel_size as f32)?;
    // A voxel's scores belong to its centre, half a voxel above its corner.
    let centres = VoxelGrid::try_new(grid.voxel_size, grid.voxel_size.map(|s| s / 2.0))?;

    let mut warmup_ms = 0.0;
    if DeviceClass::of(device).is_gpu() {
        // A GPU compiles its kernels at their first use; layers are timed in the second pass.
        let clock = Instant::now();
        let options = ops::VoxelizeOptions::new(grid);
        let voxels = ops::voxelize(points.clone(), features.clone(), None, &options)?;
        model.forward(&voxels, &points, &grid)?.at(points.clone(), centres)?;
        device.sync().map_err(|e| anyhow::anyhow!("{e:?}"))?;
        warmup_ms = clock.elapsed().as_secs_f64() * 1e3;
    }
    begin();
    let mut voxelize_ms = 0.0;
    let mut network_ms = 0.0;
    let mut devoxelize_ms = 0.0;
    let (result, records) = trace::record(|| -> Result<_> {
        let clock = Instant::now();
        let voxels = ops::voxelize(points.clone(), features, None, &ops::VoxelizeOptions::new(grid))?;
        voxelize_ms = clock.elapsed().as_secs_f64() * 1e3;
        let clock = Instant::now();
        let scores = model.forward(&voxels, &points, &grid)?;
        device.sync().map_err(|e| anyhow::anyhow!("{e:?}"))?;
        network_ms = clock.elapsed().as_secs_f64() * 1e3;
        let clock = Instant::now();
        let labels = best_classes(scores.at(points, centres)?)?;
        devoxelize_ms = clock.elapsed().as_secs_f64() * 1e3;
        Ok((voxels, labels))
    });
    let (voxels, labels) = result?;
    let report = voxels.manager().report();
    let layers: Vec<Layer> = records.into_iter().map(Layer::from).collect();
    let stage = |stage, name, status, detail: String, ms| Stage { stage, name, status, detail, ms };
    let ms_of =
        |prefix: &str| layers.iter().filter(|l| l.kind.starts_with(prefix)).map(|l| l.ms + l.map_ms).sum();
    let convolutions = layers.iter().filter(|l| l.kind.starts_with("conv")).count();
    let joins = layers.iter().filter(|l| l.kind.starts_with("join") || l.kind.starts_with("cat")).count();
    let stages = vec![
        stage(
            1,
            "choose the support",
            "done",
            format!("a voxel of {voxel_size} with at least one point"),
            0.0,
        ),
        stage(
            2,
            "build tensors",
            "done",
            format!("{} voxels, {channels} channels", voxels.n_rows()),
            voxelize_ms,
        ),
        stage(
            3,
            "feature-only blocks",
            "done",
            "norms and activations run inside the convolutions".into(),
            0.0,
        ),
        stage(
            4,
            "relation-changing blocks",
            "done",
            format!("{convolutions} convolutions over {} cached relations", report.relations),
            ms_of("conv"),
        ),
        stage(
            5,
            "align branches",
            "done",
            format!("{joins} skips joined on shared identities"),
            ms_of("cat") + ms_of("join"),
        ),
        stage(
            6,
            "bridge points and voxels",
            "done",
            format!("{} points labelled", labels.len()),
            devoxelize_ms,
        ),
        quantized(&layers),
        stage(
            8,
            "benchmark",
            "done",
            "rows, pairs, route and time of each layer".into(),
            start.elapsed().as_secs_f64() * 1e3,
        ),
    ];
    Ok(Segmentation {
        labels,
        voxels: voxels.n_rows(),
        relation_bytes: report.bytes(),
        device_table_bytes: report.device_bytes,
        stages,
        layers,
        network_ms,
        warmup_ms,
    })
}

/// The seventh stage: layers that ran on packed weights.
fn quantized(layers: &[Layer]) -> Stage {
    let packed = layers.iter().filter(|l| PACKED_ROUTES.iter().any(|r| r.name == l.route)).count();
    let (status, detail) = match packed {
        0 => ("not run", "float weights; `lattice quantize` packs them".into()),
        n => ("done", format!("{n} layers ran on packed weights")),
    };
    Stage { stage: 7, name: "quantize", status, detail, ms: 0.0 }
}

fn with_classes(cloud: &PointCloud, labels: &[u8], names: &[String]) -> PointCloud {
    let mut out = cloud.clone();
    // What the file said stays beside what the network says.
    if let Some(given) = out.attributes.remove("label") {
        out.attributes.insert("label_given".into(), given);
    }
    out.triangles.clear();
    let colours = labels.iter().map(|&l| lattice_io::class_colour(usize::from(l).min(names.len()))).collect();
    out.attributes.insert("rgb".into(), Attribute::Rgb(colours));
    out.attributes.insert("label".into(), Attribute::U8(labels.to_vec()));
    out
}

/// A first pass that took so much longer than the one that is measured has compiled kernels.
const COMPILING_MS: f64 = 2000.0;

fn summary(report: &Report, written: &[String], network_ms: f64) -> String {
    let mut lines = vec![report.scene.clone()];
    lines.push(format!(
        "{} points, {} voxels of {}; {} on {}, weights: {}",
        table::count(report.points),
        table::count(report.voxels),
        table::length(report.voxel_size),
        report.model,
        report.device,
        report.weights
    ));
    if report.weights.starts_with("untrained") {
        lines.push("These weights are untrained: the classes below show that the pipeline runs, not what stands in the scene.".into());
    }
    lines.extend(report.notes.iter().map(|note| format!("note: {note}")));
    let rows: Vec<Vec<String>> = report
        .stages
        .iter()
        .map(|s| {
            let ms = if s.ms > 0.0 { format!("{:.1}", s.ms) } else { String::new() };
            vec![s.stage.to_string(), s.name.into(), s.status.into(), ms, s.detail.clone()]
        })
        .collect();
    lines.push(format!("\n{}\n", table::render(&["", "stage", "status", "ms", "detail"], &rows)));
    let rows: Vec<Vec<String>> = report
        .layers
        .iter()
        .map(|l| {
            vec![
                l.name.clone(),
                l.kind.clone(),
                table::count(l.rows_out),
                table::count(l.pairs),
                format!("{}->{}", l.c_in, l.c_out),
                l.route.into(),
                format!("{:.2}", l.map_ms),
                format!("{:.2}", l.ms),
            ]
        })
        .collect();
    lines.push(format!(
        "{}\n",
        table::render(&["layer", "kind", "rows", "pairs", "channels", "route", "map ms", "ms"], &rows)
    ));
    let rows: Vec<Vec<String>> = report
        .classes
        .iter()
        .map(|c| {
            let share = 100.0 * c.points as f64 / report.points.max(1) as f64;
            vec![c.name.clone(), table::count(c.points), format!("{share:.1}")]
        })
        .collect();
    lines.push(format!("{}\n", table::render(&["class", "points", "%"], &rows)));
    let bytes = match report.device_table_bytes {
        0 => format!("relations and maps {} bytes", table::count(report.relation_bytes)),
        n => format!("tables of relations and maps {} bytes on the device", table::count(n)),
    };
    lines.push(format!("network {network_ms:.0} ms, all {:.0} ms; {bytes}", report.total_ms));
    if report.warmup_ms > network_ms + COMPILING_MS {
        lines.push(format!(
            "A first pass of {:.1} s compiled kernels for this device; the next run finds them in the cache folder.",
            report.warmup_ms / 1e3
        ));
    }
    lines.push(format!("wrote {}", written.join(", ")));
    lines.join("\n")
}
