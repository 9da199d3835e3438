//! The room for requests that wait in a VM, and who may take how much of it.
//!
//! A VM's memory is never given back, and whoever waits keeps headers and bodies in it: so the room is
//! bounded in bytes and in requests. No account has more than an eighth of it, and clients without a
//! token together a quarter: a crowd of theirs leaves everyone else room to wait.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// A room; its clones are the same one.
#[derive(Clone, Debug)]
pub struct Room(Rc<RefCell<Taken>>);

/// Whose request waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guest {
    /// One with a key of this account.
    Account(Arc<str>),
    /// A client without a token.
    Address,
    /// That is not known yet.
    Unknown,
}

/// A place in a room; it is free again when this is dropped.
#[derive(Debug)]
pub struct Seat {
    room: Room,
    guest: Guest,
    bytes: usize,
}

/// What is taken of a room.
#[derive(Debug)]
struct Taken {
    most: Share,
    all: Share,
    addresses: Share,
    accounts: BTreeMap<Arc<str>, Share>,
}

/// So many requests with so many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    requests: usize,
    bytes: usize,
}

impl Room {
    /// Returns an empty room for so many requests and bytes.
    #[must_use]
    pub fn new(requests: usize, bytes: usize) -> Self {
        Self(Rc::new(RefCell::new(Taken {
            most: Share { requests, bytes },
            all: Share::default(),
            addresses: Share::default(),
            accounts: BTreeMap::new(),
        })))
    }

    /// Takes a place for a request of so many bytes; none if its guest's share or the room is full.
    #[must_use]
    pub fn take(&self, guest: Guest, bytes: usize) -> Option<Seat> {
        let taken = &mut *self.0.borrow_mut();
        let (share, part) = match &guest {
            Guest::Account(account) => {
                (taken.accounts.get(account).copied().unwrap_or_default(), ACCOUNT_PART)
            }
            Guest::Address => (taken.addresses, ADDRESSES_PART),
            Guest::Unknown => (taken.all, 1),
        };
        let fits = share.and(bytes).fits(taken.most, part);
        if !fits || !taken.all.and(bytes).fits(taken.most, 1) {
            return None;
        }
        taken.all = taken.all.and(bytes);
        match &guest {
            Guest::Account(account) => {
                taken.accounts.insert(Arc::clone(account), share.and(bytes));
            }
            Guest::Address => taken.addresses = share.and(bytes),
            Guest::Unknown => {}
        }
        Some(Seat { room: self.clone(), guest, bytes })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let taken = &mut *self.room.0.borrow_mut();
        taken.all = taken.all.without(self.bytes);
        match &self.guest {
            Guest::Account(account) => {
                let share = taken.accounts.get(account).copied().unwrap_or_default();
                match share.without(self.bytes) {
                    Share { requests: 0, .. } => taken.accounts.remove(account),
                    share => taken.accounts.insert(Arc::clone(account), share),
                };
            }
            Guest::Address => taken.addresses = taken.addresses.without(self.bytes),
            Guest::Unknown => {}
        }
    }
}

impl Share {
    /// Returns it with one more request.
    fn and(self, bytes: usize) -> Self {
        Self { requests: self.requests.saturating_add(1), bytes: self.bytes.saturating_add(bytes) }
    }

    /// Returns it with one request less.
    fn without(self, bytes: usize) -> Self {
        Self { requests: self.requests.saturating_sub(1), bytes: self.bytes.saturating_sub(bytes) }
    }

    /// Reports whether it is no more than one of so many parts of the whole.
    fn fits(self, whole: Self, parts: usize) -> bool {
        self.requests <= whole.requests / parts && self.bytes <= whole.bytes / parts
    }
}

/// Of how many parts of the room an account has one.
const ACCOUNT_PART: usize = 8;

/// Of how many parts of the room clients without a token have one, all together.
const ADDRESSES_PART: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> Guest {
        Guest::Account(name.into())
    }

    /// Takes places until there is none; returns them.
    fn fill(room: &Room, guest: &Guest, bytes: usize) -> Vec<Seat> {
        std::iter::from_fn(|| room.take(guest.clone(), bytes)).collect()
    }

    /// Addresses used to fill the room of accounts.
    #[test]
    fn nobody_takes_the_room_of_others() {
        for (requests, bytes, each) in [(800, usize::MAX, 0), (usize::MAX, 8_000, 10)] {
            let room = Room::new(requests, bytes);
            let addresses = fill(&room, &Guest::Address, each);
            assert_eq!(addresses.len(), 200);
            let one = fill(&room, &account("one"), each);
            assert_eq!(one.len(), 100);
            assert_eq!(fill(&room, &account("two"), each).len(), 100, "given back at once");
            let unknown = fill(&room, &Guest::Unknown, each);
            assert_eq!(unknown.len(), 500, "the rest");
            assert!(room.take(account("two"), each).is_none());
            drop(unknown);
            assert!(room.take(Guest::Address, each).is_none(), "its share stays full");
            drop((addresses, one));
            assert_eq!(fill(&room, &Guest::Address, each).len(), 200);
            assert_eq!(room.0.borrow().all, Share::default());
            assert!(room.0.borrow().accounts.is_empty(), "nothing is kept of who has left");
        }
    }

    #[test]
    fn request_larger_than_its_share_finds_no_room() {
        let room = Room::new(80, 8_000);
        for (guest, bytes, fits) in [
            (account("one"), 1_000, true),
            (account("one"), 1_001, false),
            (Guest::Address, 2_000, true),
            (Guest::Address, 2_001, false),
            (Guest::Unknown, 8_000, true),
            (Guest::Unknown, 8_001, false),
            (Guest::Unknown, usize::MAX, false),
        ] {
            assert_eq!(room.take(guest.clone(), bytes).is_some(), fits, "{guest:?} {bytes}");
        }
    }
}
