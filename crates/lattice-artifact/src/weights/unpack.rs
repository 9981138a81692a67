//! The one place where a packed weight becomes what a convolution or a linear map reads.
//!
//! Weights stay packed in memory ([`PackedWeight`]); here they are written out as floats when an operation binds them, and operations
//! compute with those. An operation that computes with the codes takes the record in place of calling [`dense_taps`]; nothing else in
//! this crate depends on how packed weights run.

use super::PackedWeight;
use crate::error::{ArtifactError, Result};

/// Weights `[taps, c_in, c_out]` of a packed record, f32: exactly `scale · code + bias`, padding channels left out.
///
/// # Errors
/// Another number of taps than the kernel's; fewer storage channels than `c_in`.
pub(crate) fn dense_taps(record: &PackedWeight, taps: usize, c_in: usize) -> Result<Vec<f32>> {
    let refuse = |what: String| Err(ArtifactError::weight(&record.key, what));
    if record.taps() != taps {
        return refuse(format!(
            "expected packed words of {taps} taps, the kernel's, found shape {:?}",
            record.word_dims
        ));
    }
    let (channels, c_out) = (record.storage_channels(), record.c_out());
    // The channels are padded to whole groups, never by a group or more.
    if c_in == 0 || channels < c_in || channels - c_in >= record.packing.group_size {
        let padded = c_in.next_multiple_of(record.packing.group_size);
        return refuse(format!(
            "expected {padded} storage channels for {c_in} input channels, found {channels} in shape {:?}",
            record.word_dims
        ));
    }
    let [scales, biases] = record.scales_and_biases();
    let (bits, words, groups) =
        (record.packing.bits as usize, record.row_words(), channels / record.packing.group_size);
    let (a_word, mask) = (32 / bits, (1u32 << bits) - 1);
    let mut out = Vec::with_capacity(taps * c_in * c_out);
    for tap in 0..taps {
        for channel in 0..c_in {
            let (word, shift, group) =
                (channel / a_word, channel % a_word * bits, channel / record.packing.group_size);
            for o in 0..c_out {
                let at = |inner: usize, i: usize| match record.is_pointwise() {
                    true => o * inner + i,
                    false => (tap * inner + i) * c_out + o,
                };
                let code = record.words[at(words, word)] >> shift & mask;
                let group = at(groups, group);
                out.push(scales[group] * code as f32 + biases[group]);
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::array::Array;
    use crate::ir::Element;
    use crate::plan::AffinePacking;
    use crate::tensor_file::TensorFile;

    /// One output channel of a kernel of one tap.
    fn row(bits: u32, words: &[u32], scale: f32, bias: f32) -> PackedWeight {
        let packing = AffinePacking { bits, group_size: 32, scale: Element::F32 };
        let bytes = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let words = Array::try_new(Element::U32, vec![1, 1, words.len()], bytes).unwrap();
        let [scales, biases] = [scale, bias].map(|v| Array::from_f32(&[1, 1, 1], &[v]).unwrap());
        let parts = [("w.weight", &words), ("w.scales", &scales), ("w.biases", &biases)];
        PackedWeight::read(&TensorFile::from_arrays(parts).unwrap(), "w", packing).unwrap()
    }

    fn near(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() < 1e-6, "{found:?} {expected:?}");
        }
    }

    #[test]
    fn the_even_row_of_the_format_is_read() {
        let words = [0x3322_1100, 0x7766_5544, 0xbbaa_9988, 0xffee_ddcc];
        let values = dense_taps(&row(4, &words, 0.1, -1.0), 1, 32).unwrap();
        let codes: Vec<f32> = (0..32).map(|c| (c / 2) as f32 * 0.1 - 1.0).collect();
        near(&values, &codes);
        near(&[values[0], values[31]], &[-1.0, 0.5]);

        // 8 bits: the first word holds 0, 8, 16, 25, the last 230, 239, 247, 255.
        let mut words = [0u32; 8];
        (words[0], words[7]) = (0x1910_0800, 0xfff7_efe6);
        let scale = 0.005_882_353;
        let values = dense_taps(&row(8, &words, scale, -1.0), 1, 32).unwrap();
        near(&values[..4], &[-1.0, 8.0 * scale - 1.0, 16.0 * scale - 1.0, 25.0 * scale - 1.0]);
        near(&values[28..], &[230.0 * scale - 1.0, 239.0 * scale - 1.0, 247.0 * scale - 1.0, 0.5]);
    }

    #[test]
    fn the_row_with_zeros_of_the_format_is_read() {
        let words = [0xbbbb_49f0, 0xbbbb_bbbb, 0xbbbb_bbbb, 0xbbbb_bbbb];
        let values = dense_taps(&row(4, &words, -0.272_727_28, 3.0), 1, 32).unwrap();
        near(&values[..4], &[3.0, -1.090_909_2, 0.545_454_5, 1.909_090_9]);
        near(&values[4..], &[0.0; 28]);
        // An input of four channels reads the first four; the rest is padding.
        assert_eq!(dense_taps(&row(4, &words, -0.272_727_28, 3.0), 1, 4).unwrap(), values[..4]);
    }

    #[test]
    fn a_group_of_zeros_is_zero() {
        assert_eq!(dense_taps(&row(4, &[0; 4], -1e-7, 0.0), 1, 32).unwrap(), [0.0; 32]);
    }

    #[test]
    fn taps_and_channels_must_fit_the_consumer() {
        let record = row(4, &[0; 4], 1.0, 0.0);
        assert!(dense_taps(&record, 27, 32).unwrap_err().to_string().contains("27 taps"));
        assert!(dense_taps(&record, 1, 33).unwrap_err().to_string().contains("64 storage channels"));
        assert!(dense_taps(&record, 1, 0).is_err());
    }
}
