//! The places of a listener: how many connections it holds, in all and of one address, and who goes when they are full.
//!
//! A client that did nothing yet goes before one that is at a request's head, that before one that is between two
//! requests, and the oldest goes first. A connection in a request stays. So a caller that sends what it came for finds a
//! place, however many sockets others hold open.

use super::activity::{Activity, Phase};
use crate::metrics::CONNECTIONS_ENDED;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Until the next search for somebody who can go, while all are in requests.
const SEARCH_INTERVAL: Duration = Duration::from_millis(100);

/// One search makes this share of the places free, so that a flood does not cost a search for each connection.
const FREED_SHARE: usize = 64;

/// The places of one listener. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    free: Arc<Semaphore>,
    max: usize,
    per_address_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    by_id: HashMap<u64, Holder>,
    by_address: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Holder {
    /// `None` when it was asked to go and no longer counts.
    address: Option<IpAddr>,
    activity: Arc<Activity>,
    end: CancellationToken,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    places: Places,
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

impl Places {
    pub(super) fn new(max: usize, per_address_max: usize) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        let free = Arc::new(Semaphore::new(max));
        Self(Arc::new(Inner { free, max, per_address_max: per_address_max.max(1), taken: Mutex::default() }))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from `address`, which ends when `end` fires. Waits while all places are of connections
    /// in requests; `None` if the address has its share and all of it is in requests. `shared` are the places of all
    /// listeners together.
    pub(super) async fn take(
        &self,
        address: IpAddr,
        activity: &Arc<Activity>,
        end: &CancellationToken,
        shared: Option<&Arc<Semaphore>>,
    ) -> Option<Place> {
        let address = household(address);
        if self.of_address(address) >= self.0.per_address_max && !self.make_room_for(address) {
            CONNECTIONS_ENDED.inc(&["address"]);
            return None;
        }
        let own = self.permit(&self.0.free).await;
        let shared = match shared {
            Some(shared) => Some(self.permit(shared).await),
            None => None,
        };
        let mut taken = self.taken();
        let id = taken.next;
        taken.next += 1;
        *taken.by_address.entry(address).or_default() += 1;
        taken.by_id.insert(id, Holder { address: Some(address), activity: activity.clone(), end: end.clone() });
        drop(taken);
        Some(Place { id, places: self.clone(), _permits: (own, shared) })
    }

    async fn permit(&self, free: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        loop {
            if let Ok(permit) = free.clone().try_acquire_owned() {
                return permit;
            }
            self.end((self.0.max / FREED_SHARE).max(1), None);
            if let Ok(permit) = timeout(SEARCH_INTERVAL, free.clone().acquire_owned()).await {
                return permit.expect("the semaphore is never closed");
            }
        }
    }

    fn of_address(&self, address: IpAddr) -> usize {
        self.taken().by_address.get(&address).copied().unwrap_or_default()
    }

    /// Ends connections of this address that are in no request, so that it has the place of one.
    fn make_room_for(&self, address: IpAddr) -> bool {
        self.end((self.0.per_address_max / FREED_SHARE).max(1), Some(address)) > 0
    }

    /// Ends up to `count` connections that are in no request, and gives their number.
    fn end(&self, count: usize, of: Option<IpAddr>) -> usize {
        let mut taken = self.taken();
        let waiting = taken.by_id.iter().filter(|(_, holder)| {
            // Those that were ended already are on their way out.
            !holder.end.is_cancelled() && of.is_none_or(|address| holder.address == Some(address))
        });
        let waiting =
            waiting.filter_map(|(id, holder)| holder.activity.waiting().map(|(phase, since)| (phase, since, *id)));
        let gone = first_to_go(waiting.collect(), count);
        for id in &gone {
            let Some(holder) = taken.by_id.get_mut(id) else { continue };
            holder.end.cancel();
            // Counted as gone now: the one that it makes room for may come in before it has gone.
            if let Some(address) = holder.address.take() {
                release(&mut taken.by_address, address);
            }
        }
        drop(taken);
        CONNECTIONS_ENDED.add(&[if of.is_some() { "address" } else { "full" }], gone.len() as u64);
        gone.len()
    }
}

fn release(by_address: &mut HashMap<IpAddr, usize>, address: IpAddr) {
    if let Some(count) = by_address.get_mut(&address) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            by_address.remove(&address);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(address) = taken.by_id.remove(&self.id).and_then(|holder| holder.address) {
            release(&mut taken.by_address, address);
        }
    }
}

/// The `count` that go first.
fn first_to_go(mut waiting: Vec<(Phase, u64, u64)>, count: usize) -> Vec<u64> {
    let count = count.min(waiting.len());
    if count == 0 {
        return Vec::new();
    }
    waiting.select_nth_unstable(count - 1);
    waiting.truncate(count);
    waiting.into_iter().map(|(_, _, id)| id).collect()
}

/// What has one bound: an address of IPv4, a network of IPv6 as a house gets it.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn who_did_nothing_goes_first_and_the_oldest_of_them() {
        let waiting = vec![
            (Phase::Between, 1, 1),
            (Phase::Silent, 9, 2),
            (Phase::Head, 2, 3),
            (Phase::Silent, 3, 4),
            (Phase::Between, 0, 5),
        ];
        let first = |count| {
            let mut gone = first_to_go(waiting.clone(), count);
            gone.sort_unstable();
            gone
        };
        assert_eq!(first(1), [4]);
        assert_eq!(first(3), [2, 3, 4]);
        assert_eq!(first(4), [2, 3, 4, 5]);
        assert_eq!(first(9), [1, 2, 3, 4, 5]);
        assert!(first_to_go(Vec::new(), 3).is_empty());
    }

    #[test]
    fn a_house_has_one_network() {
        let of = |text: &str| household(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!((of("::ffff:10.0.0.1"), of("10.0.0.2")), ("10.0.0.1".to_owned(), "10.0.0.2".to_owned()));
    }

    #[tokio::test]
    async fn a_full_listener_has_a_place_for_a_new_caller_but_not_for_one_in_a_requests_stead() {
        let places = Places::new(2, 2);
        let take = async |last: u8| {
            let (activity, end) = (Activity::new(false), CancellationToken::new());
            let place = timeout(Duration::from_millis(300), places.take(address(last), &activity, &end, None)).await;
            (place, activity, end)
        };
        let (first, _, first_end) = take(1).await;
        let (second, activity, second_end) = take(2).await;
        let request = activity.request(false);
        // The first is asked to go; until it has gone there is no place.
        let (third, _, _) = take(3).await;
        assert!(third.is_err() && first_end.is_cancelled() && !second_end.is_cancelled());
        drop(first);
        let (third, activity, _) = take(3).await;
        assert!(third.is_ok());
        let _other = activity.request(false);
        // All are in requests: none has to go.
        assert!(take(4).await.0.is_err() && !second_end.is_cancelled());
        drop(request);
        drop(second);
        assert!(take(4).await.0.is_ok());
    }

    #[tokio::test]
    async fn an_address_has_its_share_and_makes_room_out_of_it() {
        let places = Places::new(10, 2);
        let take = async |last: u8| {
            let (activity, end) = (Activity::new(false), CancellationToken::new());
            (places.take(address(last), &activity, &end, None).await, activity, end)
        };
        let (_one, busy, one_end) = take(1).await;
        let _request = busy.request(false);
        let (two, _, two_end) = take(1).await;
        let (three, activity, _) = take(1).await;
        assert!(three.is_some() && two_end.is_cancelled() && !one_end.is_cancelled());
        let _request = activity.request(false);
        drop(two);
        assert!(take(1).await.0.is_none(), "both are in requests");
        assert!(take(2).await.0.is_some(), "others have their own");
        drop(three);
        assert!(take(1).await.0.is_some());
    }
}
