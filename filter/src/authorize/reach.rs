//! Stage: what a request can reach, as the rights that it needs.

use latchkey_protocol::Right;
use latchkey_protocol::right::EVERY;

use super::Rejection;
use super::query::Query;
use crate::profile::routes::{Access, Hydration, Need, NeedResource, Route, Search};

/// Returns the rights that a request on a route needs, each once.
///
/// What a hydrated read, a search that names no resource and a GraphQL query can return is not
/// worked out: they need the right on every resource.
///
/// # Errors
///
/// [`Rejection::Parameter`] if a parameter that decides what is reached has no clear value.
pub fn needed(
    route: Option<&Route>,
    access: &Access,
    segments: &[String],
    query: &Query<'_>,
) -> Result<Vec<Right>, Rejection> {
    let mut needed = Vec::with_capacity(access.needs.len());
    add(&mut needed, route, &access.needs, segments);
    let Some(route) = route else {
        return Ok(needed);
    };
    for added in &route.parameter_needs {
        let asked = query.named(&added.parameter).any(|parameter| {
            !added.unless.iter().any(|value| value.as_bytes() == &*parameter.value)
        });
        if asked {
            add(&mut needed, Some(route), &added.needs, segments);
        }
    }
    if let Some(search) = &route.search {
        needed.extend(searched(search, query)?);
    }
    if let Some(hydration) = &route.hydration
        && hydrated_steps(hydration, query)? > 0
    {
        needed.push(Right::new(EVERY, HYDRATED_ACTION));
    }
    if let Some(graphql) = &route.graphql {
        needed.push(Right::new(EVERY, &graphql.action));
    }
    Ok(needed)
}

fn add(needed: &mut Vec<Right>, route: Option<&Route>, needs: &[Need], segments: &[String]) {
    for need in needs {
        let resource = match &need.resource {
            NeedResource::Named(name) => name.as_str(),
            // A profile is refused at load if a need names no segment of its route.
            NeedResource::Segment(name) => {
                route.and_then(|route| route.segment(name, segments)).unwrap_or(EVERY)
            }
        };
        needed.push(Right::new(resource, &need.action));
    }
}

fn searched(search: &Search, query: &Query<'_>) -> Result<Vec<Right>, Rejection> {
    let name = &search.parameter;
    // Past some number of parameters PHP stops reading, and so would not see what narrows the search.
    if query.parameters().len() > MAX_SEARCH_PARAMETERS {
        return Err(Rejection::Parameter(format!(
            "expected at most {MAX_SEARCH_PARAMETERS} parameters in a search"
        )));
    }
    let mut needed = Vec::new();
    for parameter in query.named(name) {
        // What narrows the search for one reader and not for another narrows nothing.
        if !parameter.is_plainly_listed(name) {
            return Err(Rejection::Parameter(format!(
                "`{name}`: expected it spelled `{name}`, `{name}[]` or `{name}[0]`"
            )));
        }
        let Ok(resource) = std::str::from_utf8(&parameter.value) else {
            return Err(Rejection::Parameter(format!("`{name}` is not UTF-8")));
        };
        needed.push(Right::new(resource, &search.action));
    }
    if needed.is_empty() {
        needed.push(Right::new(EVERY, &search.action));
    }
    Ok(needed)
}

fn hydrated_steps(hydration: &Hydration, query: &Query<'_>) -> Result<u8, Rejection> {
    let mut parameters = query.named(&hydration.parameter);
    let Some(parameter) = parameters.next() else {
        return Ok(0);
    };
    let steps = match &*parameter.value {
        b"0" => Some(0),
        b"1" => Some(1),
        b"2" => Some(2),
        _ => None,
    };
    match steps {
        Some(steps)
            if parameter.is_plainly(&hydration.parameter) && parameters.next().is_none() =>
        {
            Ok(steps)
        }
        Some(_) | None => Err(Rejection::Parameter(format!(
            "`{}`: expected 0, 1 or 2, once",
            hydration.parameter
        ))),
    }
}

/// Most parameters of a search: half of the 1,000 that PHP reads (`max_input_vars`).
const MAX_SEARCH_PARAMETERS: usize = 500;

/// Action needed on what comes inline.
const HYDRATED_ACTION: &str = "read";
