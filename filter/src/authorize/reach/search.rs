//! What a search can return.

use latchkey_protocol::right::EVERY;

use super::{Asked, Part, Reach};
use crate::authorize::Rejection;
use crate::authorize::edits::Rewrite;
use crate::profile::routes::Search;

/// Adds what a search needs: the resources that it names.
///
/// Where it names none, it is narrowed to those that the key may read. So a key that may read
/// nothing is refused, and one that may read everything searches everything.
pub(super) fn add<'p>(
    asked: &Asked<'_, 'p>,
    search: &'p Search,
    reach: &mut Reach<'p>,
) -> Result<(), Rejection> {
    let Search { parameter: name, action } = search;
    // Past some number of parameters PHP stops reading, and so would not see what narrows the search.
    if asked.query.parameters().count() > MAX_PARAMETERS {
        return Err(Rejection::Parameter(format!(
            "expected at most {MAX_PARAMETERS} parameters in a search"
        )));
    }
    let mut is_named = false;
    for parameter in asked.query.judged(name)? {
        let Ok(resource) = std::str::from_utf8(&parameter.value) else {
            return Err(Rejection::Parameter(format!("`{name}` is not UTF-8")));
        };
        reach.add_right(resource, action, Part::Parameter(name));
        is_named = true;
    }
    if is_named {
        return Ok(());
    }
    let readable: Vec<&str> = if asked.holds(EVERY, action) {
        Vec::new()
    } else {
        let named = asked.key.rights.rules().iter().map(|rule| rule.resource.as_str());
        named.filter(|resource| asked.holds(resource, action)).collect()
    };
    if readable.is_empty() {
        reach.add_right(EVERY, action, Part::WholeSearch(name));
        return Ok(());
    }
    if asked.query.parameters().count() + readable.len() > MAX_PARAMETERS {
        return Err(Rejection::Parameter(format!(
            "`{name}`: expected at least one; the key may read too many to add them all"
        )));
    }
    for resource in readable {
        reach.add_right(resource, action, Part::NarrowedSearch(name));
        if asked.may_change {
            let (name, value) = (format!("{name}[]"), resource.to_owned());
            reach.rewrites.push(Rewrite::Add { name, value });
        }
    }
    Ok(())
}

/// Most parameters of a search: half of the 1,000 that PHP reads (`max_input_vars`).
const MAX_PARAMETERS: usize = 500;
