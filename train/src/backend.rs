//! The two burn backends that are built in, and how to name their devices.
//!
//! Everything else in this crate is generic over [`TrainBackend`]; the caller picks one of the aliases by
//! [`Device`](crate::Device).

use burn_autodiff::Autodiff;
use burn_cuda::CudaDevice;
use burn_flex::FlexDevice;

use crate::device::CudaPresent;
pub use crate::kernels::AttentionShape;
pub use crate::kernels::tape::TrainBackend;

/// Training on the processor, on all its cores (rayon's global pool).
pub type Cpu = Autodiff<burn_flex::Flex>;

/// Training on an NVIDIA GPU. The libraries are loaded at run time.
pub type Cuda = Autodiff<burn_cuda::Cuda>;

/// The device to build [`Cpu`] tensors on.
#[must_use]
pub fn cpu_device() -> FlexDevice {
    FlexDevice
}

/// The device to build [`Cuda`] tensors on.
#[must_use]
pub fn cuda_device(present: CudaPresent) -> CudaDevice {
    CudaDevice::new(present.ordinal())
}

/// Makes the calling thread one of the threads that CPU training computes on. Call it once, early in `main`, from the
/// thread that will train and that lives as long as the program.
///
/// Without it every operator hands its work to rayon's threads and sleeps until they are done: two context switches per
/// operator, a fifth of the time of a small model's step. The results are the same bits.
///
/// Returns whether it took effect. It does not if something has used rayon's global pool before, or on one core, where
/// the pool would be this thread alone and nobody else's work on it would ever start.
pub fn compute_on_this_thread() -> bool {
    std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1)
        && rayon::ThreadPoolBuilder::new().use_current_thread().build_global().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Gpt, TrainModel};

    /// Compiles or does not: nothing here may touch CUDA on a machine without a driver.
    #[test]
    fn both_backends_can_train_a_gpt() {
        fn trains<B: TrainBackend, M: TrainModel<B>>() {}
        trains::<Cpu, Gpt<Cpu>>();
        trains::<Cuda, Gpt<Cuda>>();
        assert_eq!(cuda_device(CudaPresent::from_probe(1)), CudaDevice::new(1));
    }
}
