//! Which device computes. The only place above the operations that knows which backends are compiled in.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;

use crate::cuda::Cuda;
use crate::failure::Failure;
use crate::output::Output;
use crate::{kernels, panics};

#[cfg(not(any(
    feature = "flex",
    feature = "cuda",
    feature = "vulkan",
    feature = "wgpu",
    feature = "metal"
)))]
compile_error!(
    "no backend: build with at least one of the features flex, cuda, vulkan, wgpu, metal"
);

/// What `--device` can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The first backend that works, cards before the CPU.
    Auto,
    /// A device of this backend; the number counts those that [`devices`] lists.
    On(Backend, usize),
    /// A Vulkan adapter that is a program.
    SoftwareVulkan,
}

/// A way to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Cpu,
    Cuda,
    Vulkan,
    Wgpu,
    Metal,
}

/// A device that was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) device: Device,
    /// As `--device` names it.
    pub(crate) name: String,
}

impl Backend {
    pub(crate) const ALL: [Self; 5] =
        [Self::Cpu, Self::Cuda, Self::Vulkan, Self::Wgpu, Self::Metal];
    /// The order in which `auto` tries them.
    const PREFERRED: [Self; 5] = [Self::Cuda, Self::Metal, Self::Vulkan, Self::Wgpu, Self::Cpu];

    /// As `--device` names it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Vulkan => "vulkan",
            Self::Wgpu => "wgpu",
            Self::Metal => "metal",
        }
    }

    /// The cargo feature that brings it.
    pub(crate) const fn feature(self) -> &'static str {
        match self {
            Self::Cpu => "flex",
            other => other.name(),
        }
    }

    /// Whether it is in this executable.
    pub(crate) const fn is_compiled(self) -> bool {
        match self {
            Self::Cpu => cfg!(feature = "flex"),
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Metal => cfg!(feature = "metal"),
        }
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str =
            "expected auto, cpu, cuda[:N], vulkan[:N], vulkan:cpu, wgpu or metal";
        let (name, number) = match text.split_once(':') {
            Some((name, number)) => (name, Some(number)),
            None => (text, None),
        };
        if (name, number) == ("auto", None) {
            return Ok(Self::Auto);
        }
        if (name, number) == ("vulkan", Some("cpu")) {
            return Ok(Self::SoftwareVulkan);
        }
        let backend = Backend::ALL
            .into_iter()
            .find(|backend| backend.name() == name);
        let numbered = [Backend::Cuda, Backend::Vulkan];
        match (backend, number) {
            (Some(backend), None) => Ok(Self::On(backend, 0)),
            (Some(backend), Some(number)) if numbered.contains(&backend) => {
                let number = number.parse().map_err(|_| EXPECTED)?;
                Ok(Self::On(backend, number))
            }
            _ => Err(EXPECTED.into()),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::SoftwareVulkan => f.write_str("vulkan:cpu"),
            Self::On(backend @ (Backend::Cuda | Backend::Vulkan), number) => {
                write!(f, "{}:{number}", backend.name())
            }
            Self::On(backend, _) => f.write_str(backend.name()),
        }
    }
}

impl Choice {
    /// The backend that is named, if any is.
    pub(crate) fn backend(self) -> Option<Backend> {
        match self {
            Self::On(backend, _) => Some(backend),
            Self::SoftwareVulkan => Some(Backend::Vulkan),
            Self::Auto => None,
        }
    }

    /// Finds the device, and the kernels that were compiled for it earlier.
    pub(crate) fn open(self, output: &Output) -> Result<Found, Failure> {
        if !self.may_be_cuda() {
            kernels::keep_nothing();
            return self.find();
        }
        let found = self.find()?;
        kernels::open(output);
        Ok(found)
    }

    /// Whether a CUDA device is here that may be the one.
    fn may_be_cuda(self) -> bool {
        matches!(self.backend(), None | Some(Backend::Cuda))
            && Backend::Cuda.is_compiled()
            && problems(Backend::Cuda).is_empty()
            && !devices(Backend::Cuda).is_empty()
    }

    fn find(self) -> Result<Found, Failure> {
        match self {
            Self::Auto => first_that_works(),
            Self::On(backend, number) => {
                self.needs(backend)?;
                self.numbered(backend, number)
            }
            Self::SoftwareVulkan => {
                self.needs(Backend::Vulkan)?;
                let name = self.to_string();
                let found = software_vulkan().map(|device| Found { device, name });
                found.ok_or_else(|| {
                    Failure::advised(
                        format!("--device {self}: no software Vulkan adapter found"),
                        "install one, such as Mesa's lavapipe (Debian: mesa-vulkan-drivers)",
                    )
                })
            }
        }
    }

    /// Fails unless `backend` is in this executable and works on this machine.
    fn needs(self, backend: Backend) -> Result<(), Failure> {
        if !backend.is_compiled() {
            return Err(Failure::advised(
                format!(
                    "--device {self}: this executable was built without {}",
                    backend.name()
                ),
                format!(
                    "build it with `cargo build --release --features {}`",
                    backend.feature()
                ),
            ));
        }
        match problems(backend).into_iter().next() {
            None => Ok(()),
            Some(problem) => Err(Failure::advised(
                format!("--device {self}: {}", problem.what),
                problem.remedy,
            )),
        }
    }

    fn numbered(self, backend: Backend, number: usize) -> Result<Found, Failure> {
        let found = devices(backend);
        let count = found.len();
        found.into_iter().nth(number).ok_or_else(|| {
            let found = match count {
                0 => format!("no {} device", backend.name()),
                1 => "one device, number 0".into(),
                _ => format!("{count} devices, numbers 0 to {}", count - 1),
            };
            Failure::advised(
                format!("--device {self}: no such device, found {found}"),
                "see `burn-omni doctor` for the devices of this machine",
            )
        })
    }
}

/// The first device of the first backend that has one; adapters that are programs are only taken when they are named.
fn first_that_works() -> Result<Found, Failure> {
    let compiled = Backend::PREFERRED
        .into_iter()
        .filter(|backend| backend.is_compiled());
    let working = compiled.filter(|backend| problems(*backend).is_empty());
    let mut found = working.flat_map(devices);
    found.next().ok_or_else(|| {
        Failure::advised(
            "--device auto: no device that this executable can use",
            "see `burn-omni doctor` for what is missing, or build with the feature flex for the CPU",
        )
    })
}

/// The Vulkan adapter that is a program, where one is installed.
fn software_vulkan() -> Option<Device> {
    #[cfg(feature = "vulkan")]
    return panics::attempt(burn_omni_ops::adapter::software_vulkan)
        .ok()
        .flatten();
    #[cfg(not(feature = "vulkan"))]
    None
}

/// What keeps a backend from working, and what to do about it.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) what: String,
    pub(crate) remedy: String,
}

/// What keeps a backend from working on this machine.
pub(crate) fn problems(backend: Backend) -> Vec<Problem> {
    match backend {
        Backend::Cuda => Cuda::look().problems(),
        _ => Vec::new(),
    }
}

/// The devices of a backend; none where it is not compiled in or cannot work here.
pub(crate) fn devices(backend: Backend) -> Vec<Found> {
    let found = panics::attempt(|| enumerate(backend)).unwrap_or_default();
    let named = found.into_iter().enumerate().map(|(number, device)| Found {
        device,
        name: Choice::On(backend, number).to_string(),
    });
    named.collect()
}

fn enumerate(backend: Backend) -> Vec<Device> {
    match backend {
        #[cfg(feature = "flex")]
        Backend::Cpu => vec![Device::flex()],
        #[cfg(feature = "cuda")]
        Backend::Cuda => Device::enumerate(burn::tensor::DeviceType::Cuda)
            .into_iter()
            .collect(),
        #[cfg(feature = "vulkan")]
        Backend::Vulkan => gpus(burn::tensor::DeviceType::Vulkan),
        #[cfg(feature = "wgpu")]
        Backend::Wgpu => gpus(burn::tensor::DeviceType::Wgpu),
        #[cfg(feature = "metal")]
        Backend::Metal => gpus(burn::tensor::DeviceType::Metal),
        #[allow(
            unreachable_patterns,
            reason = "reachable unless every backend is compiled in"
        )]
        _ => Vec::new(),
    }
}

/// The devices that are cards; software adapters are none.
#[cfg(any(feature = "vulkan", feature = "wgpu", feature = "metal"))]
fn gpus(kind: burn::tensor::DeviceType) -> Vec<Device> {
    let all = Device::enumerate(kind).into_iter();
    let card = |device: &Device| {
        let identity = panics::attempt(|| device.identity()).ok().flatten();
        identity.is_some_and(|identity| identity.physical.is_some())
    };
    all.filter(card).collect()
}

/// The name that a device gives itself, where it has one.
#[cfg_attr(
    not(any(
        feature = "cuda",
        feature = "vulkan",
        feature = "wgpu",
        feature = "metal"
    )),
    expect(unused_variables, reason = "the CPU has no name of its own here")
)]
pub(crate) fn product(found: &Found) -> Option<String> {
    #[cfg(any(
        feature = "cuda",
        feature = "vulkan",
        feature = "wgpu",
        feature = "metal"
    ))]
    return panics::attempt(|| found.device.identity())
        .ok()
        .flatten()
        .map(|identity| identity.name);
    #[cfg(not(any(
        feature = "cuda",
        feature = "vulkan",
        feature = "wgpu",
        feature = "metal"
    )))]
    None
}

/// Memory of a device in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) free: u64,
    pub(crate) total: u64,
}

/// The memory of a device, where a driver tells it.
#[cfg_attr(
    not(feature = "cuda"),
    expect(unused_variables, reason = "only CUDA's driver is asked")
)]
pub(crate) fn memory(found: &Found) -> Option<Memory> {
    #[cfg(feature = "cuda")]
    {
        let Ok(Choice::On(Backend::Cuda, number)) = found.name.parse() else {
            return None;
        };
        let memory = panics::attempt(|| {
            let context = cudarc::driver::CudaContext::new(number).ok()?;
            context.bind_to_thread().ok()?;
            let (free, total) = cudarc::driver::result::mem_get_info().ok()?;
            Some(Memory {
                free: free as u64,
                total: total as u64,
            })
        });
        memory.ok().flatten()
    }
    #[cfg(not(feature = "cuda"))]
    None
}

/// Free bytes of a device's memory, where a driver tells them.
pub(crate) fn free_memory(found: &Found) -> Option<u64> {
    memory(found).map(|memory| memory.free)
}

/// The device that references run on: the CPU where it is compiled in, else the device itself.
pub(crate) fn oracle(found: &Found) -> Device {
    devices(Backend::Cpu)
        .into_iter()
        .next()
        .map_or_else(|| found.device.clone(), |cpu| cpu.device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for text in [
            "auto",
            "cpu",
            "cuda:0",
            "cuda:7",
            "vulkan:1",
            "vulkan:cpu",
            "wgpu",
            "metal",
        ] {
            assert_eq!(text.parse::<Choice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse::<Choice>(), Ok(Choice::On(Backend::Cuda, 0)));
        for text in [
            "",
            "gpu",
            "cuda:",
            "cuda:x",
            "cpu:1",
            "auto:0",
            "vulkan:gpu",
        ] {
            assert!(text.parse::<Choice>().is_err(), "{text}");
        }
    }
}
