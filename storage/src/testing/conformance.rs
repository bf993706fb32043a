//! What every implementation of a storage trait must do. Each suite panics on the first breach, with what it expected.

mod catalog;
mod engine;
mod home;

pub use catalog::catalog_store;
pub use engine::{io_engine, io_engine_in};
pub use home::shard_home;
