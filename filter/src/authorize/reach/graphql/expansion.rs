//! How large a document becomes once its fragments are spread.

use std::collections::BTreeMap;

use super::document::{Document, DocumentError, Item, MAX_DEPTH, MAX_FIELDS, Problem, What};

/// Checks that all spreads lead somewhere and never back, and that the whole stays within bounds.
///
/// Each fragment is looked at once, however often it is spread: a document in which each fragment
/// spreads the next one twice takes no longer than it is long.
pub(super) fn check(document: &Document<'_>) -> Result<(), DocumentError> {
    let mut definitions: Vec<Definition<'_>> = Vec::new();
    let mut fragments = BTreeMap::new();
    for item in &document.items {
        match item.what {
            What::Operation(_) => definitions.push(Definition::default()),
            What::Fragment { name, .. } => {
                if fragments.insert(name, definitions.len()).is_some() {
                    return Err(error(Problem::SameName, item));
                }
                definitions.push(Definition::default());
            }
            What::Field(_) | What::Inline(_) | What::Spread(_) => {
                // An item that is in a selection set follows a definition.
                if let Some(definition) = definitions.last_mut() {
                    definition.add(item);
                }
            }
        }
    }
    let mut sizes = Sizes { fragments, known: vec![Known::Not; definitions.len()], definitions };
    for index in 0..sizes.definitions.len() {
        sizes.size(index, 0).map_err(|(problem, item)| error(problem, item))?;
    }
    Ok(())
}

fn error(problem: Problem, item: &Item<'_>) -> DocumentError {
    DocumentError::new(problem, item.line, item.column)
}

/// What a definition has itself.
#[derive(Default)]
struct Definition<'a> {
    own: Size,
    last: Option<&'a Item<'a>>,
    spreads: Vec<&'a Item<'a>>,
}

impl<'a> Definition<'a> {
    fn add(&mut self, item: &'a Item<'a>) {
        self.own.depth = self.own.depth.max(item.depth);
        self.last = Some(item);
        match item.what {
            What::Spread(_) => self.spreads.push(item),
            What::Field(_) => self.own.fields += 1,
            What::Fragment { .. } | What::Inline(_) | What::Operation(_) => {}
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Size {
    depth: usize,
    fields: usize,
}

#[derive(Clone, Copy)]
enum Known {
    Not,
    /// It is being found out; to come here again is to go round in circles.
    Soon,
    Yes(Size),
}

struct Sizes<'a> {
    /// Name → index of the definition.
    fragments: BTreeMap<&'a str, usize>,
    definitions: Vec<Definition<'a>>,
    known: Vec<Known>,
}

impl<'a> Sizes<'a> {
    /// Returns how large a definition is with all that it spreads; `level` spreads led here.
    fn size(&mut self, index: usize, level: usize) -> Result<Size, (Problem, &'a Item<'a>)> {
        if let Some(Known::Yes(size)) = self.known.get(index) {
            return Ok(*size);
        }
        let Some(definition) = self.definitions.get_mut(index) else {
            return Ok(Size::default());
        };
        let mut size = definition.own;
        let last = definition.last;
        let spreads = std::mem::take(&mut definition.spreads);
        if let Some(known) = self.known.get_mut(index) {
            *known = Known::Soon;
        }
        for item in spreads {
            let What::Spread(name) = item.what else {
                continue;
            };
            let index = *self.fragments.get(name).ok_or((Problem::UnknownFragment, item))?;
            if let Some(Known::Soon) = self.known.get(index) {
                return Err((Problem::Cycle, item));
            }
            if level >= MAX_DEPTH {
                return Err((Problem::TooDeep, item));
            }
            let inner = self.size(index, level + 1)?;
            // What is spread stands where the spread stands.
            size.depth = size.depth.max(item.depth - 1 + inner.depth);
            size.fields = size.fields.saturating_add(inner.fields);
        }
        if let Some(last) = last {
            if size.depth > MAX_DEPTH {
                return Err((Problem::TooDeep, last));
            }
            if size.fields > MAX_FIELDS {
                return Err((Problem::TooManyFields, last));
            }
        }
        if let Some(known) = self.known.get_mut(index) {
            *known = Known::Yes(size);
        }
        Ok(size)
    }
}
