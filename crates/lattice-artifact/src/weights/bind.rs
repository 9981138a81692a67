//! Weights as operations read them: laid out for the operation, in the element type of its features, on the device.

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_lattice::quantized::QuantizedWeight;

use super::place::on_device;
use super::stored::StoredWeight;
use crate::error::{ArtifactError, Result};
use crate::plan::Weight;
use crate::tensor_file::TensorFile;

/// What reads a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Use {
    /// A convolution with a kernel of this size, on features of `c_in` channels.
    Convolution { size: [u32; 3], c_in: usize },
    /// A linear map of `c_in` channels.
    Linear { c_in: usize },
    /// A table of rows.
    Table,
    /// A vector a channel.
    Vector,
}

/// A weight on a device.
#[derive(Clone, Debug)]
pub(crate) enum Bound {
    /// `[taps, c_in, c_out]`, z fastest among taps.
    Taps(Tensor<3>),
    /// Codes of a convolution or a linear map.
    Packed(Box<QuantizedWeight>),
    /// `[c_out, c_in]` of a linear map, `[n, c]` of a table.
    Matrix(Tensor<2>),
    /// `[c]`.
    Vector(Tensor<1>),
}

/// Refuses a weight whose stored shape cannot be that of its use. Input channels of `None` are not known yet.
pub(crate) fn check(weight: &Weight, stored: &StoredWeight, size: Option<[u32; 3]>) -> Result<()> {
    let Some(size) = size else { return Ok(()) };
    let taps = size.iter().map(|&k| k as usize).product::<usize>();
    match stored {
        StoredWeight::Dense { dims, .. } => {
            let kernel = size.map(|k| k as usize);
            if dims[1..4] != kernel {
                let what = format!(
                    "expected shape [c_out, {}, {}, {}, c_in], the kernel's along x, y, z, found {dims:?}",
                    kernel[0], kernel[1], kernel[2]
                );
                return Err(ArtifactError::weight(&weight.key, what));
            }
        }
        StoredWeight::Packed(packed) if packed.taps() != taps => {
            let what = format!("expected packed words of {taps} taps, the kernel's, found {}", packed.taps());
            return Err(ArtifactError::weight(&weight.key, what));
        }
        StoredWeight::Packed(_) => {}
    }
    Ok(())
}

/// A weight laid out for its use.
pub(crate) fn bind(
    weight: &Weight,
    stored: &StoredWeight,
    file: &TensorFile,
    used: Use,
    (device, dtype): (&Device, DType),
) -> Result<Bound> {
    let key = &weight.key;
    let place = (device, dtype);
    let channels = |expected: usize, dims: &[usize]| {
        let what = format!(
            "expected a weight of {expected} input channels, those of the features, found shape {dims:?}"
        );
        Err(ArtifactError::weight(key, what))
    };
    match (used, stored) {
        (Use::Convolution { size, c_in }, StoredWeight::Dense { dims, .. }) => {
            check(weight, stored, Some(size))?;
            let (c_out, taps) = (dims[0], dims[1] * dims[2] * dims[3]);
            if dims[4] != c_in {
                return channels(c_in, dims);
            }
            let values = by_taps(&StoredWeight::floats(key, file)?, [c_out, taps, c_in]);
            Ok(Bound::Taps(Tensor::from_data(TensorData::new(values, [taps, c_in, c_out]), place)))
        }
        (Use::Convolution { size, c_in }, StoredWeight::Packed(packed)) => {
            on_device(packed, Some(size), c_in, device).map(|weight| Bound::Packed(Box::new(weight)))
        }
        (Use::Linear { c_in }, StoredWeight::Dense { dims, .. }) => {
            if dims[1] != c_in {
                return channels(c_in, dims);
            }
            matrix(key, file, dims, place)
        }
        (Use::Linear { c_in }, StoredWeight::Packed(packed)) => {
            on_device(packed, None, c_in, device).map(|weight| Bound::Packed(Box::new(weight)))
        }
        (Use::Table, StoredWeight::Dense { dims, .. }) => matrix(key, file, dims, place),
        (Use::Vector, StoredWeight::Dense { dims, .. }) => {
            let values = StoredWeight::floats(key, file)?;
            Ok(Bound::Vector(Tensor::from_data(TensorData::new(values, [dims[0]]), place)))
        }
        (_, StoredWeight::Packed(_)) => {
            Err(ArtifactError::weight(key, "expected a dense weight, found a packed one"))
        }
    }
}

fn matrix(key: &str, file: &TensorFile, dims: &[usize], place: (&Device, DType)) -> Result<Bound> {
    let values = StoredWeight::floats(key, file)?;
    Ok(Bound::Matrix(Tensor::from_data(TensorData::new(values, [dims[0], dims[1]]), place)))
}

/// `[c_out, taps, c_in]` as `[taps, c_in, c_out]`: kernels read weights as they lie.
fn by_taps(stored: &[f32], [c_out, taps, c_in]: [usize; 3]) -> Vec<f32> {
    let mut out = vec![0.0; stored.len()];
    for (o, kernel) in stored.chunks_exact(taps * c_in).enumerate() {
        for (i, &value) in kernel.iter().enumerate() {
            out[i * c_out + o] = value;
        }
    }
    out
}
