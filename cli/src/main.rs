//! The `tierstream` command: one file per verb.
//!
//! Results go to stdout, everything else to stderr. Exit code 0 when all went well, 1 for an error, 2 for wrong usage,
//! 130 after Ctrl-C.

mod access;
mod args;
mod bench;
mod corpus;
mod demo;
mod doctor;
mod export;
mod inspect;
mod interrupt;
mod kernel;
mod key;
mod keys;
mod log;
mod objects;
mod output;
mod pack;
mod scrub;
mod serve;
mod status;
mod train;
mod training;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tierstream_storage::{ErrorKind, Result};

/// Feed a training job from encrypted data that does not fit in memory.
#[derive(Debug, Parser)]
#[command(name = "tierstream", version, max_term_width = 100, args_override_self = true)]
struct Command {
    /// Say more: -v what is chosen and why, -vv what is done
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Demo(demo::Demo),
    Pack(pack::Pack),
    Export(export::Export),
    Put(objects::Put),
    Get(objects::Get),
    Ls(objects::Ls),
    Rm(objects::Rm),
    Tensors(objects::Tensors),
    Inspect(inspect::Inspect),
    Verify(verify::Verify),
    Scrub(scrub::Scrub),
    Status(status::Status),
    Keys(keys::Keys),
    Train(train::Train),
    Serve(serve::Serve),
    Login(access::Login),
    Whoami(access::Whoami),
    Tokens(access::Tokens),
    Users(access::Users),
    Bench(bench::Bench),
    Doctor(doctor::Doctor),
}

fn main() -> ExitCode {
    let command = Command::parse();
    log::start(command.verbose);
    if let Err(error) = kernel::force_from_environment() {
        output::error(&error);
        return ExitCode::from(2);
    }
    match run(command.verb) {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            if error.kind() == ErrorKind::Interrupted { ExitCode::from(130) } else { ExitCode::FAILURE }
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Demo(demo) => demo.run(),
        Verb::Pack(pack) => pack.run(),
        Verb::Export(export) => export.run(),
        Verb::Put(put) => put.run(),
        Verb::Get(get) => get.run(),
        Verb::Ls(ls) => ls.run(),
        Verb::Rm(rm) => rm.run(),
        Verb::Tensors(tensors) => tensors.run(),
        Verb::Inspect(inspect) => inspect.run(),
        Verb::Verify(verify) => verify.run(),
        Verb::Scrub(scrub) => scrub.run(),
        Verb::Status(status) => status.run(),
        Verb::Keys(keys) => keys.run(),
        Verb::Train(train) => train.run(),
        Verb::Serve(serve) => serve.run(),
        Verb::Login(login) => login.run(),
        Verb::Whoami(whoami) => whoami.run(),
        Verb::Tokens(tokens) => tokens.run(),
        Verb::Users(users) => users.run(),
        Verb::Bench(bench) => bench.run(),
        Verb::Doctor(doctor) => doctor.run(),
    }
}
