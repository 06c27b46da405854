//! From models to what each of their kernels takes.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use burn_omni_kernels::packed::tiles;
use cubecl_core::{Compiler, CubeKernel, define_kernel};
use cubecl_cpp::shared::CppCompiler;
use cubecl_cpp::target::Cuda;

use crate::architecture::Architecture;
use crate::attentions;
use crate::cache::{Cache, Launch};
use crate::dense;
use crate::device;
use crate::model::Model;
use crate::nvrtc::Nvrtc;
use crate::products::Launches;
use crate::recorder::Recorder;
use crate::rows;
use crate::scaled;
use crate::steps::steps;
use crate::usage::Usage;

/// Threads that compile.
const WORKERS: usize = 2;

/// A kernel that was launched.
pub(crate) struct Kernel {
    /// Its function.
    pub(crate) name: &'static str,
    /// The first thing that launched it.
    pub(crate) part: String,
    kernel: Box<dyn CubeKernel>,
}

/// A kernel compiled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checked {
    /// What it is launched with.
    pub(crate) launch: Launch,
    /// What it takes.
    pub(crate) usage: Usage,
    /// Whether an earlier run compiled it.
    pub(crate) cached: bool,
}

/// The kernels that models launch on an architecture, each once; those whose name contains `only`.
pub(crate) fn collect(
    architecture: Architecture,
    models: &[Model],
    only: &str,
) -> Result<Vec<Kernel>> {
    let recorder = Recorder::new(architecture)?;
    let mut kernels = Vec::new();
    let mut seen = HashSet::new();
    let mut stopped = None;
    let mut note = |part: String| match recorder.take() {
        Ok(launched) => {
            for kernel in launched {
                let name = name(&*kernel);
                if name.contains(only) && seen.insert(kernel.id()) {
                    let part = part.clone();
                    kernels.push(Kernel { name, part, kernel });
                }
            }
        }
        Err(error) => stopped = Some(error),
    };
    ensure!(
        tiles::runs_on(recorder.client()),
        "{} would not use tiles",
        architecture.name()
    );
    for model in models {
        Launches::new(recorder.client(), &mut note).model(model);
        rows::launch(recorder.client(), model, &mut note);
        dense::launch(recorder.client(), model, &mut note);
        scaled::launch(recorder.client(), model, &mut note);
        steps(recorder.client(), model, &mut note);
        attentions::launch(recorder.client(), model, &mut note);
    }
    stopped.map_or(Ok(kernels), Err)
}

/// The function's name, from `…::single_kernel::SingleKernel<…>`.
fn name(kernel: &dyn CubeKernel) -> &'static str {
    let path = kernel.name().split('<').next().unwrap_or_default();
    path.rsplit("::").nth(1).unwrap_or(path)
}

/// Compiles kernels for an architecture.
pub(crate) struct Check<'a> {
    /// The compiler.
    pub(crate) nvrtc: &'a Nvrtc,
    /// What to compile for.
    pub(crate) architecture: Architecture,
    /// What earlier runs found.
    pub(crate) cache: &'a Cache,
    /// Where to write the CUDA C++.
    pub(crate) texts: Option<&'a Path>,
}

impl Check<'_> {
    /// What kernels take, or why they do not compile, in their order.
    pub(crate) fn run(&self, kernels: &[Kernel]) -> Vec<Result<Checked>> {
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::with_capacity(kernels.len()));
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(kernel) = kernels.get(at) else { break };
                        let result = self.compile(at, kernel);
                        let mut done = done.lock().expect("no thread panics with the lock");
                        done.push((at, result));
                    }
                });
            }
        });
        let mut done = done.into_inner().expect("no thread panics with the lock");
        done.sort_by_key(|(at, _)| *at);
        done.into_iter().map(|(_, result)| result).collect()
    }

    fn compile(&self, number: usize, kernel: &Kernel) -> Result<Checked> {
        let id = kernel.kernel.id().stable_format();
        if let (None, Some((launch, usage))) = (self.texts, self.cache.emitted(&id)) {
            return Ok(Checked {
                launch,
                usage,
                cached: true,
            });
        }
        let (text, launch) = self.emit(&*kernel.kernel)?;
        if let Some(folder) = self.texts {
            let part = kernel.part.replace(' ', "-");
            let file = format!("{number:03}-{}-{part}.cu", kernel.name);
            fs::write(folder.join(&file), &text).context(file)?;
        }
        self.cache.keep_launch(&id, &text, launch)?;
        let known = self.cache.compiled(&text);
        let usage = match known {
            Some(usage) => usage,
            None => {
                let usage = Usage::parse(&self.nvrtc.compile(&text, self.architecture)?)?;
                self.cache.keep_usage(&text, usage)?;
                usage
            }
        };
        Ok(Checked {
            launch,
            usage,
            cached: known.is_some(),
        })
    }

    /// The kernel in CUDA C++.
    fn emit(&self, kernel: &dyn CubeKernel) -> Result<(String, Launch)> {
        let size = kernel.id().cube_dim;
        let options = device::options(self.architecture);
        let made = define_kernel(kernel)
            .and_then(|definition| CppCompiler::<Cuda>::default().compile(definition, &options))
            .map_err(|error| anyhow!("{error}"))?;
        let launch = Launch {
            threads: (size.x * size.y * size.z) as usize,
            shared: made.shared_memory_size,
        };
        Ok((made.source, launch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::ALL;
    use crate::model::models;

    #[test]
    fn every_architecture_has_every_kernel_once() {
        let models = models().unwrap();
        let demo: Vec<Model> = models
            .into_iter()
            .filter(|model| model.name == "demo")
            .collect();
        for architecture in ALL {
            let kernels = collect(architecture, &demo, "").unwrap();
            let ids: HashSet<_> = kernels.iter().map(|kernel| kernel.kernel.id()).collect();
            assert_eq!(ids.len(), kernels.len());
            for name in [
                "pack_codes",
                "many_kernel",
                "product_kernel",
                "sort_kernel",
                "matrix_kernel",
            ] {
                assert!(kernels.iter().any(|kernel| kernel.name == name), "{name}");
            }
        }
    }
}
