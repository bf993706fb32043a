//! `tierstream ls`: the objects there are, and which of them L2 alone has.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tierstream_storage::Result;
use tierstream_storage::store::object::{ObjectInfo, ObjectStatus, RecoveryReport};
use tierstream_storage::units::human_bytes;

use super::ObjectArgs;
use crate::output;

/// List the objects whose names begin with a prefix
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Beginning of the names
    #[arg(default_value = "")]
    prefix: String,

    #[command(flatten)]
    objects: ObjectArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listing {
    objects: Vec<ObjectInfo>,
    status: ObjectStatus,
    recovery: RecoveryReport,
}

impl Ls {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let store = self.objects.open(|_| {})?;
        let listing = Listing {
            objects: store.list(&self.prefix)?,
            status: store.object_status()?,
            recovery: store.recovery()?,
        };
        if self.json {
            output::json(&listing)?;
        } else {
            output::result(&listing.text())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Listing {
    fn text(&self) -> String {
        let mut text = String::new();
        for object in &self.objects {
            let place = match (object.on_l2, object.on_l3) {
                (true, true) => "L2 L3",
                (true, false) => "L2 dirty",
                _ => "L3",
            };
            let kind = if object.tensors { "tensors" } else { "bytes" };
            let size = human_bytes(object.payload_bytes);
            text += &format!("{size:>11}  {kind:7}  {place:8}  {:>6}  {}\n", object.version, object.name);
        }
        let status = &self.status;
        if status.dirty_objects > 0 {
            let bytes = human_bytes(status.dirty_bytes);
            text += &format!("{} dirty: {bytes} that L2 alone has\n", status.dirty_objects);
        }
        text
    }
}
