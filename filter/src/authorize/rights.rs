//! Stage: what a key holds against what a request needs.

use std::collections::BTreeSet;

use latchkey_protocol::right::EVERY;
use latchkey_protocol::{KeyKind, Right, RightSet};

use super::MissingRight;
use super::reach::{Needed, Requirement};
use crate::profile::Profile;
use crate::profile::routes::Access;
use crate::replica::KeyRecord;

/// Checks that a key may do what a request needs. Returns those of its rights that this takes; none
/// of an Application key, whose rights are fixed.
///
/// # Errors
///
/// [`MissingRight`] with the first right that is not held.
pub fn check(
    profile: &Profile,
    access: &Access,
    needed: &[Needed<'_>],
    key: &KeyRecord,
) -> Result<BTreeSet<Right>, MissingRight> {
    if access.pass_kinds.contains(&key.kind) {
        return Ok(BTreeSet::new());
    }
    match needed.iter().find(|needed| !is_met(profile, &needed.requirement, key)) {
        Some(needed) => Err(missing(&needed.requirement, key)),
        None if key.kind != KeyKind::UserDefined => Ok(BTreeSet::new()),
        None => Ok(exercised(profile, needed, key)),
    }
}

/// Reports whether a key has what it takes.
#[must_use]
pub fn is_met(profile: &Profile, requirement: &Requirement<'_>, key: &KeyRecord) -> bool {
    match requirement {
        Requirement::Kind(kinds) => kinds.contains(&key.kind),
        Requirement::Right(Right { resource, action }) => {
            holds(profile, &key.rights, resource, action)
        }
    }
}

/// Reports whether rights cover an action on a resource, by name, through `*`, or since another
/// action implies it.
pub(super) fn holds(profile: &Profile, held: &RightSet, resource: &str, action: &str) -> bool {
    if action == ANY_ACTION {
        return held.holds_any_action(resource);
    }
    held.holds(resource, action)
        || profile.implying(resource, action).any(|implying| held.holds(resource, implying))
}

/// Returns those of a key's rights by which it has what is needed, each once.
///
/// They are named as the key's rules name the resource, with the action that was needed where a rule
/// says `*`: so there are never more of them than rules times actions, whatever a client asks for.
#[must_use]
pub fn exercised(profile: &Profile, needed: &[Needed<'_>], key: &KeyRecord) -> BTreeSet<Right> {
    let mut exercised = BTreeSet::new();
    for needed in needed {
        let Requirement::Right(Right { resource, action }) = &needed.requirement else {
            continue;
        };
        // The rule that names the resource comes first: it makes one for every resource unneeded.
        let granted = [resource.as_str(), EVERY]
            .into_iter()
            .find_map(|on| granting(profile, &key.rights, on, resource, action));
        exercised.extend(granted);
    }
    exercised
}

/// Returns by which of its actions the rule on a resource, or on every one, grants an action.
fn granting(
    profile: &Profile,
    held: &RightSet,
    on: &str,
    resource: &str,
    action: &str,
) -> Option<Right> {
    let rule = held.rule(on)?;
    let has = |action: &str| rule.actions.iter().any(|held| held == action);
    if has(action) || has(EVERY) || (action == ANY_ACTION && !rule.actions.is_empty()) {
        return Some(Right::new(on, action));
    }
    let implying = profile.implying(resource, action).find(|implying| has(implying))?;
    Some(Right::new(on, implying))
}

fn missing(requirement: &Requirement<'_>, key: &KeyRecord) -> MissingRight {
    let needed = match requirement {
        // What is for some kinds of keys alone is as good as everything to the others.
        Requirement::Kind(_) => Right::new(EVERY, EVERY),
        Requirement::Right(right) => right.clone(),
    };
    let held = key
        .rights
        .rules()
        .iter()
        .flat_map(|rule| rule.actions.iter().map(|action| Right::new(&rule.resource, action)))
        .map(|right| right.to_string())
        .collect();
    MissingRight { needed, held }
}

/// Stands in a route's need, and among the rights that were taken, for whichever action the key holds.
pub const ANY_ACTION: &str = "?";
