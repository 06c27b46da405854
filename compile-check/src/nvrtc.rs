//! NVIDIA's run-time compiler, found in a folder: neither a toolkit nor a driver is asked for.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};

use anyhow::{Context, Result, bail, ensure};
use libloading::Library;

use crate::architecture::Architecture;

type Program = *mut c_void;
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
type LogSize = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Log = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;

/// The compiler.
pub(crate) struct Nvrtc {
    create: Create,
    compile: Compile,
    log_size: LogSize,
    log: Log,
    destroy: Destroy,
    include: PathBuf,
    _libraries: [Library; 2],
}

impl Nvrtc {
    /// Opens the compiler in `toolkit`, a folder with `lib` and `include`.
    #[expect(unsafe_code, reason = "a C library")]
    pub(crate) fn open(toolkit: &Path) -> Result<Self> {
        let load = |name: &str| {
            let path = toolkit.join("lib").join(name);
            // SAFETY: the initializers of these libraries ask for nothing.
            unsafe { Library::new(&path) }.with_context(|| format!("{}", path.display()))
        };
        // NVRTC asks for the first by its bare name and then finds it loaded.
        let builtins = load("libnvrtc-builtins.so.13.0")?;
        let library = load("libnvrtc.so.13")?;
        // SAFETY: the types are those of `nvrtc.h`.
        unsafe {
            Ok(Self {
                create: *library.get::<Create>(b"nvrtcCreateProgram")?,
                compile: *library.get::<Compile>(b"nvrtcCompileProgram")?,
                log_size: *library.get::<LogSize>(b"nvrtcGetProgramLogSize")?,
                log: *library.get::<Log>(b"nvrtcGetProgramLog")?,
                destroy: *library.get::<Destroy>(b"nvrtcDestroyProgram")?,
                include: toolkit.join("include"),
                _libraries: [builtins, library],
            })
        }
    }

    /// Compiles to machine code and returns the log, in which ptxas says what the kernel takes.
    ///
    /// # Errors
    /// The log, when the text does not compile.
    #[expect(unsafe_code, reason = "a C library")]
    pub(crate) fn compile(&self, text: &str, architecture: Architecture) -> Result<String> {
        let text = CString::new(text)?;
        // What CubeCL asks for, and ptxas' figures.
        let options = [
            format!("--gpu-architecture={}", architecture.name()),
            format!("--include-path={}", self.include.display()),
            "-lineinfo".to_owned(),
            "--ptxas-options=-v".to_owned(),
        ]
        .map(|option| CString::new(option).expect("a path has no zero byte"));
        let options = options.each_ref().map(|option| option.as_ptr());
        let mut program = null_mut();
        // SAFETY: every pointer outlives the call it is given to, and the log has the size that NVRTC names.
        unsafe {
            let made = (self.create)(&mut program, text.as_ptr(), null(), 0, null(), null());
            ensure!(made == 0, "NVRTC makes no program: error {made}");
            let compiled = (self.compile)(program, options.len() as c_int, options.as_ptr());
            let mut size = 0;
            (self.log_size)(program, &mut size);
            let mut log = vec![0_u8; size.max(1)];
            (self.log)(program, log.as_mut_ptr().cast());
            (self.destroy)(&mut program);
            let log = CStr::from_bytes_until_nul(&log)?
                .to_string_lossy()
                .into_owned();
            if compiled != 0 {
                bail!("{}", log.trim());
            }
            Ok(log)
        }
    }
}
