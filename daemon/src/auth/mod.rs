//! Who somebody is, what they may do, and the record of every decision.
//!
//! [`policy`] is the table of roles, [`totp`] and [`tokens`] turn a person with an authenticator into a name for some
//! minutes, [`users`] is where secrets are kept, [`audit`] the log, and [`gate`] puts them together: the only way in.
//! Default is to deny. Secrets are in files that their owner alone can read, and in no message, log or error text.

pub(crate) mod audit;
pub(crate) mod gate;
pub(crate) mod policy;
pub(crate) mod text;
pub(crate) mod tokens;
pub(crate) mod totp;
pub(crate) mod users;
pub(crate) mod wall;

pub use audit::{AuditReport, verify_audit};
pub use gate::AuthConfig;
