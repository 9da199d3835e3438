//! What comes inline with what is asked for.

use std::collections::BTreeSet;

use latchkey_protocol::Right;
use latchkey_protocol::right::EVERY;

use super::{Asked, Needed, Part, Reach, Requirement};
use crate::authorize::Rejection;
use crate::authorize::edits::Rewrite;
use crate::authorize::rights::is_met;
use crate::profile::TooDeep;
use crate::profile::routes::Hydration;
use crate::resources::{Resources, Target};

/// Adds what a read needs of all that comes inline with it: what can be reached from the resources
/// that it asks for in as many relation steps as it says.
///
/// Where the profile says so, a read that asks for more steps than its key may read is given fewer.
pub(super) fn add<'p>(
    asked: &Asked<'_, 'p>,
    hydration: &'p Hydration,
    reach: &mut Reach<'p>,
) -> Result<(), Rejection> {
    let steps = steps(asked, hydration)?;
    if steps == 0 {
        return Ok(());
    }
    let resources = asked.key.account.resources();
    let reached = reached(hydration, resources, reach.resources(), steps);
    let may_lower = asked.profile.hydration == TooDeep::Lower;
    let is_held = |needed: &Needed<'_>| is_met(asked.profile, &needed.requirement, asked.key);
    let lowest_missing = reached.iter().filter(|(_, needed)| !is_held(needed));
    match lowest_missing.map(|(step, _)| *step).min() {
        Some(step) if may_lower => {
            let deepest = step - 1;
            let value = deepest.to_string();
            let name = hydration.parameter.clone();
            if asked.may_change {
                reach.rewrites.push(Rewrite::Replace { name, value });
            }
            let readable = reached.into_iter().filter(|(step, _)| *step <= deepest);
            reach.needed.extend(readable.map(|(_, needed)| needed));
        }
        Some(_) | None => reach.needed.extend(reached.into_iter().map(|(_, needed)| needed)),
    }
    Ok(())
}

/// Returns the number of steps that a request asks for.
fn steps(asked: &Asked<'_, '_>, hydration: &Hydration) -> Result<u8, Rejection> {
    let Hydration { parameter: name, max_steps, .. } = hydration;
    let mut parameters = asked.query.judged(name)?;
    let Some(parameter) = parameters.next() else {
        return Ok(0);
    };
    let steps = match &*parameter.value {
        [digit @ b'0'..=b'9'] => Some(digit - b'0').filter(|steps| steps <= max_steps),
        _ => None,
    };
    match steps {
        Some(steps) if parameter.is_plainly(name) && parameters.next().is_none() => Ok(steps),
        Some(_) | None => {
            Err(Rejection::Parameter(format!("`{name}`: expected 0 to {max_steps}, once")))
        }
    }
}

/// Returns what is reached with which step, first to last.
fn reached<'p>(
    hydration: &'p Hydration,
    resources: &Resources,
    from: BTreeSet<String>,
    steps: u8,
) -> Vec<(u8, Needed<'p>)> {
    let Hydration { parameter, action, .. } = hydration;
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut reached = Vec::new();
    let mut border: Vec<String> = from.into_iter().collect();
    for step in 1..=steps {
        let mut next = Vec::new();
        let mut add = |resource: &str, from: &str, field: Option<&str>| {
            if !known.contains(resource) {
                known.insert(resource.to_owned());
                let (from, field) = (from.to_owned(), field.map(str::to_owned));
                let part = Part::Hydration { parameter, step, from, field };
                let right = Right::new(resource, action);
                reached.push((step, Needed { requirement: Requirement::Right(right), part }));
                next.push(resource.to_owned());
            }
        };
        for from in &border {
            let Some(relations) = resources.find(from).and_then(|id| resources.relations(id))
            else {
                add(EVERY, from, None);
                continue;
            };
            for (field, target) in relations {
                match target {
                    Target::Any => add(EVERY, from, Some(field)),
                    Target::Some(ids) => {
                        for &id in ids.iter() {
                            add(resources.name(id), from, Some(field));
                        }
                    }
                }
            }
        }
        border = next;
    }
    reached
}
