//! What filters call: `/edge/v1/…`, with a credential of their own.

pub(crate) mod deltas;
pub(crate) mod draft;
pub(crate) mod leases;
pub(crate) mod recalls;
pub(crate) mod snapshots;
pub(crate) mod updates;

#[cfg(test)]
mod tests;
