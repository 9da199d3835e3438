//! What the gateway would make of a request, and why: the filter's own code, asked.

use std::net::IpAddr;
use std::rc::Rc;

use latchkey_filter::answer;
use latchkey_filter::authorize::body::Body;
use latchkey_filter::authorize::query::Query;
use latchkey_filter::authorize::reach::{Needed, Requirement};
use latchkey_filter::authorize::token::{self, Presented};
use latchkey_filter::authorize::{self, Headers, Judgement, Permit, Rejection, Request, rights};
use latchkey_filter::config::DEFAULT_MAX_BODY_BYTES;
use latchkey_filter::profile::Profile;
use latchkey_filter::profile::carriers::Carrier;
use latchkey_filter::profile::routes::AccessLevel;
use latchkey_filter::replica::{KeyRecord, Replica};
use latchkey_protocol::{KeyHash, KeyKind, PlainToken, Revision, Right, Rule};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::edge::draft::Draft;
use crate::store::usable_tokens::TokenRow;

/// A request to look into.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) method: String,
    /// With the query string.
    pub(crate) path: String,
    pub(crate) body: Option<Vec<u8>>,
    /// Where the client is; if absent, where the key may be used from.
    pub(crate) client_address: Option<IpAddr>,
    /// What the client presents, and what filters know of it.
    pub(crate) credential: Option<(PlainToken, Option<TokenRow>)>,
    /// The time, in milliseconds since the epoch.
    pub(crate) now_ms: u64,
}

/// What the gateway would decide, and why. Limits of calls are not looked at; a body may be as large as
/// where the filter's `max_body_bytes` is not set.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Explanation {
    pub(crate) decision: Decision,
    /// What Envoy's access log would say: `permitted`, `anonymous`, `shadowed`, or why it is refused.
    #[schema(examples("missing_right"))]
    pub(crate) reason: &'static str,
    /// HTTP status of the refusal; 200 if the request would reach the API.
    #[schema(examples(403))]
    pub(crate) status: u16,
    /// What decided, in a sentence.
    #[schema(examples("no rule of the key grants `authors:read`"))]
    pub(crate) decided_by: String,
    /// The route of the profile that the request is on; absent if none lists it.
    #[schema(examples("GET /api/v1/content/{type}"))]
    pub(crate) route: Option<String>,
    /// What the request needs, each with the part of the request that needs it.
    pub(crate) needed: Vec<Need>,
    /// The rules of the key.
    pub(crate) held: Vec<Rule>,
    /// The right that is missing; absent where a key of another kind is needed.
    #[schema(value_type = Option<String>, examples("authors:read"))]
    pub(crate) missing: Option<Right>,
    /// What the API would see as path and query; absent if nothing would reach it.
    pub(crate) forwarded: Option<String>,
    /// What the client would get; absent if the API would answer.
    pub(crate) answer: Option<Answer>,
}

/// Whether a request passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Decision {
    Permitted,
    Refused,
}

/// Something that a request needs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Need {
    /// The right, such as `authors:read`; absent where the kind of the key matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, examples("authors:read"))]
    pub(crate) right: Option<Right>,
    /// Its resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    /// Its action; `?` is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<String>,
    /// Kinds of keys, one of which it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kinds: Option<Vec<KeyKind>>,
    /// The part of the request that needs it.
    #[schema(examples("`hydrate`: step 1, by the field `author` of `blogposts`"))]
    pub(crate) needed_by: String,
    /// Whether the key has it, or passes without it.
    pub(crate) is_held: bool,
    /// The rule of the key that grants it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<Rule>,
}

/// A refusal as the client sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Answer {
    status: u16,
    /// Names and values.
    headers: Vec<(String, String)>,
    body: Value,
}

/// A gateway of a profile that knows one key, to be asked again and again.
pub(crate) struct Simulator<'a> {
    profile: &'a Profile,
    replica: Option<Replica>,
    token: Option<PlainToken>,
    hash: Option<KeyHash>,
}

impl<'a> Simulator<'a> {
    /// Returns a gateway, and a client with a credential: its token, and what filters know of it.
    pub(crate) fn new(
        profile: &'a Profile,
        credential: Option<(PlainToken, Option<TokenRow>)>,
    ) -> Self {
        let mut draft = Draft::default();
        let mut hash = None;
        let token = credential.map(|(token, row)| {
            if let Some(row) = row {
                // The filter knows the key by the token that is presented here.
                let row = TokenRow { hash: token.hash(), ..row };
                hash = Some(row.hash);
                draft.add_account(row.account.clone());
                draft.add(row);
            }
            token
        });
        let update = draft.finish(Revision { number: 0, mark: 0 }, Vec::new());
        let replica = Replica::of(&update);
        if let Err(error) = &replica {
            tracing::error!(%error, "a key does not fit into a filter");
        }
        Self { profile, replica: replica.ok(), token, hash }
    }

    /// Returns the key, as filters know it.
    pub(crate) fn key(&self) -> Option<Rc<KeyRecord>> {
        let (replica, hash) = (self.replica.as_ref()?, self.hash?);
        replica.find(&hash).ok().flatten()
    }

    /// Reports whether a request with a JSON body, or with none, is permitted by the key's rules, from
    /// where the key may be used.
    pub(crate) fn permits(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
        now_ms: u64,
    ) -> bool {
        let body = body.map(|body| body.as_bytes().to_vec());
        self.judge(method, path, &body, None, now_ms, |judgement| {
            judgement.outcome.is_ok() && judgement.shadowed.is_none()
        })
    }

    fn judge<T>(
        &self,
        method: &str,
        path: &str,
        body: &Option<Vec<u8>>,
        client_address: Option<IpAddr>,
        now_ms: u64,
        read: impl FnOnce(&Judgement<'_>) -> T,
    ) -> T {
        let headers = headers(self.profile, method, path, body, self.token.as_ref());
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let client_address = || {
            let networks = self.key().and_then(|key| key.networks.clone());
            let allowed = networks.as_deref().and_then(|networks| networks.first());
            client_address.or(allowed.map(|network| network.addr()))
        };
        let request = Request {
            headers: Headers(&headers),
            body: match body.as_deref().unwrap_or_default() {
                body if body.len() > DEFAULT_MAX_BODY_BYTES => Body::TooLarge,
                body => Body::Whole(body),
            },
            now_ms,
            client_address: &client_address,
        };
        read(&authorize::authorize(self.profile, self.replica.as_ref(), &request))
    }
}

/// Returns what a gateway of a profile would make of a request.
pub(crate) fn explain(profile: &Profile, question: Question) -> Explanation {
    let Question { method, path, body, client_address, credential, now_ms } = question;
    let simulator = Simulator::new(profile, credential);
    simulator.judge(&method, &path, &body, client_address, now_ms, |judgement| {
        describe(profile, simulator.key().as_deref(), &method, &path, judgement)
    })
}

/// Returns the token in a path with its query, if there is one that could be used.
pub(crate) fn token_in(profile: &Profile, path: &str) -> Option<String> {
    let (_, query) = path.split_once('?')?;
    let query = Query::parse(query);
    match token::find(profile, &Headers(&[]), &query).presented {
        Presented::Token(token) => String::from_utf8(token.into_owned()).ok(),
        Presented::Nothing | Presented::Unusable(_) => None,
    }
}

fn headers(
    profile: &Profile,
    method: &str,
    path: &str,
    body: &Option<Vec<u8>>,
    token: Option<&PlainToken>,
) -> Vec<(String, Vec<u8>)> {
    let mut path = path.to_owned();
    let mut carried = None;
    if let Some(token) = token {
        let token = token.reveal();
        carried = profile.carriers.iter().find_map(|carrier| match carrier {
            Carrier::Bearer(name) => Some((name.clone(), format!("Bearer {token}"))),
            Carrier::Header(name) => Some((name.clone(), token.to_owned())),
            Carrier::Query(_) => None,
        });
        if carried.is_none()
            && let Some(Carrier::Query(name)) = profile.carriers.first()
        {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(&format!("{name}={token}"));
        }
    }
    let json = body.as_ref().map(|_| ("content-type".to_owned(), "application/json".to_owned()));
    let pseudo = [(":method", method), (":path", path.as_str()), (":authority", "gateway")];
    let pseudo = pseudo.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let all = pseudo.into_iter().chain(carried).chain(json);
    all.map(|(name, value)| (name, value.into_bytes())).collect()
}

fn describe(
    profile: &Profile,
    key: Option<&KeyRecord>,
    method: &str,
    path: &str,
    judgement: &Judgement<'_>,
) -> Explanation {
    let access = judgement.route.map_or(&profile.unlisted, |route| &route.access);
    let passes = key.is_some_and(|key| access.pass_kinds.contains(&key.kind));
    let needed: Vec<Need> =
        judgement.needed.iter().map(|needed| need(profile, key, needed, passes)).collect();
    let refused = judgement.outcome.as_ref().err();
    let answer = refused
        .map(|rejection| answer::refusal(profile, judgement, rejection, Headers(&[])))
        .map(|answer| Answer {
            status: answer.status,
            headers: answer.headers,
            body: serde_json::from_str(&answer.body).unwrap_or(Value::String(answer.body)),
        });
    let is_missing =
        matches!(refused, Some(Rejection::MissingRight(_))) || judgement.shadowed.is_some();
    let missing = needed.iter().find(|need| !need.is_held).filter(|_| is_missing);
    let public = judgement.route.is_some_and(|_| access.level == AccessLevel::Public);
    let decided_by = match (&judgement.outcome, key) {
        (Err(Rejection::MissingRight(_)), _) => why_missing(missing),
        (Err(rejection), _) => rejection.to_string(),
        (Ok(_), Some(key)) if judgement.shadowed.is_some() => {
            let who = if key.is_shadowed { "the key" } else { "the profile" };
            format!("{who} is in shadow mode; else: {}", why_missing(missing))
        }
        (Ok(_), _) if public => "the route is public".to_owned(),
        (Ok(Permit::Anonymous), _) => "it is a preflight, which needs no key".to_owned(),
        (Ok(Permit::Key), Some(key)) if passes => {
            format!("the route lets keys of the kind {} pass", key.kind.as_str())
        }
        (Ok(Permit::Key), _) if needed.is_empty() => {
            "the route needs no more than a valid key".to_owned()
        }
        (Ok(Permit::Key), _) => "the rules of the key grant all that is needed".to_owned(),
    };
    Explanation {
        decision: if refused.is_some() { Decision::Refused } else { Decision::Permitted },
        reason: match &judgement.outcome {
            Ok(_) if judgement.shadowed.is_some() => "shadowed",
            Ok(Permit::Anonymous) => "anonymous",
            Ok(Permit::Key) => "permitted",
            Err(rejection) => rejection.reason(),
        },
        status: answer.as_ref().map_or(200, |answer| answer.status),
        decided_by,
        route: judgement.route.map(|route| format!("{method} {}", route.path)),
        held: key.map(|key| key.rights.rules().to_vec()).unwrap_or_default(),
        missing: missing.and_then(|need| need.right.clone()),
        forwarded: refused
            .is_none()
            .then(|| judgement.edits.path.clone().unwrap_or_else(|| path.to_owned())),
        answer,
        needed,
    }
}

fn need(profile: &Profile, key: Option<&KeyRecord>, needed: &Needed<'_>, passes: bool) -> Need {
    let granted_by = |key: &KeyRecord| {
        let by = rights::exercised(profile, std::slice::from_ref(needed), key);
        let resource = by.into_iter().next()?.resource;
        key.rights.rules().iter().find(|rule| rule.resource == resource).cloned()
    };
    let (right, kinds) = match &needed.requirement {
        Requirement::Kind(kinds) => (None, Some(kinds.to_vec())),
        Requirement::Right(right) => (Some(right.clone()), None),
    };
    Need {
        resource: right.as_ref().map(|right| right.resource.clone()),
        action: right.as_ref().map(|right| right.action.clone()),
        right,
        kinds,
        needed_by: needed.part.to_string(),
        is_held: passes || key.is_some_and(|key| rights::is_met(profile, &needed.requirement, key)),
        rule: key.and_then(granted_by),
    }
}

fn why_missing(missing: Option<&Need>) -> String {
    match missing {
        Some(Need { right: Some(right), needed_by, .. }) => {
            format!("no rule of the key grants `{right}`, which is needed by {needed_by}")
        }
        Some(Need { kinds: Some(kinds), needed_by, .. }) => {
            let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
            format!("{needed_by} is for keys of the kind {} only", kinds.join(" or "))
        }
        Some(_) | None => "the key does not hold what is needed".to_owned(),
    }
}
