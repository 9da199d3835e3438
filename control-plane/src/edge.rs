//! What filters call: `/edge/v1/…`, with a credential of their own.

pub(crate) mod updates;
