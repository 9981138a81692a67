//! Pooling and upsampling without weights, as modules.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::kernel::{Window, triple};
use super::{Target, or_panic};
use crate::ops::{self, PoolMode, PoolOptions};
use crate::{KernelSpec, Result, SparseTensor};

impl Serialize for PoolMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for PoolMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Options of [`Pool3d`].
#[derive(Config, Debug)]
pub struct Pool3dConfig {
    /// What becomes of the rows of a window.
    pub mode: PoolMode,
    /// Window extent along x, y, z.
    #[config(default = "[2, 2, 2]")]
    pub kernel_size: [usize; 3],
    /// Step along x, y, z; multiplies the tensor stride.
    #[config(default = "[2, 2, 2]")]
    pub stride: [usize; 3],
    /// Shift of the window to the negative side; odd windows are centred at 0.
    #[config(default = "[0, 0, 0]")]
    pub padding: [usize; 3],
    /// Distance of window cells along x, y, z.
    #[config(default = "[1, 1, 1]")]
    pub dilation: [usize; 3],
}

/// Sum, mean or maximum over windows.
#[derive(Module, Debug)]
pub struct Pool3d {
    #[module(skip)]
    mode: PoolMode,
    #[module(skip)]
    window: Window,
}

impl Pool3dConfig {
    /// The module.
    pub fn init(&self) -> Pool3d {
        let Self { mode, kernel_size: size, stride, padding, dilation } = *self;
        Pool3d { mode, window: Window { size, stride, padding, dilation } }
    }
}

impl Pool3d {
    /// What becomes of the rows of a window.
    pub fn mode(&self) -> PoolMode {
        self.mode
    }

    /// The window.
    ///
    /// # Errors
    /// A config that no window can have.
    pub fn options(&self) -> Result<PoolOptions> {
        Ok(PoolOptions::new(self.window.spec("Pool3d")?))
    }

    /// `[n_in, c]` to `[n_out, c]` at tensor stride `x.stride · stride`.
    ///
    /// # Panics
    /// With the error of [`ops::pool3d`].
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x))
    }

    /// [`forward`](Self::forward) that returns its error.
    ///
    /// # Errors
    /// As [`ops::pool3d`].
    pub fn try_forward(&self, x: &SparseTensor) -> Result<SparseTensor> {
        ops::pool3d(x, self.mode, &self.options()?)
    }
}

/// A [`Pool3d`] of one mode: its options and its module.
macro_rules! fixed_pool {
    ($name:ident, $config:ident, $mode:expr, $doc:literal) => {
        #[doc = concat!("Options of [`", stringify!($name), "`].")]
        #[derive(Config, Debug)]
        pub struct $config {
            /// Window extent along x, y, z.
            #[config(default = "[2, 2, 2]")]
            pub kernel_size: [usize; 3],
            /// Step along x, y, z; multiplies the tensor stride.
            #[config(default = "[2, 2, 2]")]
            pub stride: [usize; 3],
            /// Shift of the window to the negative side; odd windows are centred at 0.
            #[config(default = "[0, 0, 0]")]
            pub padding: [usize; 3],
            /// Distance of window cells along x, y, z.
            #[config(default = "[1, 1, 1]")]
            pub dilation: [usize; 3],
        }

        #[doc = $doc]
        #[derive(Module, Debug)]
        pub struct $name {
            pool: Pool3d,
        }

        impl $config {
            /// The module.
            pub fn init(&self) -> $name {
                let Self { kernel_size, stride, padding, dilation } = *self;
                $name { pool: Pool3dConfig { mode: $mode, kernel_size, stride, padding, dilation }.init() }
            }
        }

        impl $name {
            /// The same as a [`Pool3d`].
            pub fn pool(&self) -> &Pool3d {
                &self.pool
            }

            /// `[n_in, c]` to `[n_out, c]` at tensor stride `x.stride · stride`.
            ///
            /// # Panics
            /// With the error of [`ops::pool3d`].
            pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
                self.pool.forward(x)
            }

            /// [`forward`](Self::forward) that returns its error.
            ///
            /// # Errors
            /// As [`ops::pool3d`].
            pub fn try_forward(&self, x: &SparseTensor) -> Result<SparseTensor> {
                self.pool.try_forward(x)
            }
        }
    };
}

fixed_pool!(SumPool3d, SumPool3dConfig, PoolMode::Sum, "Sum over windows.");
fixed_pool!(
    AvgPool3d,
    AvgPool3dConfig,
    PoolMode::Avg,
    "Mean over the rows that a window has; not over its volume."
);
fixed_pool!(MaxPool3d, MaxPool3dConfig, PoolMode::Max, "Maximum over windows, per channel; NaN wins.");

/// Options of [`PoolTranspose3d`].
#[derive(Config, Debug)]
pub struct PoolTranspose3dConfig {
    /// Kernel extent along x, y, z; cells are indexed from 0, also odd kernels.
    #[config(default = "[2, 2, 2]")]
    pub kernel_size: [usize; 3],
    /// Step along x, y, z; divides the tensor stride.
    #[config(default = "[2, 2, 2]")]
    pub stride: [usize; 3],
    /// Shift of the written cells to the negative side.
    #[config(default = "[0, 0, 0]")]
    pub padding: [usize; 3],
    /// Distance of kernel cells along x, y, z.
    #[config(default = "[1, 1, 1]")]
    pub dilation: [usize; 3],
}

/// Every fine row is the mean of the coarse rows that reach it.
#[derive(Module, Debug)]
pub struct PoolTranspose3d {
    #[module(skip)]
    window: Window,
}

impl PoolTranspose3dConfig {
    /// The module.
    pub fn init(&self) -> PoolTranspose3d {
        let Self { kernel_size: size, stride, padding, dilation } = *self;
        PoolTranspose3d { window: Window { size, stride, padding, dilation } }
    }
}

impl PoolTranspose3d {
    /// The kernel.
    ///
    /// # Errors
    /// A config that no kernel can have.
    pub fn spec(&self) -> Result<KernelSpec> {
        self.window.spec("PoolTranspose3d")
    }

    /// `[n_in, c]` to `[n_out, c]` at tensor stride `x.stride / stride`.
    ///
    /// # Panics
    /// With the error of [`ops::pool_transpose3d`].
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x, None))
    }

    /// [`forward`](Self::forward) onto a target's rows.
    ///
    /// # Panics
    /// With the error of [`ops::pool_transpose3d`].
    pub fn forward_onto(&self, x: &SparseTensor, target: &Target) -> SparseTensor {
        or_panic(self.try_forward(x, Some(target)))
    }

    /// [`forward`](Self::forward) with a target, that returns its error.
    ///
    /// # Errors
    /// As [`ops::pool_transpose3d`].
    pub fn try_forward(&self, x: &SparseTensor, target: Option<&Target>) -> Result<SparseTensor> {
        ops::pool_transpose3d(x, &self.spec()?, target)
    }
}

/// Options of [`TrilinearUpsample3d`].
#[derive(Config, Debug)]
pub struct TrilinearUpsample3dConfig {
    /// Step along x, y, z; divides the tensor stride.
    #[config(default = "[2, 2, 2]")]
    pub stride: [usize; 3],
}

/// Trilinear interpolation between coarse rows, renormalised over those that exist.
#[derive(Module, Debug)]
pub struct TrilinearUpsample3d {
    stride: [usize; 3],
}

impl TrilinearUpsample3dConfig {
    /// The module.
    pub fn init(&self) -> TrilinearUpsample3d {
        TrilinearUpsample3d { stride: self.stride }
    }
}

impl TrilinearUpsample3d {
    /// The step along x, y, z.
    pub fn stride(&self) -> [usize; 3] {
        self.stride
    }

    /// `[n_in, c]` to `[n_out, c]` at tensor stride `x.stride / stride`.
    ///
    /// # Panics
    /// With the error of [`ops::trilinear_upsample3d`].
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x, None))
    }

    /// [`forward`](Self::forward) onto a target's rows.
    ///
    /// # Panics
    /// With the error of [`ops::trilinear_upsample3d`].
    pub fn forward_onto(&self, x: &SparseTensor, target: &Target) -> SparseTensor {
        or_panic(self.try_forward(x, Some(target)))
    }

    /// [`forward`](Self::forward) with a target, that returns its error.
    ///
    /// # Errors
    /// As [`ops::trilinear_upsample3d`].
    pub fn try_forward(&self, x: &SparseTensor, target: Option<&Target>) -> Result<SparseTensor> {
        ops::trilinear_upsample3d(x, triple("TrilinearUpsample3d", self.stride)?, target)
    }
}

/// A pooling over whole batch items: its module and its mode.
macro_rules! global_pool {
    ($name:ident, $mode:expr, $doc:literal) => {
        #[doc = $doc]
        #[derive(Module, Debug, Default)]
        pub struct $name;

        impl $name {
            /// The module.
            pub fn new() -> Self {
                Self
            }

            /// `[n, c]` to one row a batch item, `[batch_size, c]`.
            ///
            /// # Panics
            /// With the error of [`ops::global_pool`].
            pub fn forward(&self, x: &SparseTensor) -> Tensor<2> {
                or_panic(self.try_forward(x, None))
            }

            /// [`forward`](Self::forward) with the number of batch items, that returns its error.
            ///
            /// # Errors
            /// As [`ops::global_pool`].
            pub fn try_forward(&self, x: &SparseTensor, batch_size: Option<usize>) -> Result<Tensor<2>> {
                ops::global_pool(x, $mode, batch_size)
            }
        }
    };
}

global_pool!(
    GlobalSumPool,
    PoolMode::Sum,
    "Sum over the rows of each batch item; 0 for an item without rows."
);
global_pool!(
    GlobalAvgPool,
    PoolMode::Avg,
    "Mean over the rows of each batch item; 0 for an item without rows."
);
global_pool!(
    GlobalMaxPool,
    PoolMode::Max,
    "Maximum over the rows of each batch item, which must all have rows."
);
