//! For tests: each kernel is translated to SPIR-V and to Metal's language when it is launched for the first time, on whatever device.
//!
//! Kernels are written once, and each backend has a compiler of its own, which may lack a form that the others have. Vulkan's needs a card, and
//! Metal's a Mac; so where tests run on another device (CI's runs WGSL), launches are shown to a server that translates and does nothing else.
//! Kernels are those of the device that is there. Those that only a card has, by matrix units and by cubes that see each other's work, are
//! launched on the translator itself, which takes itself for one ([`card_of_translator`]).

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cubecl::bytes::Bytes;
use cubecl::features::{MmaConfig, Plane, TypeUsage};
use cubecl::ir::{
    DeviceIdentity, DeviceProperties, ElemType, FloatKind, HardwareProperties, IntKind,
    MemoryDeviceProperties, TargetProperties, UIntKind,
};
use cubecl::prelude::*;
use cubecl::server::{
    BufferBinding, CopyDescriptor, Handle, KernelArguments, ProfileError, ProfilingToken, Server,
    ServerCommunication, ServerError, ServerStorage, ServerUtilities,
};
use cubecl::{VulkanCompilationOptions, WgpuCompilationOptions};
use cubecl_common::device::{DeviceId, DeviceService, ServerUtilitiesHandle, ServiceId};
use cubecl_common::profile::{ProfileDuration, TimingMethod};
use cubecl_cpp::MslCompiler;
use cubecl_environment::future::DynFut;
use cubecl_environment::stream::StreamId;
use cubecl_runtime::compiler::Compiler;
use cubecl_runtime::dry_run::LaunchMode;
use cubecl_runtime::kernel::{CubeKernel, define_kernel};
use cubecl_runtime::logging::ServerLogger;
use cubecl_runtime::memory_management::{ManagedMemoryHandle, MemoryAllocationMode, StreamMemoryReport};
use cubecl_runtime::storage::{ComputeStorage, ManagedResource};
use cubecl_server::allocator::ContiguousMemoryLayoutPolicy;
use cubecl_server::storage::BytesStorage;
use cubecl_spirv::SpirvCompiler;

use crate::gpu::Gpu;
use crate::stand_in;

/// Forms of a kernel that a process translates: one takes up to a second, and what a form has that others have not is mostly its sizes.
const FORMS: usize = 6;
/// What sets the translator apart from devices.
const TYPE: u16 = 0x4E00;

/// What the device is whose kernels are translated.
static LIKE: OnceLock<(DeviceProperties, TargetProperties)> = OnceLock::new();
/// What could not be translated.
static REFUSED: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Translations that were asked for.
static TRANSLATED: AtomicUsize = AtomicUsize::new(0);

/// A device that translates what is launched on it and answers with zeros: what a card is in Vulkan, with 16 x 16 x 16 matrix units for f16
/// and cubes that see each other's work.
pub fn card_of_translator() -> Gpu {
    LIKE.get_or_init(|| (card(), TargetProperties::default()));
    Gpu::new(Client::load::<Translator>(DeviceId::new(TYPE + 1, 0)))
}

/// How many translations were asked for, one to a language, and which were refused.
pub fn translations() -> (usize, Vec<String>) {
    let refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    (TRANSLATED.load(Ordering::Acquire), refused.clone())
}

fn card() -> DeviceProperties {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 64,
        max_shared_memory_size: 49_152,
        max_cube_count: (65_535, 65_535, 65_535),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: Some(132),
        num_tensor_cores: None,
        min_tensor_cores_dim: None,
        num_cpu_cores: None,
        last_level_cache_size: None,
        max_vector_size: 4,
        cube_mma_reserved_shared_memory: 0,
    };
    let identity =
        DeviceIdentity { name: "translator".into(), fingerprint: "translator".into(), physical: None };
    let memory = MemoryDeviceProperties::new(1 << 31, 64);
    let mut card =
        DeviceProperties::new(Default::default(), memory, hardware, TimingMethod::System, identity);
    let float = ElemType::Float;
    for kind in [FloatKind::F32, FloatKind::F16] {
        card.register_type_usage(float(kind), TypeUsage::all());
    }
    let integers =
        [ElemType::Int(IntKind::I32), ElemType::UInt(UIntKind::U32), ElemType::UInt(UIntKind::U64)];
    for kind in integers.into_iter().chain([ElemType::Bool]) {
        card.register_type_usage(kind, TypeUsage::all());
    }
    card.features.plane.insert(Plane::Ops);
    card.features.plane.insert(Plane::Sync);
    card.features.device_memory_scope = true;
    card.features.matmul.cmma.insert(MmaConfig {
        a_type: float(FloatKind::F16),
        b_type: float(FloatKind::F16),
        cd_type: float(FloatKind::F32),
        m: 16,
        n: 16,
        k: 16,
    });
    card
}

/// Translates the kernel of a launch.
///
/// # Panics
/// Where a language has no form for it.
pub(crate) fn check(client: &Client, start: &dyn Fn(&Client, CubeCount)) {
    if client.service_id().service == TypeId::of::<Translator>() {
        return;
    }
    static TRANSLATOR: OnceLock<(Client, Handle)> = OnceLock::new();
    let (translator, nothing) = TRANSLATOR.get_or_init(|| {
        LIKE.get_or_init(|| (client.properties().clone(), client.target_properties().clone()));
        let translator = Client::load::<Translator>(DeviceId::new(TYPE, 0));
        let nothing = translator.empty(16);
        (translator, nothing)
    });
    stand_in::in_place_of_buffers(nothing, || start(translator, CubeCount::Static(1, 1, 1)));
    // Behind the launch.
    let _ = translator.flush();
    let refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(refused.is_empty(), "not translated: {refused:?}");
}

/// A server that translates kernels.
struct Translator {
    /// Forms of each kernel so far.
    forms: HashMap<&'static str, usize>,
    utilities: Arc<ServerUtilities>,
}

impl std::fmt::Debug for Translator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Translator")
    }
}

impl DeviceService for Translator {
    fn init(device: DeviceId) -> Self {
        let (properties, target) = LIKE.get().expect("who asks first says what the device is").clone();
        let logger = Arc::new(ServerLogger::default());
        let service = ServiceId::of::<Self>(device);
        let policy = ContiguousMemoryLayoutPolicy::new(64);
        let (utilities, _) = ServerUtilities::init(service, "translator", properties, target, logger, policy);
        Self { forms: HashMap::new(), utilities: Arc::new(utilities) }
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        self.utilities.clone()
    }
}

/// Notes a kernel that a compiler does not take.
fn translate<C: Compiler>(kernel: &dyn CubeKernel, mut compiler: C, options: &C::CompilationOptions) {
    let translated = define_kernel(kernel).and_then(|definition| compiler.compile(definition, options));
    TRANSLATED.fetch_add(1, Ordering::AcqRel);
    if let Err(error) = translated {
        let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
        refused.push(format!("{} to {}: {error}", kernel.name(), compiler.lang_tag()));
    }
}

/// What only a device can do.
fn no_device() -> ServerError {
    ServerError::graph_state("a translator has no device")
}

impl ServerCommunication for Translator {}

impl Server for Translator {
    fn initialize_memory(&mut self, _: ManagedMemoryHandle, _: u64, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn logger(&self) -> Arc<ServerLogger> {
        self.utilities.logger.clone()
    }

    fn utilities(&self) -> Arc<ServerUtilities> {
        self.utilities.clone()
    }

    fn read(&mut self, wanted: Vec<CopyDescriptor>, _: StreamId) -> DynFut<Result<Vec<Bytes>, ServerError>> {
        let zeros = |of: &CopyDescriptor| {
            Bytes::from_bytes_vec(vec![0; of.shape.iter().product::<usize>() * of.elem_size])
        };
        let found = wanted.iter().map(zeros).collect();
        Box::pin(async { Ok(found) })
    }

    fn write(&mut self, _: Vec<(CopyDescriptor, Bytes)>, _: StreamId) {}

    fn sync(&mut self, _: Vec<BufferBinding>, _: StreamId) -> DynFut<Result<(), ServerError>> {
        Box::pin(async { Ok(()) })
    }

    fn check(&mut self, _: Vec<BufferBinding>, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    unsafe fn launch(
        &mut self,
        kernel: Box<dyn CubeKernel>,
        _: CubeCount,
        _: KernelArguments,
        _: StreamId,
        _: LaunchMode,
    ) {
        let forms = self.forms.entry(kernel.name()).or_default();
        *forms += 1;
        if *forms > FORMS {
            return;
        }
        // As on a usual card.
        let options = WgpuCompilationOptions {
            supports_u64: true,
            supports_vulkan_compiler: true,
            vulkan: VulkanCompilationOptions {
                supports_explicit_smem: true,
                supports_uniform_standard_layout: true,
                max_spirv_version: (1, 6),
                max_vector_size: 4,
                push_constant_size: 256,
                ..VulkanCompilationOptions::default()
            },
            ..WgpuCompilationOptions::default()
        };
        translate(&*kernel, SpirvCompiler, &options);
        // Metal's fragments are of 8 x 8 x 8, so that `has_fragments` sends no kernel of these there.
        if !kernel.name().contains("::cmma::") {
            translate(&*kernel, MslCompiler::default(), &Default::default());
        }
    }

    fn flush(&mut self, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn memory_report(&mut self, _: StreamId) -> Option<StreamMemoryReport> {
        None
    }

    fn memory_cleanup(&mut self, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn start_profile(&mut self, _: StreamId) -> Result<ProfilingToken, ServerError> {
        Err(no_device())
    }

    fn end_profile(&mut self, _: StreamId, _: ProfilingToken) -> Result<ProfileDuration, ProfileError> {
        Err(ProfileError::Unknown {
            reason: "a translator has no device".into(),
            backtrace: cubecl_environment::backtrace::BackTrace::capture(),
        })
    }

    fn allocation_mode(&mut self, _: MemoryAllocationMode, _: StreamId) {}
}

impl ServerStorage for Translator {
    type Storage = BytesStorage;

    fn get_resource(
        &mut self,
        _: BufferBinding,
        _: StreamId,
    ) -> Result<ManagedResource<<BytesStorage as ComputeStorage>::Resource>, ServerError> {
        Err(no_device())
    }
}
