//! AdamW in one pass over a parameter, its gradient and its moments.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::lane::CHUNK;
use crate::kernels::AdamWUpdate;

/// Updates `[parameter, moment1, moment2]`, in place where nobody else holds the storage.
pub(super) fn update(state: [FlexTensor; 3], gradient: &FlexTensor, by: AdamWUpdate) -> [FlexTensor; 3] {
    let [mut parameter, mut moment1, mut moment2] = state.map(|tensor| tensor.to_contiguous());
    let gradient = gradient.storage::<f32>();
    let decay = 1.0 - by.learning_rate * by.weight_decay;
    let step = by.learning_rate / by.correction1;
    let inverse_correction2 = by.correction2.recip();
    let parts = (
        parameter.storage_mut::<f32>().par_chunks_mut(CHUNK),
        moment1.storage_mut::<f32>().par_chunks_mut(CHUNK),
        moment2.storage_mut::<f32>().par_chunks_mut(CHUNK),
        gradient.par_chunks(CHUNK),
    );
    parts.into_par_iter().for_each(|(parameter, moment1, moment2, gradient)| {
        for (((p, m), v), g) in parameter.iter_mut().zip(moment1).zip(moment2).zip(gradient) {
            let g = g * by.gradient_factor;
            *m = by.beta1 * *m + (1.0 - by.beta1) * g;
            *v = by.beta2 * *v + (1.0 - by.beta2) * g * g;
            *p = decay * *p - step * *m / ((*v * inverse_correction2).sqrt() + by.epsilon);
        }
    });
    [parameter, moment1, moment2]
}
