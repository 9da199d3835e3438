//! Which connections have a place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::client_address::network_of;

/// Gives places to connections.
#[derive(Clone, Debug)]
pub(crate) struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    bounds: Bounds,
    /// Proxies that stand for many clients.
    trusted: Arc<[IpNet]>,
    /// Whether it was said that a client has all its places.
    has_warned: AtomicBool,
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Of one client.
    pub(crate) per_client: usize,
    /// Of all clients.
    pub(crate) public: usize,
    /// Of filters.
    pub(crate) filters: usize,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    entries: HashMap<u64, Entry>,
    by_client: HashMap<IpAddr, usize>,
    filters: usize,
}

#[derive(Debug)]
struct Entry {
    whose: Whose,
    /// Requests that are being answered.
    busy: usize,
    /// Since when some are.
    busy_since: Instant,
    /// Since when none is.
    quiet_since: Instant,
    /// Whether requests come side by side: then not all that comes is a part of one.
    has_streams: bool,
    /// Since when one has begun to come that is not there yet; at first, since the beginning.
    coming_since: Option<Instant>,
    taken: Arc<Notify>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// A client's, by its address; of IPv6, the first one of its network.
    Client(IpAddr),
    /// A filter's.
    Filter,
    /// A trusted proxy's.
    Proxy,
}

/// The place of a connection; it is free again when the last handle is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Place(Arc<Seat>);

#[derive(Debug)]
struct Seat {
    id: u64,
    taken: Arc<Notify>,
    shared: Arc<Shared>,
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Work<'a>(&'a Seat);

impl Admission {
    /// Starts with what may be.
    pub(crate) fn new(bounds: Bounds, trusted: Arc<[IpNet]>) -> Self {
        let (table, has_warned) = (Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Shared { table, bounds, trusted, has_warned }))
    }

    /// Returns a place for a connection from an address, that of the most silent one if need be; none if
    /// all are busy.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<Place> {
        let shared = &self.0;
        let address = address.to_canonical();
        let is_proxy = shared.trusted.iter().any(|network| network.contains(&address));
        let whose = if is_proxy { Whose::Proxy } else { Whose::Client(network_of(address)) };
        let mut table = shared.table();
        if let Whose::Client(client) = whose
            && table.by_client.get(&client).is_some_and(|count| *count >= shared.bounds.per_client)
        {
            if !shared.has_warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    %address,
                    connections = shared.bounds.per_client,
                    "a client has as many connections as one may; its silent ones are closed"
                );
            }
            table.make_room(|entry| entry.whose == whose)?;
        }
        if table.entries.len() - table.filters >= shared.bounds.public {
            table
                .make_room(|entry| matches!(entry.whose, Whose::Client(_)))
                .or_else(|| table.make_room(|entry| entry.whose == Whose::Proxy))?;
        }
        let taken = Arc::new(Notify::new());
        let id = table.add(whose, Arc::clone(&taken));
        Some(Place(Arc::new(Seat { id, taken, shared: Arc::clone(shared) })))
    }
}

impl Bounds {
    /// Returns what there may be where a process may have so many descriptors.
    pub(crate) fn of_descriptors(descriptors: u64) -> Self {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX).min(MAX_DESCRIPTORS);
        let connections = descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(MIN_CONNECTIONS);
        let public = connections / 2;
        Self { per_client: PER_CLIENT.min(public / 4), public, filters: connections - public }
    }
}

impl Place {
    /// Takes note that the other side has shown a filter's token.
    pub(crate) fn is_of_filter(&self) {
        let mut table = self.0.shared.table();
        if table.filters < self.0.shared.bounds.filters {
            table.change_owner(self.0.id, Whose::Filter);
        }
    }

    /// Takes note that a request is being answered, until the handle is dropped.
    pub(super) fn work(&self) -> Work<'_> {
        if let Some(entry) = self.0.shared.table().entries.get_mut(&self.0.id) {
            if entry.busy == 0 {
                entry.busy_since = Instant::now();
            }
            entry.busy += 1;
            entry.coming_since = None;
        }
        Work(&self.0)
    }

    /// Takes note that something came from the other side.
    pub(super) fn hears(&self) {
        if let Some(entry) = self.0.shared.table().entries.get_mut(&self.0.id)
            && entry.busy == 0
        {
            if entry.has_streams {
                entry.quiet_since = Instant::now();
            } else {
                entry.coming_since.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Takes note that requests come side by side (HTTP/2).
    pub(super) fn has_streams(&self) {
        if let Some(entry) = self.0.shared.table().entries.get_mut(&self.0.id) {
            entry.has_streams = true;
        }
    }

    /// Reports whether no request is being answered.
    pub(super) fn is_quiet(&self) -> bool {
        self.0.shared.table().entries.get(&self.0.id).is_none_or(|entry| entry.busy == 0)
    }

    /// Waits until the place is another one's.
    pub(super) async fn is_taken(&self) {
        self.0.taken.notified().await;
    }

    /// Returns when the connection is closed unless something happens.
    pub(super) fn closes_at(&self) -> Instant {
        match self.0.shared.table().entries.get(&self.0.id) {
            Some(entry) if entry.busy > 0 => Instant::now() + HEADER_TIME,
            Some(entry) => entry.ends_at(),
            None => Instant::now(),
        }
    }

    /// Reports whether it was silent for too long.
    pub(super) fn is_over(&self) -> bool {
        match self.0.shared.table().entries.get(&self.0.id) {
            Some(entry) => entry.busy == 0 && entry.ends_at() <= Instant::now(),
            None => true,
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn add(&mut self, whose: Whose, taken: Arc<Notify>) -> u64 {
        let id = self.next;
        self.next += 1;
        let quiet_since = Instant::now();
        let coming_since = Some(quiet_since);
        let entry = Entry {
            whose,
            busy: 0,
            busy_since: quiet_since,
            quiet_since,
            has_streams: false,
            coming_since,
            taken,
        };
        self.entries.insert(id, entry);
        self.count(whose);
        id
    }

    fn remove(&mut self, id: u64) {
        if let Some(entry) = self.entries.remove(&id) {
            self.discount(entry.whose);
        }
    }

    fn change_owner(&mut self, id: u64, whose: Whose) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut entry.whose, whose);
        self.discount(before);
        self.count(whose);
    }

    /// Closes the connection, of some, that has been silent for longest, else the one that has been busy for
    /// longest, as one is whose request does not come to its end; none if all are busy since just now.
    fn make_room(&mut self, of: impl Fn(&Entry) -> bool) -> Option<()> {
        let all = || self.entries.iter().filter(|(_, entry)| of(entry));
        let silent = all().filter(|(_, entry)| entry.busy == 0);
        let busy = all().filter(|(_, entry)| entry.busy_since.elapsed() >= BUSY_TIME);
        let most_silent = silent.min_by_key(|(_, entry)| entry.quiet_since);
        let (&id, entry) =
            most_silent.or_else(|| busy.min_by_key(|(_, entry)| entry.busy_since))?;
        entry.taken.notify_one();
        self.remove(id);
        Some(())
    }

    fn count(&mut self, whose: Whose) {
        match whose {
            Whose::Client(client) => *self.by_client.entry(client).or_default() += 1,
            Whose::Filter => self.filters += 1,
            Whose::Proxy => {}
        }
    }

    fn discount(&mut self, whose: Whose) {
        match whose {
            Whose::Client(client) => {
                if let Some(count) = self.by_client.get_mut(&client) {
                    *count -= 1;
                    if *count == 0 {
                        self.by_client.remove(&client);
                    }
                }
            }
            Whose::Filter => self.filters -= 1,
            Whose::Proxy => {}
        }
    }
}

impl Entry {
    /// Returns when it was silent, or said no whole request, for too long.
    fn ends_at(&self) -> Instant {
        match (self.whose, self.coming_since) {
            (Whose::Filter, _) => self.quiet_since + FILTER_TIME,
            (Whose::Client(_) | Whose::Proxy, None) => self.quiet_since + IDLE_TIME,
            (Whose::Client(_) | Whose::Proxy, Some(since)) => since + HEADER_TIME,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.table().remove(self.id);
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.0.shared.table().entries.get_mut(&self.0.id) {
            entry.busy = entry.busy.saturating_sub(1);
            entry.quiet_since = Instant::now();
        }
    }
}

/// Time in which all headers of a request have to be there.
const HEADER_TIME: Duration = Duration::from_secs(30);

/// Longest silence after a request: longer than people need to read a page.
const IDLE_TIME: Duration = Duration::from_secs(75);

/// Longest silence of a filter: its calls come when there is something to say.
const FILTER_TIME: Duration = Duration::from_secs(900);

/// Connections of one client: many times a browser's, and what a busy program has.
const PER_CLIENT: usize = 200;

/// Time after which a request may be cut where others have no room: all but polls take less.
const BUSY_TIME: Duration = Duration::from_secs(2);

/// Descriptors for the store and for what the service itself opens.
const RESERVED_DESCRIPTORS: usize = 128;

/// Fewest connections, however few descriptors there are.
const MIN_CONNECTIONS: usize = 32;

/// Descriptors beyond which more are of no use: each connection costs memory, too.
const MAX_DESCRIPTORS: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { per_client: 3, public: 5, filters: 2 };

    fn admission() -> Admission {
        Admission::new(BOUNDS, Arc::from(["10.0.0.0/8".parse().unwrap()]))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn has_place(place: &Place) -> bool {
        place.0.shared.table().entries.contains_key(&place.0.id)
    }

    #[tokio::test(start_paused = true)]
    async fn new_connection_takes_the_place_of_the_most_silent_one() {
        let admission = admission();
        let mut places = Vec::new();
        for _ in 0..4 {
            places.push(admission.admit(ip("192.0.2.1")).unwrap());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(places.iter().map(has_place).collect::<Vec<_>>(), [false, true, true, true]);
        places[0].is_taken().await;
        assert!(places[0].is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn busy_connections_keep_their_places() {
        let admission = admission();
        let places: Vec<Place> =
            (0..3).map(|_| admission.admit(ip("2001:db8::1")).unwrap()).collect();
        let work: Vec<Work<'_>> = places.iter().map(Place::work).collect();
        assert!(admission.admit(ip("2001:db8::ffff:2")).is_none(), "one network of 64 bits");
        assert!(admission.admit(ip("2001:db8:0:1::1")).is_some());
        drop(work);
        assert!(admission.admit(ip("2001:db8::3")).is_some());
        assert_eq!(places.iter().filter(|place| has_place(place)).count(), 2);
        let _work: Vec<Work<'_>> = places.iter().map(Place::work).collect();
        tokio::time::advance(BUSY_TIME).await;
        assert!(admission.admit(ip("2001:db8::4")).is_some(), "requests that do not end make room");
    }

    #[tokio::test(start_paused = true)]
    async fn all_clients_together_leave_room_for_filters_and_proxies() {
        let admission = admission();
        let filter = admission.admit(ip("::ffff:192.0.2.1")).unwrap();
        filter.is_of_filter();
        let proxies: Vec<Place> =
            (0..4).map(|_| admission.admit(ip("10.0.0.1")).unwrap()).collect();
        tokio::time::advance(Duration::from_secs(1)).await;
        let clients: Vec<Place> = (0..9)
            .map(|index| admission.admit(ip(&format!("198.51.100.{index}"))).unwrap())
            .collect();
        assert_eq!(clients.iter().filter(|place| has_place(place)).count(), 1);
        assert!(has_place(&filter) && proxies.iter().all(has_place));
        drop(clients);
        assert_eq!(admission.0.table().entries.len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection() {
        let admission = admission();
        let [fresh, used, filter] =
            [1, 2, 3].map(|index| admission.admit(ip(&format!("192.0.2.{index}"))).unwrap());
        drop(used.work());
        filter.is_of_filter();
        let busy = admission.admit(ip("192.0.2.4")).unwrap();
        let _work = busy.work();
        let over = || [&fresh, &used, &filter, &busy].map(Place::is_over);
        assert_eq!(over(), [false, false, false, false]);
        tokio::time::advance(HEADER_TIME).await;
        assert_eq!(over(), [true, false, false, false]);
        tokio::time::advance(IDLE_TIME).await;
        assert_eq!(over(), [true, true, false, false]);
        let half = admission.admit(ip("192.0.2.5")).unwrap();
        drop(half.work());
        half.hears();
        tokio::time::advance(HEADER_TIME).await;
        assert!(half.is_over(), "half of another request");
        tokio::time::advance(FILTER_TIME).await;
        assert_eq!(over(), [true, true, true, false]);
    }

    #[test]
    fn few_descriptors_are_shared() {
        let shares = |descriptors: u64| {
            let Bounds { per_client, public, filters } = Bounds::of_descriptors(descriptors);
            (per_client, public, filters)
        };
        assert_eq!(shares(1_024), (112, 448, 448));
        assert_eq!(shares(256), (16, 64, 64));
        assert_eq!(shares(10), (4, 16, 16));
        assert_eq!(shares(u64::MAX), (200, 8_128, 8_128));
    }
}
