//! NVRTC, NVIDIA's run-time compiler, where the machine has it. Needs no GPU.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::path::{Path, PathBuf};

use libloading::{Library, Symbol};

/// Names by which the loader of the system finds it, newest first.
const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];

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
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Text = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;
type Version = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;

/// The compiler.
pub(crate) struct Nvrtc {
    library: Library,
    // Loaded by path before the library, which looks for it by name.
    _builtins: Option<Library>,
    version: (i32, i32),
}

/// What it made of a source.
pub(crate) struct Compiled {
    /// The cubin, or PTX without its final zero.
    pub(crate) image: Vec<u8>,
    /// What the compiler said: registers and spills among it.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test reads it"))]
    pub(crate) log: String,
}

impl fmt::Debug for Nvrtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nvrtc({}.{})", self.version.0, self.version.1)
    }
}

impl Nvrtc {
    /// Loads the compiler from `directory`, or from where the system finds it. Else says what was tried.
    pub(crate) fn load(directory: Option<&Path>) -> Result<Self, String> {
        let builtins = directory.and_then(builtins_in);
        let paths: Vec<PathBuf> = match directory {
            Some(directory) => {
                NAMES.iter().map(|name| directory.join(name)).filter(|path| path.exists()).collect()
            }
            None => NAMES.iter().map(PathBuf::from).collect(),
        };
        let mut library = None;
        for path in &paths {
            // SAFETY: NVRTC's initialisers have no demands on the caller.
            library = unsafe { Library::new(path) }.ok();
            if library.is_some() {
                break;
            }
        }
        let place = directory.map_or("the system's library path".to_owned(), |at| at.display().to_string());
        let library = library.ok_or_else(|| format!("no NVRTC: {} are not in {place}", NAMES.join(", ")))?;
        let mut nvrtc = Self { library, _builtins: builtins, version: (0, 0) };
        let (mut major, mut minor) = (0, 0);
        let version = nvrtc.symbol::<Version>("nvrtcVersion")?;
        // SAFETY: both arguments are written as ints.
        check("nvrtcVersion", unsafe { version(&raw mut major, &raw mut minor) })?;
        nvrtc.version = (major, minor);
        Ok(nvrtc)
    }

    /// Its CUDA version.
    pub(crate) fn version(&self) -> (i32, i32) {
        self.version
    }

    fn symbol<T>(&self, name: &'static str) -> Result<Symbol<'_, T>, String> {
        // SAFETY: the types above are those of nvrtc.h for these names, unchanged since CUDA 11.1.
        unsafe { self.library.get(name.as_bytes()) }.map_err(|error| format!("NVRTC has no {name}: {error}"))
    }

    /// Compiles `source` to a cubin for compute capability `capability` (90 for 9.0).
    pub(crate) fn cubin(&self, source: &str, capability: u32) -> Result<Compiled, String> {
        let target = format!("--gpu-architecture=sm_{capability}");
        let options = [target.as_str(), "--std=c++17", "--ptxas-options=--verbose"];
        self.compile(source, &options, "nvrtcGetCUBINSize", "nvrtcGetCUBIN")
    }

    /// Compiles `source` to PTX for `capability` and later ones.
    pub(crate) fn ptx(&self, source: &str, capability: u32) -> Result<Compiled, String> {
        let target = format!("--gpu-architecture=compute_{capability}");
        let mut compiled =
            self.compile(source, &[&target, "--std=c++17"], "nvrtcGetPTXSize", "nvrtcGetPTX")?;
        while compiled.image.last() == Some(&0) {
            compiled.image.pop();
        }
        Ok(compiled)
    }

    fn compile(
        &self,
        source: &str,
        options: &[&str],
        size: &'static str,
        image: &'static str,
    ) -> Result<Compiled, String> {
        let source = CString::new(source).map_err(|error| error.to_string())?;
        let options: Vec<CString> = options.iter().filter_map(|option| CString::new(*option).ok()).collect();
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program: Program = std::ptr::null_mut();
        let create = self.symbol::<Create>("nvrtcCreateProgram")?;
        // SAFETY: source and name end with a zero and outlive the program; there are no headers.
        let code = unsafe {
            create(
                &raw mut program,
                source.as_ptr(),
                c"kernels.cu".as_ptr(),
                0,
                std::ptr::null(),
                std::ptr::null(),
            )
        };
        check("nvrtcCreateProgram", code)?;
        let program = Guard { nvrtc: self, program };
        let compile = self.symbol::<Compile>("nvrtcCompileProgram")?;
        let count = c_int::try_from(pointers.len()).unwrap_or(0);
        // SAFETY: the program is live; as many options as said, each ends with a zero.
        let code = unsafe { compile(program.program, count, pointers.as_ptr()) };
        let log = program.text("nvrtcGetProgramLogSize", "nvrtcGetProgramLog")?;
        let log = CStr::from_bytes_until_nul(&log)
            .map(|log| log.to_string_lossy().into_owned())
            .unwrap_or_default();
        check("nvrtcCompileProgram", code).map_err(|why| format!("{why}: {log}"))?;
        Ok(Compiled { image: program.text(size, image)?, log })
    }
}

/// Destroys its program on drop.
struct Guard<'a> {
    nvrtc: &'a Nvrtc,
    program: Program,
}

impl Guard<'_> {
    fn text(&self, size_name: &'static str, text_name: &'static str) -> Result<Vec<u8>, String> {
        let (size, text) = (self.nvrtc.symbol::<Size>(size_name)?, self.nvrtc.symbol::<Text>(text_name)?);
        let mut bytes = 0;
        // SAFETY: the program is live, the argument is written as a size_t.
        check(size_name, unsafe { size(self.program, &raw mut bytes) })?;
        let mut buffer = vec![0_u8; bytes];
        // SAFETY: the buffer has the length that NVRTC just said.
        check(text_name, unsafe { text(self.program, buffer.as_mut_ptr().cast()) })?;
        Ok(buffer)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Ok(destroy) = self.nvrtc.symbol::<Destroy>("nvrtcDestroyProgram") {
            // SAFETY: the program is live and destroyed here alone.
            let _code = unsafe { destroy(&raw mut self.program) };
        }
    }
}

fn check(call: &str, code: c_int) -> Result<(), String> {
    if code == 0 { Ok(()) } else { Err(format!("{call} failed with code {code}")) }
}

fn builtins_in(directory: &Path) -> Option<Library> {
    let mut entries = std::fs::read_dir(directory).ok()?.filter_map(Result::ok);
    let entry =
        entries.find(|entry| entry.file_name().to_string_lossy().starts_with("libnvrtc-builtins.so"))?;
    // SAFETY: a library of data and pure functions.
    unsafe { Library::new(entry.path()) }.ok()
}
