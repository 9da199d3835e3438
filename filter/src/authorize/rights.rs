//! Stage: the rights that a key holds against those that a request needs.

use latchkey_protocol::Right;
use latchkey_protocol::right::EVERY;

use super::Rejection;
use crate::profile::Profile;
use crate::profile::routes::Access;
use crate::replica::KeyRecord;

/// Checks that a key may do what a request needs.
///
/// # Errors
///
/// [`Rejection::MissingRight`] with the first right that is not held.
pub fn check(
    profile: &Profile,
    access: &Access,
    needed: &[Right],
    key: &KeyRecord,
) -> Result<(), Rejection> {
    if access.pass_kinds.contains(&key.kind) {
        return Ok(());
    }
    if !access.only_kinds.is_empty() && !access.only_kinds.contains(&key.kind) {
        return Err(missing(Right::new(EVERY, EVERY), key));
    }
    match needed.iter().find(|right| !holds(profile, key, right)) {
        Some(right) => Err(missing(right.clone(), key)),
        None => Ok(()),
    }
}

fn holds(profile: &Profile, key: &KeyRecord, right: &Right) -> bool {
    let Right { resource, action } = right;
    if action == ANY_ACTION {
        return key.rights.holds_any_action(resource);
    }
    key.rights.holds(resource, action)
        || profile.implying(resource, action).any(|held| key.rights.holds(resource, held))
}

fn missing(needed: Right, key: &KeyRecord) -> Rejection {
    let held = key
        .rights
        .rules()
        .iter()
        .flat_map(|rule| rule.actions.iter().map(|action| Right::new(&rule.resource, action)))
        .map(|right| right.to_string())
        .collect();
    Rejection::MissingRight { needed, held }
}

/// Stands in a route's need for whichever action the key holds.
const ANY_ACTION: &str = "?";
