//! Compiled GPU kernels that outlive a process, who compiles them, and work that was lost on the way.

/// Keeps compiled kernels and tuning results in the user's cache folder, so that only the first process on a device compiles them. Call
/// it before the first device is made; returns whether the choice was taken, which is `false` after that, where nothing can be kept, and in
/// builds without GPUs or files.
///
/// A `cubecl.toml` or `burn.toml` above the working folder is read first; where it names a folder or an environment, that one is used. Of each
/// environment there are several databases, and a process has one to itself: a second one at the same time takes the next, and compiles what it
/// does not find there. (Turso 0.8, which CubeCL keeps kernels in, fails where processes share a database: it panics, which costs the
/// launch that wanted the kernel, or gives another entry than it was asked for.)
#[cfg(all(feature = "gpu", not(target_family = "wasm")))]
pub fn keep_kernels() -> bool {
    use std::fs::File;
    use std::sync::OnceLock;

    use lattice_gpu::cubecl::config::cache::CacheConfig;
    use lattice_gpu::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

    /// What keeps other processes away, for as long as this one lives.
    static HELD: OnceLock<File> = OnceLock::new();

    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.compilation.cache = true;
    // The default is a build folder, which a user of a binary does not have.
    if matches!(config.environment.path, CacheConfig::Target) {
        config.environment.path = CacheConfig::Global;
    }
    // Programs of others share the environment that nobody names.
    let named = match config.environment.name.as_str() {
        "default" => "burn-lattice",
        named => named,
    };
    let Some((name, lock)) = lattice_gpu::own_environment(&config.environment.path.root(), named) else {
        return false;
    };
    config.environment.name = name;
    let taken = CubeClRuntimeConfig::try_set(config);
    if taken {
        // A choice is taken once.
        let _ = HELD.set(lock);
    }
    taken
}

/// Nothing is compiled for a GPU in this build, or nothing can be kept.
#[cfg(not(all(feature = "gpu", not(target_family = "wasm"))))]
pub fn keep_kernels() -> bool {
    false
}

/// Does some work while only the threads of devices compile kernels. To be put around the recording of a graph (Burn's `capture`): where
/// kernels are kept ([`keep_kernels`]), other threads compile ahead of a CUDA or Vulkan device's own, and CUDA drops a record while they do.
pub fn without_compilers<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(any(feature = "cuda", feature = "vulkan"))]
    return lattice_gpu::without_compilers(work);
    #[cfg(not(any(feature = "cuda", feature = "vulkan")))]
    work()
}

/// Kernels that other threads have compiled in this process before a CUDA or Vulkan device's own came to them.
pub fn kernels_compiled_ahead() -> usize {
    #[cfg(any(feature = "cuda", feature = "vulkan"))]
    return lattice_gpu::compiled_ahead();
    #[cfg(not(any(feature = "cuda", feature = "vulkan")))]
    0
}

/// What a GPU's thread panicked with when it gave up work that this process asked for, if it did: CubeCL goes on then, and what the work should
/// have written is whatever lay there before, so that nothing computed since then can be trusted. Operations of this crate panic from then on;
/// whoever reads the last results of a run asks here, too, as `lattice` does before it ends. Panics count while a kernel of this crate is
/// launched for the first time in a thread, and those of the database that kernels are kept in whoever launched. None in builds without GPUs.
pub fn lost_work() -> Option<&'static str> {
    #[cfg(feature = "gpu")]
    return lattice_gpu::lost_work();
    #[cfg(not(feature = "gpu"))]
    None
}
