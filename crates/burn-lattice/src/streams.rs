//! Which streams of a GPU the threads of a process work on.

/// All threads of the process share one stream of each GPU from now on: what a thread asked for before another one gets its result is done
/// before what that one asks for. To be called at the start of a program whose threads hand tensors of a GPU to each other, before anything
/// is asked of it.
///
/// Otherwise each thread has a stream of its own (CubeCL's default). That is correct here for tensors that are made, handed over and read,
/// and launches cost more once a second thread works on any GPU; but CUDA and ROCm may read a tensor before another thread's change *in
/// place* is done, as of a parameter by an optimizer. Threads that work on one GPU each lose nothing by it. No effect on the CPU.
pub fn share_one_stream() {
    #[cfg(feature = "gpu")]
    lattice_gpu::share_one_stream();
}
