//! Stage: what a request can reach, as the rights that it needs.
//!
//! The route says what its path needs. What related objects ([`hydration`]), a search ([`search`]) or
//! a GraphQL query ([`graphql`]) can return besides, and what filters and sort orders ask about
//! ([`properties`]), is worked out from the account's resources. Where that cannot be told, everything is
//! needed.

pub mod graphql;
mod hydration;
mod properties;
mod search;
pub mod value;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use latchkey_protocol::right::EVERY;
use latchkey_protocol::{KeyKind, Right};

use super::edits::Rewrite;
use super::query::{Parameter, Query};
use super::{Rejection, Request, rights};
use crate::profile::routes::{Access, AccessLevel, Need, NeedResource, Route};
use crate::profile::{Permission, Profile};
use crate::replica::KeyRecord;

/// What a request needs, and how it changes so that it needs no more.
#[derive(Debug, Default)]
pub struct Reach<'p> {
    /// All that is needed, in the order in which the request asks for it.
    pub needed: Vec<Needed<'p>>,
    /// Changes to the query string.
    pub rewrites: Vec<Rewrite>,
}

/// Something that a request needs, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed<'p> {
    /// What it takes.
    pub requirement: Requirement<'p>,
    /// The part of the request that asks for it.
    pub part: Part<'p>,
}

/// What it takes to be permitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement<'p> {
    /// A key of one of these kinds.
    Kind(&'p [KeyKind]),
    /// A key that holds this right.
    Right(Right),
}

/// A part of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'p> {
    /// Objects that come inline with others.
    Hydration {
        /// Name of the parameter.
        parameter: &'p str,
        /// Steps from what is asked for.
        step: u8,
        /// The resource that leads there.
        from: String,
        /// The field of it; absent if its fields are not known.
        field: Option<String>,
    },
    /// That no resource is named in a search, which is narrowed to what the key may read.
    NarrowedSearch(&'p str),
    /// A query parameter.
    Parameter(&'p str),
    /// A place in a GraphQL query.
    Query {
        /// Number of the query among those of the request, from 0.
        index: usize,
        /// Line, from 1.
        line: u32,
        /// Column, from 1.
        column: u32,
    },
    /// The method and path.
    Route,
    /// The segment of the path with this name.
    Segment(&'p str),
    /// That no resource is named in a search.
    WholeSearch(&'p str),
}

/// A request on a route, with a key.
pub(super) struct Asked<'r, 'p> {
    pub(super) profile: &'p Profile,
    pub(super) route: Option<&'p Route>,
    pub(super) access: &'p Access,
    pub(super) method: &'r str,
    pub(super) segments: &'r [Cow<'r, str>],
    pub(super) query: &'r Query<'r>,
    pub(super) request: &'r Request<'r>,
    pub(super) key: &'r KeyRecord,
    /// Whether the request may be changed so that it needs no more than the key holds.
    pub(super) may_change: bool,
}

/// Returns what a request needs.
///
/// # Errors
///
/// [`Rejection::Parameter`] or [`Rejection::Graphql`] if what decides what is reached has no clear
/// value; the rejections of a body if it cannot be judged or has not come yet.
pub(super) fn reach<'p>(asked: &Asked<'_, 'p>) -> Result<Reach<'p>, Rejection> {
    let mut reach = Reach::default();
    let Asked { profile, access, query, .. } = *asked;
    if !access.only_kinds.is_empty() {
        reach.add(Requirement::Kind(&access.only_kinds), Part::Route);
    }
    reach.add_needs(asked, &access.needs, None);
    let Some(route) = asked.route else {
        return Ok(reach);
    };
    for added in &route.parameter_needs {
        let is_exempt = |given: &Parameter<'_>| {
            given.is_plainly(&added.parameter)
                && added.unless.iter().any(|value| value.as_bytes() == &*given.value)
        };
        let is_asked = query.judged(&added.parameter)?.any(|given| !is_exempt(given));
        if is_asked {
            reach.add_needs(asked, &added.needs, Some(&added.parameter));
        }
    }
    if let Some(search) = &route.search {
        search::add(asked, search, &mut reach)?;
    }
    properties::add(asked, &route.properties, &mut reach)?;
    if let Some(hydration) = &route.hydration {
        hydration::add(asked, hydration, &mut reach)?;
    }
    if let Some(graphql) = &route.graphql {
        let is_scoped = asked.key.kind == KeyKind::UserDefined;
        if is_scoped && profile.graphql_scoped_keys == Permission::Deny {
            reach.add(Requirement::Kind(APPLICATION_KINDS), Part::Route);
        } else {
            reach.needed.append(&mut graphql::needed(asked, graphql)?);
        }
    }
    Ok(reach)
}

/// Refuses a parameter that decides elsewhere, where it is not known what it does.
///
/// # Errors
///
/// [`Rejection::Parameter`] with its name.
pub(super) fn refuse_unlisted_parameters(asked: &Asked<'_, '_>) -> Result<(), Rejection> {
    let Asked { profile, route, access, query, .. } = *asked;
    let may_have_any =
        profile.unlisted_parameters == Permission::Allow || access.level == AccessLevel::Public;
    if may_have_any || query.text().is_empty() {
        return Ok(());
    }
    for name in &profile.deciding_parameters {
        let is_listed = route.is_some_and(|route| route.deciding_parameters().any(|n| n == name));
        if !is_listed && query.may_have(name) {
            return Err(Rejection::Parameter(format!("`{name}`: expected it not to be here")));
        }
    }
    Ok(())
}

impl<'p> Reach<'p> {
    fn add(&mut self, requirement: Requirement<'p>, part: Part<'p>) {
        self.needed.push(Needed { requirement, part });
    }

    fn add_right(&mut self, resource: &str, action: &str, part: Part<'p>) {
        self.add(Requirement::Right(Right::new(resource, action)), part);
    }

    /// Adds what a route says, asked for by a parameter or by the path alone.
    fn add_needs(&mut self, asked: &Asked<'_, 'p>, needs: &'p [Need], parameter: Option<&'p str>) {
        for need in needs {
            let (resource, part) = match &need.resource {
                NeedResource::Named(name) => (name.as_str(), Part::Route),
                // A profile is refused at load if a need names no segment of its route.
                NeedResource::Segment(name) => {
                    let segment = asked.route.and_then(|r| r.segment(name, asked.segments));
                    (segment.unwrap_or(EVERY), Part::Segment(name))
                }
            };
            self.add_right(resource, &need.action, parameter.map_or(part, Part::Parameter));
        }
    }

    /// Returns the names of the resources that are needed so far, each once.
    fn resources(&self) -> BTreeSet<String> {
        let rights = self.needed.iter().filter_map(|needed| match &needed.requirement {
            Requirement::Kind(_) => None,
            Requirement::Right(right) => Some(right.resource.clone()),
        });
        rights.collect()
    }
}

impl Asked<'_, '_> {
    fn holds(&self, resource: &str, action: &str) -> bool {
        rights::holds(self.profile, &self.key.rights, resource, action)
    }
}

/// As people read it: where in the request, and what it does there.
impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hydration { parameter, step, from, field: Some(field) } => {
                write!(f, "`{parameter}`: step {step}, by the field `{field}` of `{from}`")
            }
            Self::Hydration { parameter, step, from, field: None } => {
                write!(f, "`{parameter}`: step {step}, and what `{from}` leads to is not known")
            }
            Self::NarrowedSearch(parameter) => {
                write!(f, "a search without `{parameter}`, narrowed to what the key may read")
            }
            Self::Parameter(name) => write!(f, "the parameter `{name}`"),
            Self::Query { index: 0, line, column } => {
                write!(f, "the query at line {line}, column {column}")
            }
            Self::Query { index, line, column } => {
                write!(f, "query {} at line {line}, column {column}", index + 1)
            }
            Self::Route => f.write_str("the route"),
            Self::Segment(name) => write!(f, "`{{{name}}}` in the path"),
            Self::WholeSearch(parameter) => {
                write!(f, "a search without `{parameter}`, which is of everything")
            }
        }
    }
}

const APPLICATION_KINDS: &[KeyKind] =
    &[KeyKind::ApplicationReadWrite, KeyKind::ApplicationReadOnly];
