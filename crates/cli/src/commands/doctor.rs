//! `burn-omni doctor`: devices, drivers and tools, and whether the chosen device can run a model.

use std::path::PathBuf;

use burn_omni_ops::check::{
    CHECKS, CHOICE, CPU_TOLERANCE, Check, FILLING, GPU_TOLERANCE, PROMPT, STEP, W4A4,
};
use burn_omni_ops::decode::Decoder;
use burn_omni_ops::{filling, has_w4a4};
use serde::Serialize;

use crate::args::DoctorArgs;
use crate::cuda::Cuda;
use crate::device::{self, Backend, Found};
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::{kernels, model_dir, panics};

/// Everything that was looked at.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    features: Vec<&'static str>,
    processor: Processor,
    backends: Vec<BackendReport>,
    /// Looked at where CUDA is compiled in or asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    cuda: Option<CudaReport>,
    /// The checkpoint that commands take by default.
    model: Option<String>,
    ffmpeg: Option<String>,
    ffprobe: Option<String>,
    /// The chosen device, when it was found.
    device: Option<String>,
    /// Whether it can run a model.
    ok: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kernels: Vec<Kernel>,
}

#[derive(Debug, Serialize)]
struct Processor {
    name: Option<String>,
    threads: usize,
    simd: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct BackendReport {
    name: &'static str,
    compiled: bool,
    /// Devices as `--device` names them, with the names that they give themselves.
    devices: Vec<(String, Option<String>)>,
}

#[derive(Debug, Serialize)]
struct CudaReport {
    driver: Option<String>,
    driver_version: Option<String>,
    nvrtc: Option<String>,
    toolkit: Option<PathBuf>,
    /// Where compiled kernels are kept, and the bytes that are there; absent when they are not kept.
    kernels: Option<(PathBuf, u64)>,
    problems: Vec<(String, String)>,
}

/// The verdict on one operation.
#[derive(Debug, Serialize)]
struct Kernel {
    name: &'static str,
    /// Largest error as a share of the largest magnitude; absent when it is not finite or the operation crashed.
    error: Option<f32>,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    crash: Option<String>,
}

/// Looks at everything and says whether the chosen device can run a model.
pub(crate) fn doctor(args: &DoctorArgs, output: &Output) -> Result<(), Failure> {
    let chosen = args.device.device.open(output);
    let mut report = Report::new(args);
    if !args.json {
        output::data(&report.text())?;
    }
    let verdict = chosen.and_then(|found| {
        report.device = Some(found.name.clone());
        let probe = Kernel::check(&CHECKS[0], &found);
        if !probe.ok {
            return Err(Failure::advised(
                format!("--device {}: {}", found.name, probe.complaint()),
                "update the device's driver, or use --device cpu",
            ));
        }
        if args.kernels {
            let filling = filling::runs_on(&found.device).then_some(&FILLING);
            let w4a4 = has_w4a4(&found.device).then_some(&W4A4);
            let step = Decoder::runs_on(&found.device).then_some([&PROMPT, &STEP, &CHOICE]);
            let checks = CHECKS.iter().chain(filling).chain(w4a4);
            for check in checks.chain(step.into_iter().flatten()) {
                let kernel = Kernel::check(check, &found);
                // Where kernels are compiled first, all of them take a minute.
                if !args.json {
                    output::data(&kernel.text())?;
                }
                report.kernels.push(kernel);
            }
        }
        wrong_kernels(&report.kernels, &found)
    });
    report.ok = verdict.is_ok();
    if args.json {
        output::json(&report)?;
    } else if verdict.is_ok() {
        let device = report.device.unwrap_or_default();
        output.note(format!(
            "--device {}: {device} can run a model",
            args.device.device
        ));
    }
    verdict
}

fn wrong_kernels(kernels: &[Kernel], found: &Found) -> Result<(), Failure> {
    let wrong: Vec<_> = kernels
        .iter()
        .filter(|kernel| !kernel.ok)
        .map(|kernel| kernel.name)
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::advised(
        format!(
            "--device {}: wrong results from {}",
            found.name,
            wrong.join(", ")
        ),
        "update the device's driver and report this, or use --device cpu",
    ))
}

impl Kernel {
    fn check(check: &Check, found: &Found) -> Self {
        let oracle = device::oracle(found);
        let tolerance = if oracle == found.device {
            CPU_TOLERANCE
        } else {
            GPU_TOLERANCE
        };
        let outcome = panics::attempt(|| check.run(&found.device, &oracle));
        let error = outcome.as_ref().copied().unwrap_or(f32::INFINITY);
        Self {
            name: check.name,
            error: error.is_finite().then_some(error),
            ok: error <= tolerance,
            crash: outcome.err(),
        }
    }

    /// The verdict as people read it.
    fn text(&self) -> String {
        let verdict = match self.error {
            Some(error) if self.ok => format!("right, largest error {error:.1e}"),
            _ => format!("WRONG: {}", self.complaint()),
        };
        line("kernel", &format!("{:<18}{verdict}", self.name))
    }

    fn complaint(&self) -> String {
        match (&self.crash, self.error) {
            (Some(crash), _) => format!("`{}` crashed: {crash}", self.name),
            (None, Some(error)) => format!(
                "`{}` is wrong by {error:.1e} of its largest value",
                self.name
            ),
            (None, None) => format!("`{}` gives something else altogether", self.name),
        }
    }
}

impl Report {
    fn new(args: &DoctorArgs) -> Self {
        let compiled = Backend::ALL
            .into_iter()
            .filter(|backend| backend.is_compiled());
        let features: Vec<_> = compiled.map(Backend::feature).collect();
        let cuda =
            Backend::Cuda.is_compiled() || args.device.device.backend() == Some(Backend::Cuda);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            features,
            processor: Processor::look(),
            backends: Backend::ALL.map(BackendReport::look).into(),
            cuda: cuda.then(CudaReport::look),
            model: model_dir::resolve(args.model.dir.as_deref())
                .ok()
                .map(|dir| dir.display().to_string()),
            ffmpeg: program("ffmpeg"),
            ffprobe: program("ffprobe"),
            device: None,
            ok: false,
            kernels: Vec::new(),
        }
    }

    /// The report as people read it, but for the kernels: those are said as they are checked.
    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| text += &line(name, value);
        line("burn-omni", self.version);
        line("features", &self.features.join(", "));
        line("processor", &self.processor.text());
        for backend in &self.backends {
            line(backend.name, &backend.text());
        }
        if let Some(cuda) = &self.cuda {
            cuda.lines(&mut line);
        }
        let missing = "not found: pass -m DIR, or set BURN_OMNI_MODEL";
        line("model", self.model.as_deref().unwrap_or(missing));
        let missing = "not found, so videos cannot be read, but for gifs and folders of frames";
        line("ffmpeg", self.ffmpeg.as_deref().unwrap_or(missing));
        line("ffprobe", self.ffprobe.as_deref().unwrap_or(missing));
        text
    }
}

/// A line of the report.
fn line(name: &str, value: &str) -> String {
    format!("{name:<12}{value}\n")
}

impl Processor {
    fn look() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = info
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let name = name
            .and_then(|rest| rest.split_once(':'))
            .map(|(_, name)| name.trim().to_owned());
        Self {
            name,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            simd: simd(),
        }
    }

    fn text(&self) -> String {
        let name = self.name.as_deref().unwrap_or(std::env::consts::ARCH);
        let simd = if self.simd.is_empty() {
            "no wide vectors".into()
        } else {
            self.simd.join(", ")
        };
        format!("{name}, {} threads, {simd}", self.threads)
    }
}

/// The vector instructions that matter, as far as the processor has them.
fn simd() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let known = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let known = [("neon", cfg!(target_arch = "aarch64"))];
    known
        .into_iter()
        .filter(|(_, has)| *has)
        .map(|(name, _)| name)
        .collect()
}

impl BackendReport {
    fn look(backend: Backend) -> Self {
        let found = device::devices(backend);
        Self {
            name: backend.name(),
            compiled: backend.is_compiled(),
            devices: found
                .iter()
                .map(|found| (found.name.clone(), device::product(found)))
                .collect(),
        }
    }

    fn text(&self) -> String {
        if !self.compiled {
            let feature = Backend::ALL
                .into_iter()
                .find(|backend| backend.name() == self.name);
            let feature = feature.map_or(self.name, Backend::feature);
            return format!("not in this executable: build with --features {feature}");
        }
        let named = self.devices.iter().map(|(name, product)| match product {
            Some(product) => format!("{name} ({product})"),
            None => name.clone(),
        });
        let named: Vec<_> = named.collect();
        if named.is_empty() {
            "no device found".into()
        } else {
            named.join(", ")
        }
    }
}

impl CudaReport {
    fn look() -> Self {
        let cuda = Cuda::look();
        let problems = cuda
            .problems()
            .into_iter()
            .map(|problem| (problem.what, problem.remedy));
        Self {
            problems: problems.collect(),
            driver: cuda.driver,
            driver_version: cuda.driver_version,
            nvrtc: cuda.nvrtc,
            toolkit: cuda.toolkit,
            kernels: kernels::size(),
        }
    }

    fn lines(&self, line: &mut impl FnMut(&str, &str)) {
        const NOT_FOUND: &str = "not found";
        let version = self.driver_version.as_deref().unwrap_or_default();
        let driver = self.driver.as_deref().unwrap_or(NOT_FOUND);
        line("  driver", format!("{driver} {version}").trim());
        line("  nvrtc", self.nvrtc.as_deref().unwrap_or(NOT_FOUND));
        let toolkit = self
            .toolkit
            .as_ref()
            .map(|dir| dir.join("include").display().to_string());
        line("  headers", toolkit.as_deref().unwrap_or(NOT_FOUND));
        if Backend::Cuda.is_compiled() {
            let kept = self
                .kernels
                .as_ref()
                .map(|(folder, bytes)| format!("{}, {}", folder.display(), output::size(*bytes)));
            line("  kernels", kept.as_deref().unwrap_or("not kept"));
        }
        for (what, remedy) in &self.problems {
            line("  missing", &format!("{what}: {remedy}"));
        }
    }
}

/// Where a program is, by `PATH`.
fn program(name: &str) -> Option<String> {
    let paths = std::env::var_os("PATH")?;
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let found = std::env::split_paths(&paths)
        .map(|dir| dir.join(&file))
        .find(|path| path.is_file());
    found.map(|path| path.display().to_string())
}
