//! Attributes as whole numbers, and back: what is lost, if anything, is lost here.

use lattice_core::AttributeValues as Values;

use crate::error::{CodecError, Result};

/// Most distinct values of a float attribute that are listed in the header.
pub(crate) const MAX_PALETTE: usize = 4096;

/// How the whole numbers of an attribute stand for its values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scheme {
    /// The integers themselves (colours: three channels).
    Exact,
    /// Multiples of a step.
    Step(f64),
    /// Numbers of a list of bit patterns, ascending.
    Palette(Vec<u64>),
    /// Bit patterns of floats, in the order of their values.
    Bits,
}

/// Element type, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    U8,
    U16,
    U32,
    I32,
    F32,
    F64,
    Rgb,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] =
        [Self::U8, Self::U16, Self::U32, Self::I32, Self::F32, Self::F64, Self::Rgb];

    pub(crate) fn of(values: &Values) -> Self {
        match values {
            Values::U8(_) => Self::U8,
            Values::U16(_) => Self::U16,
            Values::U32(_) => Self::U32,
            Values::I32(_) => Self::I32,
            Values::F32(_) => Self::F32,
            Values::F64(_) => Self::F64,
            Values::Rgb(_) => Self::Rgb,
        }
    }

    pub(crate) fn channels(self) -> usize {
        if self == Self::Rgb { 3 } else { 1 }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }

    /// Smallest and largest value of an integer type.
    fn limits(self) -> (f64, f64) {
        match self {
            Self::U8 | Self::Rgb => (0.0, 255.0),
            Self::U16 => (0.0, 65_535.0),
            Self::U32 => (0.0, f64::from(u32::MAX)),
            Self::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
            Self::F32 | Self::F64 => (f64::NEG_INFINITY, f64::INFINITY),
        }
    }
}

/// An attribute as the stream holds it: its type, its scheme and the range of its whole numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Channel {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) scheme: Scheme,
    pub(crate) low: i64,
    pub(crate) high: i64,
}

/// A bit pattern of `bits` bits whose order as a number is that of the float.
fn ordered(pattern: u64, bits: u32) -> i64 {
    let top = 1u64 << (bits - 1);
    let magnitude = (pattern & (top - 1)) as i64;
    if pattern & top == 0 { magnitude } else { -1 - magnitude }
}

/// The inverse of [`ordered`].
fn pattern(number: i64, bits: u32) -> u64 {
    let top = 1u64 << (bits - 1);
    if number >= 0 { number as u64 } else { (-1 - number) as u64 | top }
}

fn patterns(values: &Values) -> Option<(Vec<u64>, u32)> {
    match values {
        Values::F32(v) => Some((v.iter().map(|v| u64::from(v.to_bits())).collect(), 32)),
        Values::F64(v) => Some((v.iter().map(|v| v.to_bits()).collect(), 64)),
        _ => None,
    }
}

/// Integer values as f64, colour channels one after the other.
fn numbers(values: &Values) -> Vec<f64> {
    match values {
        Values::U8(v) => v.iter().map(|&v| f64::from(v)).collect(),
        Values::U16(v) => v.iter().map(|&v| f64::from(v)).collect(),
        Values::U32(v) => v.iter().map(|&v| f64::from(v)).collect(),
        Values::I32(v) => v.iter().map(|&v| f64::from(v)).collect(),
        Values::F32(v) => v.iter().map(|&v| f64::from(v)).collect(),
        Values::F64(v) => v.clone(),
        Values::Rgb(v) => v.iter().flatten().map(|&v| f64::from(v)).collect(),
    }
}

impl Channel {
    /// The channel of an attribute and its whole numbers, three a voxel for colours.
    pub(crate) fn of(op: &'static str, name: &str, values: &Values, step: f64) -> Result<(Self, Vec<i64>)> {
        let kind = Kind::of(values);
        let lossy = step > if kind.is_float() { 0.0 } else { 1.0 };
        let (scheme, numbers) = if lossy {
            let scaled: Vec<f64> = numbers(values).iter().map(|v| (v / step).round()).collect();
            if let Some(row) = scaled.iter().position(|v| v.is_nan() || v.abs() > 9e15) {
                let expected = format!("values of `{name}` that are finite and below 9e15 steps of {step}");
                let found = format!("{} at row {}", self::numbers(values)[row], row / kind.channels());
                return Err(CodecError::value(
                    op,
                    expected,
                    found,
                    "keep it without a step, or leave it out",
                ));
            }
            (Scheme::Step(step), scaled.iter().map(|&v| v as i64).collect())
        } else if let Some((patterns, bits)) = patterns(values) {
            let mut palette = patterns.clone();
            palette.sort_unstable_by_key(|&p| ordered(p, bits));
            palette.dedup();
            if palette.len() <= MAX_PALETTE && palette.len() <= patterns.len() / 8 {
                let number =
                    |p: &u64| palette.partition_point(|&q| ordered(q, bits) < ordered(*p, bits)) as i64;
                let numbers = patterns.iter().map(number).collect();
                (Scheme::Palette(palette), numbers)
            } else {
                (Scheme::Bits, patterns.iter().map(|&p| ordered(p, bits)).collect())
            }
        } else {
            (Scheme::Exact, numbers(values).iter().map(|&v| v as i64).collect::<Vec<_>>())
        };
        let low = numbers.iter().copied().min().unwrap_or(0);
        let high = numbers.iter().copied().max().unwrap_or(0);
        Ok((Self { name: name.to_owned(), kind, scheme, low, high }, numbers))
    }

    /// Values of whole numbers inside `low..=high`, as [`Channel::of`] made them.
    pub(crate) fn values(&self, numbers: &[i64]) -> Values {
        let float = |number: i64| match &self.scheme {
            Scheme::Exact => number as f64,
            Scheme::Step(step) => number as f64 * step,
            // Floats of palettes and patterns do not come this way.
            Scheme::Palette(_) | Scheme::Bits => 0.0,
        };
        let (least, most) = self.kind.limits();
        let whole = |number: &i64| float(*number).round().clamp(least, most);
        let bits = |number: &i64, width: u32| match &self.scheme {
            Scheme::Palette(palette) => {
                palette.get(usize::try_from(*number).unwrap_or(usize::MAX)).copied().unwrap_or(0)
            }
            _ => pattern(*number, width),
        };
        let stepped = matches!(self.scheme, Scheme::Step(_));
        match self.kind {
            Kind::U8 => Values::U8(numbers.iter().map(|n| whole(n) as u8).collect()),
            Kind::U16 => Values::U16(numbers.iter().map(|n| whole(n) as u16).collect()),
            Kind::U32 => Values::U32(numbers.iter().map(|n| whole(n) as u32).collect()),
            Kind::I32 => Values::I32(numbers.iter().map(|n| whole(n) as i32).collect()),
            Kind::F32 if stepped => Values::F32(numbers.iter().map(|&n| float(n) as f32).collect()),
            Kind::F64 if stepped => Values::F64(numbers.iter().map(|&n| float(n)).collect()),
            Kind::F32 => Values::F32(numbers.iter().map(|n| f32::from_bits(bits(n, 32) as u32)).collect()),
            Kind::F64 => Values::F64(numbers.iter().map(|n| f64::from_bits(bits(n, 64))).collect()),
            Kind::Rgb => {
                let rgb = numbers.as_chunks::<3>().0;
                Values::Rgb(rgb.iter().map(|c| c.each_ref().map(|n| whole(n) as u8)).collect())
            }
        }
    }

    /// What the greatest difference to the value that was compressed is: half a step, and for integers what rounding adds.
    pub(crate) fn greatest_error(&self) -> f64 {
        match self.scheme {
            Scheme::Step(step) => step / 2.0 + if self.kind.is_float() { 0.0 } else { 0.5 },
            _ => 0.0,
        }
    }
}
