//! Which instruction set runs, and how to force one.

use std::cell::Cell;
use std::sync::OnceLock;

use lattice_core::{Error, Result};

use crate::simd::{Engine, IntEngine};

/// An instruction set that the kernels of this crate are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain loops: every CPU.
    Scalar,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, VL, BW and DQ.
    Avx512,
    /// Arm NEON.
    Neon,
}

/// Name of the environment variable that forces an instruction set.
const VARIABLE: &str = "LATTICE_CPU_ISA";

impl Isa {
    /// All instruction sets, slowest first.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Neon, Self::Avx2, Self::Avx512];

    /// True when this CPU can run it.
    pub fn is_available(self) -> bool {
        Engine::new(self).is_some()
    }

    /// The name that `LATTICE_CPU_ISA` knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }

    /// What `LATTICE_CPU_ISA` (`scalar`, `avx2`, `avx512` or `neon`) asks for, else [`detect`].
    ///
    /// # Errors
    /// [`Error::Value`] when the variable names no instruction set, or one that this CPU lacks. Kernels called all the same run
    /// with [`detect`]'s choice and print the error once.
    pub fn from_env() -> Result<Self> {
        match std::env::var(VARIABLE) {
            Ok(name) if !name.is_empty() => Self::from_name(&name),
            _ => Ok(detect()),
        }
    }

    /// The available instruction set of this name.
    fn from_name(name: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|isa| isa.name() == name);
        match known {
            Some(isa) if isa.is_available() => Ok(isa),
            _ => {
                let available: Vec<_> =
                    Self::ALL.into_iter().filter(|i| i.is_available()).map(Self::name).collect();
                let what = format!(
                    "{VARIABLE}={name}: expected one of {available:?} on this CPU; change or unset it"
                );
                Err(Error::Value { op: "choice of instruction set", what })
            }
        }
    }
}

/// The fastest instruction set of this CPU.
pub fn detect() -> Isa {
    Isa::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Isa::Scalar)
}

thread_local! {
    static FORCED: Cell<Option<Isa>> = const { Cell::new(None) };
}

/// Runs `f` with every operation that this thread calls on `isa`.
///
/// # Errors
/// [`Error::Value`] when this CPU lacks it; `f` has not run then.
pub fn with_isa<R>(isa: Isa, f: impl FnOnce() -> R) -> Result<R> {
    struct Restore(Option<Isa>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.set(self.0);
        }
    }
    Isa::from_name(isa.name())?;
    let _restore = Restore(FORCED.replace(Some(isa)));
    Ok(f())
}

/// The instruction set that an operation called now on this thread runs on.
pub fn current_isa() -> Isa {
    static CHOICE: OnceLock<Isa> = OnceLock::new();
    FORCED.get().unwrap_or_else(|| {
        *CHOICE.get_or_init(|| {
            Isa::from_env().unwrap_or_else(|error| {
                let isa = detect();
                eprintln!("lattice-cpu: {error} (running with {})", isa.name());
                isa
            })
        })
    })
}

/// Whether products of bytes take one instruction for four of them here (AVX-512 VNNI), and so are faster than those of floats.
pub fn multiplies_bytes() -> bool {
    IntEngine::new(engine()).is_direct()
}

/// The proof for [`current_isa`]: asked once an operation.
pub(crate) fn engine() -> Engine {
    Engine::new(current_isa()).unwrap_or(Engine::Scalar)
}
