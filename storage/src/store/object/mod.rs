//! Objects: checkpoints, tensors, any single thing with a name; put, read in parts, drained to L3, deleted.
//!
//! A put is acknowledged when its sealed file is durable on L2, or on L3 where there is no L2 or it does not take it,
//! and the catalog says so. What L2 alone has is dirty: it is drained to L3 in the background, oldest first, and never
//! evicted before. A name has one current version; a put replaces it in one step, and readers of the old one finish.
//! The files describe themselves, so that the catalog can be rebuilt from them. The order of the durable steps, and
//! why it survives a crash at any point: docs/design/0007-writes.md.

mod api;
mod area;
mod config;
mod descriptor;
mod drain;
mod handle;
mod objects;
mod payload;
mod put;
mod record;
mod recover;
mod report;
mod scrub;
mod stream;
mod tensors;

pub use config::{DrainMode, ObjectConfig, PutOptions};
pub use handle::{Object, ObjectView};
pub use payload::{Payload, SafetensorsFile, Sink, TensorPayload};
pub use report::{
    Drained, ObjectInfo, ObjectStatus, ObjectSummary, PutReport, RecoveryReport, object_summary, objects_in,
};
pub use scrub::ObjectScrub;
pub use stream::StreamPayload;
pub use tensors::Tensor;

pub(super) use area::{directory_in, is_object_file};
pub(super) use objects::Objects;

#[cfg(test)]
mod tests;
