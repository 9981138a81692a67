//! Packed affine weights and features in bytes, by definition.
//!
//! A row holds the input channels of one tap and output channel; rows are numbered `tap · c_out + output channel`. Values are computed
//! in `f32`, since the rule says so; products of bytes in `i64`.

use crate::relations::Edge;

/// Codes, steps and values of code 0 of all rows.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedRows {
    /// Bits of a code.
    pub bits: u32,
    /// Channels that share a scale and a bias.
    pub group_size: usize,
    /// Codes of every row, padding included.
    pub codes: Vec<Vec<u32>>,
    /// A scale a group of every row.
    pub scales: Vec<Vec<f32>>,
    /// A bias a group of every row.
    pub biases: Vec<Vec<f32>>,
}

/// Rounds to the nearest integer, halves to the even one.
fn round_half_even(v: f32) -> f32 {
    let below = v.floor();
    let rest = v - below;
    match rest.partial_cmp(&0.5) {
        Some(std::cmp::Ordering::Less) => below,
        Some(std::cmp::Ordering::Greater) => below + 1.0,
        _ if (below as i64) % 2 == 0 => below,
        _ => below + 1.0,
    }
}

/// Scale, bias and codes of one group.
pub fn quantize_group(values: &[f32], bits: u32) -> (f32, f32, Vec<u32>) {
    let largest = (2u32.pow(bits) - 1) as f32;
    let mut lo = values[0];
    let mut hi = values[0];
    for &v in values {
        if v < lo {
            lo = v;
        }
        if v > hi {
            hi = v;
        }
    }
    let negative = lo.abs() > hi.abs();
    let mut step = (hi - lo) / largest;
    if step < 1e-7 {
        step = 1e-7;
    }
    if !negative {
        step = -step;
    }
    let edge = if negative { lo } else { hi };
    let q0 = round_half_even(edge / step);
    let mut bias = 0.0;
    if q0 != 0.0 {
        step = edge / q0;
        bias = edge;
    }
    let code = |v: f32| {
        let q = round_half_even((v - bias) / step);
        if q < 0.0 {
            0
        } else if q > largest {
            largest as u32
        } else {
            q as u32
        }
    };
    (step, bias, values.iter().map(|&v| code(v)).collect())
}

/// Quantizes rows of equal length, each padded at its end with zeros to whole groups.
pub fn quantize(rows: &[Vec<f32>], group_size: usize, bits: u32) -> PackedRows {
    let mut out = PackedRows { bits, group_size, codes: vec![], scales: vec![], biases: vec![] };
    for row in rows {
        let mut padded = row.clone();
        while padded.len() % group_size != 0 {
            padded.push(0.0);
        }
        let (mut codes, mut scales, mut biases) = (vec![], vec![], vec![]);
        for group in padded.chunks(group_size) {
            let (scale, bias, found) = quantize_group(group, bits);
            codes.extend(found);
            scales.push(scale);
            biases.push(bias);
        }
        out.codes.push(codes);
        out.scales.push(scales);
        out.biases.push(biases);
    }
    out
}

impl PackedRows {
    /// The value of a channel of a row.
    pub fn value(&self, row: usize, channel: usize) -> f32 {
        let group = channel / self.group_size;
        self.scales[row][group] * self.codes[row][channel] as f32 + self.biases[row][group]
    }

    /// The storage of the words: `(1, c_out, words)` for one tap, else `(taps, words, c_out)`.
    pub fn words(&self, taps: usize) -> Vec<u32> {
        let storage = self.codes[0].len();
        let per_row = storage * self.bits as usize / 32;
        let mut words = vec![vec![0u32; per_row]; self.codes.len()];
        for (row, codes) in self.codes.iter().enumerate() {
            for (channel, code) in codes.iter().enumerate() {
                let bit = channel * self.bits as usize;
                words[row][bit / 32] |= code << (bit % 32);
            }
        }
        stored(&words, taps)
    }

    /// The storage of the scales.
    pub fn stored_scales(&self, taps: usize) -> Vec<f32> {
        stored(&self.scales, taps)
    }

    /// The storage of the biases.
    pub fn stored_biases(&self, taps: usize) -> Vec<f32> {
        stored(&self.biases, taps)
    }
}

/// Rows one after another for one tap; else by tap, then by place in the row, then by output channel.
fn stored<V: Copy>(rows: &[Vec<V>], taps: usize) -> Vec<V> {
    if taps == 1 {
        return rows.concat();
    }
    let c_out = rows.len() / taps;
    let mut out = vec![];
    for of_tap in rows.chunks(c_out) {
        let mut place = 0;
        while place < of_tap[0].len() {
            for row in of_tap {
                out.push(row[place]);
            }
            place += 1;
        }
    }
    out
}

/// The byte of a value: `round(clamp(v · (1 / step) + zero, 0, 255))`, halves to even.
pub fn byte(v: f32, step: f32, zero: u8) -> u8 {
    let q = v * (1.0 / step) + f32::from(zero);
    let q = if q < 0.0 { 0.0 } else { q };
    let q = if q > 255.0 { 255.0 } else { q };
    round_half_even(q) as u8
}

/// `Σ (byte - zero) · (scale · code + bias)` over the pairs, for integer scales and biases, `[n_out, c_out]`; one channel group a
/// `c_out / groups` output channels.
pub fn convolve_bytes(
    bytes: &[u8],
    zeros: &[u8],
    weight: &PackedRows,
    edges: &[Edge],
    n_out: usize,
    channels: super::convolution::Channels,
) -> Vec<i64> {
    let super::convolution::Channels { c_in, c_out, groups } = channels;
    let (k, n) = (c_in / groups, c_out / groups);
    let mut y = vec![0; n_out * c_out];
    for &(i, o, tap) in edges {
        for co in 0..c_out {
            let row = tap as usize * c_out + co;
            for channel in 0..k {
                let from = co / n * k + channel;
                let q = i64::from(bytes[i as usize * c_in + from]) - i64::from(zeros[from]);
                let group = channel / weight.group_size;
                let w = weight.scales[row][group] as i64 * i64::from(weight.codes[row][channel])
                    + weight.biases[row][group] as i64;
                y[o as usize * c_out + co] += q * w;
            }
        }
    }
    y
}
