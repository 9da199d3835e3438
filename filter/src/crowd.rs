//! The room for requests that wait in a VM, and who may take how much of it.
//!
//! A VM's memory is never given back, and whoever waits keeps headers and bodies in it: so the room is
//! bounded in bytes and in requests. No account has more than an eighth of it, clients without a token
//! together a quarter, and before the first keys are there nobody of whom only the address is known: a
//! crowd leaves everyone else room to wait.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

/// A room; its clones are the same one.
#[derive(Clone, Debug)]
pub struct Room(Rc<RefCell<Taken>>);

/// Whose request waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guest {
    /// One with a key of this account.
    Account(Arc<str>),
    /// A client without a token; all of them share.
    Address,
    /// One of this network, of which more is not known yet.
    Stranger(IpAddr),
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
    shares: BTreeMap<Guest, Share>,
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
            shares: BTreeMap::new(),
        })))
    }

    /// Takes a place for a request of so many bytes; none if its guest's share or the room is full.
    #[must_use]
    pub fn take(&self, guest: Guest, bytes: usize) -> Option<Seat> {
        let taken = &mut *self.0.borrow_mut();
        let share = taken.shares.get(&guest).copied().unwrap_or_default().and(bytes);
        let all = taken.all.and(bytes);
        if !share.fits(taken.most, guest.parts()) || !all.fits(taken.most, 1) {
            return None;
        }
        taken.all = all;
        taken.shares.insert(guest.clone(), share);
        Some(Seat { room: self.clone(), guest, bytes })
    }
}

impl Guest {
    /// Returns of how many parts of a room it may have one.
    fn parts(&self) -> usize {
        match self {
            Self::Account(_) => 8,
            Self::Address | Self::Stranger(_) => 4,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let taken = &mut *self.room.0.borrow_mut();
        taken.all = taken.all.without(self.bytes);
        let share = taken.shares.get(&self.guest).copied().unwrap_or_default();
        match share.without(self.bytes) {
            Share { requests: 0, .. } => taken.shares.remove(&self.guest),
            share => taken.shares.insert(self.guest.clone(), share),
        };
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
            let stranger = |index: u8| Guest::Stranger([192, 0, 2, index].into());
            let one_network = fill(&room, &stranger(1), each);
            assert_eq!(one_network.len(), 200);
            let others = [fill(&room, &stranger(2), each), fill(&room, &stranger(3), each)];
            assert_eq!(others.each_ref().map(Vec::len), [200, 100], "the room is full");
            assert!(room.take(account("two"), each).is_none());
            drop((one_network, others));
            assert!(room.take(Guest::Address, each).is_none(), "its share stays full");
            drop((addresses, one));
            assert_eq!(fill(&room, &Guest::Address, each).len(), 200);
            assert_eq!(room.0.borrow().all, Share::default());
            assert!(room.0.borrow().shares.is_empty(), "nothing is kept of who has left");
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
            (Guest::Stranger([192, 0, 2, 1].into()), 2_000, true),
            (Guest::Stranger([192, 0, 2, 1].into()), 2_001, false),
            (Guest::Address, usize::MAX, false),
        ] {
            assert_eq!(room.take(guest.clone(), bytes).is_some(), fits, "{guest:?} {bytes}");
        }
    }
}
