//! Short-lived signed tokens.
//!
//! ```text
//! ts1.<key id>.<base64 of JSON>.<base64 of HMAC-SHA-256 over all before the last dot>
//! ```
//!
//! Only the daemon that gave a token has to understand it, so that a shared key is enough. Keys live for an hour, and as
//! long again as the tokens they signed; both are in a file, so that a restart logs nobody out. A token is good for ten
//! minutes and renews itself for half a day after the login; revoking one, or all of a user, holds from the next request.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use tierstream_storage::{Error, ErrorKind, Result};

use super::text::{base64, hex, of_base64};
use super::users::{read_private, write_private};

/// How long a token is good.
pub(crate) const TOKEN_SECONDS: u64 = 600;
/// How long after the login it can be renewed.
pub(crate) const SESSION_SECONDS: u64 = 12 * 3600;
/// How long a key signs.
const KEY_SECONDS: u64 = 3600;
const KEY_BYTES: usize = 32;
const PREFIX: &str = "ts1";
/// Longer texts are no tokens.
const TOKEN_BYTES_MAX: usize = 1024;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// Whose it is: `user:ada`.
    pub(crate) sub: String,
    /// When it was given.
    pub(crate) iat: u64,
    /// When it ends.
    pub(crate) exp: u64,
    /// When its owner logged in.
    pub(crate) login: u64,
    /// The login it came from; renewed tokens keep it.
    pub(crate) sid: String,
}

#[derive(Serialize, Deserialize)]
struct Key {
    made: u64,
    secret: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Kept {
    keys: BTreeMap<String, Key>,
    // Logins that were ended, and when their last token would have ended by itself.
    revoked: BTreeMap<String, u64>,
    // Logins there were: whose, and when.
    sessions: BTreeMap<String, (String, u64)>,
}

/// The keys that sign, and what was revoked.
pub(crate) struct Tokens {
    path: PathBuf,
    kept: Kept,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({} keys, {} logins)", self.kept.keys.len(), self.kept.sessions.len())
    }
}

fn refused(why: &str) -> Error {
    Error::new(ErrorKind::Denied, "check token", why).hint("log in again: tierstream login")
}

impl Tokens {
    /// Reads what is kept in `path`.
    ///
    /// # Errors
    /// As [`read_private`]; `Corrupt`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let kept = match read_private(path)? {
            None => Kept::default(),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let place = format!("line {}, column {}", error.line(), error.column());
                Error::new(ErrorKind::Corrupt, "read token keys", place).at(path)
            })?,
        };
        Ok(Self { path: path.to_owned(), kept })
    }

    fn save(&mut self, now: u64) -> Result<()> {
        self.kept.keys.retain(|_, key| now < key.made + KEY_SECONDS + TOKEN_SECONDS);
        self.kept.revoked.retain(|_, until| now < *until);
        self.kept.sessions.retain(|_, (_, login)| now < *login + SESSION_SECONDS);
        let bytes = serde_json::to_vec(&self.kept)
            .map_err(|error| Error::new(ErrorKind::Misuse, "write token keys", error.to_string()))?;
        write_private(&self.path, &bytes)
    }

    /// Signs with a new key from now on; tokens of the old ones stay good until they end.
    pub(crate) fn rotate(&mut self, now: u64) -> Result<String> {
        let (mut secret, mut id) = ([0; KEY_BYTES], [0; 6]);
        tierstream_crypto::random_bytes(&mut secret)?;
        tierstream_crypto::random_bytes(&mut id)?;
        let id = hex(&id);
        // Made later than any other, also within one second.
        let made = self.kept.keys.values().map(|key| key.made + 1).max().unwrap_or(0).max(now);
        self.kept.keys.insert(id.clone(), Key { made, secret: base64(&secret) });
        self.save(now)?;
        Ok(id)
    }

    /// A token for the login `sub` made now.
    pub(crate) fn login(&mut self, sub: &str, now: u64) -> Result<(String, Claims)> {
        let mut sid = [0; 12];
        tierstream_crypto::random_bytes(&mut sid)?;
        let sid = hex(&sid);
        self.kept.sessions.insert(sid.clone(), (sub.to_owned(), now));
        self.save(now)?;
        self.sign(Claims { sub: sub.to_owned(), iat: now, exp: now + TOKEN_SECONDS, login: now, sid }, now)
    }

    /// The next token of the login that `claims`, which were checked, come from.
    pub(crate) fn renew(&mut self, claims: &Claims, now: u64) -> Result<(String, Claims)> {
        let end = claims.login + SESSION_SECONDS;
        if now >= end {
            return Err(refused("the login is too long ago to be renewed"));
        }
        self.sign(Claims { iat: now, exp: end.min(now + TOKEN_SECONDS), ..claims.clone() }, now)
    }

    fn sign(&mut self, claims: Claims, now: u64) -> Result<(String, Claims)> {
        let newest = |keys: &BTreeMap<String, Key>| {
            let newest = keys.iter().max_by_key(|(_, key)| key.made);
            newest.filter(|(_, key)| now < key.made + KEY_SECONDS).map(|(id, _)| id.clone())
        };
        let id = match newest(&self.kept.keys) {
            Some(id) => id,
            None => self.rotate(now)?,
        };
        let body = serde_json::to_vec(&claims)
            .map_err(|error| Error::new(ErrorKind::Misuse, "sign token", error.to_string()))?;
        let text = format!("{PREFIX}.{id}.{}", base64(&body));
        let key = self.key(&id).ok_or_else(|| refused("the key is gone"))?;
        let mac = hmac::sign(&key, text.as_bytes());
        Ok((format!("{text}.{}", base64(mac.as_ref())), claims))
    }

    fn key(&self, id: &str) -> Option<hmac::Key> {
        let secret = of_base64(&self.kept.keys.get(id)?.secret)?;
        Some(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    }

    /// What a token says, if it is ours, in time and not revoked.
    ///
    /// # Errors
    /// `Denied`, without a word of the token.
    pub(crate) fn check(&self, token: &str, now: u64) -> Result<Claims> {
        let signed = token.rsplit_once('.').filter(|_| token.len() <= TOKEN_BYTES_MAX);
        let parts = signed.and_then(|(text, mac)| {
            let (head, body) = text.rsplit_once('.')?;
            let (prefix, id) = head.split_once('.')?;
            (prefix == PREFIX).then_some((text, mac, id, body))
        });
        let (text, mac, id, body) = parts.ok_or_else(|| refused("it is no token"))?;
        let key = self.key(id).ok_or_else(|| refused("it was signed with a key that is gone"))?;
        let mac = of_base64(mac).ok_or_else(|| refused("its signature is wrong"))?;
        hmac::verify(&key, text.as_bytes(), &mac).map_err(|_| refused("its signature is wrong"))?;
        let claims: Option<Claims> = of_base64(body).and_then(|body| serde_json::from_slice(&body).ok());
        let claims = claims.ok_or_else(|| refused("it is no token"))?;
        if now >= claims.exp {
            return Err(refused("it has ended"));
        }
        if self.kept.revoked.contains_key(&claims.sid) {
            return Err(refused("it was revoked"));
        }
        Ok(claims)
    }

    /// Whether the login `sid` was ended.
    pub(crate) fn is_revoked(&self, sid: &str) -> bool {
        self.kept.revoked.contains_key(sid)
    }

    /// Ends the login `sid`, and every token that came from it.
    pub(crate) fn revoke(&mut self, sid: &str, now: u64) -> Result<bool> {
        let known = self.kept.sessions.remove(sid).is_some();
        self.kept.revoked.insert(sid.to_owned(), now + SESSION_SECONDS);
        self.save(now)?;
        Ok(known)
    }

    /// Ends all logins of `sub`; how many.
    pub(crate) fn revoke_all(&mut self, sub: &str, now: u64) -> Result<usize> {
        let theirs = self.kept.sessions.iter().filter(|(_, (whose, _))| whose == sub);
        let theirs: Vec<String> = theirs.map(|(sid, _)| sid.clone()).collect();
        for sid in &theirs {
            self.revoke(sid, now)?;
        }
        Ok(theirs.len())
    }

    /// Logins whose tokens may still be good: id, whose, when.
    pub(crate) fn sessions(&self, now: u64) -> Vec<(String, String, u64)> {
        let live = self.kept.sessions.iter().filter(|(_, (_, login))| now < *login + SESSION_SECONDS);
        live.map(|(sid, (sub, login))| (sid.clone(), sub.clone(), *login)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_end_are_renewed_revoked_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        let mut tokens = Tokens::open(&path).unwrap();
        let (token, claims) = tokens.login("user:ada", 1000).unwrap();
        assert_eq!(tokens.check(&token, 1599).unwrap(), claims);
        assert!(tokens.check(&token, 1600).unwrap_err().to_string().contains("ended"));
        let (renewed, again) = tokens.renew(&claims, 1500).unwrap();
        assert_eq!((again.exp, &again.sid), (2100, &claims.sid));
        // Key rotation: both keys verify, the new one signs.
        let id = tokens.rotate(1500).unwrap();
        let (third, _) = tokens.renew(&again, 1501).unwrap();
        assert!(third.contains(&id) && tokens.check(&renewed, 1502).is_ok());
        let mut tokens = Tokens::open(&path).unwrap();
        assert!(tokens.check(&third, 1502).is_ok());
        assert_eq!(tokens.sessions(1502).len(), 1);
        assert_eq!(tokens.revoke_all("user:ada", 1502).unwrap(), 1);
        for token in [&token, &renewed, &third] {
            assert!(tokens.check(token, 1503).unwrap_err().to_string().contains("revoked"));
        }
        assert!(Tokens::open(&path).unwrap().check(&third, 1503).is_err());
        let end = claims.login + SESSION_SECONDS;
        assert!(tokens.renew(&claims, end).is_err());
        assert_eq!(tokens.renew(&claims, end - 5).unwrap().1.exp, end);
        let (late, _) = tokens.login("user:bob", 100_000).unwrap();
        assert!(tokens.check(&token, 1503).unwrap_err().to_string().contains("gone"), "old keys are wiped");
        assert!(tokens.check(&late, 100_001).is_ok());
    }

    #[test]
    fn no_change_of_a_token_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let mut tokens = Tokens::open(&dir.path().join("tokens")).unwrap();
        let (token, _) = tokens.login("user:ada", 1000).unwrap();
        for at in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[at] ^= 1;
            if let Ok(forged) = String::from_utf8(forged) {
                assert!(tokens.check(&forged, 1001).is_err(), "{at}");
            }
        }
        for forged in
            ["", "ts1", "ts1...", "ts1.a.b.c", &token[1..], &format!("{token}."), &"a.".repeat(9000)]
        {
            assert!(tokens.check(forged, 1001).is_err());
        }
        // Another daemon's token.
        let mut other = Tokens::open(&dir.path().join("other")).unwrap();
        assert!(tokens.check(&other.login("user:ada", 1000).unwrap().0, 1001).is_err());
    }
}
