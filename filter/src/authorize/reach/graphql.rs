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

use super::properties::{Around, Properties, Reached};
use super::{Asked, Needed, Part, Requirement};
use crate::authorize::Rejection;
use crate::profile::Permission;
use crate::profile::graphql::{Graphql, NamePattern};
use crate::resources::{ResourceId, Resources, Role, Target, role};
use document::{Argument, Document, Item, MAX_TOKENS, Operation, What};

/// Returns what the queries of a request need.
///
/// # Errors
///
/// A [`Rejection`] if they cannot be judged, or have not come yet.
pub(super) fn needed<'p>(
    asked: &Asked<'_, 'p>,
    graphql: &'p Graphql,
) -> Result<Vec<Needed<'p>>, Rejection> {
    let queries = request::queries(asked)?;
    let mut tokens_left = MAX_TOKENS;
    let mut documents: Vec<Document<'_>> = Vec::with_capacity(queries.len());
    for given in &queries {
        let mut document = Document::parse(&given.query, &mut tokens_left)
            .map_err(|error| Rejection::Graphql(error.to_string()))?;
        if document.uses_variables {
            document.variables.extend(given.variables()?);
        }
        documents.push(document);
    }
    let resources = asked.key.account.resources();
    needed_by(&documents, graphql, resources, asked.profile.introspection)
        .ok_or_else(|| Rejection::Graphql("the query is too large to be judged".to_owned()))
}

/// Returns what documents need, of an account with these resources, each thing once; none if to find
/// out takes too long.
#[must_use]
pub fn needed_by<'p>(
    documents: &[Document<'_>],
    graphql: &'p Graphql,
    resources: &Resources,
    introspection: Permission,
) -> Option<Vec<Needed<'p>>> {
    let mut judge = Judge {
        graphql,
        resources,
        introspection,
        query: 0,
        known: BTreeSet::new(),
        needed: Vec::new(),
        work_left: MAX_WORK,
    };
    for (index, document) in documents.iter().enumerate() {
        judge.query = index;
        judge.document(document);
    }
    (judge.work_left > 0).then_some(judge.needed)
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
    /// How many relations may still be looked at.
    work_left: usize,
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
        let mut arguments = document.arguments.iter().peekable();
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
                What::Spread(_) => parent.clone(),
                What::Field(name) => {
                    let next = document.items.get(index + 1);
                    let is_object = next.is_some_and(|next| next.depth > item.depth);
                    self.field(name, item, parent, is_object)
                }
            };
            while let Some(argument) = arguments.next_if(|given| given.item <= index) {
                if argument.item == index {
                    self.argument(argument, document, &within, item);
                }
            }
            around.push(within);
        }
    }

    /// Looks at what an argument asks of the objects that its field returns.
    fn argument(
        &mut self,
        argument: &Argument<'_>,
        document: &Document<'_>,
        within: &Context,
        item: &Item<'_>,
    ) {
        let Context::Objects { of, .. } = within else {
            return;
        };
        let of = Around::of(of);
        let mut named = Properties::new(self.resources, &[], &document.variables, self.work_left);
        named.look_at_argument(argument.name, &argument.value, &of);
        let Some((Reached { has_everything, ids }, work_left)) = named.reached() else {
            self.work_left = 0;
            return;
        };
        self.work_left = work_left;
        self.need(&ids.into_iter().collect::<Vec<_>>(), item);
        if has_everything {
            self.everything(item);
        }
    }

    /// Returns what the fields of a type belong to.
    fn on_type(&mut self, name: &str, item: &Item<'_>) -> Context {
        if name == self.graphql.root_type {
            return Context::Root;
        }
        if INTROSPECTION_TYPES.contains(&name) {
            return Context::Meta;
        }
        let wrappers = self.graphql.wrappers.len();
        let outer = self.graphql.wrappers.iter().map(|wrapper| wrapper.types.as_slice());
        let levels = outer.chain([self.graphql.types.as_slice()]).enumerate();
        let found: Vec<(usize, Vec<ResourceId>)> = levels
            .map(|(level, patterns)| (level, self.named(patterns, name)))
            .filter(|(_, of)| !of.is_empty())
            .collect();
        match <[_; 1]>::try_from(found) {
            Ok([(level, of)]) => self.objects(of, wrappers - level, item),
            // Unknown, or the name of two things.
            Err(_) => self.everything(item),
        }
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
        // Those in which the field is an object, or may be one besides: it keeps their relations.
        let mut within: Vec<ResourceId> = Vec::new();
        for &id in of.iter() {
            let Some(relations) = self.resources.relations(id) else {
                // Its relations are not known; what has fields of its own may be one.
                if is_object {
                    return self.everything(item);
                }
                continue;
            };
            self.work_left = self.work_left.saturating_sub(relations.len());
            if self.work_left == 0 {
                return Context::Open;
            }
            let (mut is_relation, mut is_on_the_way) = (false, false);
            for (relation, target) in relations {
                let role = role(relation, name);
                is_on_the_way |= matches!(role, Role::Both | Role::OnTheWay);
                if matches!(role, Role::Neither | Role::OnTheWay) {
                    continue;
                }
                is_relation = true;
                let Target::Some(ids) = target else {
                    return self.everything(item);
                };
                reached = Some(match reached {
                    None => Rc::clone(ids),
                    Some(others) => union(&others, ids),
                });
            }
            if is_object && (is_on_the_way || !is_relation) {
                within.push(id);
            }
        }
        let Some(reached) = reached else {
            return Context::Objects { of: Rc::clone(of), wrappers: 0 };
        };
        self.need(&reached, item);
        let of = if within.is_empty() { reached } else { union(&reached, &within) };
        Context::Objects { of, wrappers: 0 }
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

/// Returns what is in either, once.
fn union(one: &[ResourceId], other: &[ResourceId]) -> Rc<[ResourceId]> {
    let all: BTreeSet<ResourceId> = one.iter().chain(other).copied().collect();
    all.into_iter().collect()
}

/// The types of the schema's own description (GraphQL specification, section 4.2).
const INTROSPECTION_TYPES: [&str; 8] = [
    "__Schema",
    "__Type",
    "__Field",
    "__InputValue",
    "__EnumValue",
    "__TypeKind",
    "__Directive",
    "__DirectiveLocation",
];

/// Most relations and values that are looked at for a request, as often as fields ask for it: some
/// milliseconds.
/// 5,000 fields on types with 50 relations each stay below it.
pub(super) const MAX_WORK: usize = 300_000;
