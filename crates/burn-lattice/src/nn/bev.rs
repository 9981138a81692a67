//! Bird's-eye views: modules that drop one coordinate axis. Coordinates are logical and count from 0.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::kernel::conv_bias;
use super::or_panic;
use crate::ops::{self, Axis, BevWindow};
use crate::{Error, Result, SparseTensor};

impl Serialize for Axis {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::X => "x",
            Self::Y => "y",
            Self::Z => "z",
        })
    }
}

impl<'de> Deserialize<'de> for Axis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "x" => Ok(Self::X),
            "y" => Ok(Self::Y),
            "z" => Ok(Self::Z),
            other => Err(de::Error::custom(format!("expected axis x, y or z, found `{other}`"))),
        }
    }
}

/// Matrices `[places, c_in, c_out]`, uniform in ±1 / sqrt(c_in).
fn place_weight(
    op: &'static str,
    channels: [usize; 2],
    places: usize,
    device: &Device,
) -> Result<Param<Tensor<3>>> {
    let [c_in, c_out] = channels;
    if c_in == 0 || c_out == 0 || places == 0 {
        return Err(Error::Value {
            op,
            what: format!("expected positive channels and places, found {channels:?} and {places}"),
        });
    }
    let bound = 1.0 / (c_in as f64).sqrt();
    Ok(Initializer::Uniform { min: -bound, max: bound }.init([places, c_in, c_out], device))
}

/// Options of [`ToBevReduction`].
#[derive(Config, Debug)]
pub struct ToBevReductionConfig {
    /// The axis to drop.
    #[config(default = "Axis::Z")]
    pub axis: Axis,
}

/// Sets the coordinate along the axis to 0 and averages the rows that meet.
#[derive(Module, Debug)]
pub struct ToBevReduction {
    #[module(skip)]
    axis: Axis,
}

impl ToBevReductionConfig {
    /// The module.
    pub fn init(&self) -> ToBevReduction {
        ToBevReduction { axis: self.axis }
    }
}

impl ToBevReduction {
    /// `[n, c]` to `[sites, c]` in canonical order.
    ///
    /// # Panics
    /// With the error of [`ops::bev_reduction`].
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(ops::bev_reduction(x, self.axis))
    }
}

/// Options of [`ToBevConvolution`].
#[derive(Config, Debug)]
pub struct ToBevConvolutionConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Places along the dropped axis, each with a matrix of its own.
    pub places: usize,
    /// Step along the axes that stay.
    #[config(default = 1)]
    pub stride: usize,
    /// The axis to drop.
    #[config(default = "Axis::Z")]
    pub axis: Axis,
    /// Adds a learned vector of `c_out` to every input row's product.
    #[config(default = false)]
    pub bias: bool,
}

/// Multiplies every row with the matrix of its place along the axis and sums the rows that meet.
#[derive(Module, Debug)]
pub struct ToBevConvolution {
    /// `[places, c_in, c_out]`.
    pub weight: Param<Tensor<3>>,
    /// `[c_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    stride: usize,
    #[module(skip)]
    axis: Axis,
}

impl ToBevConvolutionConfig {
    /// Allocates the module: weight uniform in ±1 / sqrt(c_in), bias zero.
    ///
    /// # Panics
    /// Zero channels or places.
    pub fn init(&self, device: &Device) -> ToBevConvolution {
        ToBevConvolution {
            weight: or_panic(place_weight("ToBevConvolution", self.channels, self.places, device)),
            bias: conv_bias(self.bias, self.channels[1], device),
            stride: self.stride,
            axis: self.axis,
        }
    }
}

impl ToBevConvolution {
    /// `[n, c_in]` to `[sites, c_out]` in canonical order.
    ///
    /// # Panics
    /// With the error of [`ops::bev_convolution`].
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x))
    }

    /// [`forward`](Self::forward) that returns its error.
    ///
    /// # Errors
    /// As [`ops::bev_convolution`].
    pub fn try_forward(&self, x: &SparseTensor) -> Result<SparseTensor> {
        let stride = u32::try_from(self.stride).map_err(|_| Error::Limit {
            op: "ToBevConvolution",
            what: format!("expected a stride below 2^32, found {}", self.stride),
        })?;
        let bias = self.bias.as_ref().map(Param::val);
        ops::bev_convolution(x, self.weight.val(), bias, stride, self.axis)
    }
}

/// Options of [`ToDenseBevConvolution`].
#[derive(Config, Debug)]
pub struct ToDenseBevConvolutionConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Cells of the window along x, y, z; each cell along the dropped axis has a matrix of its own.
    pub shape: [usize; 3],
    /// Coordinate of the window's first cell.
    #[config(default = "[0, 0, 0]")]
    pub offset: [i32; 3],
    /// The axis to drop.
    #[config(default = "Axis::Z")]
    pub axis: Axis,
    /// Adds a learned vector of `c_out` to every input row's product.
    #[config(default = false)]
    pub bias: bool,
}

/// Multiplies every row with the matrix of its place along the axis and sums the rows that meet in a dense image.
#[derive(Module, Debug)]
pub struct ToDenseBevConvolution {
    /// `[places, c_in, c_out]`.
    pub weight: Param<Tensor<3>>,
    /// `[c_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    window: BevWindow,
    #[module(skip)]
    axis: Axis,
}

impl ToDenseBevConvolutionConfig {
    /// Allocates the module: weight uniform in ±1 / sqrt(c_in), bias zero.
    ///
    /// # Panics
    /// Zero channels, or a window without cells along the axis.
    pub fn init(&self, device: &Device) -> ToDenseBevConvolution {
        let places = self.shape[self.axis as usize];
        ToDenseBevConvolution {
            weight: or_panic(place_weight("ToDenseBevConvolution", self.channels, places, device)),
            bias: conv_bias(self.bias, self.channels[1], device),
            window: BevWindow::new(self.shape).with_offset(self.offset),
            axis: self.axis,
        }
    }
}

impl ToDenseBevConvolution {
    /// `[n, c_in]` to the image `[b, c_out, h, w]`.
    ///
    /// # Panics
    /// With the error of [`ops::dense_bev_convolution`].
    pub fn forward(&self, x: &SparseTensor) -> Tensor<4> {
        or_panic(self.try_forward(x))
    }

    /// [`forward`](Self::forward) that returns its error.
    ///
    /// # Errors
    /// As [`ops::dense_bev_convolution`].
    pub fn try_forward(&self, x: &SparseTensor) -> Result<Tensor<4>> {
        let bias = self.bias.as_ref().map(Param::val);
        ops::dense_bev_convolution(x, self.weight.val(), bias, &self.window, self.axis)
    }
}

/// Options of [`ToBevHeightCompression`].
#[derive(Config, Debug)]
pub struct ToBevHeightCompressionConfig {
    /// Feature channels.
    pub channels: usize,
    /// Cells of the window along x, y, z.
    pub shape: [usize; 3],
    /// Coordinate of the window's first cell.
    #[config(default = "[0, 0, 0]")]
    pub offset: [i32; 3],
    /// The axis to fold into channels.
    #[config(default = "Axis::Z")]
    pub axis: Axis,
}

/// Folds the axis, clamped into the window, into channels of a dense image: place `d` of channel `k` is channel `d · c + k`.
#[derive(Module, Debug)]
pub struct ToBevHeightCompression {
    channels: usize,
    #[module(skip)]
    window: BevWindow,
    #[module(skip)]
    axis: Axis,
}

impl ToBevHeightCompressionConfig {
    /// The module.
    pub fn init(&self) -> ToBevHeightCompression {
        ToBevHeightCompression {
            channels: self.channels,
            window: BevWindow::new(self.shape).with_offset(self.offset),
            axis: self.axis,
        }
    }
}

impl ToBevHeightCompression {
    /// Channels of the image: the tensor's times the window's extent along the axis.
    pub fn image_channels(&self) -> usize {
        self.channels * self.window.shape[self.axis as usize]
    }

    /// `[n, c]` to the image `[b, c · depth, h, w]`.
    ///
    /// # Panics
    /// With the error of [`try_forward`](Self::try_forward).
    pub fn forward(&self, x: &SparseTensor) -> Tensor<4> {
        or_panic(self.try_forward(x))
    }

    /// [`forward`](Self::forward) that returns its error.
    ///
    /// # Errors
    /// [`Error::Channels`] when the channels differ; otherwise as [`ops::bev_height_compression`].
    pub fn try_forward(&self, x: &SparseTensor) -> Result<Tensor<4>> {
        super::norm::check_channels("ToBevHeightCompression", self.channels, x.channels())?;
        ops::bev_height_compression(x, &self.window, self.axis)
    }
}
