//! What two published parsers make of a GraphQL document, beside what the filter makes of it.
//!
//! They are used here only: neither is safe or fast enough for the filter itself.

use apollo_parser::cst::{CstNode, Definition, Selection, SelectionSet};
use graphql_parser::query;

use super::document::{Document, MAX_TOKENS, Operation, Problem, What};

/// One item of a document: its depth, what it is, and its names.
pub(crate) type Line = (usize, &'static str, String);

/// Checks that the filter reads a document as the others do, or refuses it.
///
/// # Panics
///
/// If the filter accepts what another refuses, sees something else in it, or refuses for its form
/// what both others accept.
pub(crate) fn check(text: &str) {
    let mut tokens = MAX_TOKENS;
    let ours = Document::parse(text, &mut tokens);
    let combine = graphql_parser_lines(text);
    // A comma before a colon is more than it expects, though commas mean no more than blanks.
    let apollo = apollo_lines(&text.replace(',', " "));
    match ours {
        Ok(document) => {
            let ours = lines(&document);
            if let Some(combine) = combine {
                assert_eq!(ours, combine, "graphql-parser sees something else in {text:?}");
            } else {
                assert!(is_beyond_graphql_parser(text), "graphql-parser refuses {text:?}");
            }
            assert_eq!(Some(ours), apollo, "apollo-parser sees something else in {text:?}");
        }
        Err(error) => {
            let is_by_choice = match error.problem() {
                // Bounds, and rules about whole documents, which parsers leave to validation.
                Problem::Cycle
                | Problem::SameName
                | Problem::TooDeep
                | Problem::TooManyFields
                | Problem::TooManyTokens
                | Problem::UnknownFragment => true,
                Problem::Character | Problem::Expected(_) | Problem::Number | Problem::String => {
                    text.chars().any(|c| {
                        (c.is_control() && !matches!(c, '\n' | '\r' | '\t')) || c > '\u{7f}'
                    })
                }
            };
            let is_refused = combine.is_none() || apollo.is_none();
            assert!(is_refused || is_by_choice, "refused with {error}, not by others: {text:?}");
        }
    }
}

/// Returns what the filter sees in a document.
pub(crate) fn lines(document: &Document<'_>) -> Vec<Line> {
    let line = |what: What<'_>| match what {
        What::Field(name) => ("field", name.to_owned()),
        What::Fragment { name, on } => ("fragment", format!("{name} on {on}")),
        What::Inline(on) => ("inline", on.unwrap_or_default().to_owned()),
        What::Operation(Operation::Mutation) => ("mutation", String::new()),
        What::Operation(Operation::Query) => ("query", String::new()),
        What::Operation(Operation::Subscription) => ("subscription", String::new()),
        What::Spread(name) => ("spread", name.to_owned()),
    };
    let items = document.items.iter().map(|item| {
        let (kind, name) = line(item.what);
        (item.depth, kind, name)
    });
    items.collect()
}

/// It knows neither variable-width escapes nor directives of variables, and has a depth limit of its
/// own.
fn is_beyond_graphql_parser(text: &str) -> bool {
    let may_have_directives = text.contains('$') && text.contains('@');
    text.contains("\\u{") || may_have_directives || text.matches(['{', '[']).count() > 40
}

fn graphql_parser_lines(text: &str) -> Option<Vec<Line>> {
    let document = query::parse_query::<&str>(text).ok()?;
    let mut lines = Vec::new();
    for definition in &document.definitions {
        match definition {
            query::Definition::Operation(operation) => {
                let (kind, set) = match operation {
                    query::OperationDefinition::SelectionSet(set) => ("query", set),
                    query::OperationDefinition::Query(query) => ("query", &query.selection_set),
                    query::OperationDefinition::Mutation(mutation) => {
                        ("mutation", &mutation.selection_set)
                    }
                    query::OperationDefinition::Subscription(subscription) => {
                        ("subscription", &subscription.selection_set)
                    }
                };
                lines.push((0, kind, String::new()));
                add_selections(set, 1, &mut lines);
            }
            query::Definition::Fragment(fragment) => {
                let query::TypeCondition::On(on) = fragment.type_condition;
                lines.push((0, "fragment", format!("{} on {on}", fragment.name)));
                add_selections(&fragment.selection_set, 1, &mut lines);
            }
        }
    }
    Some(lines)
}

fn add_selections<'a>(set: &query::SelectionSet<'a, &'a str>, depth: usize, lines: &mut Vec<Line>) {
    for item in &set.items {
        match item {
            query::Selection::Field(field) => {
                lines.push((depth, "field", field.name.to_owned()));
                add_selections(&field.selection_set, depth + 1, lines);
            }
            query::Selection::FragmentSpread(spread) => {
                lines.push((depth, "spread", spread.fragment_name.to_owned()));
            }
            query::Selection::InlineFragment(inline) => {
                let on = inline.type_condition.as_ref();
                let on = on.map(|query::TypeCondition::On(on)| (*on).to_owned());
                lines.push((depth, "inline", on.unwrap_or_default()));
                add_selections(&inline.selection_set, depth + 1, lines);
            }
        }
    }
}

fn apollo_lines(text: &str) -> Option<Vec<Line>> {
    let parser = apollo_parser::Parser::new(text).recursion_limit(500).token_limit(1_000_000);
    let tree = parser.parse();
    if tree.errors().next().is_some() {
        return None;
    }
    let mut lines = Vec::new();
    for definition in tree.document().definitions() {
        match definition {
            Definition::OperationDefinition(operation) => {
                let kind = operation.operation_type().map(|kind| kind.syntax().text().to_string());
                let kind = match kind.as_deref().map(str::trim) {
                    None | Some("query") => "query",
                    Some("mutation") => "mutation",
                    Some(_) => "subscription",
                };
                lines.push((0, kind, String::new()));
                add_apollo_selections(&operation.selection_set()?, 1, &mut lines)?;
            }
            Definition::FragmentDefinition(fragment) => {
                let name = fragment.fragment_name()?.name()?.text().to_string();
                let on = fragment.type_condition()?.named_type()?.name()?.text().to_string();
                lines.push((0, "fragment", format!("{name} on {on}")));
                add_apollo_selections(&fragment.selection_set()?, 1, &mut lines)?;
            }
            _ => return None,
        }
    }
    Some(lines)
}

fn add_apollo_selections(set: &SelectionSet, depth: usize, lines: &mut Vec<Line>) -> Option<()> {
    for selection in set.selections() {
        match selection {
            Selection::Field(field) => {
                lines.push((depth, "field", field.name()?.text().to_string()));
                if let Some(set) = field.selection_set() {
                    add_apollo_selections(&set, depth + 1, lines)?;
                }
            }
            Selection::FragmentSpread(spread) => {
                let name = spread.fragment_name()?.name()?.text().to_string();
                lines.push((depth, "spread", name));
            }
            Selection::InlineFragment(inline) => {
                let on = inline.type_condition().and_then(|on| on.named_type()?.name());
                let on = on.map(|name| name.text().to_string()).unwrap_or_default();
                lines.push((depth, "inline", on));
                add_apollo_selections(&inline.selection_set()?, depth + 1, lines)?;
            }
        }
    }
    Some(())
}
