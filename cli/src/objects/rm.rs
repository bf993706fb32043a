//! `tierstream rm`: objects go.

use std::process::ExitCode;

use clap::Args;
use tierstream_storage::{Error, ErrorKind, Result};

use super::ObjectArgs;
use crate::interrupt::Interrupt;
use crate::output;

/// Delete objects
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Names of the objects
    #[arg(required = true)]
    names: Vec<String>,

    /// A name that there is no object of is no error
    #[arg(short, long)]
    force: bool,

    #[command(flatten)]
    objects: ObjectArgs,
}

impl Rm {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let interrupt = Interrupt::catch(|| {})?;
        let store = self.objects.open(|_| {})?;
        let mut missing = None;
        for name in &self.names {
            if store.delete(name)? {
                output::result(&format!("{name}: deleted\n"))?;
            } else if !self.force {
                missing.get_or_insert(name);
            }
        }
        super::drain(&store, &interrupt)?;
        match missing {
            None => Ok(ExitCode::SUCCESS),
            Some(name) => {
                let why = format!("there is no object `{}`", name.escape_debug());
                Err(Error::new(ErrorKind::Missing, "rm", why)
                    .hint("`tierstream ls` shows the objects there are; --force passes over others"))
            }
        }
    }
}
