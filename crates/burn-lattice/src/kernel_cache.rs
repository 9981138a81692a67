//! Compiled GPU kernels that outlive a process, and who compiles them.

/// Keeps compiled kernels and tuning results in the user's cache folder, so that only the first process on a device compiles them. Call
/// it before the first device is made; returns whether the choice was taken, which is `false` after that and in
/// builds without GPUs or files.
///
/// A `cubecl.toml` or `burn.toml` above the working folder is read first; where it names a folder, that one is used.
#[cfg(all(feature = "gpu", not(target_family = "wasm")))]
pub fn keep_kernels() -> bool {
    use lattice_gpu::cubecl::config::cache::CacheConfig;
    use lattice_gpu::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.compilation.cache = true;
    // The default is a build folder, which a user of a binary does not have.
    if matches!(config.environment.path, CacheConfig::Target) {
        config.environment.path = CacheConfig::Global;
    }
    CubeClRuntimeConfig::try_set(config)
}

/// Nothing is compiled for a GPU in this build, or nothing can be kept.
#[cfg(not(all(feature = "gpu", not(target_family = "wasm"))))]
pub fn keep_kernels() -> bool {
    false
}

/// Does some work while only the threads of devices compile kernels. To be put around the recording of a graph (Burn's `capture`): where
/// kernels are kept ([`keep_kernels`]), other threads compile ahead of a CUDA device's own, and CUDA drops a record while they do.
pub fn without_compilers<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(feature = "cuda")]
    return lattice_gpu::without_compilers(work);
    #[cfg(not(feature = "cuda"))]
    work()
}

/// Kernels that other threads have compiled in this process before a CUDA device's own came to them.
pub fn kernels_compiled_ahead() -> usize {
    #[cfg(feature = "cuda")]
    return lattice_gpu::compiled_ahead();
    #[cfg(not(feature = "cuda"))]
    0
}
