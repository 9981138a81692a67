//! The network in floats: forward, gradients, Adam, and its weights as the codec reads them.

use lattice_codec::{N_FEATURES, N_HEADS, N_HIDDEN};
use lattice_scenes::Random;

/// Largest hidden number, and largest weight of a row, that the codec's integers hold.
const MOST_HIDDEN: f32 = 1023.0 / 64.0;
const MOST_ROW: f32 = 127.0 / 64.0;
const MOST_HEAD: f32 = 32_767.0 / 4096.0;
/// Cells a step.
const BATCH: usize = 256;

type Row = [f32; N_HIDDEN];

/// Cells with their features and what was asked.
#[derive(Default)]
pub struct Cells {
    features: Vec<u16>,
    events: Vec<u32>,
    /// Where features and events of each cell begin.
    starts: Vec<[u32; 2]>,
    questions: usize,
}

const FEATURE: u32 = 1 << 31;

impl Cells {
    pub fn begin(&mut self, features: &[u16]) {
        self.end();
        self.features.extend(features);
    }

    pub fn end(&mut self) {
        self.starts.push([self.features.len() as u32, self.events.len() as u32]);
    }

    pub fn feature(&mut self, feature: u16) {
        self.events.push(FEATURE | u32::from(feature));
    }

    pub fn question(&mut self, head: usize, bit: bool, p: u32) {
        self.events.push((head as u32) << 17 | u32::from(bit) << 16 | p.min(65_535));
        self.questions += 1;
    }

    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    pub fn questions(&self) -> usize {
        self.questions
    }

    fn cell(&self, k: usize) -> (&[u16], &[u32]) {
        let [[f0, e0], [f1, e1]] = [self.starts[k], self.starts[k + 1]];
        (&self.features[f0 as usize..f1 as usize], &self.events[e0 as usize..e1 as usize])
    }
}

/// All numbers of a network: rows, heads, biases of heads.
pub struct Net {
    rows: Vec<Row>,
    heads: Vec<Row>,
    bias: Vec<f32>,
    adam: [Vec<f32>; 2],
    steps: i32,
}

struct Gradient {
    rows: Vec<Row>,
    heads: Vec<Row>,
    bias: Vec<f32>,
}

fn add(to: &mut Row, from: &Row) {
    to.iter_mut().zip(from).for_each(|(a, b)| *a += b);
}

fn cut(sums: &Row) -> Row {
    sums.map(|v| v.clamp(0.0, MOST_HIDDEN))
}

/// Bits that an answer costs under logarithmic odds.
fn cost(odds: f32, bit: bool) -> f64 {
    let wrong = f64::from(if bit { -odds } else { odds });
    (wrong.max(0.0) + (-wrong.abs()).exp().ln_1p()) / std::f64::consts::LN_2
}

impl Net {
    pub fn new(random: &mut Random) -> Self {
        let mut row = |scale: f64| [0; N_HIDDEN].map(|_: i32| (scale * random.normal()) as f32);
        let n = (N_FEATURES + N_HEADS) * N_HIDDEN + N_HEADS;
        Self {
            rows: (0..N_FEATURES).map(|_| row(0.15)).collect(),
            heads: (0..N_HEADS).map(|_| row(0.2)).collect(),
            bias: vec![0.0; N_HEADS],
            adam: [vec![0.0; n], vec![0.0; n]],
            steps: 0,
        }
    }

    /// One cell forward and, where a gradient is asked for, back; adds the cost of each question to `bits`.
    fn cell(
        &self,
        (features, events): (&[u16], &[u32]),
        bits: &mut [f64],
        gradient: Option<&mut Gradient>,
        trail: &mut Vec<(u32, f32, Row)>,
    ) {
        let mut sums = [0.0; N_HIDDEN];
        features.iter().for_each(|f| add(&mut sums, &self.rows[usize::from(*f)]));
        trail.clear();
        for &event in events {
            if event & FEATURE != 0 {
                add(&mut sums, &self.rows[(event & !FEATURE) as usize]);
                trail.push((event, 0.0, sums));
                continue;
            }
            let (h, bit) = ((event >> 17) as usize, event >> 16 & 1 == 1);
            let hidden = cut(&sums);
            let odds = self.bias[h] + hidden.iter().zip(&self.heads[h]).map(|(a, b)| a * b).sum::<f32>();
            bits[h] += cost(odds, bit);
            let p = 1.0 / (1.0 + (-odds).exp());
            trail.push((event, p - f32::from(u8::from(bit)), sums));
        }
        let Some(gradient) = gradient else { return };
        let mut back = [0.0; N_HIDDEN];
        for (event, error, sums) in trail.iter().rev() {
            if event & FEATURE != 0 {
                add(&mut gradient.rows[(event & !FEATURE) as usize], &back);
                continue;
            }
            let h = (event >> 17) as usize;
            gradient.bias[h] += error;
            for k in 0..N_HIDDEN {
                gradient.heads[h][k] += error * sums[k].clamp(0.0, MOST_HIDDEN);
                let open = sums[k] > 0.0 && sums[k] < MOST_HIDDEN;
                back[k] += if open { error * self.heads[h][k] } else { 0.0 };
            }
        }
        features.iter().for_each(|f| add(&mut gradient.rows[usize::from(*f)], &back));
    }

    /// Goes over all cells once in a random order; returns the mean bits a question.
    pub fn train(&mut self, cells: &Cells, rate: f32, random: &mut Random) -> f64 {
        let mut order: Vec<u32> = (0..cells.len() as u32).collect();
        for k in (1..order.len()).rev() {
            order.swap(k, random.below(k + 1));
        }
        let (mut bits, mut trail) = (vec![0.0; N_HEADS], Vec::new());
        for batch in order.chunks(BATCH) {
            let mut gradient = Gradient {
                rows: vec![[0.0; N_HIDDEN]; N_FEATURES],
                heads: vec![[0.0; N_HIDDEN]; N_HEADS],
                bias: vec![0.0; N_HEADS],
            };
            for &k in batch {
                self.cell(cells.cell(k as usize), &mut bits, Some(&mut gradient), &mut trail);
            }
            self.step(&gradient, rate, 1.0 / batch.len() as f32);
        }
        bits.iter().sum::<f64>() / cells.questions as f64
    }

    fn step(&mut self, gradient: &Gradient, rate: f32, scale: f32) {
        self.steps += 1;
        let [first, second] = &mut self.adam;
        let (c1, c2) = (1.0 - 0.9f32.powi(self.steps), 1.0 - 0.999f32.powi(self.steps));
        let limits = [(MOST_ROW, N_FEATURES * N_HIDDEN), (MOST_HEAD, N_HEADS * N_HIDDEN), (8.0, N_HEADS)];
        let slices = [self.rows.as_flattened_mut(), self.heads.as_flattened_mut(), &mut self.bias];
        let gradients = [gradient.rows.as_flattened(), gradient.heads.as_flattened(), &gradient.bias];
        let mut at = 0;
        for ((values, gradients), (most, n)) in slices.into_iter().zip(gradients).zip(limits) {
            let (m, v) = (&mut first[at..at + n], &mut second[at..at + n]);
            for k in 0..n {
                let g = gradients[k] * scale;
                m[k] += 0.1 * (g - m[k]);
                v[k] += 0.001 * (g * g - v[k]);
                let step = rate * (m[k] / c1) / ((v[k] / c2).sqrt() + 1e-8);
                values[k] = (values[k] - step).clamp(-most, most);
            }
            at += n;
        }
    }

    /// Bits of each head, by this network and by the contexts.
    pub fn score(&self, cells: &Cells) -> (Vec<f64>, Vec<f64>) {
        let (mut ours, mut contexts, mut trail) = (vec![0.0; N_HEADS], vec![0.0; N_HEADS], Vec::new());
        for k in 0..cells.len() {
            let (features, events) = cells.cell(k);
            self.cell((features, events), &mut ours, None, &mut trail);
            for event in events.iter().filter(|e| **e & FEATURE == 0) {
                let p = f64::from(event & 0xffff) / 65_536.0;
                contexts[(event >> 17) as usize] -= if event >> 16 & 1 == 1 { p } else { 1.0 - p }.log2();
            }
        }
        (ours, contexts)
    }

    /// The weights as the codec reads them.
    pub fn bytes(&self) -> Vec<u8> {
        let rows = self.rows.iter().flatten().map(|w| (w * 64.0).round() as i8 as u8);
        let heads = self.heads.iter().flatten().map(|w| (w * 4096.0).round() as i16);
        let bias = self.bias.iter().map(|b| (b * 4096.0).round() as i16);
        rows.chain(heads.chain(bias).flat_map(i16::to_le_bytes)).collect()
    }
}
