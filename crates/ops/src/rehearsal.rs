//! What a model will launch on a CUDA device, compiled on all cores before it is loaded.
//!
//! CubeCL has one thread a device, which compiles a kernel when it meets it for the first time: on a first start one after another.
//! Here the model is first run on a device that computes nothing and keeps what is launched ([`Rehearsal::device`]); what it
//! kept is then compiled by as many threads as there are cores ([`Kernels::compile`]), each with a server of CubeCL's own, so
//! that text, options, key and form of what is kept are CubeCL's. The device of the model finds them in the store which all
//! servers share (that of `kernel_cache`); whatever it does not find there it compiles as ever.

#[cfg(feature = "cuda")]
pub use recorded::{Kernels, Rehearsal, Rehearsed, records};
#[cfg(not(feature = "cuda"))]
pub use unrecorded::{Kernels, Rehearsal, Rehearsed};

#[cfg(feature = "cuda")]
mod recorded {
    use std::collections::{HashSet, VecDeque};
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
    use cubecl_server::compiler::{KernelCacheKey, build_id_hash};
    use xxhash_rust::xxh3::xxh3_128;

    use crate::kernel_cache::{OF_KERNELS, REHEARSED};

    pub use cubecl::cpu::records;

    /// CubeCL's side of a CUDA device.
    type CudaServer = <CudaRuntime as Runtime>::Server;

    /// A model being run on a device that computes nothing, one at a time.
    pub struct Rehearsal {
        recorder: &'static Recorder,
        card: DeviceId,
        key: [u8; 16],
        _alone: MutexGuard<'static, ()>,
    }

    /// Kernels that were launched and are not in the store, each once.
    pub struct Kernels {
        kernels: Vec<Box<dyn CubeKernel>>,
        card: DeviceId,
        key: [u8; 16],
    }

    /// What was rehearsed, and is in the store.
    pub struct Rehearsed {
        key: [u8; 16],
    }

    impl Rehearsal {
        /// A rehearsal of a model on `device`; its kernels depend on nothing but that and what the description says. `None`
        /// unless `device` is a CUDA device whose kernels are kept, is like the device of the first rehearsal, and this program
        /// has no mark of a rehearsal before, or fewer kernels than there were then.
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
            if is_rehearsed(&key) {
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

        /// What was launched on it, in no earlier rehearsal, and is not in the store.
        ///
        /// # Errors
        /// When the device stopped.
        pub fn finish(self) -> Result<Kernels, String> {
            let mut kernels = self.recorder.take().map_err(|error| error.to_string())?;
            let kept = kept();
            kernels.retain(|kernel| !kept.contains(&key_of(&kernel.id())));
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

        /// Compiles them on so many threads and waits for it. A kernel that fails is compiled, and fails again, when it is
        /// launched; `None` where there is one.
        #[must_use]
        pub fn compile(self, threads: usize) -> Option<Rehearsed> {
            let card = self.card;
            let waiting = Mutex::new(VecDeque::from(self.kernels));
            let next = || {
                let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.pop_front()
            };
            let compile = || {
                let Some(mut kernel) = next() else {
                    return true;
                };
                let mut server = CudaServer::init(card);
                let mut all = true;
                loop {
                    all &= compile(&mut server, kernel);
                    let Some(more) = next() else { return all };
                    kernel = more;
                }
            };
            let all = thread::scope(|scope| {
                let started = (0..threads).map(|_| {
                    let thread = thread::Builder::new().name("kernels".into());
                    thread.spawn_scoped(scope, compile)
                });
                // A panic is where a kernel or a server is at fault: the others go on.
                let started: Vec<_> = started.collect();
                let ended = started.into_iter().flatten();
                let ended = ended.map(|thread| thread.join().unwrap_or(false));
                ended.fold(true, |all, whole| all & whole)
            });
            let rest = next();
            (all && rest.is_none()).then_some(Rehearsed { key: self.key })
        }
    }

    impl Rehearsed {
        /// Marks the model: it is not rehearsed again while as many kernels are kept as now.
        pub fn mark(self) {
            let kernels = Bytes::from_bytes_vec(kept().len().to_le_bytes().into());
            let marks = persistence::open(REHEARSED);
            marks.purge_key(&self.key);
            // What is not marked is rehearsed again.
            let _ = marks.insert(&self.key, kernels, Origin::Local);
        }
    }

    /// Whether a model is marked, and as many kernels are kept as then.
    fn is_rehearsed(key: &[u8]) -> bool {
        let mark = persistence::open(REHEARSED).get(key);
        let kernels = mark.and_then(|mark| mark[..].try_into().ok());
        kernels.is_some_and(|kernels| kept().len() >= usize::from_le_bytes(kernels))
    }

    /// The keys of the kernels in the store.
    fn kept() -> HashSet<Vec<u8>> {
        let mut keys = HashSet::new();
        for name in stores() {
            persistence::open(&name).scan(&mut |key, _| {
                keys.insert(key.into());
            });
        }
        keys
    }

    /// The namespaces of kernels.
    fn stores() -> impl Iterator<Item = String> {
        let stores = environment::namespaces().into_iter();
        let names = stores.map(|store| store.namespace);
        names.filter(|name| name.starts_with(OF_KERNELS))
    }

    /// What CubeCL keeps a kernel under.
    fn key_of(kernel: &KernelId) -> Vec<u8> {
        let mut key = Vec::new();
        let parts = KernelCacheKey::new(kernel, build_id_hash());
        ciborium::into_writer(&parts, &mut key).expect("two numbers can be written to memory");
        key
    }

    /// Compiles and keeps a kernel as a launch does, and launches nothing; whether it is kept now.
    fn compile(server: &mut CudaServer, kernel: Box<dyn CubeKernel>) -> bool {
        let key = key_of(&kernel.id());
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
        stores().any(|name| persistence::open(&name).get(&key).is_some())
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

    /// What was rehearsed: nothing.
    pub enum Rehearsed {}

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
        #[must_use]
        pub fn compile(self, _: usize) -> Option<Rehearsed> {
            match self {}
        }
    }

    impl Rehearsed {
        /// Marks the model.
        pub fn mark(self) {
            match self {}
        }
    }
}
