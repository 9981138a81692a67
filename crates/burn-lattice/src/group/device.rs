//! How tensors get from rank to rank.

use burn::tensor::Device;

#[cfg(not(feature = "gpu"))]
use super::refuse;
use crate::Result;

#[cfg(feature = "gpu")]
pub(super) use on_gpus::sum;

/// What carries tensors.
#[derive(Clone, Debug)]
pub(super) enum Link {
    /// Host memory.
    Host,
    /// NCCL, between the devices of these numbers.
    #[cfg(feature = "gpu")]
    Devices(on_gpus::Ids),
}

impl Link {
    /// NCCL between CUDA devices.
    #[cfg(feature = "gpu")]
    pub(super) fn over(devices: &[Device]) -> Result<Self> {
        on_gpus::ids(devices).map(Self::Devices)
    }

    /// Refuses: this build has no CUDA.
    #[cfg(not(feature = "gpu"))]
    pub(super) fn over(devices: &[Device]) -> Result<Self> {
        Err(refuse(format!(
            "expected CUDA devices, found {devices:?} in a build without GPUs; build with the cargo feature `cuda`"
        )))
    }
}

#[cfg(feature = "gpu")]
mod on_gpus {
    use std::sync::Arc;

    use burn::backend::DeviceId;
    use burn::backend::distributed::{DistributedOps, ReduceOperation};
    use burn::tensor::{Device, Tensor};
    use burn_cubecl::{CubeBackend, CubeDevice};
    use lattice_gpu::cubecl::ir::{ElemType, FloatKind};
    use lattice_gpu::cubecl::server;
    use lattice_gpu::{Buffer, Gpu};

    use super::super::{Group, or_unwind, refuse};
    use super::Link;
    use crate::backend::gpu_device;
    use crate::{DeviceInfo, Result};

    /// Numbers of the devices of a group; a device's place in their order is its rank for NCCL.
    pub(in super::super) type Ids = Arc<[DeviceId]>;

    /// Where libnccl comes from.
    const HOW: &str = "install NCCL (the distribution's libnccl2 and libnccl-dev, or `pip install nvidia-nccl-cu13`), see that its folder has \
                       `libnccl.so` (else `ln -s libnccl.so.2 libnccl.so` there), and put that folder on LD_LIBRARY_PATH";

    /// The numbers of devices that NCCL can connect.
    pub(super) fn ids(devices: &[Device]) -> Result<Ids> {
        if devices.is_empty() {
            return Err(refuse("expected at least one CUDA device, found none; name one".into()));
        }
        let mut found: Vec<DeviceId> = Vec::with_capacity(devices.len());
        for device in devices {
            let Some(gpu @ CubeDevice::Cuda(_)) = gpu_device(device) else {
                let name = DeviceInfo::of(device).name;
                return Err(refuse(format!(
                    "expected CUDA devices, found {name}: NCCL connects no others; name one device, or CUDA devices alone"
                )));
            };
            let id = gpu.to_id();
            if found.contains(&id) {
                return Err(refuse(format!(
                    "expected each device once, found device {} twice; a second rank on it would only wait for the first",
                    id.index_id
                )));
            }
            if !gpu.client().has_device_transport() {
                return Err(refuse(format!("expected libnccl on the loader's path, found none; {HOW}")));
            }
            found.push(id);
        }
        Ok(found.into())
    }

    /// Sum over the ranks of a f32 tensor without a graph.
    pub(in super::super) fn sum(values: Tensor<1>, ids: &Ids) -> Result<Tensor<1>> {
        let primitive = values.try_into_primitive::<CubeBackend>().map_err(|found| {
            refuse(format!(
                "expected a tensor of the rank's CUDA device without a graph, found {found:?}; move it there"
            ))
        })?;
        let reduced = <CubeBackend as DistributedOps<CubeBackend>>::all_reduce(
            primitive,
            ReduceOperation::Sum,
            ids.to_vec(),
        );
        Ok(Tensor::from_primitive::<CubeBackend>(reduced.resolve()))
    }

    impl Group {
        /// Sum over the ranks of a buffer of f32, which stays as it is, in another that the ranks' kernels may read next. Both are whole
        /// multiples of a device's alignment.
        pub(crate) fn sum_buffer(&self, gpu: &Gpu, from: &Buffer, onto: Buffer) -> Buffer {
            match &self.link {
                Link::Host => {
                    let values: Vec<f64> = gpu.download::<f32>(from).into_iter().map(f64::from).collect();
                    let sums = or_unwind(self.add(&values));
                    gpu.upload(&sums.into_iter().map(|sum| sum as f32).collect::<Vec<_>>())
                }
                Link::Devices(ids) => {
                    let mut client = gpu.client().clone();
                    client.all_reduce(
                        from.handle.clone(),
                        onto.handle.clone(),
                        ElemType::Float(FloatKind::F32),
                        ids.to_vec(),
                        server::ReduceOperation::Sum,
                    );
                    // What follows on this thread's stream waits there for the sum; the host does not.
                    client.sync_collective();
                    onto
                }
            }
        }
    }
}
