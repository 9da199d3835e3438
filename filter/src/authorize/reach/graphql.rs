//! What GraphQL queries can return.
//!
//! A field is judged by the type around it: a root field returns a resource, a relation the
//! resources that it may point at, and any other field belongs to the resource around it. A fragment
//! is judged by the type that it is on, wherever it is spread, and all operations of a document
//! count. So each definition is looked at once.

pub mod document;
mod expansion;
mod lexer;
mod request;

use std::collections::BTreeSet;
use std::rc::Rc;

use latchkey_protocol::Right;
use latchkey_protocol::right::EVERY;

use super::{Asked, Needed, Part, Requirement};
use crate::authorize::Rejection;
use crate::profile::Permission;
use crate::profile::graphql::{Graphql, NamePattern};
use crate::resources::{ResourceId, Resources, Target, is_relation_of};
use document::{Document, Item, MAX_TOKENS, Operation, What};

/// Returns what the queries of a request need.
///
/// # Errors
///
/// A [`Rejection`] if they cannot be judged, or have not come yet.
pub(super) fn needed<'p>(
    asked: &Asked<'_, 'p>,
    graphql: &'p Graphql,
) -> Result<Vec<Needed<'p>>, Rejection> {
    let queries = request::queries(asked.request, asked.method, asked.query)?;
    let resources = asked.key.account.resources();
    let mut tokens_left = MAX_TOKENS;
    let mut needed = Vec::new();
    for (index, text) in queries.iter().enumerate() {
        let document = Document::parse(text, &mut tokens_left)
            .map_err(|error| Rejection::Graphql(error.to_string()))?;
        let mut judge = Judge {
            graphql,
            resources: &resources,
            introspection: asked.profile.introspection,
            query: index,
            known: BTreeSet::new(),
            needed: Vec::new(),
        };
        judge.document(&document);
        needed.append(&mut judge.needed);
    }
    Ok(needed)
}

/// Returns what a document needs, of an account with these resources.
#[must_use]
pub fn needed_by_document<'p>(
    document: &Document<'_>,
    graphql: &'p Graphql,
    resources: &Resources,
) -> Vec<Needed<'p>> {
    let introspection = Permission::Allow;
    let known = BTreeSet::new();
    let mut judge =
        Judge { graphql, resources, introspection, query: 0, known, needed: Vec::new() };
    judge.document(document);
    judge.needed
}

struct Judge<'r, 'p> {
    graphql: &'p Graphql,
    resources: &'r Resources,
    introspection: Permission,
    /// Place of the query among those of the request.
    query: usize,
    /// What is known to be needed; none stands for everything.
    known: BTreeSet<Option<ResourceId>>,
    needed: Vec<Needed<'p>>,
}

/// What the fields of a selection set belong to.
#[derive(Clone)]
enum Context {
    /// Nothing that a right is needed for: the schema.
    Meta,
    /// Objects of these resources, or so many wrappers around them.
    Objects { of: Rc<[ResourceId]>, wrappers: usize },
    /// Something for which everything is needed already.
    Open,
    /// The root of queries.
    Root,
}

impl<'p> Judge<'_, 'p> {
    fn document(&mut self, document: &Document<'_>) {
        // The contexts around an item, the outermost first.
        let mut around: Vec<Context> = Vec::new();
        for (index, item) in document.items.iter().enumerate() {
            around.truncate(item.depth);
            let parent = around.last().unwrap_or(&Context::Open);
            let within = match item.what {
                What::Operation(Operation::Query) => Context::Root,
                What::Operation(Operation::Mutation | Operation::Subscription) => {
                    self.needs_kind(item);
                    Context::Open
                }
                What::Fragment { on, .. } | What::Inline(Some(on)) => self.on_type(on, item),
                What::Inline(None) => parent.clone(),
                What::Spread(_) => continue,
                What::Field(name) => {
                    let next = document.items.get(index + 1);
                    let is_object = next.is_some_and(|next| next.depth > item.depth);
                    self.field(name, item, parent, is_object)
                }
            };
            around.push(within);
        }
    }

    /// Returns what the fields of a type belong to.
    fn on_type(&mut self, name: &str, item: &Item<'_>) -> Context {
        if name == self.graphql.root_type {
            return Context::Root;
        }
        if name.starts_with("__") {
            return Context::Meta;
        }
        let wrappers = self.graphql.wrappers.len();
        let outer = self.graphql.wrappers.iter().map(|wrapper| wrapper.types.as_slice());
        for (level, patterns) in outer.chain([self.graphql.types.as_slice()]).enumerate() {
            let of = self.named(patterns, name);
            if !of.is_empty() {
                return self.objects(of, wrappers - level, item);
            }
        }
        self.everything(item)
    }

    fn field(&mut self, name: &str, item: &Item<'_>, parent: &Context, is_object: bool) -> Context {
        if name == "__typename" {
            return Context::Meta;
        }
        match parent {
            Context::Meta => Context::Meta,
            Context::Open => Context::Open,
            Context::Root if name == "__schema" || name == "__type" => {
                if self.introspection == Permission::Deny {
                    self.needs_kind(item);
                }
                Context::Meta
            }
            Context::Root => {
                let of = self.named(&self.graphql.root_fields, name);
                if of.is_empty() {
                    return self.everything(item);
                }
                self.objects(of, self.graphql.wrappers.len(), item)
            }
            Context::Objects { of, wrappers } => {
                let all = &self.graphql.wrappers;
                let outermost = all.len().checked_sub(*wrappers).and_then(|index| all.get(index));
                if outermost.is_some_and(|wrapper| wrapper.field == name) {
                    return Context::Objects { of: Rc::clone(of), wrappers: wrappers - 1 };
                }
                self.field_of_objects(name, item, of, is_object)
            }
        }
    }

    fn field_of_objects(
        &mut self,
        name: &str,
        item: &Item<'_>,
        of: &Rc<[ResourceId]>,
        is_object: bool,
    ) -> Context {
        let mut reached: Option<Rc<[ResourceId]>> = None;
        for &id in of.iter() {
            let Some(relations) = self.resources.relations(id) else {
                // Its relations are not known; what has fields of its own may be one.
                if is_object {
                    return self.everything(item);
                }
                continue;
            };
            for (_, target) in relations.iter().filter(|(field, _)| is_relation_of(field, name)) {
                let Target::Some(ids) = target else {
                    return self.everything(item);
                };
                reached = Some(match reached {
                    None => Rc::clone(ids),
                    Some(others) => others.iter().chain(ids.iter()).copied().collect(),
                });
            }
        }
        let Some(reached) = reached else {
            return Context::Objects { of: Rc::clone(of), wrappers: 0 };
        };
        self.need(&reached, item);
        // A relation of one of them may be an object within another, which keeps its own relations.
        let is_relation_of = |id: &&ResourceId| {
            let relations = self.resources.relations(**id).unwrap_or_default();
            relations.iter().any(|(field, _)| is_relation_of(field, name))
        };
        let within: Vec<ResourceId> = of.iter().filter(|id| !is_relation_of(id)).copied().collect();
        if within.is_empty() {
            return Context::Objects { of: reached, wrappers: 0 };
        }
        let all: BTreeSet<ResourceId> = reached.iter().copied().chain(within).collect();
        Context::Objects { of: all.into_iter().collect(), wrappers: 0 }
    }

    /// Returns the resources that a name stands for.
    fn named(&self, patterns: &[NamePattern], name: &str) -> Vec<ResourceId> {
        let resources = patterns.iter().filter_map(|pattern| pattern.resource(name));
        resources.filter_map(|resource| self.resources.find(&resource)).collect()
    }

    fn objects(&mut self, of: Vec<ResourceId>, wrappers: usize, item: &Item<'_>) -> Context {
        self.need(&of, item);
        Context::Objects { of: of.into(), wrappers }
    }

    fn need(&mut self, of: &[ResourceId], item: &Item<'_>) {
        for &id in of {
            if self.known.insert(Some(id)) {
                let right = Right::new(self.resources.name(id), &self.graphql.action);
                self.add(Requirement::Right(right), item);
            }
        }
    }

    /// Notes that something may return whatever there is.
    fn everything(&mut self, item: &Item<'_>) -> Context {
        if self.known.insert(None) {
            let right = Right::new(EVERY, &self.graphql.action);
            self.add(Requirement::Right(right), item);
        }
        Context::Open
    }

    fn needs_kind(&mut self, item: &Item<'_>) {
        let graphql = self.graphql;
        self.add(Requirement::Kind(&graphql.mutation_kinds), item);
    }

    fn add(&mut self, requirement: Requirement<'p>, item: &Item<'_>) {
        let Item { line, column, .. } = *item;
        self.needed
            .push(Needed { requirement, part: Part::Query { index: self.query, line, column } });
    }
}
