use std::num::NonZeroU64;

use latchkey_protocol::lease::{Credit, Grant, LeaseOutcome, LeaseReport, LimitState, Refusal};

use super::*;

/// The control plane's time when the local clock is 0.
const EPOCH_MS: u64 = 1_704_067_200_000;

fn at(ms: u64) -> Moment {
    Moment { steady_us: ms * 1000, wall_ms: 5 }
}

fn limit(name: &str, amount: u64) -> Limit {
    Limit {
        name: name.to_owned(),
        amount,
        bucket_seconds: 3600,
        buckets: 1,
        identity: None,
        generation: 0,
    }
}

fn acme() -> Subject {
    Subject::Account { account: "acme".into(), identity: None }
}

fn key() -> Subject {
    Subject::Key { account: "acme".into(), key: "key_1".into() }
}

fn due(subject: Subject, limits: &[Limit]) -> Due {
    Due { subject, limits: Rc::from(limits) }
}

fn dues() -> Vec<Due> {
    vec![due(acme(), &[limit("hourly", 100)])]
}

/// Makes the call that is due.
fn call(leases: &mut Leases, ms: u64) -> LeaseCall {
    serde_json::from_slice(&leases.call(at(ms)).expect("no call is due").body).unwrap()
}

fn answer(leases: &mut Leases, ms: u64, sequence: u64, outcomes: Vec<LeaseOutcome>) {
    let answer = LeaseAnswer { sequence, now_ms: EPOCH_MS + ms, outcomes };
    let attempt = leases.exchange.attempts;
    leases.on_answer(attempt, at(ms), &serde_json::to_vec(&answer).unwrap()).unwrap();
}

fn state(remaining: u64) -> LimitState {
    LimitState { limit: limit("hourly", 100), remaining, resets_at_ms: EPOCH_MS + 3_600_000 }
}

fn grant(lease: u64, amount: u64, begin_ms: u64, end_ms: u64) -> LeaseOutcome {
    LeaseOutcome::Granted(Grant {
        lease,
        amount,
        starts_at_ms: EPOCH_MS + begin_ms,
        expires_at_ms: EPOCH_MS + end_ms,
        limits: vec![state(100 - amount)],
    })
}

fn refusal(again_ms: u64, available_ms: u64, is_contested: bool) -> LeaseOutcome {
    LeaseOutcome::Refused(Refusal {
        ask_again_at_ms: EPOCH_MS + again_ms,
        available_at_ms: Some(EPOCH_MS + available_ms),
        is_contested,
        limits: vec![state(0)],
    })
}

/// Returns leases with one of so many calls for each of what is due.
fn with_lease(dues: &[Due], amount: u64) -> Leases {
    let mut leases = Leases::new("edge", "w");
    assert_eq!(leases.charge(dues, at(0), true), Charged::NoLease);
    let asked = call(&mut leases, 0);
    let granted = (0..asked.requests.len()).map(|index| grant(index as u64 + 1, amount, 1, 3_000));
    answer(&mut leases, 1, 1, granted.collect());
    leases
}

/// Checks a refusal of the hourly limit: never too early, and hardly too late.
fn assert_refused(charged: Charged, available_in_ms: u64) {
    let Charged::Refused(LimitReached { limit: Some(limit), available_in_ms: Some(told) }) =
        charged
    else {
        panic!("{charged:?}");
    };
    assert_eq!(limit.name, "hourly");
    assert!((available_in_ms..=available_in_ms + 20).contains(&told), "{told}");
}

#[test]
fn calls_are_charged_until_the_lease_is_spent() {
    let mut leases = with_lease(&dues(), 3);
    for _ in 0..3 {
        assert_eq!(leases.charge(&dues(), at(2), true), Charged::Admitted);
    }
    assert_eq!(leases.charge(&dues(), at(2), true), Charged::NoLease);
    let next = call(&mut leases, 2);
    assert_eq!(next.reports, [LeaseReport { lease: 1, spent: 3, is_closed: true }]);
    assert_eq!((next.sequence, next.requests[0].waiting, next.requests[0].amount), (2, 1, 5));
}

#[test]
fn call_that_waits_looks_again_only_for_what_it_waits_for() {
    let mut leases = Leases::new("edge", "w");
    let (mine, other) = (dues(), vec![due(key(), &[limit("hourly", 100)])]);
    assert_eq!(leases.charge(&other, at(0), true), Charged::NoLease);
    assert_eq!(call(&mut leases, 0).requests.len(), 1);
    assert_eq!(leases.charge(&mine, at(1), true), Charged::NoLease);
    answer(&mut leases, 2, 1, vec![grant(1, 5, 1, 3_000)]);
    assert!(leases.has_news(&other, at(3), &mut BTreeMap::new()));
    // It waits on, and is counted as before.
    assert!(!leases.has_news(&mine, at(3), &mut BTreeMap::new()));
    let next = call(&mut leases, 3);
    assert_eq!((next.requests.len(), next.requests[0].waiting), (1, 1));
    answer(&mut leases, 4, 2, vec![refusal(3_000, 3_000, false)]);
    assert!(leases.has_news(&mine, at(5), &mut BTreeMap::new()), "a refusal is news as well");
}

#[test]
fn lease_that_is_over_is_given_back_with_the_next_call() {
    let mut leases = with_lease(&dues(), 10);
    assert_eq!(leases.charge(&dues(), at(2), true), Charged::Admitted);
    assert_eq!(leases.call(at(1_900)).map(|attempt| attempt.number), Some(2), "a report");
    answer(&mut leases, 1_901, 2, vec![]);
    assert_eq!(leases.call(at(2_990)), None);
    let closed = call(&mut leases, 3_040).reports;
    assert_eq!(closed, [LeaseReport { lease: 1, spent: 1, is_closed: true }]);
}

#[test]
fn next_lease_is_asked_for_before_the_first_is_spent() {
    let mut leases = with_lease(&dues(), 10);
    for _ in 0..5 {
        assert!(!leases.is_call_due(at(2)));
        assert_eq!(leases.charge(&dues(), at(2), true), Charged::Admitted);
    }
    assert!(leases.is_call_due(at(2)));
    assert_eq!(call(&mut leases, 2).requests[0].waiting, 0);
}

#[test]
fn call_is_charged_to_all_or_none() {
    let dues = vec![due(acme(), &[limit("hourly", 100)]), due(key(), &[limit("own", 2)])];
    let mut leases = with_lease(&dues, 2);
    for _ in 0..2 {
        assert_eq!(leases.charge(&dues, at(2), true), Charged::Admitted);
    }
    let asked = call(&mut leases, 2);
    assert_eq!(asked.reports.len(), 2);
    let outcomes = asked.requests.iter().map(|request| match &request.subject {
        Subject::Key { .. } => refusal(60_000, 60_000, false),
        _ => grant(3, 5, 3, 3_000),
    });
    let outcomes = outcomes.collect();
    answer(&mut leases, 3, 2, outcomes);
    for _ in 0..9 {
        assert_refused(leases.charge(&dues, at(4), true), 59_996);
    }
    // The account's lease is whole.
    for _ in 0..5 {
        assert_eq!(leases.charge(&dues[..1], at(4), true), Charged::Admitted);
    }
}

#[test]
fn lease_is_not_spent_past_its_end_nor_before_its_start() {
    let mut leases = with_lease(&dues(), 9);
    assert_eq!(leases.charge(&dues(), at(2_990), true), Charged::Admitted);
    assert_eq!(leases.charge(&dues(), at(3_000), true), Charged::NoLease);
    let next = call(&mut leases, 3_000);
    assert_eq!(next.reports, [LeaseReport { lease: 1, spent: 1, is_closed: true }]);
    answer(&mut leases, 3_001, 2, vec![grant(2, 9, 4_000, 5_000)]);
    assert_eq!(leases.charge(&dues(), at(3_999), true), Charged::NoLease);
    assert_eq!(leases.charge(&dues(), at(4_002), true), Charged::Admitted);
}

#[test]
fn call_that_was_not_answered_is_made_again_unchanged() {
    let mut leases = with_lease(&dues(), 1);
    assert_eq!(leases.charge(&dues(), at(2), true), Charged::Admitted);
    assert_eq!(leases.charge(&dues(), at(2), true), Charged::NoLease);
    let first = call(&mut leases, 2);
    assert_eq!(leases.call(at(3)), None, "one at a time");
    leases.on_failure(leases.exchange.attempts, at(10));
    assert_eq!(leases.charge(&dues(), at(11), true), Charged::NoLease);
    assert_eq!(leases.call(at(11)), None, "not at once");
    assert_eq!(call(&mut leases, 200), first);
    // Its answer never comes.
    assert_eq!(call(&mut leases, 200 + CALL_TIMEOUT_MS + exchange::LOST_AFTER_MS), first);
    leases.abandon();
    assert_eq!(call(&mut leases, 5_000), first);
    answer(&mut leases, 5_001, 2, vec![grant(2, 1, 5_001, 8_000)]);
    assert_eq!(leases.charge(&dues(), at(5_002), true), Charged::Admitted);
}

#[test]
fn unreadable_answer_changes_nothing() {
    let mut leases = Leases::new("edge", "w");
    assert_eq!(leases.charge(&dues(), at(0), true), Charged::NoLease);
    let first = call(&mut leases, 0);
    for (tried, body) in ["", "{", "null", "[]", "{\"sequence\":1}"].into_iter().enumerate() {
        let ms = 10_000 * (tried as u64 + 1);
        assert!(
            leases.on_answer(leases.exchange.attempts, at(ms), body.as_bytes()).is_err(),
            "{body}"
        );
        assert_eq!(call(&mut leases, ms + 5_000), first);
    }
}

/// A holder whose number is known already used to be refused for ever.
#[test]
fn number_that_is_known_is_passed_over() {
    let mut leases = Leases::new("edge", "w");
    assert_eq!(leases.charge(&dues(), at(0), true), Charged::NoLease);
    let first = call(&mut leases, 0);
    answer(&mut leases, 1, 41, vec![]);
    let again = call(&mut leases, 1);
    assert_eq!((again.sequence, again.requests), (42, first.requests));
}

#[test]
fn refusal_is_cached_until_the_control_planes_time() {
    let mut leases = Leases::new("edge", "w");
    assert_eq!(leases.charge(&dues(), at(0), true), Charged::NoLease);
    call(&mut leases, 0);
    answer(&mut leases, 1, 1, vec![refusal(60_000, 60_000, false)]);
    for ms in [2, 1_000, 59_999] {
        assert_refused(leases.charge(&dues(), at(ms), true), 60_000 - ms);
        assert!(!leases.is_call_due(at(ms)));
    }
    assert_eq!(leases.charge(&dues(), at(60_020), true), Charged::NoLease);
    assert!(leases.is_call_due(at(60_020)));
}

#[test]
fn what_others_hold_is_waited_for_but_not_for_long() {
    let mut leases = Leases::new("edge", "w");
    assert_eq!(leases.charge(&dues(), at(0), true), Charged::NoLease);
    call(&mut leases, 0);
    answer(&mut leases, 1, 1, vec![refusal(900, 60_000, true)]);
    assert_eq!(leases.charge(&dues(), at(2), true), Charged::NoLease);
    assert!(!leases.is_call_due(at(2)) && leases.is_contested());
    assert!(leases.is_call_due(at(20)));
    let reached = leases.known_refusal(&dues(), at(20)).unwrap();
    assert_refused(Charged::Refused(reached), 59_980);
    assert_refused(leases.charge(&dues(), at(200), true), 59_800);
}

#[test]
fn changed_limits_give_leases_back_and_end_refusals() {
    let mut leases = with_lease(&dues(), 9);
    let raised = vec![due(acme(), &[limit("hourly", 200)])];
    assert_eq!(leases.charge(&raised, at(2), true), Charged::NoLease);
    let next = call(&mut leases, 2);
    assert_eq!(next.reports, [LeaseReport { lease: 1, spent: 0, is_closed: true }]);
    answer(&mut leases, 3, 2, vec![refusal(60_000, 60_000, false)]);
    assert_refused(leases.charge(&raised, at(4), true), 59_996);
    assert_eq!(leases.charge(&dues(), at(4), true), Charged::NoLease);
}

#[test]
fn recalled_lease_is_given_back_at_once() {
    let mut leases = with_lease(&dues(), 9);
    assert_eq!(leases.charge(&dues(), at(2), true), Charged::Admitted);
    leases.recall(&acme(), at(3));
    let next = call(&mut leases, 3);
    assert_eq!(next.reports, [LeaseReport { lease: 1, spent: 1, is_closed: true }]);
    assert_eq!(leases.charge(&dues(), at(4), true), Charged::NoLease);
}

fn holder() -> Holder {
    Holder { account: "acme".into(), key: "key_1".into(), token_ends_at_ms: None }
}

#[test]
fn step_of_the_control_planes_clock_gives_all_back() {
    let mut leases = with_lease(&dues(), 9);
    assert_eq!(leases.charge(&dues(), at(2), true), Charged::Admitted);
    leases.note_use(&holder(), &BTreeSet::new(), at(2));
    call(&mut leases, 1_500);
    let body = LeaseAnswer { sequence: 2, now_ms: EPOCH_MS - 50_000, outcomes: vec![] };
    let attempt = leases.exchange.attempts;
    leases.on_answer(attempt, at(1_501), &serde_json::to_vec(&body).unwrap()).unwrap();
    assert_eq!(leases.charge(&dues(), at(1_502), true), Charged::NoLease);
    assert_eq!(
        call(&mut leases, 1_502).reports[0],
        LeaseReport { lease: 1, spent: 1, is_closed: true }
    );
}

#[test]
fn use_is_reported_per_key_and_hour() {
    let mut leases = with_lease(&dues(), 9);
    let [read, create] = ["posts:read", "posts:create"].map(|right| right.parse().unwrap());
    for (ms, rights) in [(2, vec![read]), (3, vec![]), (3_605_000, vec![create])] {
        let rights: BTreeSet<Right> = rights.into_iter().collect();
        leases.note_use(&holder(), &rights, at(ms));
        leases.note_use(&holder(), &rights, at(ms));
    }
    let usage = call(&mut leases, 3_605_000).usage;
    let counts: Vec<u64> = usage.iter().map(|usage| usage.count).collect();
    assert_eq!(counts, [4, 2]);
    assert_eq!(usage[0].last_used_at_ms, EPOCH_MS + 3);
    let rights: Vec<String> = usage
        .iter()
        .flat_map(|usage| usage.rights.iter().flatten().map(Right::to_string))
        .collect();
    assert_eq!(rights, ["posts:read", "posts:create"]);
}

#[test]
fn credit_is_reported_in_its_bucket() {
    let mut leases = Leases::new("edge", "w");
    let wall = Moment { steady_us: 0, wall_ms: EPOCH_MS + 1_234_567 };
    for _ in 0..3 {
        assert!(leases.charge_on_credit(&dues(), wall));
    }
    let next: LeaseCall =
        serde_json::from_slice(&leases.call(at(REPORT_MS)).unwrap().body).unwrap();
    assert_eq!(next.credits, [Credit { subject: acme(), at_ms: EPOCH_MS, count: 3 }]);
}

#[test]
fn remaining_never_rises_within_a_bucket() {
    let mut leases = with_lease(&dues(), 2);
    let shown = |leases: &mut Leases, ms| {
        assert_eq!(leases.charge(&dues(), at(ms), true), Charged::Admitted);
        leases.rates(&dues(), at(ms))[0].remaining
    };
    assert_eq!(shown(&mut leases, 2), 99);
    assert_eq!(shown(&mut leases, 2), 98);
    assert_eq!(leases.charge(&dues(), at(2), true), Charged::NoLease);
    call(&mut leases, 2);
    // Others have given back what they had: more is left than was thought.
    answer(&mut leases, 3, 2, vec![grant(2, 1, 3, 3_000)]);
    assert_eq!(shown(&mut leases, 4), 98);
    assert_eq!(leases.charge(&dues(), at(4), true), Charged::NoLease);
}

#[test]
fn waiting_is_of_no_use_while_the_control_plane_is_away() {
    let mut leases = Leases::new("edge", "w");
    assert!(leases.may_wait(at(0)));
    assert_eq!(leases.charge(&dues(), at(0), true), Charged::NoLease);
    call(&mut leases, 0);
    leases.on_failure(leases.exchange.attempts, at(5));
    for ms in (5..5 + MAX_WAIT_MS).step_by(50) {
        leases.look(at(ms));
        if let Some(attempt) = leases.call(at(ms)) {
            leases.on_failure(attempt.number, at(ms));
        }
    }
    assert!(leases.may_wait(at(5 + MAX_WAIT_MS - 1)));
    assert!(!leases.may_wait(at(5 + MAX_WAIT_MS)));
    call(&mut leases, 5_000);
    answer(&mut leases, 5_001, 1, vec![grant(1, 1, 5_001, 6_000)]);
    assert!(leases.may_wait(at(5_002)));
}

/// A thread that was busy with a crowd used to take that for silence of the control plane, whose answer
/// it had not looked at.
#[test]
fn time_in_which_nobody_looks_is_no_silence() {
    let mut leases = Leases::new("edge", "w");
    assert_eq!(leases.charge(&dues(), at(0), true), Charged::NoLease);
    call(&mut leases, 0);
    assert!(leases.may_wait(at(400)), "busy since the call was made");
    for ms in [400, 450, 500] {
        leases.look(at(ms));
        assert_eq!(leases.call(at(ms)), None);
        assert!(leases.may_wait(at(ms)), "{ms}");
    }
    leases.look(at(550));
    assert!(!leases.may_wait(at(550)));
}

/// Whose lease is small used to be charged again and again by all that wait for it.
#[test]
fn only_as_many_are_charged_again_as_there_are_calls() {
    let mut leases = with_lease(&dues(), 3);
    let mut taken = BTreeMap::new();
    let news: Vec<bool> = (0..5).map(|_| leases.has_news(&dues(), at(2), &mut taken)).collect();
    assert_eq!(news, [true, true, true, false, false]);
    let call: LeaseCall = serde_json::from_slice(&leases.call(at(3)).unwrap().body).unwrap();
    assert_eq!(call.requests[0].waiting, 2, "the others wait on");
}

/// Accounts used to stand behind addresses, and the last addresses behind the first.
#[test]
fn accounts_go_before_addresses_and_each_address_has_its_turn() {
    let mut leases = Leases::new("edge", "w");
    let address =
        |index: u8| Subject::Address { profile: "fltr".into(), address: [192, 0, 2, index].into() };
    for index in 0..100 {
        let dues = [due(address(index), &[limit("anonymous", 50)])];
        assert_eq!(leases.charge(&dues, at(0), true), Charged::NoLease);
    }
    let key = Subject::Key { account: "acme".into(), key: "k".into() };
    let dues = [due(acme(), &[limit("hourly", 100)]), due(key, &[limit("own", 100)])];
    assert_eq!(leases.charge(&dues, at(0), true), Charged::NoLease);
    let mut asked = Vec::new();
    for sequence in 1..=2 {
        let call: LeaseCall = serde_json::from_slice(&leases.call(at(5)).unwrap().body).unwrap();
        let addresses = call.requests.iter().filter(|request| is_address(&request.subject));
        assert!(addresses.count() <= MAX_ADDRESSES_PER_CALL);
        if sequence == 1 {
            assert!(call.requests[..2].iter().all(|request| !is_address(&request.subject)));
        }
        asked.extend(call.requests.into_iter().map(|request| request.subject));
        let outcomes = vec![refusal(60_000, 60_000, false); asked.len()];
        answer(&mut leases, 5, sequence, outcomes);
    }
    for index in 0..100 {
        assert!(asked.contains(&address(index)), "{index}");
    }
}

/// A burst whose next second was leased ahead used to answer 503, and ask without a pause.
#[test]
fn lease_for_later_is_nothing_to_spend_now() {
    let mut leases = with_lease(&dues(), 4);
    for _ in 0..4 {
        assert_eq!(leases.charge(&dues(), at(2_990), true), Charged::Admitted);
    }
    call(&mut leases, 2_990);
    answer(&mut leases, 2_991, 2, vec![grant(2, 9, 4_000, 5_000)]);
    assert_eq!(leases.charge(&dues(), at(2_992), true), Charged::NoLease);
    call(&mut leases, 2_992);
    answer(&mut leases, 2_993, 3, vec![refusal(4_000, 4_000, false)]);
    assert_refused(leases.charge(&dues(), at(2_994), true), 1_006);
    assert!(!leases.is_call_due(at(2_994)));
    assert_eq!(leases.charge(&dues(), at(4_003), true), Charged::Admitted);
}

/// A key whose own limit was used up used to lease calls of its account that nobody made.
#[test]
fn refused_call_asks_for_nothing_else() {
    let dues = vec![due(key(), &[limit("own", 2)]), due(acme(), &[limit("hourly", 100)])];
    let mut leases = Leases::new("edge", "w");
    assert_eq!(leases.charge(&dues[..1], at(0), true), Charged::NoLease);
    call(&mut leases, 0);
    answer(&mut leases, 1, 1, vec![refusal(60_000, 60_000, false)]);
    for _ in 0..5 {
        assert_refused(leases.charge(&dues, at(2), true), 59_998);
    }
    assert!(!leases.is_call_due(at(2)));
}

/// A refusal that was on its way when the limit was raised used to hold until its time.
#[test]
fn refusal_by_old_limits_is_not_believed() {
    let mut leases = Leases::new("edge", "w");
    assert_eq!(leases.charge(&dues(), at(0), true), Charged::NoLease);
    call(&mut leases, 0);
    let raised = vec![due(acme(), &[limit("hourly", 200)])];
    assert_eq!(leases.charge(&raised, at(1), true), Charged::NoLease);
    answer(&mut leases, 2, 1, vec![refusal(60_000, 60_000, false)]);
    assert_eq!(leases.charge(&raised, at(3), true), Charged::NoLease);
    assert!(leases.is_call_due(at(3)));
}

/// The answer to a call of a context that is gone used to be taken for that to another call.
#[test]
fn answer_to_an_earlier_attempt_changes_nothing() {
    let mut leases = Leases::new("edge", "w");
    assert_eq!(leases.charge(&dues(), at(0), true), Charged::NoLease);
    let first = leases.call(at(0)).unwrap();
    leases.abandon();
    let second = leases.call(at(1)).unwrap();
    assert_eq!(first.body, second.body);
    let outcomes = vec![grant(1, 5, 1, 3_000)];
    let late = LeaseAnswer { sequence: 1, now_ms: EPOCH_MS + 1, outcomes };
    let late = serde_json::to_vec(&late).unwrap();
    leases.on_answer(first.number, at(2), &late).unwrap();
    leases.on_failure(first.number, at(2));
    assert_eq!(leases.charge(&dues(), at(2), true), Charged::NoLease);
    leases.on_answer(second.number, at(3), &late).unwrap();
    assert_eq!(leases.charge(&dues(), at(4), true), Charged::Admitted);
}

#[test]
fn flood_of_addresses_fills_no_memory() {
    let mut leases = Leases::new("edge", "w");
    let from = |index: u32| {
        let subject = Subject::Address {
            profile: "fltr".into(),
            address: std::net::Ipv4Addr::from(index).into(),
        };
        vec![due(subject, &[limit("anonymous", 50)])]
    };
    for index in 0..20_000 {
        assert_eq!(leases.charge(&from(index), at(0), true), Charged::NoLease);
    }
    assert!(matches!(leases.charge(&from(20_000), at(0), true), Charged::Refused(_)));
    assert_eq!(leases.charge(&dues(), at(0), true), Charged::NoLease, "keys are not concerned");
    let asked = call(&mut leases, 0).requests;
    assert!(asked.iter().any(|request| request.subject == acme()) && asked.len() <= 201);
    // They are forgotten while the control plane is away, too.
    leases.on_failure(leases.exchange.attempts, at(10));
    leases.call(at(20_000));
    assert_eq!(leases.charge(&from(20_000), at(20_001), true), Charged::NoLease);
}

/// After a regeneration one wants to see whether anybody still sends the token before.
#[test]
fn use_of_a_token_in_its_grace_is_told_apart() {
    let mut leases = with_lease(&dues(), 9);
    let former = Holder { token_ends_at_ms: NonZeroU64::new(EPOCH_MS + 60_000), ..holder() };
    for (holder, ms) in [(&former, 2), (&holder(), 3), (&holder(), 4)] {
        leases.note_use(holder, &BTreeSet::new(), at(ms));
    }
    let usage = call(&mut leases, 1_500).usage;
    let told: Vec<_> = usage
        .iter()
        .map(|usage| (usage.token_ends_at_ms, usage.count, usage.last_used_at_ms - EPOCH_MS))
        .collect();
    assert_eq!(told, [(None, 2, 4), (Some(EPOCH_MS + 60_000), 1, 2)]);
}

/// A call that is too large would be refused, and all that it reports be lost.
#[test]
fn call_holds_no_more_rights_than_the_control_plane_takes() {
    let mut leases = with_lease(&dues(), 9);
    let rights: BTreeSet<Right> =
        (0..2_000).map(|right| Right::new(&format!("type{right}"), "read")).collect();
    for key in 0..10 {
        let holder = Holder { key: format!("key_{key}").into(), ..holder() };
        leases.note_use(&holder, &rights, at(2));
    }
    let mut reported = 0;
    for round in 0..4 {
        let usage = call(&mut leases, 1_500 + round).usage;
        let count: usize = usage.iter().map(|usage| usage.rights.iter().flatten().count()).sum();
        assert!(count <= 7_000, "{count}");
        reported += usage.len();
        let body = LeaseAnswer { sequence: 2 + round, now_ms: EPOCH_MS + 1_500, outcomes: vec![] };
        let attempt = leases.exchange.attempts;
        leases.on_answer(attempt, at(1_500 + round), &serde_json::to_vec(&body).unwrap()).unwrap();
    }
    assert_eq!(reported, 10);
}
