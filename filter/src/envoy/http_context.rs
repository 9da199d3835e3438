//! One request.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, MapType};

use super::host;
use super::source::Source;
use super::waiting::{Awaits, Kind, Patience, Waiting};
use crate::answer::response::{self, ResponseEdits};
use crate::answer::{self, Answer, rate_limit};
use crate::authorize::body::{self, Body};
use crate::authorize::charge::{self, Charge};
use crate::authorize::edits::{self, Edits};
use crate::authorize::token::Traces;
use crate::authorize::{self, HeaderMap, Headers, Holder, Judgement, Permit, Rejection, Request};
use crate::config::Config;
use crate::leases::Moment;
use crate::profile::Profile;

/// What all requests of one plugin configuration share.
pub(super) struct Gateway {
    pub(super) config: Config,
    pub(super) source: Rc<Source>,
    /// Whether Envoy gives the filter a body while the headers are held back.
    pub(super) reads_bodies: bool,
}

/// How far a request has come; shared with its place in the queue.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) is_waiting: Cell<bool>,
    is_replied: Cell<bool>,
    body: RefCell<Received>,
    /// Changes to the answer that comes from upstream.
    response: RefCell<ResponseEdits>,
    /// Texts by which copies of the token are known in trailers.
    texts: RefCell<Vec<Vec<u8>>>,
}

/// What has come of a body.
#[derive(Default)]
enum Received {
    #[default]
    Pending,
    TooLarge,
    Unavailable,
    Whole(Vec<u8>),
}

impl Received {
    fn len(&self) -> usize {
        match self {
            Self::Pending | Self::TooLarge | Self::Unavailable => 0,
            Self::Whole(bytes) => bytes.len(),
        }
    }

    fn as_body(&self) -> Body<'_> {
        match self {
            Self::Pending => Body::Pending,
            Self::TooLarge => Body::TooLarge,
            Self::Unavailable => Body::Unavailable,
            Self::Whole(bytes) => Body::Whole(bytes),
        }
    }
}

/// The context of one request.
pub(super) struct Http {
    context_id: u32,
    gateway: Option<Rc<Gateway>>,
    progress: Rc<Progress>,
    /// Length of what Envoy holds back of the body.
    held_bytes: usize,
}

impl Http {
    pub(super) fn new(context_id: u32, gateway: Option<Rc<Gateway>>) -> Self {
        Self { context_id, gateway, progress: Rc::default(), held_bytes: 0 }
    }

    /// Returns what to do with what follows the headers.
    fn hold_back(&self) -> Action {
        if self.progress.is_waiting.get() || self.progress.is_replied.get() {
            return Action::Pause;
        }
        Action::Continue
    }

    /// Takes in that the body is there, and decides the request if it waited for that.
    fn on_body(&self, gateway: &Gateway, received: Received) -> Action {
        let body_bytes = received.len();
        self.progress.body.replace(received);
        let Some(waiting) = gateway.source.waiting.take(self.context_id) else {
            return Action::Pause;
        };
        match waiting.on_body(body_bytes, host::now()) {
            Verdict::Forward => Action::Continue,
            Verdict::Replied | Verdict::Wait(_) => Action::Pause,
        }
    }

    /// Returns the body that was held back so far, if it is not larger than what is judged.
    fn held_back(&self, gateway: &Gateway) -> Received {
        let (bytes, most) = (self.held_bytes, gateway.config.max_body_bytes);
        if bytes > most {
            return Received::TooLarge;
        }
        let held = hostcalls::get_buffer(BufferType::HttpRequestBody, 0, bytes);
        match held.ok().flatten().unwrap_or_default() {
            held if held.len() == bytes => Received::Whole(held),
            // What cannot be read cannot be judged.
            _ => Received::Unavailable,
        }
    }
}

impl Context for Http {}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _num_headers: usize, end_of_stream: bool) -> Action {
        let Some(gateway) = &self.gateway else {
            // Envoy makes no request context before the configuration was accepted; should it do
            // so, there is nothing to decide with.
            let _ = hostcalls::send_http_response(503, vec![], None);
            return Action::Pause;
        };
        let headers = host::request_headers();
        let max_body_bytes = gateway.config.max_body_bytes;
        self.progress.body.replace(if end_of_stream {
            Received::Whole(Vec::new())
        } else if !gateway.reads_bodies {
            Received::Unavailable
        } else if body::is_announced_larger(Headers(&headers.entries()), max_body_bytes) {
            Received::TooLarge
        } else {
            Received::Pending
        });
        let now = host::now();
        match decide(gateway, &headers, now, &self.progress, Patience::ForAll) {
            Verdict::Forward => Action::Continue,
            Verdict::Replied => Action::Pause,
            Verdict::Wait(awaits) => {
                let progress = Rc::clone(&self.progress);
                let waiting =
                    Waiting::new(self.context_id, awaits, gateway, &headers, progress, now);
                match waiting.begin(now) {
                    Verdict::Forward => Action::Continue,
                    Verdict::Replied | Verdict::Wait(_) => Action::Pause,
                }
            }
        }
    }

    // Where an operator sets `allow_on_headers_stop_iteration`, a body goes on to the upstream unless
    // this holds it back too.
    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        self.held_bytes = body_size;
        let is_pending = matches!(*self.progress.body.borrow(), Received::Pending);
        match &self.gateway {
            Some(gateway) if is_pending && self.progress.is_waiting.get() => {
                if end_of_stream || body_size > gateway.config.max_body_bytes {
                    return self.on_body(gateway, self.held_back(gateway));
                }
                Action::Pause
            }
            Some(_) | None => self.hold_back(),
        }
    }

    fn on_http_request_trailers(&mut self, _num_trailers: usize) -> Action {
        let Some(gateway) = &self.gateway else {
            return self.hold_back();
        };
        strip_trailers(&gateway.config.profile, &self.progress.texts.borrow());
        let is_pending = matches!(*self.progress.body.borrow(), Received::Pending);
        if is_pending && self.progress.is_waiting.get() {
            return self.on_body(gateway, self.held_back(gateway));
        }
        self.hold_back()
    }

    fn on_http_response_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        if !self.progress.is_replied.get() {
            change_response(&self.progress.response.borrow());
        }
        Action::Continue
    }
}

pub(super) enum Verdict {
    Forward,
    Replied,
    Wait(Awaits),
}

/// Decides a request in the effective context, and changes or answers it. Once it need not wait, its
/// body is let go.
pub(super) fn decide(
    gateway: &Gateway,
    headers: &HeaderMap,
    now: Moment,
    progress: &Progress,
    patience: Patience,
) -> Verdict {
    let Gateway { config, source, .. } = gateway;
    let profile = &config.profile;
    let headers = headers.entries();
    let headers = Headers(&headers);
    let replica = source.replica.borrow();
    let mut judgement = {
        let (received, client_address) = (progress.body.borrow(), &client_address);
        let (body, now_ms) = (received.as_body(), now.wall_ms);
        let request = Request { headers, body, now_ms, client_address };
        authorize::authorize(profile, replica.as_ref(), &request)
    };
    let may_wait = patience.is_for(Kind::Lease);
    let leases = &mut *source.leases.borrow_mut();
    let charge = charge::charge(leases, &mut judgement, now, may_wait, config.when_unreachable);
    if leases.is_call_due(now)
        && let Some(wake) = &*source.wake.borrow()
    {
        wake.call();
    }
    if patience == Patience::NoRoom && matches!(judgement.outcome, Err(Rejection::BodyPending)) {
        judgement.outcome = Err(Rejection::NoRoom);
    }
    // Even before a wait: a client that leaves meanwhile reaches the access log.
    apply(&judgement.edits);
    record(&judgement, headers, matches!(charge, Charge::Waits));
    progress.texts.replace(std::mem::take(&mut judgement.texts));
    match charge {
        Charge::Waits => {
            let (dues, answers) = (judgement.dues, leases.answers());
            return Verdict::Wait(Awaits::Lease { dues, answers });
        }
        Charge::OnCredit => source.metrics.count_credit(),
        Charge::Done => {}
    }
    match &judgement.outcome {
        Err(Rejection::NotReady)
            if patience.is_for(Kind::Snapshot) && config.startup_wait_ms > 0 =>
        {
            return Verdict::Wait(Awaits::Snapshot);
        }
        Err(Rejection::BodyPending) if patience.is_for(Kind::Body) => {
            let holder = judgement.holder.as_ref();
            let account = holder.map(|holder| Arc::clone(&holder.account)).unwrap_or_default();
            return Verdict::Wait(Awaits::Body { account });
        }
        Err(Rejection::BodyUnavailable) if !gateway.reads_bodies => source.warn_of_unread_bodies(),
        Err(_) | Ok(_) => {}
    }

    progress.body.take();
    source.metrics.count_outcome(&judgement.outcome);
    if judgement.outcome.is_ok() && judgement.shadowed.is_some() {
        source.metrics.count_shadowed();
    }
    let rates = leases.rates(&judgement.dues, now);
    let rates = rate_limit::headers(&profile.rate_limit_headers, &rates, leases.server_ms(now));
    match &judgement.outcome {
        Ok(_) => {
            progress.response.replace(response::edits(profile, &judgement, headers, rates));
            Verdict::Forward
        }
        Err(rejection) => {
            progress.is_replied.set(true);
            let mut answer = answer::refusal(profile, &judgement, rejection, headers);
            answer.headers.extend(rates.into_iter().map(|(name, value)| (name.to_owned(), value)));
            send(&answer);
            Verdict::Replied
        }
    }
}

fn apply(edits: &Edits) {
    for name in &edits.remove {
        let _ = hostcalls::remove_map_value(MapType::HttpRequestHeaders, name);
    }
    if let Some(path) = &edits.path {
        let _ = hostcalls::set_map_value(MapType::HttpRequestHeaders, ":path", Some(path));
    }
    for (name, value) in &edits.set {
        let _ = hostcalls::set_map_value(MapType::HttpRequestHeaders, name, Some(value));
    }
}

/// Removes from trailers what is removed from headers.
fn strip_trailers(profile: &Profile, texts: &[Vec<u8>]) {
    let map = MapType::HttpRequestTrailers;
    let traces = Traces::of(&profile.token_form, texts);
    for (name, value) in hostcalls::get_map_bytes(map).unwrap_or_default() {
        if edits::is_removed_from_trailers(profile, &traces, &name, &value) {
            let _ = hostcalls::remove_map_value(map, &name);
        }
    }
}

/// Leaves the facts in Envoy's filter state, where its access log finds them as
/// `%FILTER_STATE(wasm.latchkey_…:PLAIN)%`.
///
/// The path is among them, without its token: `%REQ(:PATH)%` has the token where Envoy answers
/// before the filter has seen the request.
fn record(judgement: &Judgement<'_>, headers: Headers<'_>, waits: bool) {
    let path = judgement.edits.path.as_deref().or_else(|| headers.text(":path"));
    let path = path.unwrap_or_default().as_bytes();
    host::set_filter_state("latchkey_path", path);
    if let Some(Holder { account, key, .. }) = &judgement.holder {
        host::set_filter_state("latchkey_account", account.as_bytes());
        host::set_filter_state("latchkey_key", key.as_bytes());
    }
    let missing = match &judgement.outcome {
        Err(Rejection::MissingRight(missing)) => Some(&missing.needed),
        Err(_) | Ok(_) => judgement.shadowed.as_ref(),
    };
    if let Some(right) = missing {
        let right = right.to_string();
        host::set_filter_state("latchkey_missing_right", right.as_bytes());
    }
    let decision = match &judgement.outcome {
        Ok(_) if waits => "waiting",
        Ok(_) if judgement.shadowed.is_some() => "shadowed",
        Ok(Permit::Anonymous) => "anonymous",
        Ok(Permit::Key) => "permitted",
        Err(rejection) => rejection.reason(),
    };
    host::set_filter_state("latchkey_decision", decision.as_bytes());
}

fn send(answer: &Answer) {
    let headers =
        answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let body = Some(answer.body.as_bytes());
    let _ = hostcalls::send_http_response(u32::from(answer.status), headers, body);
}

fn change_response(edits: &ResponseEdits) {
    let map = MapType::HttpResponseHeaders;
    if edits.is_private {
        let headers = host::response_headers();
        if let Some(value) = response::private_cache_control(Headers(&headers.entries())) {
            let _ = hostcalls::set_map_value(map, "cache-control", Some(value));
        }
    }
    for (name, value) in &edits.add {
        let _ = hostcalls::add_map_value(map, name, value);
    }
    for (name, value) in &edits.set {
        let _ = hostcalls::set_map_value(map, name, Some(value));
    }
}

pub(super) fn client_address() -> Option<IpAddr> {
    let address = hostcalls::get_property(vec!["source", "address"]).ok().flatten()?;
    let address = std::str::from_utf8(&address).ok()?;
    // An IPv4 client of a listener on an IPv6 socket comes as `::ffff:192.0.2.1`.
    address.parse::<SocketAddr>().ok().map(|address| address.ip().to_canonical())
}
