//! How libraries lay convolution weights out, and the way to `[taps, c_in, c_out]` with z fastest among taps.

use serde::{Deserialize, Serialize};

/// Order of a weight's dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightLayout {
    /// `[k0, k1, k2, in, out]`: spconv 1.x, Open3D.
    KernelInOut,
    /// `[out, k0, k1, k2, in]`: spconv 2.2 and later, implicit gemm of 2.0 and 2.1, TRELLIS, the lattice artifact.
    OutKernelIn,
    /// `[k0, k1, k2, out, in]`: the native algorithm of spconv 2.0 and 2.1.
    KernelOutIn,
    /// `[out, in, k0, k1, k2]`: fVDB.
    OutInKernel,
    /// `[taps, in, out]`; `[in, out]` for one tap: MinkowskiEngine, torchsparse, torch-lattice, WarpConvNet, OCNN.
    TapsInOut,
    /// `[taps, out, in]`: deconvolutions of OCNN.
    TapsOutIn,
    /// `[taps, groups, in / groups, out / groups]`, depthwise `[taps, channels]`: WarpConvNet, SparseConvNet. Weights of these
    /// dimensions are taken so under `TapsInOut` too.
    TapsGroupInOut,
}

/// Which tap comes first in a flat list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TapOrder {
    /// The last of the axes is fastest.
    #[default]
    LastFastest,
    /// The first of the axes is fastest: MinkowskiEngine.
    FirstFastest,
    /// The first is fastest where the number of taps is odd, else the last: torchsparse.
    OddFirstFastest,
}

/// What a kernel of one tap holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitKernel {
    /// What its layout says.
    #[default]
    AsLayout,
    /// The memory of `[out, 1, 1, 1, in]` read as `[in, out]`, which is how spconv 2.1 and later multiplies it.
    Reinterpreted,
}

/// Coordinate columns that the kernel's dimensions follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Axes([usize; 3]);

impl Axes {
    /// x, y, z.
    pub const XYZ: Self = Self([0, 1, 2]);
    /// z, y, x: detectors, and Open3D's kernels.
    pub const ZYX: Self = Self([2, 1, 0]);
}

impl TryFrom<String> for Axes {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        let places: Vec<usize> = word.chars().filter_map(|c| "xyz".find(c)).collect();
        let mut sorted = places.clone();
        sorted.sort_unstable();
        match <[usize; 3]>::try_from(places) {
            Ok(axes) if sorted == [0, 1, 2] && word.len() == 3 => Ok(Self(axes)),
            _ => Err(format!("expected axes such as \"xyz\" or \"zyx\", found \"{word}\"")),
        }
    }
}

impl From<Axes> for String {
    fn from(axes: Axes) -> Self {
        axes.0.map(|a| ['x', 'y', 'z'][a]).into_iter().collect()
    }
}

/// How to read one weight.
#[derive(Clone, Copy, Debug)]
pub struct WeightRule {
    /// Order of dimensions.
    pub layout: WeightLayout,
    /// Columns that the kernel's dimensions follow.
    pub axes: Axes,
    /// Order of a flat list of taps.
    pub tap_order: TapOrder,
    /// What a kernel of one tap holds.
    pub unit_kernel: UnitKernel,
    /// Taps of odd kernels are listed from the other end: generative convolutions that run the forward relation.
    pub mirrored: bool,
}

impl WeightRule {
    /// A rule with the usual order of taps.
    pub fn new(layout: WeightLayout, axes: Axes) -> Self {
        Self {
            layout,
            axes,
            tap_order: TapOrder::default(),
            unit_kernel: UnitKernel::default(),
            mirrored: false,
        }
    }
}

/// The weight that a network takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightTarget {
    /// Kernel size along x, y, z.
    pub kernel: [usize; 3],
    /// Input channels, of one group.
    pub c_in: usize,
    /// Output channels, of all groups.
    pub c_out: usize,
}

impl WeightTarget {
    fn taps(&self) -> usize {
        self.kernel.iter().product()
    }
}

/// Axes of a weight's kernel: three, or x and y alone in the order of the rule where the weight is of a plane.
fn kernel_axes(rule: &WeightRule, target: &WeightTarget, dims: usize) -> Option<Vec<usize>> {
    match dims {
        3 => Some(rule.axes.0.to_vec()),
        2 if target.kernel[2] == 1 => Some(rule.axes.0.into_iter().filter(|&a| a != 2).collect()),
        _ => None,
    }
}

/// Strides in values of the axes x, y, z, the input and the output channel in a stored weight.
struct Places {
    axes: [usize; 3],
    c_in: usize,
    c_out: usize,
    /// Stride of a group and output channels in one; a layout without groups is one group.
    group: usize,
    group_out: usize,
}

/// Places of a weight of this shape; `None` where it does not fit the layout.
fn places(shape: &[usize], rule: &WeightRule, target: &WeightTarget) -> Option<Places> {
    let WeightTarget { kernel, c_in, c_out } = *target;
    let taps = target.taps();
    let ungrouped = |axes, c_in, c_out| Places { axes, c_in, c_out, group: 0, group_out: target.c_out };
    // Strides of taps that stand in a flat list, each `step` values apart.
    let flat = |step: usize| {
        let first_fastest = match rule.tap_order {
            TapOrder::LastFastest => false,
            TapOrder::FirstFastest => true,
            TapOrder::OddFirstFastest => taps % 2 == 1,
        };
        let mut axes = rule.axes.0.to_vec();
        if !first_fastest {
            axes.reverse();
        }
        let mut strides = [0; 3];
        let mut stride = step;
        for axis in axes {
            strides[axis] = stride;
            stride *= kernel[axis];
        }
        strides
    };
    // Row-major strides of `[outer.., kernel.., inner..]`, checked against the shape.
    let spatial = |before: &[usize], after: &[usize]| {
        let axes = kernel_axes(rule, target, shape.len().checked_sub(before.len() + after.len())?)?;
        let sizes: Vec<usize> = axes.iter().map(|&a| kernel[a]).collect();
        let expected = [before, &sizes, after].concat();
        if expected != shape {
            return None;
        }
        let mut strides = [0; 3];
        let mut stride: usize = after.iter().product();
        for &axis in axes.iter().rev() {
            strides[axis] = stride;
            stride *= kernel[axis];
        }
        Some((strides, stride))
    };
    match rule.layout {
        WeightLayout::KernelInOut => Some(ungrouped(spatial(&[], &[c_in, c_out])?.0, c_out, 1)),
        WeightLayout::KernelOutIn => Some(ungrouped(spatial(&[], &[c_out, c_in])?.0, 1, c_in)),
        WeightLayout::OutKernelIn => {
            let (axes, volume) = spatial(&[c_out], &[c_in])?;
            match rule.unit_kernel {
                UnitKernel::Reinterpreted if taps == 1 => Some(ungrouped(axes, c_out, 1)),
                _ => Some(ungrouped(axes, 1, volume)),
            }
        }
        WeightLayout::OutInKernel => {
            if taps == 1 && shape == [c_out, c_in] {
                return Some(ungrouped([0; 3], 1, c_in));
            }
            let (axes, volume) = spatial(&[c_out, c_in], &[])?;
            Some(ungrouped(axes, volume, volume * c_in))
        }
        WeightLayout::TapsInOut => {
            let fits = shape == [taps, c_in, c_out] || (taps == 1 && shape == [c_in, c_out]);
            fits.then(|| ungrouped(flat(c_in * c_out), c_out, 1))
        }
        WeightLayout::TapsOutIn => {
            let fits = shape == [taps, c_out, c_in] || (taps == 1 && shape == [c_out, c_in]);
            fits.then(|| ungrouped(flat(c_in * c_out), 1, c_in))
        }
        WeightLayout::TapsGroupInOut => match *shape {
            [t, groups, group_in, group_out] => {
                let fits = t == taps && group_in == c_in && groups * group_out == c_out;
                let step = groups * group_in * group_out;
                fits.then(|| Places {
                    axes: flat(step),
                    c_in: group_out,
                    c_out: 1,
                    group: group_in * group_out,
                    group_out,
                })
            }
            [t, channels] if t == taps && c_in == 1 && channels == c_out => {
                Some(Places { axes: flat(channels), c_in: 0, c_out: 1, group: 1, group_out: 1 })
            }
            _ => None,
        },
    }
}

/// Whether a weight of this shape can be read by the rule.
pub fn fits(shape: &[usize], rule: &WeightRule, target: &WeightTarget) -> bool {
    places(shape, rule, target).is_some()
}

/// A weight as networks take it, `[taps, c_in, c_out]`, z fastest among taps; `None` where its shape does not fit the rule.
///
/// # Panics
/// When there are not as many values as the shape says.
pub fn to_taps(
    values: &[f32],
    shape: &[usize],
    rule: &WeightRule,
    target: &WeightTarget,
) -> Option<Vec<f32>> {
    assert_eq!(values.len(), shape.iter().product::<usize>(), "to_taps: values and shape differ");
    let at = places(shape, rule, target)?;
    let [kx, ky, kz] = target.kernel;
    let mirrored = rule.mirrored && target.kernel.iter().all(|k| k % 2 == 1);
    let mut out = Vec::with_capacity(values.len());
    for x in 0..kx {
        for y in 0..ky {
            for z in 0..kz {
                let cell = if mirrored { [kx - 1 - x, ky - 1 - y, kz - 1 - z] } else { [x, y, z] };
                let tap: usize = (0..3).map(|a| cell[a] * at.axes[a]).sum();
                for ci in 0..target.c_in {
                    for co in 0..target.c_out {
                        let (group, local) = (co / at.group_out, co % at.group_out);
                        out.push(values[tap + group * at.group + ci * at.c_in + local * at.c_out]);
                    }
                }
            }
        }
    }
    Some(out)
}
