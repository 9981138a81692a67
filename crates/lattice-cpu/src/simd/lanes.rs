//! What the micro-kernels need of a vector.

/// One SIMD register of `f32`.
///
/// # Safety
/// Every function may be called only where the instruction set of the type is present; pointers must be valid for `N` floats
/// (`splat`: one). None needs an alignment.
pub(super) trait Lanes: Copy {
    /// Lanes.
    const N: usize;
    /// All lanes 0.
    unsafe fn zero() -> Self;
    /// `N` floats from `p`.
    unsafe fn load(p: *const f32) -> Self;
    /// `N` floats to `p`.
    unsafe fn store(self, p: *mut f32);
    /// One float in all lanes.
    unsafe fn splat(p: *const f32) -> Self;
    /// `a * b + self`, rounded once.
    unsafe fn fma(self, a: Self, b: Self) -> Self;
    /// Lane-wise sum.
    unsafe fn add(self, other: Self) -> Self;
    /// Asks for the cache line that holds `p`; `p` need not be valid.
    unsafe fn prefetch(p: *const f32);
}
