//! A gateway without Envoy: a profile, the replica of an account with a key, and leases for it.

use latchkey_filter::answer::{self, rate_limit};
use latchkey_filter::authorize::body::Body;
use latchkey_filter::authorize::charge::{Charge, charge};
use latchkey_filter::authorize::{Headers, Request, authorize};
use latchkey_filter::config::WhenUnreachable;
use latchkey_filter::leases::{Leases, Moment};
use latchkey_filter::profile::{Profile, SHIPPED};
use latchkey_filter::replica::Replica;
use latchkey_protocol::lease::{
    Grant, LeaseAnswer, LeaseCall, LeaseOutcome, LeaseRequest, LimitState, Refusal,
};
use latchkey_protocol::{
    AccountResources, KeyHash, KeyKind, Limit, Resource, Revision, RightSet, Rule, TokenColumns,
    Update,
};

/// A gateway with the request that it decides.
pub(crate) struct Gateway {
    profile: Profile,
    replica: Replica,
    leases: Leases,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    expected_status: u16,
    now: Moment,
}

impl Gateway {
    /// A read with a key that may, with both forms of rate-limit headers.
    pub(crate) fn permitted() -> Result<Self, String> {
        Self::fltr(TOKEN, "/v1/datasets/42", 200)
    }

    /// The same of an API with two limits and relations, with a query.
    pub(crate) fn permitted_with_query() -> Result<Self, String> {
        let path = "/api/v1/content/blogposts?page=2&limit=20&order_by=title";
        Self::flotiq("GET", path, "")
    }

    /// A token that is of no key.
    pub(crate) fn unknown_token() -> Result<Self, String> {
        Self::fltr("fltr_sk_abcdefghijklmnopqrstuvwx0aBcDe", "/v1/datasets/42", 401)
    }

    /// A read for which the key has no right.
    pub(crate) fn missing_right() -> Result<Self, String> {
        Self::fltr(TOKEN, "/v1/account", 403)
    }

    /// A read for which nothing is left.
    pub(crate) fn limit_reached() -> Result<Self, String> {
        let mut gateway = Self::fltr(TOKEN, "/v1/datasets/42", 429)?;
        gateway.leases = Leases::new("edge", "w");
        gateway.lease(refused)?;
        Ok(gateway)
    }

    /// A GraphQL query of 1 KiB.
    pub(crate) fn graphql() -> Result<Self, String> {
        let list = "{ id title slug published author { id name email bio } }";
        let mut lists = String::new();
        while lists.len() < 930 {
            let alias = lists.len();
            lists.push_str(&format!("list_{alias}: blogpostsList(page: 1, limit: 20) {list} "));
        }
        let body = serde_json::json!({"query": format!("query {{ {lists}}}")}).to_string();
        Self::flotiq("POST", "/api/graphql", &body)
    }

    fn fltr(token: &str, path: &str, expected_status: u16) -> Result<Self, String> {
        let authorization = format!("Bearer {token}");
        let headers = headers("GET", path, ("authorization", &authorization));
        Self::new("fltr", &["datasets", "documents"], headers, "", expected_status)
    }

    fn flotiq(method: &str, path: &str, body: &str) -> Result<Self, String> {
        let headers = headers(method, path, ("x-auth-token", TOKEN));
        Self::new("flotiq", &["authors", "blogposts"], headers, body, 200)
    }

    fn new(
        name: &str,
        readable: &[&str],
        headers: Vec<(String, Vec<u8>)>,
        body: &str,
        expected_status: u16,
    ) -> Result<Self, String> {
        let (_, json) = SHIPPED.iter().find(|(shipped, _)| *shipped == name).ok_or("no profile")?;
        let profile = Profile::parse(json)?;
        let mut gateway = Self {
            replica: replica(&profile, readable)?,
            profile,
            leases: Leases::new("edge", "w"),
            headers,
            body: body.as_bytes().to_vec(),
            expected_status,
            now: Moment { steady_us: 1_000_000, wall_ms: EPOCH_MS },
        };
        gateway.lease(granted)?;
        Ok(gateway)
    }

    /// Lets the control plane answer the first call.
    fn lease(
        &mut self,
        outcome: fn(&LeaseRequest, &[Limit]) -> LeaseOutcome,
    ) -> Result<(), String> {
        let status = self.answer()?;
        let Some(attempt) = self.leases.call(self.now) else {
            // Nothing was asked for, since the request was refused before it was charged.
            return if status < 400 { Err("no lease was asked for".to_owned()) } else { Ok(()) };
        };
        let call: LeaseCall =
            serde_json::from_slice(&attempt.body).map_err(|error| error.to_string())?;
        let plan = self.profile.plans.first().ok_or("no plan")?;
        let outcomes = call.requests.iter().map(|request| {
            let counts = |limit: &&Limit| request.subject.is_counted_by(limit);
            outcome(request, &plan.limits.iter().filter(counts).cloned().collect::<Vec<_>>())
        });
        let outcomes = outcomes.collect();
        let answer = LeaseAnswer { sequence: call.sequence, now_ms: EPOCH_MS, outcomes };
        let answer = serde_json::to_vec(&answer).map_err(|error| error.to_string())?;
        self.now.steady_us += 1_000;
        self.leases
            .on_answer(attempt.number, self.now, &answer)
            .map_err(|error| error.to_string())?;
        self.now.steady_us += 1_000_000;
        Ok(())
    }

    /// Decides the request, and checks that it is decided as it should be.
    pub(crate) fn decide(&mut self) -> Result<(), String> {
        self.now.steady_us += MICROSECONDS_APART;
        match self.answer()? {
            status if status == self.expected_status => Ok(()),
            status => Err(format!("expected {}, found {status}", self.expected_status)),
        }
    }

    /// Does what a request's context does, without the host. Returns 200 for a request that goes on,
    /// 202 for one that waits, and else the status of its refusal.
    fn answer(&mut self) -> Result<u16, String> {
        let Self { profile, replica, leases, now, .. } = self;
        let headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let headers = Headers(&headers);
        let client_address = &|| None;
        let body = Body::Whole(&self.body);
        let request = Request { headers, body, now_ms: now.wall_ms, client_address };
        let mut judgement = authorize(profile, Some(replica), &request);
        let charged = charge(leases, &mut judgement, *now, true, WhenUnreachable::Deny);
        match charged {
            Charge::Done | Charge::OnCredit => {}
            Charge::Waits => return Ok(202),
        }
        let rates = leases.rates(&judgement.dues, *now);
        let server_ms = leases.server_ms(*now);
        let rates = rate_limit::headers(&profile.rate_limit_headers, &rates, server_ms);
        match &judgement.outcome {
            Ok(_) if rates.is_empty() => Err("no rate-limit headers".to_owned()),
            Ok(_) => Ok(200),
            Err(rejection) => Ok(answer::refusal(profile, &judgement, rejection, headers).status),
        }
    }
}

/// Returns the replica of an account with one key.
fn replica(profile: &Profile, readable: &[&str]) -> Result<Replica, String> {
    let revision = Revision { number: 1, mark: 1 };
    let rule =
        |name: &&str| Rule { resource: (*name).to_owned(), actions: vec!["read".to_owned()] };
    let resource = |name: &str, relations: &[(&str, &str)]| -> Result<Resource, String> {
        let relations: serde_json::Map<_, _> =
            relations.iter().map(|&(field, to)| (field.to_owned(), vec![to].into())).collect();
        serde_json::from_value(serde_json::json!({"name": name, "relations": relations}))
            .map_err(|error| error.to_string())
    };
    let resources =
        vec![resource("authors", &[])?, resource("blogposts", &[("author", "authors")])?];
    let plan = profile.plans.first().ok_or("no plan")?;
    let update = Update {
        accounts: vec!["acme-publishing".to_owned()],
        limit_sets: vec![plan.limits.clone()],
        account_limits: vec![1],
        resources: vec![AccountResources { account: 0, resources }],
        right_sets: vec![RightSet::from(readable.iter().map(rule).collect::<Vec<_>>())],
        tokens: TokenColumns {
            hashes: vec![KeyHash::of(TOKEN.as_bytes())],
            keys: vec!["key_01jd8zq3v5x7".to_owned()],
            kinds: vec![KeyKind::UserDefined],
            accounts: vec![0],
            right_sets: vec![0],
            expires_at_ms: vec![0],
            network_sets: vec![0],
            ..TokenColumns::default()
        },
        ..Update::empty(revision)
    };
    Replica::of(&update).map_err(|error| error.to_string())
}

/// Returns headers as a browser sends them and Envoy adds to them.
fn headers(method: &str, path: &str, token: (&str, &str)) -> Vec<(String, Vec<u8>)> {
    [
        (":authority", "gateway.example.com"),
        (":path", path),
        (":method", method),
        (":scheme", "https"),
        token,
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, deflate, br"),
        ("accept-language", "en-US,en;q=0.9"),
        ("cache-control", "no-cache"),
        ("content-type", "application/json"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "7c6d6d1f-5c3a-4a6e-9d5e-0d1f3b2a4c5d"),
    ]
    .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
    .to_vec()
}

fn granted(_: &LeaseRequest, limits: &[Limit]) -> LeaseOutcome {
    LeaseOutcome::Granted(Grant {
        lease: 1,
        amount: 1_000_000,
        starts_at_ms: EPOCH_MS,
        expires_at_ms: EPOCH_MS + 3_600_000,
        limits: states(limits, 500_000),
    })
}

fn refused(_: &LeaseRequest, limits: &[Limit]) -> LeaseOutcome {
    LeaseOutcome::Refused(Refusal {
        ask_again_at_ms: EPOCH_MS + 3_600_000,
        available_at_ms: Some(EPOCH_MS + 3_600_000),
        is_contested: false,
        limits: states(limits, 0),
    })
}

fn states(limits: &[Limit], remaining: u64) -> Vec<LimitState> {
    let state = |limit: &Limit| LimitState {
        limit: limit.clone(),
        remaining,
        resets_at_ms: EPOCH_MS + 3_600_000,
    };
    limits.iter().map(state).collect()
}

/// Token of the account's key.
const TOKEN: &str = "fltr_sk_qkJaB6MffYVzZXWqmcoF49yr0xP3wf";

/// The time at which all this happens, in milliseconds since the epoch.
const EPOCH_MS: u64 = 1_795_392_000_000;

/// How long after one request the next one comes.
const MICROSECONDS_APART: u64 = 100;
