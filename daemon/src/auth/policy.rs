//! Roles: who may do what with which data sets.
//!
//! ```json
//! {
//!   "roles": {
//!     "trainer":  [{ "rights": ["read", "list", "announce"], "data_sets": ["text/**", "images/2026-*"] }],
//!     "operator": [{ "rights": ["admin", "keys", "list"], "data_sets": ["**"] }]
//!   },
//!   "identities": { "uid:1000": ["trainer"], "user:ada": ["trainer", "operator"], "cert:3f1c...": ["trainer"] },
//!   "tenants": { "uid:1000": { "weight": 2 } }
//! }
//! ```
//!
//! A data set's name is its path below the root it is served from. In a pattern `*` stands for anything but a `/`, `**`
//! for anything. What no role of an identity grants is denied; there is nothing that takes a right away. A word that is
//! not known here is an error: a misspelt right must not look like a policy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tierstream_storage::{Error, ErrorKind, Result};

/// Something that can be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Right {
    /// Bytes of a data set, its schema and index.
    Read,
    /// That a data set exists.
    List,
    /// Changes of data; the daemon offers none yet.
    Write,
    /// To tell the daemon what will be read.
    Announce,
    /// Users, tokens of others, metrics of all tenants.
    Admin,
    /// To rotate the keys that sign tokens.
    Keys,
}

impl Right {
    pub(crate) const ALL: [Self; 6] =
        [Self::Read, Self::List, Self::Write, Self::Announce, Self::Admin, Self::Keys];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::List => "list",
            Self::Write => "write",
            Self::Announce => "announce",
            Self::Admin => "admin",
            Self::Keys => "keys",
        }
    }
}

/// What a role grants.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Grant {
    rights: Vec<Right>,
    data_sets: Vec<String>,
}

/// How much of the daemon an identity may have.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tenant {
    /// Its part of leases, beside the weights of the others.
    #[serde(default = "one")]
    pub(crate) weight: u32,
}

fn one() -> u32 {
    1
}

impl Default for Tenant {
    fn default() -> Self {
        Self { weight: 1 }
    }
}

/// Roles and who has them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    roles: BTreeMap<String, Vec<Grant>>,
    identities: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    tenants: BTreeMap<String, Tenant>,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// `Misuse` for what is no policy, roles that are named and not described, and weights of zero.
    pub(crate) fn parse(text: &[u8]) -> Result<Self> {
        let bad = |why: String| {
            Error::new(ErrorKind::Misuse, "read policy", why)
                .hint("docs/guides/daemon.md has an example; the policy before stays in force")
        };
        let policy: Self = serde_json::from_slice(text).map_err(|error| bad(error.to_string()))?;
        for (identity, roles) in &policy.identities {
            if let Some(unknown) = roles.iter().find(|role| !policy.roles.contains_key(*role)) {
                return Err(bad(format!("`{identity}` has the role `{unknown}`, which is not described")));
            }
            if !["uid:", "user:", "cert:"].iter().any(|kind| identity.starts_with(kind)) {
                return Err(bad(format!("`{identity}` is neither uid:, user: nor cert:")));
            }
        }
        match policy.tenants.iter().find(|(_, tenant)| tenant.weight == 0 || tenant.weight > 1000) {
            Some((identity, tenant)) => {
                Err(bad(format!("`{identity}` has weight {}, expected 1 to 1000", tenant.weight)))
            }
            None => Ok(policy),
        }
    }

    /// Everything for the user the daemon runs as and for root, nothing for anybody else.
    pub(crate) fn of_owner(uid: u32) -> Self {
        let everything = Grant { rights: Right::ALL.to_vec(), data_sets: vec!["**".to_owned()] };
        let owner = vec!["owner".to_owned()];
        Self {
            roles: BTreeMap::from([("owner".to_owned(), vec![everything])]),
            identities: BTreeMap::from([(format!("uid:{uid}"), owner.clone()), ("uid:0".to_owned(), owner)]),
            tenants: BTreeMap::new(),
        }
    }

    /// Whether somebody is named at all.
    pub(crate) fn knows(&self, identity: &str) -> bool {
        self.identities.contains_key(identity)
    }

    fn grants<'a>(&'a self, identity: &str) -> impl Iterator<Item = (&'a str, &'a Grant)> {
        let roles = self.identities.get(identity).into_iter().flatten();
        roles.flat_map(|role| {
            self.roles.get(role).into_iter().flatten().map(move |grant| (role.as_str(), grant))
        })
    }

    /// The role that lets `identity` do this with the data set called `name`, if one does.
    pub(crate) fn role_for(&self, identity: &str, right: Right, name: &str) -> Option<&str> {
        let mut grants = self.grants(identity);
        let granted = grants.find(|(_, grant)| {
            grant.rights.contains(&right) && grant.data_sets.iter().any(|pattern| matches(pattern, name))
        });
        granted.map(|(role, _)| role)
    }

    /// Whether `identity` may read whatever is served, now and later.
    pub(crate) fn reads_everything(&self, identity: &str) -> bool {
        self.grants(identity).any(|(_, grant)| {
            grant.rights.contains(&Right::Read) && grant.data_sets.iter().any(|pattern| pattern == "**")
        })
    }

    /// What `identity` may do, for itself to see.
    pub(crate) fn describe(&self, identity: &str) -> Vec<(String, Vec<Right>, Vec<String>)> {
        let grants = self.grants(identity);
        grants.map(|(role, grant)| (role.to_owned(), grant.rights.clone(), grant.data_sets.clone())).collect()
    }

    /// The part of the daemon that `identity` has.
    pub(crate) fn tenant(&self, identity: &str) -> Tenant {
        self.tenants.get(identity).cloned().unwrap_or_default()
    }
}

/// Whether `name` is one of those that `pattern` stands for.
fn matches(pattern: &str, name: &str) -> bool {
    // Where to go on after a star that took too little: behind it, with one more byte taken. The last star suffices
    // for `*`; a `**` before it is remembered too, since `*` stops at a slash.
    fn from(pattern: &[u8], name: &[u8], steps: &mut u32) -> bool {
        *steps = steps.saturating_sub(1);
        if *steps == 0 {
            return false;
        }
        match pattern {
            [] => name.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=name.len()).any(|taken| from(rest, &name[taken..], steps)),
            [b'*', rest @ ..] => {
                let most = name.iter().position(|byte| *byte == b'/').unwrap_or(name.len());
                (0..=most).any(|taken| from(rest, &name[taken..], steps))
            }
            [byte, rest @ ..] => name.first() == Some(byte) && from(rest, &name[1..], steps),
        }
    }
    // A pattern of many stars against a long name must not take for ever; out of patience is no.
    from(pattern.as_bytes(), name.as_bytes(), &mut 100_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("text/en", "text/en", true),
            ("text/en", "text/e", false),
            ("text/*", "text/en", true),
            ("text/*", "text/en/2026", false),
            ("text/**", "text/en/2026", true),
            ("**", "", true),
            ("**", "a/b", true),
            ("*", "a/b", false),
            ("images/2026-*", "images/2026-11", true),
            ("images/2026-*", "images/2025-11", false),
            ("**/public/*", "a/b/public/c", true),
            ("**/public/*", "public/c", false),
            ("*-*", "a-b-c", true),
            ("a**z*", "a/b/zz/q", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        let hard = "a*".repeat(40) + "b";
        assert!(!matches(&hard, &"a".repeat(4000)));
    }

    const POLICY: &str = r#"{
        "roles": {
            "trainer": [{ "rights": ["read", "announce"], "data_sets": ["text/**"] }],
            "viewer": [{ "rights": ["list"], "data_sets": ["**"] }],
            "operator": [{ "rights": ["admin", "keys"], "data_sets": ["**"] }]
        },
        "identities": { "uid:7": ["trainer", "viewer"], "user:ada": ["operator"], "uid:8": [] },
        "tenants": { "uid:7": { "weight": 3 } }
    }"#;

    #[test]
    fn every_right_of_every_identity() {
        let policy = Policy::parse(POLICY.as_bytes()).unwrap();
        for (identity, name, allowed) in [
            ("uid:7", "text/en", &[Right::Read, Right::List, Right::Announce][..]),
            ("uid:7", "images/a", &[Right::List]),
            ("user:ada", "text/en", &[Right::Admin, Right::Keys]),
            ("uid:8", "text/en", &[]),
            ("uid:9", "text/en", &[]),
            ("user:uid:7", "text/en", &[]),
        ] {
            for right in Right::ALL {
                let role = policy.role_for(identity, right, name);
                assert_eq!(role.is_some(), allowed.contains(&right), "{identity} {right:?} {name}");
            }
        }
        assert!(!policy.reads_everything("uid:7") && Policy::of_owner(5).reads_everything("uid:5"));
        assert_eq!((policy.tenant("uid:7").weight, policy.tenant("uid:9").weight), (3, 1));
        assert!(policy.knows("uid:8") && !policy.knows("uid:9"));
    }

    #[test]
    fn what_is_no_policy_is_refused_with_the_reason() {
        for (text, expected) in [
            ("{}", "roles"),
            (r#"{"roles":{},"identities":{"uid:1":["ghost"]}}"#, "ghost"),
            (r#"{"roles":{"r":[{"rights":["raed"],"data_sets":[]}]},"identities":{}}"#, "raed"),
            (r#"{"roles":{},"identities":{},"deny":{}}"#, "deny"),
            (r#"{"roles":{},"identities":{"ada":[]}}"#, "ada"),
            (r#"{"roles":{},"identities":{},"tenants":{"uid:1":{"weight":0}}}"#, "weight 0"),
        ] {
            let error = Policy::parse(text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
