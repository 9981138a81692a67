//! Packed weights on a device: the words of a file as what packed convolutions and linear maps read. They are never written out here.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_lattice::quantized::{PackedLayout, PackedRecord, QuantizedWeight};

use super::PackedWeight;
use crate::error::{ArtifactError, Result};
use crate::ir::Element;

/// A packed record for a kernel of this size, or a linear map where there is none, on features of `c_in` channels.
///
/// # Errors
/// Another number of taps than the kernel's; fewer storage channels than `c_in` padded to whole groups.
pub(crate) fn on_device(
    record: &PackedWeight,
    size: Option<[u32; 3]>,
    c_in: usize,
    device: &Device,
) -> Result<QuantizedWeight> {
    let refuse = |what: String| ArtifactError::weight(&record.key, what);
    let (layout, size) = match size {
        Some(size) => (PackedLayout::Dense5d, size.map(|k| k as usize)),
        None => (PackedLayout::Linear, [1; 3]),
    };
    let taps: usize = size.iter().product();
    if record.taps() != taps {
        return Err(refuse(format!(
            "expected packed words of {taps} taps, the kernel's, found shape {:?}",
            record.word_dims
        )));
    }
    let (channels, group_size) = (record.storage_channels(), record.packing.group_size);
    let padded = c_in.next_multiple_of(group_size);
    if c_in == 0 || padded > channels {
        return Err(refuse(format!(
            "expected at least {padded} storage channels for {c_in} input channels, found {channels} in shape {:?}",
            record.word_dims
        )));
    }
    let sizes = PackedRecord::try_new(record.packing.bits, group_size, [c_in, record.c_out()], size, layout)
        .map_err(|error| refuse(error.to_string()))?;
    let scale = if record.packing.scale == Element::F16 { DType::F16 } else { DType::F32 };
    // Whole groups behind the last input channel are padding that nothing reads.
    let axis = if record.is_pointwise() { 2 } else { 1 };
    let (words, dims) =
        leading(&record.words, record.word_dims, axis, padded * record.packing.bits as usize / 32);
    let words = Tensor::<3, Int>::from_data(TensorData::new(words, dims), (device, DType::U32));
    let [scales, biases] = record.scales_and_biases().map(|values| {
        let (values, dims) = leading(&values, record.group_dims, axis, padded / group_size);
        Tensor::<3>::from_data(TensorData::new(values, dims), (device, scale))
    });
    QuantizedWeight::try_new(words, scales, biases, sizes).map_err(|error| refuse(error.to_string()))
}

/// The first `n` along an axis.
fn leading<T: Copy>(values: &[T], dims: [usize; 3], axis: usize, n: usize) -> (Vec<T>, [usize; 3]) {
    let inner: usize = dims[axis + 1..].iter().product();
    let rows = values.chunks(dims[axis] * inner);
    let mut kept = dims;
    kept[axis] = n;
    (rows.flat_map(|row| &row[..n * inner]).copied().collect(), kept)
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

    fn values(record: &PackedWeight, c_in: usize) -> Vec<f32> {
        let weight = on_device(record, None, c_in, &Device::flex()).unwrap();
        weight.to_taps().into_data().iter::<f32>().collect()
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
        let found = values(&row(4, &words, 0.1, -1.0), 32);
        let codes: Vec<f32> = (0..32).map(|c| (c / 2) as f32 * 0.1 - 1.0).collect();
        near(&found, &codes);
        near(&[found[0], found[31]], &[-1.0, 0.5]);

        // 8 bits: the first word holds 0, 8, 16, 25, the last 230, 239, 247, 255.
        let mut words = [0u32; 8];
        (words[0], words[7]) = (0x1910_0800, 0xfff7_efe6);
        let scale = 0.005_882_353;
        let found = values(&row(8, &words, scale, -1.0), 32);
        near(&found[..4], &[-1.0, 8.0 * scale - 1.0, 16.0 * scale - 1.0, 25.0 * scale - 1.0]);
        near(&found[28..], &[230.0 * scale - 1.0, 239.0 * scale - 1.0, 247.0 * scale - 1.0, 0.5]);
    }

    #[test]
    fn the_row_with_zeros_of_the_format_is_read() {
        let words = [0xbbbb_49f0, 0xbbbb_bbbb, 0xbbbb_bbbb, 0xbbbb_bbbb];
        let found = values(&row(4, &words, -0.272_727_28, 3.0), 32);
        near(&found[..4], &[3.0, -1.090_909_2, 0.545_454_5, 1.909_090_9]);
        near(&found[4..], &[0.0; 28]);
        // An input of four channels reads the first four; the rest is padding.
        assert_eq!(values(&row(4, &words, -0.272_727_28, 3.0), 4), found[..4]);
    }

    #[test]
    fn a_group_of_zeros_is_zero() {
        assert_eq!(values(&row(4, &[0; 4], -1e-7, 0.0), 32), [0.0; 32]);
    }

    #[test]
    fn groups_behind_the_last_channel_are_padding() {
        let packing = AffinePacking { bits: 8, group_size: 32, scale: Element::F32 };
        // Two groups a row for 20 input channels, of one tap and of three: only the first is read.
        for taps in [1, 3] {
            let dims = |n: usize| if taps == 1 { vec![1, 2, n] } else { vec![taps, n, 2] };
            let value = |at: usize| if taps == 1 { (at / 16, at % 16) } else { (at % 2, at / 2 % 16) };
            let words: Vec<u8> = (0..taps * 2 * 16)
                .flat_map(|at| if value(at).1 < 8 { [value(at).0 as u8 + 1; 4] } else { [200; 4] })
                .collect();
            let words = Array::try_new(Element::U32, dims(16), words).unwrap();
            let scales: Vec<f32> = (0..taps * 4)
                .map(|at| if (if taps == 1 { at % 2 } else { at / 2 % 2 }) == 0 { 0.5 } else { f32::NAN })
                .collect();
            let scales = Array::from_f32(&dims(2), &scales).unwrap();
            let biases = Array::from_f32(&dims(2), &vec![1.0; taps * 4]).unwrap();
            let parts = [("w.weight", &words), ("w.scales", &scales), ("w.biases", &biases)];
            let record = PackedWeight::read(&TensorFile::from_arrays(parts).unwrap(), "w", packing).unwrap();
            let size = (taps > 1).then_some([3, 1, 1]);
            let found = on_device(&record, size, 20, &Device::flex()).unwrap().to_taps();
            assert_eq!(found.dims(), [taps, 20, 2]);
            let found: Vec<f32> = found.into_data().iter::<f32>().collect();
            near(&found, &[1.5, 2.0].repeat(20 * taps));
        }
    }

    #[test]
    fn taps_and_channels_must_fit_the_consumer() {
        let record = row(4, &[0; 4], 1.0, 0.0);
        let refused = |size, c_in| on_device(&record, size, c_in, &Device::flex()).unwrap_err().to_string();
        assert!(refused(Some([3; 3]), 32).contains("27 taps"));
        assert!(refused(None, 33).contains("at least 64 storage channels"));
        refused(None, 0);
    }
}
