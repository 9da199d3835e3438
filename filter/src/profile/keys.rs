//! What an API's keys and plans are like; read by the control plane.

use latchkey_protocol::right::EVERY;
use latchkey_protocol::{Limit, TokenFormat};
use serde::Deserialize;

/// What the keys of an API are like.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRules {
    /// Form of the tokens.
    pub token: TokenFormat,
    /// Whether an account has its two Application keys from birth. Where it has none, a key made
    /// without rules holds everything.
    pub application_keys: bool,
    /// Which resources there can be.
    pub resources: ResourceNames,
    /// Names of all actions, in the order in which people see them.
    pub actions: Vec<String>,
}

/// Which names resources can have.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceNames {
    /// Just these.
    Listed(Vec<String>),
    /// Any name of some characters; each account has its own.
    Named {
        /// Characters that a name may consist of.
        characters: String,
        /// Longest name, in characters.
        max_chars: usize,
    },
}

/// A plan that comes with a profile.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanDefault {
    /// Name in paths.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// What an account may use.
    pub limits: Vec<Limit>,
    /// How many user defined keys an account may have.
    pub max_user_keys: u32,
}

impl PlanDefault {
    pub(super) fn check(&self) -> Result<(), String> {
        for (index, limit) in self.limits.iter().enumerate() {
            for (field, value) in
                [("bucket_seconds", limit.bucket_seconds), ("buckets", limit.buckets)]
            {
                if value == 0 {
                    return Err(format!(".limits[{index}].{field}`: expected 1 or more"));
                }
            }
        }
        Ok(())
    }
}

impl KeyRules {
    /// Checks the name of a resource in a rule, `*` included.
    ///
    /// # Errors
    ///
    /// What was expected.
    pub fn check_resource(&self, name: &str) -> Result<(), String> {
        if name == EVERY {
            return Ok(());
        }
        match &self.resources {
            ResourceNames::Listed(names) => {
                if names.iter().any(|listed| listed == name) {
                    return Ok(());
                }
                Err(format!("expected `*` or one of {}, found `{name}`", listing(names)))
            }
            ResourceNames::Named { characters, max_chars } => {
                let usable = !name.is_empty()
                    && name.chars().count() <= *max_chars
                    && name.chars().all(|character| characters.contains(character));
                if usable {
                    return Ok(());
                }
                Err(format!("expected `*` or 1 to {max_chars} of `{characters}`, found `{name}`"))
            }
        }
    }

    /// Checks the name of an action in a rule, `*` included.
    ///
    /// # Errors
    ///
    /// What was expected.
    pub fn check_action(&self, name: &str) -> Result<(), String> {
        if name == EVERY || self.actions.iter().any(|action| action == name) {
            return Ok(());
        }
        Err(format!("expected `*` or one of {}, found `{name}`", listing(&self.actions)))
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let prefix = &self.token.prefix;
        if prefix.len() > 16 || !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!(
                "`keys.token.prefix`: expected at most 16 letters, digits and `_`, found `{prefix}`"
            ));
        }
        if !(MIN_RANDOM_CHARS..=64).contains(&self.token.random_chars) {
            return Err(format!(
                "`keys.token.random_chars`: expected {MIN_RANDOM_CHARS} to 64, found {}",
                self.token.random_chars
            ));
        }
        if self.actions.is_empty() {
            return Err("`keys.actions`: expected at least one action".to_owned());
        }
        Ok(())
    }
}

fn listing(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Fewest random characters of a token: 22 base62 characters are 131 bits, above the 128 that make
/// guessing hopeless without a slow hash.
const MIN_RANDOM_CHARS: usize = 22;
