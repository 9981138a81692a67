//! The gathered product of bytes: rows of unsigned bytes times one panel of signed bytes, scaled and added to rows of a tile.

use super::{Engine, scalar};

/// Most columns of a panel.
pub(super) const MOST_COLUMNS: usize = 64;

/// `tile[out_local[p], tile_at..][..n] += scales · (begin + q @ b) + offsets · sums[rows[p], sum_at]` with `q = x[rows[p], at..]`, for
/// `4 · quads` bytes and `n = vectors * lanes`. The products and `begin` are summed in i32 exactly.
///
/// # Layout
/// `x`: rows of `stride` unsigned bytes. `b`: `[quads, n]` words of four signed bytes, the lowest channel in the lowest bits. `begin`,
/// `scales`, `offsets`: `n`. `tile`: rows of `tile_stride` floats. An output row may occur once a call.
pub(crate) struct IntProduct<'a> {
    /// Features.
    pub x: &'a [u8],
    /// Bytes between two rows of `x`.
    pub stride: usize,
    /// First byte of a row.
    pub at: usize,
    /// Row of `x` of every pair.
    pub rows: &'a [u32],
    /// Row of the tile of every pair.
    pub out_local: &'a [u16],
    /// Panel of weights.
    pub b: &'a [u32],
    /// Rows of `b`.
    pub quads: usize,
    /// Vectors side by side in `b`.
    pub vectors: usize,
    /// What the sums of integers begin with.
    pub begin: &'a [i32],
    /// Factors of the sums.
    pub scales: &'a [f32],
    /// Factors of the rows' own sums.
    pub offsets: &'a [f32],
    /// The rows' own sums.
    pub sums: &'a [f32],
    /// Floats between the sums of two rows.
    pub sum_stride: usize,
    /// Which of a row's sums counts.
    pub sum_at: usize,
    /// Floats between two rows of the tile.
    pub tile_stride: usize,
    /// First column of the tile.
    pub tile_at: usize,
}

impl IntProduct<'_> {
    /// Panics unless every address that a kernel touches lies within its slice. The kernels rely on it.
    #[inline(always)]
    fn check(&self, lanes: usize, max_vectors: usize, tile_len: usize) {
        let n = self.vectors * lanes;
        assert!((1..=max_vectors).contains(&self.vectors), "vectors of a panel");
        assert_eq!(self.rows.len(), self.out_local.len(), "one output row a pair");
        assert!(self.quads * n <= self.b.len(), "the weight panel is too short");
        let least = self.begin.len().min(self.scales.len()).min(self.offsets.len());
        assert!(n <= least, "a factor a column");
        let last = self.rows.iter().fold(0, |m, &r| m.max(r)) as usize;
        assert!(
            last * self.stride + self.at + 4 * self.quads <= self.x.len(),
            "an input row lies outside the features"
        );
        assert!(last * self.sum_stride + self.sum_at < self.sums.len(), "an input row lies outside the sums");
        let last = self.out_local.iter().fold(0, |m, &r| m.max(r)) as usize;
        assert!(
            last * self.tile_stride + self.tile_at + n <= tile_len,
            "an output row lies outside the tile"
        );
    }
}

/// Proof of which instructions for products of bytes this CPU has, made from an [`Engine`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum IntEngine {
    /// Plain loops, compiled for the engine.
    Plain(Engine),
    /// Products of 16-bit integers: those of bytes would saturate.
    #[cfg(target_arch = "x86_64")]
    Avx2(Engine, super::x86::Avx2),
    /// Four products of bytes an instruction.
    #[cfg(target_arch = "x86_64")]
    Vnni(Engine, super::vnni::Vnni),
}

impl IntEngine {
    /// The best that an engine's instruction set allows.
    pub fn new(engine: Engine) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if let Engine::Avx512(_) = engine
                && let Some(token) = super::vnni::Vnni::detect()
            {
                return Self::Vnni(engine, token);
            }
            if !matches!(engine, Engine::Scalar)
                && let Some(token) = super::x86::Avx2::detect()
            {
                return Self::Avx2(Engine::Avx2(token), token);
            }
        }
        Self::Plain(engine)
    }

    /// Whether four products are one instruction.
    pub fn is_direct(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni(..) => true,
            _ => false,
        }
    }

    /// For everything else around the products.
    pub fn plain(self) -> Engine {
        match self {
            Self::Plain(engine) => engine,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(engine, _) | Self::Vnni(engine, _) => engine,
        }
    }

    /// Columns of one vector.
    pub fn lanes(self) -> usize {
        match self {
            Self::Plain(_) => 8,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(..) => 8,
            #[cfg(target_arch = "x86_64")]
            Self::Vnni(..) => 16,
        }
    }

    /// Most vectors that one micro-kernel holds side by side.
    pub fn max_vectors(self) -> usize {
        match self {
            Self::Plain(_) => 2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(..) => 2,
            #[cfg(target_arch = "x86_64")]
            Self::Vnni(..) => 4,
        }
    }

    /// See [`IntProduct`].
    pub fn product(self, p: &IntProduct<'_>, tile: &mut [f32]) {
        if p.rows.is_empty() {
            return;
        }
        self.plain().vectorize(|| p.check(self.lanes(), self.max_vectors(), tile.len()));
        match self {
            Self::Plain(engine) => engine.vectorize(|| scalar::int_product(p, self.lanes(), tile)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_, token) => token.int_product(p, tile),
            #[cfg(target_arch = "x86_64")]
            Self::Vnni(_, token) => token.int_product(p, tile),
        }
    }
}
