//! Checks of fields, all of a request at once.

use latchkey_filter::networks;
use latchkey_filter::profile::keys::KeyRules;
use latchkey_protocol::window::MAX_BUCKETS;
use latchkey_protocol::{Limit, Rule};

use crate::error::{ApiError, FieldError};
use crate::time::Time;

/// Collects what is wrong with the fields of one request.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<FieldError>);

impl Fields {
    /// Returns all errors that were found, if any.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.0.is_empty() { Ok(()) } else { Err(ApiError::Fields(self.0)) }
    }

    /// Checks the method of a request.
    pub(crate) fn method(&mut self, field: &str, method: &str) {
        if !(1..=MAX_METHOD_CHARS).contains(&method.len())
            || !method.bytes().all(|byte| byte.is_ascii_uppercase())
        {
            self.add(field, format!("expected a method: 1 to {MAX_METHOD_CHARS} capitals"));
        }
    }

    /// Notes what is wrong with a field.
    pub(crate) fn add(&mut self, field: &str, message: impl Into<String>) {
        self.0.push(FieldError { field: field.to_owned(), message: message.into() });
    }

    /// Checks an id that people choose.
    pub(crate) fn id(&mut self, field: &str, id: &str) {
        let starts = id.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let is_id = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !starts || !id.bytes().all(is_id) || id.len() > MAX_ID_CHARS {
            self.add(
                field,
                format!(
                    "expected 1 to {MAX_ID_CHARS} letters, digits, `-`, `_` and `.`, with a letter \
                     or digit first, found `{id}`"
                ),
            );
        }
    }

    /// Checks an e-mail address as far as that can be done without sending a message.
    pub(crate) fn email(&mut self, field: &str, email: &str) {
        let is_address = email.len() <= MAX_EMAIL_CHARS
            && email.bytes().all(|byte| byte.is_ascii_graphic())
            && email.split_once('@').is_some_and(|(name, host)| {
                !name.is_empty() && !host.is_empty() && !host.contains('@')
            });
        if !is_address {
            let message = format!("expected an address such as `ada@example.com`, found `{email}`");
            self.add(field, message);
        }
    }

    /// Checks a name for people.
    pub(crate) fn name(&mut self, field: &str, name: &str) {
        let chars = name.chars().count();
        if name.trim().is_empty() || chars > MAX_NAME_CHARS {
            self.add(field, format!("expected 1 to {MAX_NAME_CHARS} characters, found {chars}"));
        } else if name.chars().any(char::is_control) {
            self.add(field, "expected no control characters");
        }
    }

    /// Checks a text that may be long and have several lines.
    pub(crate) fn text(&mut self, field: &str, text: &str, max_chars: usize) {
        let chars = text.chars().count();
        if chars > max_chars {
            self.add(field, format!("expected at most {max_chars} characters, found {chars}"));
        } else if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            self.add(field, "expected no control characters but line breaks");
        }
    }

    /// Checks the rules of a key against what the profile knows.
    pub(crate) fn rules(&mut self, rules: &[Rule], profile: &KeyRules) {
        if rules.len() > MAX_RULES {
            self.add("rules", format!("expected at most {MAX_RULES} rules, found {}", rules.len()));
        }
        for (index, rule) in rules.iter().enumerate() {
            if let Err(message) = profile.check_resource(&rule.resource) {
                self.add(&format!("rules[{index}].resource"), message);
            }
            if rule.actions.is_empty() {
                self.add(&format!("rules[{index}].actions"), "expected at least one action");
            }
            for (at, action) in rule.actions.iter().enumerate() {
                if let Err(message) = profile.check_action(action) {
                    self.add(&format!("rules[{index}].actions[{at}]"), message);
                }
            }
        }
    }

    /// Checks networks and returns them as CIDR; an address stands for itself.
    pub(crate) fn networks(&mut self, field: &str, given: &[String]) -> Vec<String> {
        if given.len() > MAX_NETWORKS {
            self.add(
                field,
                format!("expected at most {MAX_NETWORKS} networks, found {}", given.len()),
            );
        }
        let mut canonical = Vec::with_capacity(given.len().min(MAX_NETWORKS));
        for (index, text) in given.iter().enumerate() {
            match networks::parse(text) {
                Some(network) => canonical.push(network.to_string()),
                None => self.add(
                    &format!("{field}[{index}]"),
                    format!(
                        "expected a network such as `192.0.2.0/24` or an address, found `{text}`"
                    ),
                ),
            }
        }
        canonical
    }

    /// Checks that a time is still to come.
    pub(crate) fn future(&mut self, field: &str, time: Time) {
        if time <= Time::now() {
            self.add(field, "expected a time in the future");
        }
    }

    /// Checks the limits of a key.
    pub(crate) fn key_limits(&mut self, field: &str, limits: &[Limit]) {
        self.limits(field, limits);
        for (index, limit) in limits.iter().enumerate() {
            if limit.identity.is_some() {
                let message = "expected none: every call with the key is the key's";
                self.add(&format!("{field}[{index}].identity"), message);
            }
        }
    }

    /// Checks the limits of a plan.
    pub(crate) fn limits(&mut self, field: &str, limits: &[Limit]) {
        if limits.len() > MAX_LIMITS {
            self.add(
                field,
                format!("expected at most {MAX_LIMITS} limits, found {}", limits.len()),
            );
        }
        for (index, limit) in limits.iter().enumerate() {
            let at = format!("{field}[{index}]");
            self.id(&format!("{at}.name"), &limit.name);
            if limit.generation != 0 {
                self.add(&format!("{at}.generation"), "expected none");
            }
            if limits.iter().take(index).any(|other| other.name == limit.name) {
                self.add(&format!("{at}.name"), format!("`{}` is there twice", limit.name));
            }
            if limit.amount > MAX_AMOUNT {
                self.add(&format!("{at}.amount"), format!("expected at most {MAX_AMOUNT}"));
            }
            if !(1..=MAX_BUCKET_SECONDS).contains(&limit.bucket_seconds) {
                let message = format!("expected 1 to {MAX_BUCKET_SECONDS}");
                self.add(&format!("{at}.bucket_seconds"), message);
            }
            if !(1..=MAX_BUCKETS).contains(&limit.buckets) {
                self.add(&format!("{at}.buckets"), format!("expected 1 to {MAX_BUCKETS}"));
            }
        }
    }
}

/// Room for a UUID with a prefix; ids travel in a header of every request.
pub(super) const MAX_ID_CHARS: usize = 64;
/// Longest address that can be sent to (RFC 5321, section 4.5.3.1.3).
pub(super) const MAX_EMAIL_CHARS: usize = 254;
/// Twice the longest that is registered.
pub(super) const MAX_METHOD_CHARS: usize = 32;
/// A line on a screen.
pub(super) const MAX_NAME_CHARS: usize = 200;
/// More content types than the reference customers' largest accounts have.
pub(super) const MAX_RULES: usize = 500;
/// Enough for an office with several uplinks of both families.
pub(super) const MAX_NETWORKS: usize = 64;
/// Each limit costs a counter per account and bucket.
pub(super) const MAX_LIMITS: usize = 16;
/// What JSON numbers carry exactly everywhere: 2^53 - 1 (RFC 8259, section 6).
pub(super) const MAX_AMOUNT: u64 = 9_007_199_254_740_991;
/// 31 days.
pub(super) const MAX_BUCKET_SECONDS: u32 = 2_678_400;
