//! What a model will launch on a CUDA device, compiled on all cores before it is loaded.
//!
//! CubeCL has one thread a device, which compiles a kernel when it meets it for the first time: on a first start one after another.
//! Here the model is first run on a device that computes nothing and keeps what is launched ([`Rehearsal::device`]); what it
//! kept is then compiled by as many threads as there are cores ([`Kernels::compile`]), each with a server of CubeCL's own, so
//! that text, options, key and form of what is kept are CubeCL's. The device of the model finds them in the store which all
//! servers share ([`crate::kernel_cache`]); whatever it does not find there it compiles as ever.

#[cfg(feature = "cuda")]
pub use recorded::{Kernels, Rehearsal, records};
#[cfg(not(feature = "cuda"))]
pub use unrecorded::{Kernels, Rehearsal};

#[cfg(feature = "cuda")]
mod recorded {
    use std::collections::VecDeque;
    use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
    use std::thread;

    use burn::backend::DispatchDevice;
    use burn::tensor::Device;
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
    use cubecl::cpu::{CpuDevice, CpuRuntime, Recorder};
    use cubecl::cuda::CudaRuntime;
    use cubecl::dry_run::LaunchMode;
    use cubecl_core::device::{Device as _, DeviceId, DeviceService};
    use cubecl_core::environment::stream::StreamId;
    use cubecl_core::prelude::*;
    use cubecl_core::server::{KernelArguments, Server};
    use cubecl_core::{__private::Runtime, CubeKernel};
    use cubecl_environment::bytes::Bytes;
    use cubecl_environment::environment;
    use cubecl_environment::persistence::{self, Origin};
    use xxhash_rust::xxh3::xxh3_128;

    use crate::kernel_cache::OF_KERNELS;

    pub use cubecl::cpu::records;

    /// Where it is kept what was rehearsed; the name begins as those of CubeCL's own stores of CUDA, which are written to disk.
    const REHEARSED: &str = "cuda-rehearsed";

    /// CubeCL's side of a CUDA device.
    type CudaServer = <CudaRuntime as Runtime>::Server;

    /// A model being run on a device that computes nothing, one at a time.
    pub struct Rehearsal {
        recorder: &'static Recorder,
        card: DeviceId,
        key: [u8; 16],
        _alone: MutexGuard<'static, ()>,
    }

    /// Kernels that were launched, each once.
    pub struct Kernels {
        kernels: Vec<Box<dyn CubeKernel>>,
        card: DeviceId,
        key: [u8; 16],
    }

    impl Rehearsal {
        /// A rehearsal of a model on `device`; its kernels depend on nothing but that and what the description says. `None`
        /// unless `device` is a CUDA device whose kernels are kept and have not been compiled by a rehearsal of this program
        /// before, and is like the device of the first rehearsal.
        #[must_use]
        pub fn of(device: &Device, description: &str) -> Option<Self> {
            static ALONE: Mutex<()> = Mutex::new(());
            let DispatchDevice::Cube(cubecl::Device::Cuda(card)) = device.as_dispatch() else {
                return None;
            };
            if !CubeClRuntimeConfig::get().compilation.cache {
                return None;
            }
            let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
            let client = CudaRuntime::client(card);
            let key = key(&client, description);
            if persistence::open(REHEARSED).get(&key).is_some() {
                return None;
            }
            let recorder = recorder(&client)?;
            // What an earlier rehearsal left when it failed.
            recorder.take().ok()?;
            Some(Self {
                recorder,
                card: card.to_id(),
                key,
                _alone: alone,
            })
        }

        /// The device that passes for the one of the model.
        #[must_use]
        pub fn device(&self) -> Device {
            Device::new(DispatchDevice::Cube(cubecl::Device::Cpu(CpuDevice)))
        }

        /// What was launched on it, and in no earlier rehearsal.
        ///
        /// # Errors
        /// When the device stopped.
        pub fn finish(self) -> Result<Kernels, String> {
            let kernels = self.recorder.take().map_err(|error| error.to_string())?;
            let Self { card, key, .. } = self;
            Ok(Kernels { kernels, card, key })
        }
    }

    /// What a description is kept under: it is for one build of the program, and one kind of device.
    fn key(client: &Client, description: &str) -> [u8; 16] {
        let build = buildid::build_id().unwrap_or_default();
        let device = client.properties().checksum().to_le_bytes();
        xxh3_128(&[build, &device, description.as_bytes()].concat()).to_le_bytes()
    }

    /// The device that records, with the properties of the first one that was asked for; `None` for one that has others.
    fn recorder(client: &Client) -> Option<&'static Recorder> {
        static RECORDER: OnceLock<Option<Recorder>> = OnceLock::new();
        let recorder = RECORDER.get_or_init(|| {
            let properties = client.properties().clone();
            let target = client.target_properties().clone();
            Recorder::new(CpuRuntime::id(), client.name(), (properties, target))
        });
        let same = |recorder: &&Recorder| {
            recorder.client().properties().checksum() == client.properties().checksum()
        };
        recorder.as_ref().filter(same)
    }

    impl Kernels {
        /// How many there are.
        #[must_use]
        pub fn len(&self) -> usize {
            self.kernels.len()
        }

        /// Whether there are none.
        #[must_use]
        pub fn is_empty(&self) -> bool {
            self.kernels.is_empty()
        }

        /// Compiles them on so many threads and waits for it. What fails is left out: it is compiled, and fails again, when it
        /// is launched.
        pub fn compile(self, threads: usize) {
            let card = self.card;
            let waiting = Mutex::new(VecDeque::from(self.kernels));
            let next = || {
                let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.pop_front()
            };
            thread::scope(|scope| {
                let compile = || {
                    let Some(mut kernel) = next() else { return };
                    let mut server = CudaServer::init(card);
                    loop {
                        compile(&mut server, kernel);
                        let Some(more) = next() else { return };
                        kernel = more;
                    }
                };
                let started = (0..threads).map(|_| {
                    let thread = thread::Builder::new().name("kernels".into());
                    thread.spawn_scoped(scope, compile)
                });
                // A panic is where a kernel or a server is at fault: the others go on.
                let started: Vec<_> = started.collect();
                for thread in started.into_iter().flatten() {
                    let _ = thread.join();
                }
            });
            if any_is_kept() {
                // What is not marked is rehearsed again.
                let done = Bytes::from_bytes_vec(vec![1]);
                let _ = persistence::open(REHEARSED).insert(&self.key, done, Origin::Local);
            }
        }
    }

    /// Whether a kernel is in the store; there is none where the compiler takes no text.
    fn any_is_kept() -> bool {
        let stores = environment::namespaces().into_iter();
        stores
            .map(|store| store.namespace)
            .any(|name| name.starts_with(OF_KERNELS))
    }

    /// Compiles and keeps a kernel as a launch does, and launches nothing.
    fn compile(server: &mut CudaServer, kernel: Box<dyn CubeKernel>) {
        let (count, nothing) = (CubeCount::new_single(), KernelArguments::default());
        #[expect(unsafe_code, reason = "launching is")]
        // SAFETY: a launch that is skipped ends behind the compiler and touches no memory.
        unsafe {
            server.launch(
                kernel,
                count,
                nothing,
                StreamId::current(),
                LaunchMode::Skip,
            );
        }
    }
}

/// Without CUDA nothing is compiled ahead.
#[cfg(not(feature = "cuda"))]
mod unrecorded {
    use burn::tensor::Device;

    /// A model being run on a device that computes nothing; there is none.
    pub enum Rehearsal {}

    /// Kernels that were launched; there are none.
    pub enum Kernels {}

    impl Rehearsal {
        /// None.
        #[must_use]
        pub fn of(_: &Device, _: &str) -> Option<Self> {
            None
        }

        /// The device that passes for the one of the model.
        #[must_use]
        pub fn device(&self) -> Device {
            match *self {}
        }

        /// What was launched on it.
        ///
        /// # Errors
        /// None.
        pub fn finish(self) -> Result<Kernels, String> {
            match self {}
        }
    }

    impl Kernels {
        /// How many there are.
        #[must_use]
        pub fn len(&self) -> usize {
            match *self {}
        }

        /// Whether there are none.
        #[must_use]
        pub fn is_empty(&self) -> bool {
            match *self {}
        }

        /// Compiles them.
        pub fn compile(self, _: usize) {
            match self {}
        }
    }
}
