//! Arithmetic of `f32` in 32-bit integers: the host's bits on every device.
//!
//! Devices may round a division to within a few units in the last place and may take denormal numbers for zero. A point belongs to
//! the voxel that the *rounded* quotient says, so both would move points near the border of a voxel. Numbers are passed as their bits.

use cubecl::prelude::*;

use crate::address::UNITS;
use crate::gpu::{Buffer, Gpu};

/// The sign bit.
const SIGN: u32 = 1 << 31;
/// The bits of 1.
const ONE: u32 = 0x3F80_0000;
/// The bits of the exponent: those of infinity.
const INFINITY: u32 = 0x7F80_0000;

/// Whether bits are those of a finite number.
#[cube]
pub(crate) fn is_finite(bits: u32) -> bool {
    (bits & INFINITY) != INFINITY
}

/// One where some of the low `count` bits are set, else zero; at most 31 of them.
#[cube]
fn any_of_low(value: u32, count: u32) -> u32 {
    select((value & ((1u32 << count) - 1u32)) != 0u32, 1u32, 0u32)
}

/// `(m, e)` with `|value| = m · 2^e` and `m` below 2^24.
#[cube]
fn parts(bits: u32) -> (u32, i32) {
    let field = (bits >> 23u32) & 255u32;
    let mantissa = (bits & 0x7F_FFFFu32) | select(field > 0u32, 1u32 << 23u32, 0u32);
    (mantissa, i32::cast_from(max(field, 1u32)) - 150i32)
}

/// The number nearest to `mantissa · 2^exponent`, halves to even. Where bits below those of `mantissa` were lost its lowest one is set
/// and it has 26 significant bits or more.
#[cube]
pub(crate) fn rounded(sign: u32, mantissa: u32, exponent: i32) -> u32 {
    let mut bits = sign;
    if mantissa != 0u32 {
        let zeros = mantissa.leading_zeros();
        let top = mantissa << zeros;
        let field = exponent - i32::cast_from(zeros) + 158i32;
        // Denormal numbers keep fewer bits.
        let lost = u32::cast_from(min(max(1i32 - field, 0i32), 31i32));
        let kept = (top >> lost) | any_of_low(top, lost);
        let whole = kept >> 8u32;
        let up = select((kept & 255u32) + (whole & 1u32) > 128u32, 1u32, 0u32);
        // The first bit of a normal number raises the exponent by the one taken off; so does a carry.
        let below = u32::cast_from(max(field, 1i32) - 1i32) << 23u32;
        bits |= select(field >= 255i32, INFINITY, below + whole + up);
    }
    bits
}

/// `a - b`, rounded, of finite numbers.
#[cube]
pub(crate) fn subtract(a: u32, b: u32) -> u32 {
    let (mantissa_a, exponent_a) = parts(a);
    let (mantissa_b, exponent_b) = parts(b);
    let (sign_a, sign_b) = (a & SIGN, (b & SIGN) ^ SIGN);
    let swapped = exponent_a < exponent_b;
    let exponent = max(exponent_a, exponent_b);
    // Six more bits: of differences more than one bit is only lost where none falls off below.
    let large = select(swapped, mantissa_b, mantissa_a) << 6u32;
    let small = select(swapped, mantissa_a, mantissa_b) << 6u32;
    let sign_large = select(swapped, sign_b, sign_a);
    let apart = u32::cast_from(min(exponent - min(exponent_a, exponent_b), 31i32));
    let small = (small >> apart) | any_of_low(small, apart);
    let mut sign = sign_large;
    let mut sum = large + small;
    if sign_a != sign_b {
        sum = large - small;
        if large < small {
            sum = small - large;
            sign = sign_large ^ SIGN;
        }
        if sum == 0u32 {
            sign = 0u32;
        }
    }
    rounded(sign, sum, exponent - 6i32)
}

/// `a / b`, rounded, of a finite number and one that is finite and not zero.
///
/// The device's own quotient of the mantissas is an estimate, corrected by the exact remainder: one step for each unit in 2^-24 that
/// it is off, up to 64. `nudge` is added to the estimate; 0 but for tests.
#[cube]
pub(crate) fn divide(a: u32, b: u32, nudge: u32) -> u32 {
    let sign = (a ^ b) & SIGN;
    let mut bits = sign;
    let (mantissa_a, exponent_a) = parts(a);
    let (mantissa_b, exponent_b) = parts(b);
    if mantissa_a != 0u32 {
        // Both between 2^23 and 2^24, so that the quotient has 25 bits and the product with it wraps without harm.
        let (zeros_a, zeros_b) = (mantissa_a.leading_zeros() - 8u32, mantissa_b.leading_zeros() - 8u32);
        let (above, below) = (mantissa_a << zeros_a, mantissa_b << zeros_b);
        let shift = select(above < below, 25u32, 24u32);
        let scale = select(above < below, 33_554_432.0f32, 16_777_216.0f32);
        let estimate = f32::cast_from(above) / f32::cast_from(below) * scale;
        let mut quotient = u32::cast_from(estimate) + nudge;
        let mut rest = i32::cast_from((above << shift) - quotient * below);
        let step = i32::cast_from(below);
        while rest < 0i32 {
            quotient -= 1u32;
            rest += step;
        }
        while rest >= step {
            quotient += 1u32;
            rest -= step;
        }
        let exponent = (exponent_a - i32::cast_from(zeros_a))
            - (exponent_b - i32::cast_from(zeros_b))
            - i32::cast_from(shift)
            - 1i32;
        bits = rounded(sign, (quotient << 1u32) | select(rest != 0i32, 1u32, 0u32), exponent);
    }
    bits
}

/// The whole number at or below a number, and whether it is inside `i32`; any value where it is not.
#[cube]
pub(crate) fn floor(bits: u32) -> (i32, bool) {
    let (mantissa, exponent) = parts(bits);
    let left = u32::cast_from(min(max(exponent, 0i32), 8i32));
    let right = u32::cast_from(min(max(0i32 - exponent, 0i32), 31i32));
    // Signed from here on: some compilers take a number that was only cast for one without a sign, when it is shifted right.
    let magnitude = i32::cast_from((mantissa >> right) << left);
    let down = 0i32 - magnitude - i32::cast_from(any_of_low(mantissa, right));
    let value = select(bits >= SIGN, down, magnitude);
    // Below 2^31 in size, or -2^31.
    let inside = (bits & 0x7FFF_FFFFu32) < 0x4F00_0000u32 || bits == 0xCF00_0000u32;
    (value, inside)
}

/// `(p - origin) / size`, rounded twice, for finite `origin` and `size`; not finite where `p` is not.
#[cube]
pub(crate) fn position(p: u32, origin: u32, size: u32) -> u32 {
    let mut u = p;
    if is_finite(p) {
        u = subtract(p, origin);
        if is_finite(u) {
            u = divide(u, size, 0u32);
        }
    }
    u
}

/// The number nearest to an integer.
#[cube]
pub(crate) fn from_integer(value: u32) -> u32 {
    rounded(0u32, value, 0i32)
}

/// One by a count that is not zero: what each of so many entries weighs in a mean, bit for bit the host's.
#[cube]
pub(crate) fn share_of(count: u32) -> f32 {
    f32::reinterpret(divide(ONE, from_integer(count), 0u32))
}

/// What [`calculate`] finds of two columns of numbers; for tests.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Calculation {
    /// `a - b`.
    Difference,
    /// `a / b`.
    Quotient,
    /// `floor(a)`, and whether it is inside `i32` in the second column.
    Floor,
}

#[cube(launch_unchecked)]
fn calculate_kernel(
    a: &[u32],
    b: &[u32],
    out: &mut [u32],
    n: u32,
    nudge: u32,
    #[comptime] calculation: Calculation,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        let (a, b) = (a[at as usize], b[at as usize]);
        match comptime!(calculation) {
            Calculation::Difference => out[at as usize] = subtract(a, b),
            Calculation::Quotient => out[at as usize] = divide(a, b, nudge),
            Calculation::Floor => {
                let (value, inside) = floor(a);
                out[at as usize] = u32::cast_from(value);
                out[(n + at) as usize] = select(inside, 1u32, 0u32);
            }
        }
    }
}

/// The arithmetic of this module on bits of `f32`, row by row; for tests.
#[doc(hidden)]
pub fn calculate(gpu: &Gpu, [a, b]: [&Buffer; 2], nudge: i32, calculation: Calculation) -> Buffer {
    let n = a.len;
    let columns = if calculation == Calculation::Floor { 2 } else { 1 };
    let out = gpu.empty(columns * n, 4);
    // SAFETY: one unit a row, checked against the count, which is the length of both operands.
    unsafe {
        calculate_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            a.arg(1),
            b.arg(1),
            out.arg(1),
            n as u32,
            nudge as u32,
            calculation,
        );
    }
    out
}
