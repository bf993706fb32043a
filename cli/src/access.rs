//! `tierstream login`, `whoami`, `tokens` and `users`: people and what they may do at a daemon.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use tierstream_daemon::{Client, verify_audit};
use tierstream_storage::{Error, ErrorKind, Result};

use crate::output;

/// Longer files are no tokens.
const TOKEN_BYTES_MAX: u64 = 4096;

/// The daemon that is asked, and as whom.
#[derive(Debug, Args)]
struct Daemon {
    /// The daemon's socket
    #[arg(long, value_name = "SOCKET")]
    daemon: PathBuf,
    /// Ask as the owner of the token in this file, not as this user
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Daemon {
    fn connect(&self) -> Result<Client> {
        let client = Client::connect(&self.daemon)?;
        if let Some(path) = &self.token_file {
            client.present(&read_token(path)?)?;
        }
        Ok(client)
    }
}

fn read_token(path: &Path) -> Result<String> {
    let failed = |error| Error::io("read token", path, error);
    #[expect(clippy::disallowed_methods, reason = "a token is no data file of the store")]
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut token = String::new();
    file.take(TOKEN_BYTES_MAX).read_to_string(&mut token).map_err(failed)?;
    Ok(token.trim().to_owned())
}

fn write_token(path: &Path, token: &str) -> Result<()> {
    let failed = |error| Error::io("write token", path, error);
    let _other_mode = std::fs::remove_file(path);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create_new(true).write(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(token.as_bytes()).map_err(failed)
}

/// Log in to a daemon with a one-time code
///
/// The token goes to a file that only you can read; it is good for ten minutes, and with --renew becomes the next one for
/// twelve hours after the login. The code is asked for, never given on the command line.
#[derive(Debug, Args)]
pub(crate) struct Login {
    /// Your name at the daemon; with --renew not needed
    #[arg(required_unless_present = "renew")]
    user: Option<String>,
    /// Exchange the token in the file for the next one
    #[arg(long)]
    renew: bool,
    /// The daemon's socket
    #[arg(long, value_name = "SOCKET")]
    daemon: PathBuf,
    /// Where the token is kept
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
}

impl Login {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let client = Client::connect(&self.daemon)?;
        let token = match (&self.user, self.renew) {
            (Some(user), false) => client.login(user, &code()?)?,
            _ => client.renew(&read_token(&self.token_file)?)?,
        };
        write_token(&self.token_file, &token.token)?;
        output::say(&format!(
            "logged in as {}; the token is in {}",
            token.identity,
            self.token_file.display()
        ));
        Ok(ExitCode::SUCCESS)
    }
}

/// The code, from the terminal or the first line of stdin.
fn code() -> Result<String> {
    if let Some(typed) = output::answer("code: ")? {
        return Ok(typed.trim().to_owned());
    }
    let mut line = String::new();
    let read = std::io::BufRead::read_line(&mut std::io::stdin().lock().take(TOKEN_BYTES_MAX), &mut line);
    read.map_err(|error| Error::io("read", Path::new("stdin"), error))?;
    Ok(line.trim().to_owned())
}

/// Show who a daemon takes you for, and what you may do there
#[derive(Debug, Args)]
pub(crate) struct Whoami {
    #[command(flatten)]
    daemon: Daemon,
}

impl Whoami {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let whoami = self.daemon.connect()?.whoami()?;
        if self.daemon.json {
            output::json(&whoami)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut text = format!("{}\n", whoami.identity);
        for role in &whoami.roles {
            text +=
                &format!("  {}: {} on {}\n", role.role, role.rights.join(", "), role.data_sets.join(", "));
        }
        output::result(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// List and revoke logins, rotate the keys that sign tokens, check an audit log
#[derive(Debug, Args)]
pub(crate) struct Tokens {
    #[command(subcommand)]
    verb: TokensVerb,
}

#[derive(Debug, Subcommand)]
enum TokensVerb {
    /// Logins whose tokens may still be good: yours, or all for who has `admin`
    List {
        #[command(flatten)]
        daemon: Daemon,
    },
    /// End a login by its id, or all of a user by user:NAME
    Revoke {
        /// The id, or user:NAME
        what: String,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Sign with a new key from now on; tokens of the old ones stay good until they end
    Rotate {
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Check that no decision in an audit log was changed, moved or taken out
    Audit {
        /// audit.jsonl in the daemon's --state directory
        log: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl Tokens {
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.verb {
            TokensVerb::List { daemon } => {
                let logins = daemon.connect()?.logins()?;
                if daemon.json {
                    output::json(&logins)?;
                } else {
                    let line = |login: &tierstream_daemon::Login| {
                        format!("{}  {}  since {}\n", login.id, login.identity, login.began)
                    };
                    output::result(&logins.iter().map(line).collect::<String>())?;
                }
            }
            TokensVerb::Revoke { what, daemon } => {
                let ended = daemon.connect()?.revoke(&what)?;
                output::say(&format!("{ended} logins ended"));
            }
            TokensVerb::Rotate { daemon } => {
                let key = daemon.connect()?.rotate_keys()?;
                output::say(&format!("key {key} signs from now on"));
            }
            TokensVerb::Audit { log, json } => {
                let report = verify_audit(&log)?;
                if json {
                    output::json(&report)?;
                } else {
                    output::result(&format!("{} decisions, last hash {}\n", report.lines, report.last_hash))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// List, add and remove the users of a daemon
#[derive(Debug, Args)]
pub(crate) struct Users {
    #[command(subcommand)]
    verb: UsersVerb,
}

#[derive(Debug, Subcommand)]
enum UsersVerb {
    /// Names of all users
    List {
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Make a user, or give one a new secret: prints, once, what an authenticator scans
    Add {
        /// Letters, digits and -_.@
        name: String,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Remove a user and end all logins
    Rm {
        /// The user
        name: String,
        #[command(flatten)]
        daemon: Daemon,
    },
}

impl Users {
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.verb {
            UsersVerb::List { daemon } => {
                let users = daemon.connect()?.users()?;
                if daemon.json {
                    output::json(&users)?;
                } else {
                    output::result(&users.iter().map(|name| format!("{name}\n")).collect::<String>())?;
                }
            }
            UsersVerb::Add { name, daemon } => {
                if daemon.json {
                    let why = "a secret is printed as it is, without --json";
                    return Err(Error::new(ErrorKind::Misuse, "add user", why));
                }
                let uri = daemon.connect()?.add_user(&name)?;
                output::result(&format!("{uri}\n"))?;
                output::say(
                    "this is the user's secret: put it into an authenticator, and keep it nowhere else",
                );
            }
            UsersVerb::Rm { name, daemon } => {
                daemon.connect()?.remove_user(&name)?;
                output::say(&format!("`{name}` is gone"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
