//! A device that keeps what is launched on it instead of running it.
//!
//! The launchers are called as on a GPU, so what is compiled is what would run, and there is no second list of kernels.

use std::sync::{Arc, Mutex};

use anyhow::{Result, bail};
use cubecl_core::CubeKernel;
use cubecl_core::bytes::Bytes;
use cubecl_core::device::{DeviceId, DeviceService, ServerUtilitiesHandle, ServiceId};
use cubecl_core::environment::backtrace::BackTrace;
use cubecl_core::environment::stream::StreamId;
use cubecl_core::future::DynFut;
use cubecl_core::prelude::*;
use cubecl_core::profile::ProfileDuration;
use cubecl_core::server::{
    BufferBinding, CopyDescriptor, KernelArguments, ProfileError, ProfilingToken, Server,
    ServerCommunication, ServerError, ServerStorage, ServerUtilities,
};
use cubecl_server::allocator::ContiguousMemoryLayoutPolicy;
use cubecl_server::dry_run::LaunchMode;
use cubecl_server::logging::ServerLogger;
use cubecl_server::memory_management::{
    ManagedMemoryHandle, MemoryAllocationMode, StreamMemoryReport,
};
use cubecl_server::storage::{BytesResource, BytesStorage, ManagedResource};

use crate::architecture::Architecture;
use crate::device;

type Kernels = Arc<Mutex<Vec<Box<dyn CubeKernel>>>>;

/// A client whose launches are kept.
pub(crate) struct Recorder {
    /// Names itself "cuda" and has the properties of an architecture.
    pub(crate) client: Client,
    kernels: Kernels,
}

impl Recorder {
    /// A device of an architecture; there can be one of each.
    pub(crate) fn new(architecture: Architecture) -> Self {
        let id = DeviceId::new(0, architecture.version as u16);
        let kernels = Kernels::default();
        let (utilities, _) = ServerUtilities::init(
            ServiceId::of::<Device>(id),
            "cuda",
            device::properties(architecture),
            device::target(),
            Arc::new(ServerLogger::default()),
            ContiguousMemoryLayoutPolicy::new(512),
        );
        let server = Device {
            utilities: Arc::new(utilities),
            kernels: kernels.clone(),
        };
        Self {
            client: Client::init(id, server),
            kernels,
        }
    }

    /// What was launched since the last call.
    pub(crate) fn take(&self) -> Result<Vec<Box<dyn CubeKernel>>> {
        if let Err(error) = self.client.flush() {
            bail!("the recording device stopped: {error}");
        }
        let mut kernels = self.kernels.lock().expect("no thread panics with the lock");
        Ok(std::mem::take(&mut *kernels))
    }
}

/// The other side of the client.
struct Device {
    utilities: Arc<ServerUtilities>,
    kernels: Kernels,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Device")
    }
}

impl DeviceService for Device {
    fn init(_device: DeviceId) -> Self {
        unreachable!("clients are made with their server")
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        self.utilities.clone()
    }
}

impl ServerCommunication for Device {}

/// Memory is never there: buffers are sizes only, nothing is written to them and nothing can be read.
impl Server for Device {
    #[expect(unsafe_code, reason = "the trait's signature")]
    unsafe fn launch(
        &mut self,
        kernel: Box<dyn CubeKernel>,
        _count: CubeCount,
        _bindings: KernelArguments,
        _stream: StreamId,
        _mode: LaunchMode,
    ) {
        let mut kernels = self.kernels.lock().expect("no thread panics with the lock");
        kernels.push(kernel);
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
        _descriptors: Vec<CopyDescriptor>,
        _stream: StreamId,
    ) -> DynFut<Result<Vec<Bytes>, ServerError>> {
        Box::pin(async { Err(no_memory()) })
    }

    fn logger(&self) -> Arc<ServerLogger> {
        self.utilities.logger.clone()
    }

    fn utilities(&self) -> Arc<ServerUtilities> {
        self.utilities.clone()
    }

    fn sync(
        &mut self,
        _handles: Vec<BufferBinding>,
        _stream: StreamId,
    ) -> DynFut<Result<(), ServerError>> {
        Box::pin(async { Ok(()) })
    }

    fn check(
        &mut self,
        _handles: Vec<BufferBinding>,
        _stream: StreamId,
    ) -> Result<(), ServerError> {
        Ok(())
    }

    fn flush(&mut self, _stream: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn memory_report(&mut self, _stream: StreamId) -> Option<StreamMemoryReport> {
        None
    }

    fn memory_cleanup(&mut self, _stream: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn start_profile(&mut self, _stream: StreamId) -> Result<ProfilingToken, ServerError> {
        Err(no_memory())
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

impl ServerStorage for Device {
    type Storage = BytesStorage;

    fn get_resource(
        &mut self,
        _binding: BufferBinding,
        _stream: StreamId,
    ) -> Result<ManagedResource<BytesResource>, ServerError> {
        Err(no_memory())
    }
}

fn no_memory() -> ServerError {
    ServerError::Generic {
        reason: "nothing runs on the recording device".to_owned(),
        backtrace: BackTrace::capture(),
    }
}
