//! SM4-GCM on the device: sealed messages in device memory become plaintext there, or zeros where a tag is wrong.
//!
//! Keys are expanded here ([`KeyTable`]) and messages described here ([`PackedMessages`]); the arithmetic is in
//! `kernels/`. Guarantees that a message counts as opened only after the device compared its tag. Knows no file: who
//! reads sealed blocks says what their nonces and AADs are.

mod field;
mod key_table;
mod message;
pub(crate) mod opener;

pub use key_table::{KEY_TABLE_BYTES, KeyTable};
pub use message::{Message, Outcome, PackedMessages};
