//! `tierstream serve`: one process per host serves its tiers to many jobs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tierstream_daemon::{AuthConfig, Server, ServerConfig};
use tierstream_storage::{Result, Store, StoreConfig};

use crate::args::{TierArgs, parse_block_size};
use crate::interrupt::Interrupt;
use crate::key::KeyArgs;
use crate::output;

/// Serve data sets to the jobs of this user over a Unix socket
///
/// Jobs read with `tierstream train --daemon SOCKET` or the library's client; they share memory and L2, and never see
/// the key. Stops on SIGTERM and Ctrl-C after the requests under way.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Unix socket to listen on
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,

    /// Data sets below this directory, and no others, may be opened; may be given several times
    #[arg(long, value_name = "DIR", required = true)]
    root: Vec<PathBuf>,

    /// Clients at a time
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_clients: usize,

    /// Largest block of any data set to be served
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = parse_block_size)]
    block_size: u32,

    /// Who may do what: roles, identities and patterns of data sets, read again whenever it changes. Without it this user
    /// and root may do everything, and others nothing (docs/guides/daemon.md)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    /// Directory for users, token keys and the audit log. Without it nobody logs in and decisions are not written down
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    /// Answer HTTP at this loopback address: dashboard, /metrics, /healthz, /readyz, and data for who has a token
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<std::net::SocketAddr>,

    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    tiers: TierArgs,
}

impl Serve {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let config = StoreConfig { share_l1: true, ..self.tiers.config(self.block_size) };
        let store = Store::open(config, self.key.open()?)?;
        let config = ServerConfig {
            socket: self.socket.clone(),
            roots: self.root.clone(),
            clients_max: self.max_clients,
            auth: AuthConfig { policy: self.policy, state: self.state },
            http: self.http,
        };
        let server = Server::bind(store.clone(), &config)?;
        let handle = server.handle();
        let _interrupt = Interrupt::catch(move || handle.stop())?;
        if let Some(address) = server.http() {
            output::say(&format!("dashboard at http://{address}/"));
        }
        output::say(&format!("serving on {} through {}", self.socket.display(), store.io_report()));
        server.run()?;
        output::say("stopped");
        Ok(ExitCode::SUCCESS)
    }
}
