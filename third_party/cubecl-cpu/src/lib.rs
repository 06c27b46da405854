//! A device that keeps what is launched on it instead of running it, under the names that `cubecl` uses of `cubecl-cpu`.
//!
//! Launchers are called as on the device whose properties it has, so what is kept is what would run there, and there is no
//! second list of kernels. Its memory is sizes only: nothing is written to it, and zeros are read from it.

use std::any::TypeId;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use cubecl_core::CubeKernel;
use cubecl_core::bytes::Bytes;
use cubecl_core::client::Client;
use cubecl_core::device::{Device, DeviceId, DeviceService, ServerUtilitiesHandle, ServiceId};
use cubecl_core::environment::backtrace::BackTrace;
use cubecl_core::environment::stream::StreamId;
use cubecl_core::future::DynFut;
use cubecl_core::ir::{DeviceProperties, TargetProperties};
use cubecl_core::prelude::{CubeCount, KernelId};
use cubecl_core::profile::ProfileDuration;
use cubecl_core::server::{
    BufferBinding, CopyDescriptor, KernelArguments, ProfileError, ProfilingToken, Server, ServerCommunication,
    ServerError, ServerStorage, ServerUtilities,
};
use cubecl_core::zspace::striding::has_pitched_row_major_strides;
use cubecl_core::zspace::{Shape, Strides};
use cubecl_server::allocator::PitchedMemoryLayoutPolicy;
pub use cubecl_server::device::CpuDevice;
use cubecl_server::dry_run::LaunchMode;
use cubecl_server::id::GraphId;
use cubecl_server::logging::ServerLogger;
use cubecl_server::memory_management::{ManagedMemoryHandle, MemoryAllocationMode, StreamMemoryReport};
use cubecl_server::runtime::Runtime;
use cubecl_server::storage::{BytesResource, BytesStorage, ManagedResource};

/// What was launched, each kernel once.
#[derive(Default)]
struct Launched {
    seen: HashSet<KernelId>,
    kernels: Vec<Box<dyn CubeKernel>>,
}

/// The device, seen by who asks what was launched on it.
pub struct Recorder {
    client: Client,
    launched: Arc<Mutex<Launched>>,
}

impl Recorder {
    /// The device under `id`, which passes for one of a runtime called `name` with these properties; `None` where there is
    /// one under this id already.
    #[must_use]
    pub fn new(
        id: DeviceId,
        name: &'static str,
        (properties, target): (DeviceProperties, TargetProperties),
    ) -> Option<Self> {
        let launched = Arc::<Mutex<Launched>>::default();
        // As CUDA lays out rows.
        let policy = PitchedMemoryLayoutPolicy::new(properties.memory.alignment as usize);
        let (utilities, _) = ServerUtilities::init(
            ServiceId::of::<RecordingServer>(id),
            name,
            properties,
            target,
            Arc::new(ServerLogger::default()),
            policy,
        );
        let server = RecordingServer {
            utilities: Arc::new(utilities),
            launched: launched.clone(),
        };
        let client = Client::try_init(id, server).ok()?;
        Some(Self { client, launched })
    }

    /// Its client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What was launched since the last call and never before.
    ///
    /// # Errors
    /// When the device stopped, which it does when a launch panics.
    pub fn take(&self) -> Result<Vec<Box<dyn CubeKernel>>, ServerError> {
        self.client.flush()?;
        let mut launched = self.launched.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut launched.kernels))
    }
}

/// Whether a client's device records.
#[must_use]
pub fn records(client: &Client) -> bool {
    client.service_id().service == TypeId::of::<RecordingServer>()
}

/// The runtime by which Burn finds the device that records, under [`CpuDevice`]'s id.
#[derive(Clone, Debug)]
pub struct CpuRuntime;

impl Runtime for CpuRuntime {
    type Server = RecordingServer;
    type Device = CpuDevice;

    fn can_read_tensor(shape: &Shape, strides: &Strides) -> bool {
        has_pitched_row_major_strides(shape, strides)
    }

    fn target_properties() -> TargetProperties {
        TargetProperties {
            mma: Default::default(),
        }
    }

    /// None: nobody who looks for a device wants one that computes nothing.
    fn enumerate_devices(_: u16) -> Vec<DeviceId> {
        Vec::new()
    }
}

impl CpuRuntime {
    /// The id under which Burn looks for the device.
    #[must_use]
    pub fn id() -> DeviceId {
        CpuDevice.to_id()
    }
}

/// The other side of the client.
pub struct RecordingServer {
    utilities: Arc<ServerUtilities>,
    launched: Arc<Mutex<Launched>>,
}

impl std::fmt::Debug for RecordingServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecordingServer")
    }
}

impl DeviceService for RecordingServer {
    fn init(_device: DeviceId) -> Self {
        unreachable!("a device that records is made with the properties of another")
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        self.utilities.clone()
    }
}

impl ServerCommunication for RecordingServer {}

impl Server for RecordingServer {
    #[expect(unsafe_code, reason = "the trait's signature")]
    unsafe fn launch(
        &mut self,
        kernel: Box<dyn CubeKernel>,
        _count: CubeCount,
        _bindings: KernelArguments,
        _stream: StreamId,
        _mode: LaunchMode,
    ) {
        let mut launched = self.launched.lock().unwrap_or_else(PoisonError::into_inner);
        if launched.seen.insert(kernel.id()) {
            launched.kernels.push(kernel);
        }
    }

    fn initialize_memory(
        &mut self,
        _memory: ManagedMemoryHandle,
        _size: u64,
        _stream: StreamId,
    ) -> Result<(), ServerError> {
        Ok(())
    }

    fn write(&mut self, _data: Vec<(CopyDescriptor, Bytes)>, _stream: StreamId) {}

    fn read(
        &mut self,
        descriptors: Vec<CopyDescriptor>,
        _stream: StreamId,
    ) -> DynFut<Result<Vec<Bytes>, ServerError>> {
        let zeros = descriptors.iter().map(|descriptor| {
            let count: usize = descriptor.shape.iter().product();
            Bytes::from_bytes_vec(vec![0; count * descriptor.elem_size])
        });
        let zeros = zeros.collect();
        Box::pin(async { Ok(zeros) })
    }

    fn logger(&self) -> Arc<ServerLogger> {
        self.utilities.logger.clone()
    }

    fn utilities(&self) -> Arc<ServerUtilities> {
        self.utilities.clone()
    }

    fn sync(&mut self, _handles: Vec<BufferBinding>, _stream: StreamId) -> DynFut<Result<(), ServerError>> {
        Box::pin(async { Ok(()) })
    }

    fn check(&mut self, _handles: Vec<BufferBinding>, _stream: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn flush(&mut self, _stream: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn begin_capture(&mut self, _stream: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn end_capture(&mut self, _stream: StreamId) -> Result<GraphId, ServerError> {
        Ok(GraphId::new())
    }

    fn replay(&mut self, _graph: GraphId, _stream: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn memory_report(&mut self, _stream: StreamId) -> Option<StreamMemoryReport> {
        None
    }

    fn memory_cleanup(&mut self, _stream: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn start_profile(&mut self, _stream: StreamId) -> Result<ProfilingToken, ServerError> {
        Err(nothing_runs())
    }

    fn end_profile(
        &mut self,
        _stream: StreamId,
        _token: ProfilingToken,
    ) -> Result<ProfileDuration, ProfileError> {
        Err(ProfileError::NotRegistered {
            backtrace: BackTrace::capture(),
        })
    }

    fn allocation_mode(&mut self, _mode: MemoryAllocationMode, _stream: StreamId) {}
}

impl ServerStorage for RecordingServer {
    type Storage = BytesStorage;

    fn get_resource(
        &mut self,
        _binding: BufferBinding,
        _stream: StreamId,
    ) -> Result<ManagedResource<BytesResource>, ServerError> {
        Err(nothing_runs())
    }
}

fn nothing_runs() -> ServerError {
    ServerError::Generic {
        reason: "nothing runs on a device that records".to_owned(),
        backtrace: BackTrace::capture(),
    }
}
