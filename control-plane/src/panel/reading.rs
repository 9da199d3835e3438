//! Room for forms while they are being read: a body that does not come to its end holds what came of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::client_address::network_of;
use crate::error::ApiError;

/// Room for the forms of a kind of people, in bytes.
#[derive(Debug)]
pub(crate) struct Reading {
    most: usize,
    most_of_client: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    sum: usize,
    by_client: HashMap<Option<IpAddr>, usize>,
}

/// Room for one form, until it is dropped.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    reading: &'a Reading,
    client: Option<IpAddr>,
    bytes: usize,
}

impl Reading {
    /// Returns room of which one client may have a part.
    pub(super) fn new(most: usize, most_of_client: usize) -> Self {
        Self { most, most_of_client, taken: Mutex::default() }
    }

    /// Returns room for a form from an address.
    ///
    /// # Errors
    ///
    /// If there is none at the moment.
    pub(crate) fn enter(
        &self,
        address: Option<IpAddr>,
        bytes: usize,
    ) -> Result<Room<'_>, ApiError> {
        let client = address.map(network_of);
        let mut taken = self.taken();
        let of_client = taken.by_client.get(&client).copied().unwrap_or_default();
        if taken.sum + bytes > self.most || of_client + bytes > self.most_of_client {
            return Err(ApiError::Throttled { retry_after_seconds: 5 });
        }
        taken.sum += bytes;
        taken.by_client.insert(client, of_client + bytes);
        Ok(Room { reading: self, client, bytes })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut taken = self.reading.taken();
        taken.sum -= self.bytes;
        let of_client = taken.by_client.get(&self.client).copied().unwrap_or_default();
        if of_client > self.bytes {
            taken.by_client.insert(self.client, of_client - self.bytes);
        } else {
            taken.by_client.remove(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_takes_the_room_of_others() {
        let reading = Reading::new(10, 4);
        let enter = |address: &str, bytes| reading.enter(Some(address.parse().unwrap()), bytes);
        let first = enter("2001:db8::1", 3).unwrap();
        assert!(enter("2001:db8::2", 2).is_err(), "one network");
        let _second = enter("192.0.2.1", 4).unwrap();
        assert!(enter("192.0.2.2", 4).is_err(), "there is no more");
        let _third = enter("192.0.2.2", 3).unwrap();
        drop(first);
        let _fourth = enter("2001:db8::2", 3).unwrap();
        let taken = reading.taken();
        assert_eq!((taken.sum, taken.by_client.len()), (10, 3));
    }
}
