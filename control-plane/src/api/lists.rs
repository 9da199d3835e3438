//! Lists, a page at a time.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::non_empty;
use super::fields::Fields;
use crate::error::ApiError;
use crate::store::Page;

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct List<T> {
    pub(crate) items: Vec<T>,
    /// What to pass as `after` for the items that follow; null at the end.
    pub(crate) next: Option<String>,
}

/// Which part of a list.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParameters {
    /// Most items of an answer, 1 to 1000.
    #[param(value_type = Option<usize>, default = 100, minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "non_empty")]
    limit: Option<String>,
    /// `next` of the part before.
    #[serde(default, deserialize_with = "non_empty")]
    after: Option<String>,
}

impl ListParameters {
    pub(crate) fn page(self) -> Result<Page, ApiError> {
        let Some(text) = self.limit else {
            return Ok(Page { after: self.after, limit: DEFAULT_ITEMS });
        };
        match text.parse() {
            Ok(limit) if (1..=MAX_ITEMS).contains(&limit) => Ok(Page { after: self.after, limit }),
            Ok(_) | Err(_) => {
                let message = format!("expected 1 to {MAX_ITEMS}, found `{text}`");
                Err(ApiError::field("limit", message))
            }
        }
    }
}

/// Checks that a cursor can be the id that it has to be; what it names may be gone by now.
///
/// # Errors
///
/// That it cannot.
pub(super) fn check_id(page: &Page) -> Result<(), ApiError> {
    let Some(after) = &page.after else {
        return Ok(());
    };
    let mut fields = Fields::default();
    fields.id("after", after);
    fields.finish().map_err(|_| unknown_cursor(after))
}

/// Returns the error that a cursor is none.
pub(super) fn unknown_cursor(after: &str) -> ApiError {
    ApiError::field("after", format!("expected `next` of the part before, found `{after}`"))
}

impl<T> List<T> {
    /// Returns the items that were asked for, of one more that tells whether there are others.
    pub(crate) fn cut(mut items: Vec<T>, page: &Page, cursor: impl Fn(&T) -> String) -> Self {
        let more = items.len() > page.limit;
        items.truncate(page.limit);
        let next = if more { items.last().map(cursor) } else { None };
        Self { items, next }
    }
}

/// Most items of one answer: a few hundred kilobytes of keys.
const MAX_ITEMS: usize = 1000;

/// Items of an answer where nothing is said.
const DEFAULT_ITEMS: usize = 100;
