//! Compiled kernels on a device.

use std::ffi::{CString, c_void};
use std::fmt;
use std::sync::Arc;

use cudarc::driver::{result, sys};
use tierstream_storage::Result;

use super::{Context, Stream, bind, failed};

/// A set of kernels that the driver has loaded.
pub(crate) struct Module {
    context: Context,
    raw: sys::CUmodule,
}

// SAFETY: the driver's handles may be used from any thread, several at once.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Module(GPU {})", self.context.ordinal())
    }
}

impl Module {
    /// Loads `image`: a cubin, or PTX, which the driver compiles.
    pub(crate) fn load(context: &Context, image: &[u8]) -> Result<Arc<Self>> {
        bind(context, "load kernels")?;
        // PTX is text that ends with a zero.
        let image = [image, &[0]].concat();
        // SAFETY: the image is whole and ends with a zero; the driver copies what it needs of it.
        let raw =
            unsafe { result::module::load_data(image.as_ptr().cast()) }.map_err(failed("load kernels"))?;
        Ok(Arc::new(Self { context: Arc::clone(context), raw }))
    }

    /// The kernel of that name.
    pub(crate) fn function(self: &Arc<Self>, name: &str) -> Result<Function> {
        bind(&self.context, "load kernels")?;
        let name = CString::new(name).expect("a name without zeros");
        // SAFETY: the module is live.
        let raw = unsafe { result::module::get_function(self.raw, name) }.map_err(failed("find a kernel"))?;
        Ok(Function { module: Arc::clone(self), raw })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let ended = self.context.bind_to_thread().and_then(|()| {
            // SAFETY: loaded by `load`, unloaded here alone, after the last function of it is gone.
            unsafe { result::module::unload(self.raw) }
        });
        if let Err(error) = ended {
            tracing::warn!(%error, "kernels could not be unloaded");
        }
    }
}

/// What a kernel is called with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Argument {
    /// An address or a 64-bit number.
    U64(u64),
    /// A 32-bit number.
    U32(u32),
}

/// A kernel.
#[derive(Clone)]
pub(crate) struct Function {
    module: Arc<Module>,
    raw: sys::CUfunction,
}

// SAFETY: the driver's handles may be used from any thread, several at once.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Function({:?})", self.module)
    }
}

impl Function {
    /// Hands the kernel to `stream`, `grid` thread blocks of `block` threads each. The arguments must be those of the
    /// kernel's declaration, and addresses among them must stay allocated until it has run.
    pub(crate) fn launch(
        &self,
        stream: &Stream,
        grid: u32,
        block: u32,
        arguments: &[Argument],
    ) -> Result<()> {
        stream.bind()?;
        // Little endian: the first bytes of a word are a 32-bit argument.
        let mut words: Vec<u64> = arguments
            .iter()
            .map(|argument| match *argument {
                Argument::U64(value) => value,
                Argument::U32(value) => u64::from(value),
            })
            .collect();
        let mut parameters: Vec<*mut c_void> =
            words.iter_mut().map(|word| std::ptr::from_mut(word).cast()).collect();
        // SAFETY: function and stream are live; the driver copies the arguments before it returns. What the kernel does
        // with addresses stays on the device.
        let launched = unsafe {
            result::launch_kernel(
                self.raw,
                (grid.max(1), 1, 1),
                (block, 1, 1),
                0,
                stream.raw(),
                &mut parameters,
            )
        };
        launched.map_err(failed("launch a kernel"))
    }

    /// Registers of a thread and bytes that spill to memory, as the driver has compiled it.
    pub(crate) fn registers_and_spills(&self) -> Result<(i32, i32)> {
        use sys::CUfunction_attribute_enum::{
            CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES as LOCAL, CU_FUNC_ATTRIBUTE_NUM_REGS as REGISTERS,
        };
        bind(&self.module.context, "look at a kernel")?;
        // SAFETY: the function is live.
        let attribute = |which| unsafe { result::function::get_function_attribute(self.raw, which) };
        let look = failed("look at a kernel");
        Ok((attribute(REGISTERS).map_err(&look)?, attribute(LOCAL).map_err(&look)?))
    }
}
