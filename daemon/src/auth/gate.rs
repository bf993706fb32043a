//! The only way in: every decision is made here, and written down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tierstream_storage::{Error, ErrorKind, Result};

use super::audit::{Audit, Decision};
use super::policy::{Policy, Right, Tenant};
use super::tokens::{Claims, Tokens};
use super::totp;
use super::users::{User, Users};
use super::wall::{SystemWall, WallClock};

/// Wrong codes that a user may type in a window before even the right one is refused until its end.
const FAILURES_MAX: u32 = 5;
const WINDOW_SECONDS: u64 = 60;
/// Names with failures that are remembered; beyond, all logins wait for the end of the window.
const NAMES_MAX: usize = 10_000;

/// Where a daemon keeps what it knows of people.
#[derive(Clone, Debug, Default)]
pub struct AuthConfig {
    /// The policy; without one the daemon's own user and root may do everything, and nobody else anything.
    pub policy: Option<PathBuf>,
    /// A directory for users, token keys and the audit log; without one nobody logs in and nothing is logged.
    pub state: Option<PathBuf>,
}

/// Decides.
#[derive(Debug)]
pub(crate) struct Gate {
    policy_path: Option<PathBuf>,
    policy: RwLock<Arc<Policy>>,
    stamp: Mutex<Option<(u64, i64, i64, u64)>>,
    version: AtomicU64,
    audit: Option<Audit>,
    people: Option<Mutex<People>>,
    wall: Arc<dyn WallClock>,
}

#[derive(Debug)]
struct People {
    users: Users,
    tokens: Tokens,
    failures: BTreeMap<String, u32>,
    window: u64,
}

impl Gate {
    /// Reads policy and state.
    ///
    /// # Errors
    /// As the files say.
    pub(crate) fn open(config: &AuthConfig) -> Result<Self> {
        Self::open_at(config, Arc::new(SystemWall))
    }

    pub(crate) fn open_at(config: &AuthConfig, wall: Arc<dyn WallClock>) -> Result<Self> {
        let policy = match &config.policy {
            Some(path) => read_policy(path)?,
            None => Policy::of_owner(rustix::process::geteuid().as_raw()),
        };
        let (audit, people) = match &config.state {
            None => (None, None),
            Some(state) => {
                std::fs::create_dir_all(state).map_err(|error| Error::io("create", state, error))?;
                let people = People {
                    users: Users::open(&state.join("users.json"))?,
                    tokens: Tokens::open(&state.join("tokens.json"))?,
                    failures: BTreeMap::new(),
                    window: 0,
                };
                (Some(Audit::open(&state.join("audit.jsonl"))?), Some(Mutex::new(people)))
            }
        };
        let stamp = config.policy.as_deref().and_then(stamp);
        Ok(Self {
            policy_path: config.policy.clone(),
            policy: RwLock::new(Arc::new(policy)),
            stamp: Mutex::new(stamp),
            version: AtomicU64::new(0),
            audit,
            people,
            wall,
        })
    }

    /// Whether strangers may knock: there is a policy that may know them.
    pub(crate) fn is_open_to_others(&self) -> bool {
        self.policy_path.is_some()
    }

    /// Raised whenever an answer may be another one than before.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The policy in force.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over a policy file that was changed. A file that is no policy changes nothing, and is complained about once.
    pub(crate) fn refresh(&self) {
        let Some(path) = &self.policy_path else { return };
        let found = stamp(path);
        let mut known = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        if found.is_none() || *known == found {
            return;
        }
        *known = found;
        match read_policy(path) {
            Ok(policy) => {
                *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
                self.version.fetch_add(1, Ordering::Release);
                tracing::info!(path = %path.display(), "the policy was read again");
                let _ = self.write_down("daemon", "admin", "policy", true, "read again");
            }
            Err(error) => {
                tracing::error!(%error, "the policy before stays in force");
                let _ = self.write_down("daemon", "admin", "policy", false, "it is no policy");
            }
        }
    }

    fn write_down(&self, who: &str, right: &str, what: &str, allowed: bool, why: &str) -> Result<()> {
        let Some(audit) = &self.audit else { return Ok(()) };
        audit.record(self.wall.seconds(), &Decision { who, right, what, allowed, why })
    }

    /// Whether `who` may do this with `what`.
    ///
    /// # Errors
    /// `Denied`, with what is missing.
    pub(crate) fn check(&self, who: &str, right: Right, what: &str) -> Result<()> {
        let policy = self.policy();
        match policy.role_for(who, right, what) {
            Some(role) => self.write_down(who, right.name(), what, true, &format!("role {role}")),
            None => {
                self.write_down(who, right.name(), what, false, "no role grants it")?;
                let why = format!("`{who}` has no role that grants `{}` on `{what}`", right.name());
                Err(Error::new(ErrorKind::Denied, "authorise", why)
                    .hint("`tierstream whoami` shows your roles; an operator changes the policy file"))
            }
        }
    }

    /// As [`Gate::check`], without a record: for what is only left out of a list.
    pub(crate) fn sees(&self, who: &str, what: &str) -> bool {
        self.policy().role_for(who, Right::List, what).is_some()
    }

    /// Whether `who` may have L1 itself.
    pub(crate) fn check_everything(&self, who: &str) -> Result<()> {
        let allowed = self.policy().reads_everything(who);
        self.write_down(who, Right::Read.name(), "L1", allowed, "all data sets, or copies")?;
        if allowed {
            Ok(())
        } else {
            Err(Error::new(
                ErrorKind::Denied,
                "share memory",
                "L1 is for those who may read everything; others get copies",
            ))
        }
    }

    /// The part of the daemon that `who` has.
    pub(crate) fn tenant(&self, who: &str) -> Tenant {
        self.policy().tenant(who)
    }

    fn people(&self) -> Result<MutexGuard<'_, People>> {
        let people = self.people.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "log in", "this daemon keeps no users")
                .hint("start it with --state DIR")
        })?;
        Ok(people.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A token for a user who typed the right code.
    ///
    /// # Errors
    /// `Denied`: the same words for a wrong name, a wrong code and one that was used; `Full` after too many of them.
    pub(crate) fn login(&self, name: &str, code: &str) -> Result<(String, Claims)> {
        let now = self.wall.seconds();
        let who = format!("user:{name}");
        let mut people = self.people()?;
        if now / WINDOW_SECONDS != people.window {
            people.window = now / WINDOW_SECONDS;
            people.failures.clear();
        }
        let failures = people.failures.get(name).copied().unwrap_or(0);
        if failures >= FAILURES_MAX || people.failures.len() >= NAMES_MAX {
            self.write_down(&who, "login", "", false, "too many wrong codes")?;
            return Err(Error::new(ErrorKind::Full, "log in", "too many wrong codes").hint("wait a minute"));
        }
        let user = people.users.get(name).cloned();
        let secret = user.as_ref().map_or_else(|| vec![0; 20], User::secret);
        let hash = user.as_ref().map(|user| user.hash).unwrap_or_default();
        let last = user.as_ref().and_then(|user| user.last_step);
        let step = totp::verify(hash, &secret, code, now, last);
        let Some((user, step)) = user.zip(step) else {
            *people.failures.entry(name.to_owned()).or_default() += 1;
            self.write_down(&who, "login", "", false, "wrong name or code")?;
            return Err(Error::new(
                ErrorKind::Denied,
                "log in",
                "wrong name or code, or a code that was used",
            )
            .hint("wait for the next code; is the clock of this machine right?"));
        };
        // Used before anything is given for it.
        people.users.put(name, user.used(step))?;
        people.failures.remove(name);
        self.write_down(&who, "login", "", true, "code")?;
        people.tokens.login(&who, now)
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// `Denied`.
    pub(crate) fn identify(&self, token: &str) -> Result<Claims> {
        let checked = self.people()?.tokens.check(token, self.wall.seconds());
        if let Err(error) = &checked {
            self.write_down("somebody", "token", "", false, &error.to_string())?;
        }
        checked
    }

    /// Whether a token that was good still is: after a change, and because time passes.
    pub(crate) fn is_still_good(&self, claims: &Claims) -> bool {
        let Ok(people) = self.people() else { return false };
        self.wall.seconds() < claims.exp && !people.tokens.is_revoked(&claims.sid)
    }

    /// The next token.
    ///
    /// # Errors
    /// `Denied` for one that is not good, or of a login too long ago.
    pub(crate) fn renew(&self, token: &str) -> Result<(String, Claims)> {
        let claims = self.identify(token)?;
        self.write_down(&claims.sub, "token", &claims.sid, true, "renewed")?;
        self.people()?.tokens.renew(&claims, self.wall.seconds())
    }

    /// Ends one login, or all of a user: one's own, or anybody's for who has `admin`.
    ///
    /// # Errors
    /// `Denied`, `Missing`.
    pub(crate) fn revoke(&self, who: &str, what: &str) -> Result<usize> {
        let now = self.wall.seconds();
        let own = {
            let people = self.people()?;
            what == who || people.tokens.sessions(now).iter().any(|(sid, sub, _)| sid == what && sub == who)
        };
        if own {
            self.write_down(who, "token", what, true, "revoked by its owner")?
        } else {
            self.check(who, Right::Admin, "")?
        }
        let mut people = self.people()?;
        let ended = if what.starts_with("user:") {
            people.tokens.revoke_all(what, now)?
        } else {
            usize::from(people.tokens.revoke(what, now)?)
        };
        self.version.fetch_add(1, Ordering::Release);
        Ok(ended)
    }

    /// Logins: one's own, or all for who has `admin`.
    ///
    /// # Errors
    /// `Unsupported` where nobody logs in.
    pub(crate) fn sessions(&self, who: &str) -> Result<Vec<(String, String, u64)>> {
        let all = self.policy().role_for(who, Right::Admin, "").is_some();
        let sessions = self.people()?.tokens.sessions(self.wall.seconds());
        Ok(sessions.into_iter().filter(|(_, sub, _)| all || sub == who).collect())
    }

    /// Signs with a new key.
    ///
    /// # Errors
    /// `Denied`.
    pub(crate) fn rotate_keys(&self, who: &str) -> Result<String> {
        self.check(who, Right::Keys, "")?;
        self.people()?.tokens.rotate(self.wall.seconds())
    }

    /// Makes a user, or gives one a new secret; returns what an authenticator scans.
    ///
    /// # Errors
    /// `Denied`, `Misuse` for a name that is none.
    pub(crate) fn add_user(&self, who: &str, name: &str) -> Result<String> {
        self.check(who, Right::Admin, "")?;
        let user = User::new()?;
        let uri = user.uri(name);
        let mut people = self.people()?;
        people.users.put(name, user)?;
        people.tokens.revoke_all(&format!("user:{name}"), self.wall.seconds())?;
        self.version.fetch_add(1, Ordering::Release);
        Ok(uri)
    }

    /// Removes a user and ends all logins.
    ///
    /// # Errors
    /// `Denied`, `Missing`.
    pub(crate) fn remove_user(&self, who: &str, name: &str) -> Result<()> {
        self.check(who, Right::Admin, "")?;
        let mut people = self.people()?;
        people.tokens.revoke_all(&format!("user:{name}"), self.wall.seconds())?;
        self.version.fetch_add(1, Ordering::Release);
        if people.users.remove(name)? {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::Missing, "remove user", format!("no user `{name}`")))
        }
    }

    /// All users.
    ///
    /// # Errors
    /// `Denied`.
    pub(crate) fn users(&self, who: &str) -> Result<Vec<String>> {
        self.check(who, Right::Admin, "")?;
        Ok(self.people()?.users.names().map(str::to_owned).collect())
    }
}

fn read_policy(path: &Path) -> Result<Policy> {
    let text = std::fs::read(path).map_err(|error| Error::io("read policy", path, error))?;
    Policy::parse(&text).map_err(|error| error.at(path))
}

/// What changes when a file does.
fn stamp(path: &Path) -> Option<(u64, i64, i64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::super::wall::ManualWall;
    use super::*;

    const POLICY: &str = r#"{
        "roles": {
            "trainer": [{ "rights": ["read", "list"], "data_sets": ["text/**"] }],
            "operator": [{ "rights": ["admin"], "data_sets": ["**"] }],
            "keeper": [{ "rights": ["keys"], "data_sets": ["**"] }]
        },
        "identities": { "user:ada": ["trainer"], "uid:1": ["operator"], "uid:2": ["keeper"] }
    }"#;

    fn gate(dir: &Path) -> (Gate, Arc<ManualWall>) {
        let policy = dir.join("policy.json");
        std::fs::write(&policy, POLICY).unwrap();
        let wall = Arc::new(ManualWall(AtomicU64::new(1_000_000_020)));
        let config = AuthConfig { policy: Some(policy), state: Some(dir.join("state")) };
        (Gate::open_at(&config, Arc::clone(&wall) as Arc<dyn WallClock>).unwrap(), wall)
    }

    fn code_of(uri: &str, now: u64) -> String {
        let secret = uri.split("secret=").nth(1).unwrap().split('&').next().unwrap();
        let secret = super::super::text::of_base32(secret).unwrap();
        totp::code(totp::Hash::Sha1, &secret, now / totp::STEP_SECONDS, totp::DIGITS)
    }

    #[test]
    fn a_person_logs_in_once_per_code_and_only_so_often() {
        let dir = tempfile::tempdir().unwrap();
        let (gate, wall) = gate(dir.path());
        let uri = gate.add_user("uid:1", "ada").unwrap();
        let now = wall.seconds();
        let code = code_of(&uri, now);
        let (token, claims) = gate.login("ada", &code).unwrap();
        assert_eq!(gate.identify(&token).unwrap(), claims);
        gate.check(&claims.sub, Right::Read, "text/en").unwrap();
        assert!(gate.login("ada", &code).unwrap_err().to_string().contains("used"), "replayed");
        // Also by a daemon that was started again.
        let config = AuthConfig { policy: None, state: Some(dir.path().join("state")) };
        let again = Gate::open_at(&config, Arc::clone(&wall) as Arc<dyn WallClock>).unwrap();
        assert!(again.login("ada", &code).is_err() && again.identify(&token).is_ok());
        // A wrong name and a wrong code get the same words.
        let wrong = [gate.login("ada", "123").unwrap_err(), gate.login("eve", "123").unwrap_err()];
        assert_eq!(wrong[0].to_string(), wrong[1].to_string());
        for _ in 0..5 {
            let _ = gate.login("ada", "123");
        }
        wall.0.fetch_add(30, Ordering::SeqCst);
        let right = code_of(&uri, wall.seconds());
        assert_eq!(gate.login("ada", &right).unwrap_err().kind(), ErrorKind::Full, "rate limited");
        wall.0.fetch_add(60, Ordering::SeqCst);
        gate.login("ada", &code_of(&uri, wall.seconds())).unwrap();
        // No secret and no code in the log.
        let log = std::fs::read_to_string(dir.path().join("state/audit.jsonl")).unwrap();
        let secret = uri.split("secret=").nth(1).unwrap().split('&').next().unwrap();
        assert!(
            !log.contains(secret) && !log.contains(&token) && !log.contains(&code) && log.lines().count() > 8
        );
    }

    #[test]
    fn revoking_rotating_and_removing() {
        let dir = tempfile::tempdir().unwrap();
        let (gate, wall) = gate(dir.path());
        let uri = gate.add_user("uid:1", "ada").unwrap();
        let (token, claims) = gate.login("ada", &code_of(&uri, wall.seconds())).unwrap();
        // Each of the operator's, the keeper's and one's own acts, and nobody else's.
        assert_eq!(gate.revoke("uid:2", &claims.sid).unwrap_err().kind(), ErrorKind::Denied);
        assert_eq!(gate.rotate_keys("uid:1").unwrap_err().kind(), ErrorKind::Denied);
        gate.rotate_keys("uid:2").unwrap();
        assert!(gate.identify(&token).is_ok() && gate.is_still_good(&claims));
        assert!(gate.add_user("user:ada", "eve").is_err() && gate.users("uid:2").is_err());
        assert_eq!(gate.users("uid:1").unwrap(), ["ada"]);
        assert_eq!((gate.sessions("uid:2").unwrap().len(), gate.sessions("user:ada").unwrap().len()), (0, 1));
        let version = gate.version();
        assert_eq!(gate.revoke("user:ada", &claims.sid).unwrap(), 1);
        assert!(gate.identify(&token).is_err() && !gate.is_still_good(&claims) && gate.version() > version);
        assert!(gate.renew(&token).is_err());
        wall.0.fetch_add(30, Ordering::SeqCst);
        let (token, _) = gate.login("ada", &code_of(&uri, wall.seconds())).unwrap();
        gate.remove_user("uid:1", "ada").unwrap();
        assert!(gate.identify(&token).is_err());
        assert_eq!(gate.remove_user("uid:1", "ada").unwrap_err().kind(), ErrorKind::Missing);
    }

    #[test]
    fn the_policy_is_read_again_when_it_changes_and_only_when_it_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let (gate, _) = gate(dir.path());
        let path = dir.path().join("policy.json");
        gate.check("user:ada", Right::Read, "text/en").unwrap();
        std::fs::write(&path, "no policy").unwrap();
        gate.refresh();
        gate.check("user:ada", Right::Read, "text/en").unwrap();
        assert_eq!(gate.version(), 0);
        std::fs::write(&path, POLICY.replace("text/**", "images/**")).unwrap();
        gate.refresh();
        assert_eq!(gate.check("user:ada", Right::Read, "text/en").unwrap_err().kind(), ErrorKind::Denied);
        assert_eq!(gate.version(), 1);
        let report = super::super::audit::verify_audit(&dir.path().join("state/audit.jsonl")).unwrap();
        assert_eq!(report.lines, 5);
    }
}
