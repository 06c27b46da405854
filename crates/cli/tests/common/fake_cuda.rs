//! A CUDA without a card: driver, NVRTC and headers.

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

use super::{Run, program};

/// A folder with the driver, an NVRTC and the headers that are looked for.
static CUDA: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    for (source, library) in [("driver.c", "libcuda.so.1"), ("nvrtc.c", "libnvrtc.so")] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fake")
            .join(source);
        let status = Command::new("cc")
            .args(["-w", "-shared", "-fPIC", "-o"])
            .args([&folder.path().join(library), &source])
            .status()
            .expect("a C compiler, `cc`");
        assert!(status.success(), "{library} is compiled");
    }
    let include = folder.path().join("include");
    std::fs::create_dir(&include).expect("a folder");
    for header in ["cuda_fp16.h", "cuda_fp8.h", "cuda_fp4.h"] {
        std::fs::write(include.join(header), "").expect("a file");
    }
    folder
});

/// Runs the program with a CUDA that does as the variables say.
pub(crate) fn with(variables: &[(&str, &str)], args: &[&str]) -> Run {
    let mut command = program();
    command
        .env("CUDA_PATH", CUDA.path())
        .env("LD_LIBRARY_PATH", CUDA.path())
        .envs(variables.iter().copied());
    let output = command.args(args).output().expect("the program starts");
    output.into()
}
