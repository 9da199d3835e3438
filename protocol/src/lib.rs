//! What Latchkey's two planes say to each other: the types of the wire, with no I/O.
//!
//! The [`token`] a client sends is known on the wire only by its [`KeyHash`]. A control plane
//! answers each poll ([`poll`]) with an [`Update`]: a complete snapshot in pages, or a delta from
//! the [`Revision`] that the filter holds. What may be used is said by a [`Limit`] over a [`Window`],
//! and handed out in leases ([`lease`]).
//!
//! # Compatibility
//!
//! Messages are append-only: a field is never renamed or given another meaning, a new field has a
//! default, and a reader ignores fields that it does not know. So a filter and a control plane one
//! release apart understand each other in both directions, from the first release on.

pub mod lease;
pub mod limit;
pub mod poll;
pub mod resource;
pub mod revision;
pub mod right;
pub mod token;
pub mod update;
pub mod window;

pub use lease::Subject;
pub use limit::{Identity, Limit};
pub use resource::{Relation, Resource};
pub use revision::Revision;
pub use right::{Right, RightSet, Rule};
pub use token::{KeyHash, PlainToken, TokenFormat};
pub use update::{AccountResources, KeyKind, Recall, TokenColumns, Update};
pub use window::Window;
