//! Trains the network of the codec's learned model on generated scenes and writes its weights:
//! `cargo run --release -p lattice-codec --example train_network -- OUT [ROUNDS] [SEED]`.
//!
//! Each round generates a dozen scenes (sweeps, rooms, fragments, objects, terrain; turned, shifted, at many voxel sizes), asks the codec what it would ask its
//! network about their cells, and goes over all of these once, shuffled, with Adam. No scan is read. The same seed gives the same bytes.

mod net;
mod scenes;

use lattice_codec::{Event, N_HEADS, observe};
use lattice_scenes::Random;
use net::{Cells, Net};

const SCENES_A_ROUND: u64 = 12;
const HELD_OUT: u64 = 9;

fn gather(seed: u64, first: u64, n: u64) -> Result<Cells, Box<dyn std::error::Error>> {
    let mut cells = Cells::default();
    for number in first..first + n {
        let scene = scenes::scene(seed, number)?;
        observe(&scene.voxels, scene.sensor, |event| match event {
            Event::Cell(features) => cells.begin(features),
            Event::Feature(feature) => cells.feature(feature),
            Event::Question(head, bit, p) => cells.question(head, bit, p),
        })?;
    }
    cells.end();
    Ok(cells)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let out = args.next().ok_or("expected a file to write, rounds, a seed")?;
    let rounds: u64 = args.next().map_or(Ok(60), |v| v.parse())?;
    let seed: u64 = args.next().map_or(Ok(1), |v| v.parse())?;
    let start = std::time::Instant::now();
    // Scenes of another seed, which no round sees.
    let held_out = gather(!seed, 0, HELD_OUT)?;
    let mut net = Net::new(&mut Random::new(&[seed, 1]));
    let mut order = Random::new(&[seed, 2]);
    for round in 0..rounds {
        let cells = gather(seed, round * SCENES_A_ROUND, SCENES_A_ROUND)?;
        // Down from 3e-3 as a cosine.
        let along = round as f32 / rounds as f32;
        let rate = 3e-3 * (0.02 + 0.98 * 0.5 * (1.0 + (std::f32::consts::PI * along).cos()));
        let bits = net.train(&cells, rate, &mut order);
        print!(
            "round {round}: {} cells, {bits:.4} bits a question, {:.0} s",
            cells.len(),
            start.elapsed().as_secs_f64()
        );
        if (round + 1) % 5 == 0 || round + 1 == rounds {
            let (ours, contexts) = net.score(&held_out);
            print!(
                "; held out {:.4}, contexts {:.4}",
                ours.iter().sum::<f64>() / held_out.questions() as f64,
                contexts.iter().sum::<f64>() / held_out.questions() as f64
            );
            if round + 1 == rounds {
                println!();
                for h in 0..N_HEADS {
                    println!("head {h}: {:.0} bits, contexts {:.0}", ours[h], contexts[h]);
                }
            }
            std::fs::write(&out, net.bytes())?;
        }
        println!();
    }
    Ok(())
}
