//! Stage: charging the call to what limits it.
//!
//! Nothing is charged for a request that is refused, and a call is charged to all limits or to none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;

use latchkey_protocol::{Identity, Limit, Subject};

use super::{Judgement, Rejection, Request};
use crate::config::WhenUnreachable;
use crate::leases::{Charged, Due, Leases, LimitReached, Moment};
use crate::profile::Profile;
use crate::replica::{KeyRecord, Replica};

/// Whether a request is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    /// It is; the judgement says how.
    Done,
    /// It is permitted without a lease: the control plane is away, and the operator allows it.
    OnCredit,
    /// It has to wait for a lease; nothing has been charged.
    Waits,
}

/// Returns what a call with a key is charged to.
pub(super) fn dues_of_key(key: &KeyRecord) -> Vec<Due> {
    let mut dues = Vec::new();
    let mut add = |subject: Subject, limits: Rc<[Limit]>| {
        if !limits.is_empty() {
            dues.push(Due { subject, limits });
        }
    };
    let account = &key.account.id;
    let limits = key.account.limits();
    let everyone = Subject::Account { account: Arc::clone(account), identity: None };
    add(everyone, Rc::clone(&limits.every_call));
    let identity = Some(Identity::Key);
    add(Subject::Account { account: Arc::clone(account), identity }, Rc::clone(&limits.with_key));
    if let Some(own) = &key.limits {
        let key = Arc::clone(&key.id);
        add(Subject::Key { account: Arc::clone(account), key }, Rc::clone(own));
    }
    dues
}

/// Returns what a call without a token is charged to.
///
/// # Errors
///
/// [`Rejection::NotReady`] if that is not known yet.
pub(super) fn dues_of_anonymous(
    profile: &Profile,
    replica: Option<&Replica>,
    request: &Request<'_>,
) -> Result<Vec<Due>, Rejection> {
    let limits = match replica {
        Some(replica) => replica.anonymous_limits(),
        None if profile.limits_anonymous() => return Err(Rejection::NotReady),
        None => return Ok(Vec::new()),
    };
    if limits.is_empty() {
        return Ok(Vec::new());
    }
    let address = network((request.client_address)());
    let subject = Subject::Address { profile: profile.name.as_str().into(), address };
    Ok(vec![Due { subject, limits }])
}

/// Returns the address by which a client is counted: of IPv6 the first one of its network of 64 bits,
/// all of which one client has. All whose address is not known are counted as one.
#[must_use]
pub fn network(address: Option<IpAddr>) -> IpAddr {
    match address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// Charges a permitted request, or refuses it where a limit is used up.
pub fn charge(
    leases: &mut Leases,
    judgement: &mut Judgement<'_>,
    now: Moment,
    may_wait: bool,
    when_unreachable: WhenUnreachable,
) -> Charge {
    if judgement.outcome.is_err() {
        return Charge::Done;
    }
    let mut done = Charge::Done;
    if let Some(preflight) = judgement.preflight
        && let Some(retry_after_seconds) = leases.count_preflight(preflight, now)
    {
        judgement.outcome = Err(Rejection::TooManyPreflights { retry_after_seconds });
    }
    if !judgement.dues.is_empty() {
        let waits = may_wait && leases.may_wait(now);
        match leases.charge(&judgement.dues, now, waits) {
            Charged::Admitted => {}
            Charged::Refused(reached) => judgement.outcome = Err(rejection(reached)),
            Charged::NoLease if waits => return Charge::Waits,
            Charged::NoLease => {
                match (leases.known_refusal(&judgement.dues, now), when_unreachable) {
                    (Some(reached), _) => judgement.outcome = Err(rejection(reached)),
                    // It answers, but not all that wait: that is no reason to exceed a limit.
                    (None, _) if leases.may_wait(now) => {
                        judgement.outcome = Err(Rejection::NoRoom);
                    }
                    (None, WhenUnreachable::Allow)
                        if leases.charge_on_credit(&judgement.dues, now) =>
                    {
                        done = Charge::OnCredit;
                    }
                    (None, WhenUnreachable::Allow | WhenUnreachable::Deny) => {
                        judgement.outcome = Err(Rejection::Unreachable);
                    }
                }
            }
        }
    }
    if let (Ok(_), Some(holder)) = (&judgement.outcome, &judgement.holder) {
        leases.note_use(holder, &judgement.exercised, now);
    }
    done
}

fn rejection(reached: LimitReached) -> Rejection {
    Rejection::LimitReached {
        limit: reached.limit,
        // Whole seconds, rounded up: never too early (RFC 9110, section 10.2.3).
        retry_after_seconds: reached.available_in_ms.map(|ms| ms.div_ceil(1000).max(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_counted_by_network() {
        for (address, counted) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            let network = network(address.parse().ok());
            assert_eq!(network, counted.parse::<IpAddr>().unwrap(), "{address}");
        }
    }
}
