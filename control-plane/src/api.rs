//! The management API: `/api/v1/…`, for operators and their tools.

pub(crate) mod accounts;
pub(crate) mod audit;
pub(crate) mod corrections;
pub(crate) mod document;
pub(crate) mod explain;
pub(crate) mod extract;
pub(crate) mod fields;
pub(crate) mod keys;
pub(crate) mod links;
pub(crate) mod lists;
pub(crate) mod once;
pub(crate) mod plans;
pub(crate) mod proxies;
pub(crate) mod records;
pub(crate) mod resources;
pub(crate) mod usage;
