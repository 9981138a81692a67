//! The number types that point files store, and columns of them.
//!
//! Files declare types at run time, so a [`Column`] is filled value by value from bytes or from text and then becomes
//! an [`Attribute`] of the nearest type that loses nothing.

use crate::Attribute;

/// A number type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F16,
    F32,
    F64,
}

impl Scalar {
    /// Bytes of one value.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 | Self::F16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::F32 | Self::F64)
    }

    /// The value in the first `size()` bytes, which the caller has checked to be there.
    pub(crate) fn read(self, bytes: &[u8], big_endian: bool) -> Value {
        let n = self.size();
        let mut le = [0u8; 8];
        le[..n].copy_from_slice(&bytes[..n]);
        if big_endian {
            le[..n].reverse();
        }
        let raw = u64::from_le_bytes(le);
        match self {
            Self::I8 => Value::Int(i64::from(raw as u8 as i8)),
            Self::I16 => Value::Int(i64::from(raw as u16 as i16)),
            Self::I32 => Value::Int(i64::from(raw as u32 as i32)),
            Self::I64 => Value::Int(raw as i64),
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => Value::Unsigned(raw),
            Self::F16 => Value::Float(half::f16::from_bits(raw as u16).to_f64()),
            Self::F32 => Value::Float(f64::from(f32::from_bits(raw as u32))),
            Self::F64 => Value::Float(f64::from_bits(raw)),
        }
    }

    /// The value written as `text`, if it fits this type. Whole numbers written with a fraction (`3.0`) are taken too.
    pub(crate) fn parse(self, text: &str) -> Option<Value> {
        if self.is_float() {
            let x: f64 = text.parse().ok()?;
            // What a float column holds is a float: round as the binary form of the file would.
            return Some(Value::Float(if self == Self::F64 { x } else { f64::from(x as f32) }));
        }
        let (lo, hi): (i128, i128) = match self {
            Self::I8 => (i8::MIN.into(), i8::MAX.into()),
            Self::U8 => (0, u8::MAX.into()),
            Self::I16 => (i16::MIN.into(), i16::MAX.into()),
            Self::U16 => (0, u16::MAX.into()),
            Self::I32 => (i32::MIN.into(), i32::MAX.into()),
            Self::U32 => (0, u32::MAX.into()),
            Self::I64 => (i64::MIN.into(), i64::MAX.into()),
            _ => (0, u64::MAX.into()),
        };
        let whole = match text.parse::<i128>() {
            Ok(v) => v,
            Err(_) => {
                let x: f64 = text.parse().ok()?;
                if x.fract() != 0.0 || !(-1e18..=1e18).contains(&x) {
                    return None;
                }
                x as i128
            }
        };
        if whole < lo || whole > hi {
            return None;
        }
        Some(if lo < 0 { Value::Int(whole as i64) } else { Value::Unsigned(whole as u64) })
    }
}

/// One number of a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value {
    Int(i64),
    Unsigned(u64),
    Float(f64),
}

impl Value {
    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Self::Int(v) => v as f64,
            Self::Unsigned(v) => v as f64,
            Self::Float(v) => v,
        }
    }

    /// As a count or an index; `None` when negative or not whole.
    pub(crate) fn as_count(self) -> Option<u64> {
        match self {
            Self::Int(v) => u64::try_from(v).ok(),
            Self::Unsigned(v) => Some(v),
            Self::Float(_) => None,
        }
    }
}

/// A growing column of one number type.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) scalar: Scalar,
    values: Store,
}

#[derive(Debug, Clone)]
enum Store {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl Column {
    /// An empty column with room for `capacity` values. The caller has checked `capacity` against the file's size.
    pub(crate) fn new(name: impl Into<String>, scalar: Scalar, capacity: usize) -> Self {
        let values = match scalar {
            Scalar::U8 => Store::U8(Vec::with_capacity(capacity)),
            Scalar::U16 => Store::U16(Vec::with_capacity(capacity)),
            Scalar::U32 => Store::U32(Vec::with_capacity(capacity)),
            Scalar::U64 => Store::U64(Vec::with_capacity(capacity)),
            Scalar::I8 | Scalar::I16 | Scalar::I32 => Store::I32(Vec::with_capacity(capacity)),
            Scalar::I64 => Store::I64(Vec::with_capacity(capacity)),
            Scalar::F16 | Scalar::F32 => Store::F32(Vec::with_capacity(capacity)),
            Scalar::F64 => Store::F64(Vec::with_capacity(capacity)),
        };
        Self { name: name.into(), scalar, values }
    }

    /// Appends a value of the column's own type.
    pub(crate) fn push(&mut self, value: Value) {
        let unsigned = match value {
            Value::Int(v) => v as u64,
            Value::Unsigned(v) => v,
            Value::Float(v) => v as u64,
        };
        match &mut self.values {
            Store::U8(v) => v.push(unsigned as u8),
            Store::U16(v) => v.push(unsigned as u16),
            Store::U32(v) => v.push(unsigned as u32),
            Store::U64(v) => v.push(unsigned),
            Store::I32(v) => v.push(unsigned as i64 as i32),
            Store::I64(v) => v.push(unsigned as i64),
            Store::F32(v) => v.push(value.as_f64() as f32),
            Store::F64(v) => v.push(value.as_f64()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.values {
            Store::U8(v) => v.len(),
            Store::U16(v) => v.len(),
            Store::U32(v) => v.len(),
            Store::U64(v) => v.len(),
            Store::I32(v) => v.len(),
            Store::I64(v) => v.len(),
            Store::F32(v) => v.len(),
            Store::F64(v) => v.len(),
        }
    }

    /// The value of `row` as f64; exact for all but the largest 64-bit integers.
    pub(crate) fn get(&self, row: usize) -> f64 {
        match &self.values {
            Store::U8(v) => f64::from(v[row]),
            Store::U16(v) => f64::from(v[row]),
            Store::U32(v) => f64::from(v[row]),
            Store::U64(v) => v[row] as f64,
            Store::I32(v) => f64::from(v[row]),
            Store::I64(v) => v[row] as f64,
            Store::F32(v) => f64::from(v[row]),
            Store::F64(v) => v[row],
        }
    }

    /// The 32 bits of `row`, as packed colours use them: of a float or an integer of 4 bytes.
    pub(crate) fn bits(&self, row: usize) -> Option<u32> {
        match &self.values {
            Store::F32(v) => Some(v[row].to_bits()),
            Store::U32(v) => Some(v[row]),
            Store::I32(v) => Some(v[row] as u32),
            _ => None,
        }
    }

    /// As an attribute: 64-bit integers become 32-bit ones where every value fits, else f64.
    pub(crate) fn into_attribute(self) -> Attribute {
        match self.values {
            Store::U8(v) => Attribute::U8(v),
            Store::U16(v) => Attribute::U16(v),
            Store::U32(v) => Attribute::U32(v),
            Store::I32(v) => Attribute::I32(v),
            Store::F32(v) => Attribute::F32(v),
            Store::F64(v) => Attribute::F64(v),
            Store::U64(v) => match v.iter().map(|&x| u32::try_from(x)).collect() {
                Ok(small) => Attribute::U32(small),
                Err(_) => Attribute::F64(v.into_iter().map(|x| x as f64).collect()),
            },
            Store::I64(v) => match v.iter().map(|&x| i32::try_from(x)).collect() {
                Ok(small) => Attribute::I32(small),
                Err(_) => Attribute::F64(v.into_iter().map(|x| x as f64).collect()),
            },
        }
    }
}

/// Whole numbers that came as floats or as text, in the smallest of `u8`, `u16`, `i32`; `None` when one does not fit.
pub(crate) fn whole(values: impl Iterator<Item = f64> + Clone) -> Option<Attribute> {
    let within = |lo: f64, hi: f64| values.clone().all(|v| v.fract() == 0.0 && (lo..=hi).contains(&v));
    if within(0.0, 255.0) {
        Some(Attribute::U8(values.map(|v| v as u8).collect()))
    } else if within(0.0, 65535.0) {
        Some(Attribute::U16(values.map(|v| v as u16).collect()))
    } else if within(f64::from(i32::MIN), f64::from(i32::MAX)) {
        Some(Attribute::I32(values.map(|v| v as i32).collect()))
    } else {
        None
    }
}
