//! The root context: configuration, the tick, and calls to the control plane.

use std::rc::Rc;
use std::time::Duration;

use latchkey_protocol::Revision;
use latchkey_protocol::poll::ORIGIN_HEADER;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{ContextType, MapType};

use super::host::{self, now_ms};
use super::http_context::{self, Gateway, Http};
use super::source::{self, Source};
use crate::config::{Config, EdgeToken};
use crate::poller::{CALL_TIMEOUT_MS, Progress};

/// One plugin configuration in one VM.
pub(super) struct Root {
    context_id: u32,
    active: Option<Active>,
    /// Token of the poll that is under way.
    call: Option<u32>,
    /// Whether the last poll failed, so that an outage is logged once.
    is_degraded: bool,
}

struct Active {
    gateway: Rc<Gateway>,
    source: Rc<Source>,
    /// Without one, nothing is asked for and nothing but public routes is served.
    edge_token: Option<EdgeToken>,
}

impl Root {
    pub(super) fn new(context_id: u32) -> Self {
        Self { context_id, active: None, call: None, is_degraded: false }
    }

    fn configure(&mut self) -> Result<(), String> {
        let json = self.get_plugin_configuration().unwrap_or_default();
        let config = Config::parse(&json)?;
        let control_plane = &config.control_plane;
        let name = &control_plane.edge_token_env;
        let edge_token = control_plane
            .edge_token
            .clone()
            .or_else(|| host::environment_variable(name).as_deref().and_then(EdgeToken::new));
        if edge_token.is_none() {
            // The configuration is right, and `envoy --mode validate` must say so where there is no
            // secret; but nothing can be served.
            log::error!(
                "latchkey: no edge token, so no keys: set the environment variable `{name}` for \
                 Envoy and name it in `vm_config.environment_variables.host_env_keys`, or set \
                 `control_plane.edge_token` in the plugin's configuration"
            );
        }
        let node_id = self
            .get_property(vec!["xds", "node", "id"])
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .unwrap_or_default();
        let source = source::source(&config, &node_id);
        // The root context before this one may have had a poll under way, which is cancelled
        // without an answer.
        source.poller.borrow_mut().abandon();
        let gateway = Rc::new(Gateway { config, source: Rc::clone(&source) });
        self.active = Some(Active { gateway, source, edge_token });
        Ok(())
    }

    /// Makes the poll that is due, if any.
    fn poll(&mut self) {
        let Some(active) = &self.active else {
            return;
        };
        let Some(edge_token) = &active.edge_token else {
            return;
        };
        let now_ms = now_ms();
        let Some(poll) = active.source.poller.borrow_mut().poll(now_ms) else {
            return;
        };
        let control_plane = &active.gateway.config.control_plane;
        let path = format!("{}{}", control_plane.path_prefix, poll.path_and_query());
        let authorization = format!("Bearer {}", edge_token.reveal());
        let call = self.dispatch_http_call(
            &control_plane.cluster,
            vec![
                (":method", "GET"),
                (":path", &path),
                (":authority", &control_plane.authority),
                ("authorization", &authorization),
                ("accept", "application/json"),
            ],
            None,
            vec![],
            Duration::from_millis(CALL_TIMEOUT_MS),
        );
        match call {
            Ok(token) => self.call = Some(token),
            Err(status) => {
                let why = format!("the call could not be made ({status:?})");
                self.on_poll_failure(now_ms, &why);
            }
        }
    }

    fn on_poll_failure(&mut self, now_ms: u64, why: &str) {
        let Some(active) = &self.active else {
            return;
        };
        active.source.poller.borrow_mut().on_failure(now_ms);
        active.source.metrics.count_poll_failure();
        self.warn_once(why);
    }

    fn warn_once(&mut self, why: &str) {
        if let Some(active) = &self.active
            && !self.is_degraded
        {
            let profile = &active.gateway.config.profile.name;
            let cluster = &active.gateway.config.control_plane.cluster;
            log::warn!(
                "latchkey: no updates from the control plane, keys stay as they are: {why} \
                 (profile={profile} cluster={cluster})"
            );
        }
        self.is_degraded = true;
    }

    /// Takes in the answer of a poll.
    fn on_answer(&mut self, num_headers: usize, body_bytes: usize) {
        let Some(active) = &self.active else {
            return;
        };
        let source = Rc::clone(&active.source);
        let now_ms = now_ms();
        let answer = if num_headers == 0 { None } else { Some(answer_headers()) };
        match answer {
            Some(AnswerHeaders { status, is_ours: true }) if status == b"200" => {
                let body = self.get_http_call_response_body(0, body_bytes).unwrap_or_default();
                let taken = source.poller.borrow_mut().on_update(now_ms, &body);
                match taken {
                    Ok(Progress::Page) => self.is_degraded = false,
                    Ok(Progress::Applied(revision)) => {
                        self.is_degraded = false;
                        self.on_applied(revision, now_ms);
                    }
                    Err(error) => {
                        source.metrics.count_poll_failure();
                        self.warn_once(&error.to_string());
                    }
                }
            }
            Some(AnswerHeaders { status, is_ours: true }) if status == b"204" => {
                self.is_degraded = false;
                let up_to_date = source.poller.borrow_mut().on_nothing_new(now_ms);
                if let Some(revision) = up_to_date {
                    self.on_applied(revision, now_ms);
                }
            }
            Some(AnswerHeaders { status, is_ours }) => {
                let status = String::from_utf8_lossy(&status);
                let whose = if is_ours { "the control plane" } else { "a proxy on the way" };
                if is_ours {
                    source.poller.borrow_mut().start_over();
                }
                self.on_poll_failure(now_ms, &format!("{whose} answered {status}"));
            }
            None => self.on_poll_failure(now_ms, "the answer did not arrive whole"),
        }
    }

    fn on_applied(&self, revision: Revision, now_ms: u64) {
        if let Some(active) = &self.active {
            active.source.metrics.count_update(revision.number);
        }
        log::debug!("latchkey: up to date (revision={revision})");
        self.serve_waiting(now_ms);
    }

    /// Decides the requests that waited, now that there is a snapshot or their time is over.
    fn serve_waiting(&self, now_ms: u64) {
        let Some(active) = &self.active else {
            return;
        };
        http_context::serve_waiting(&active.source, now_ms);
        let _ = hostcalls::set_effective_context(self.context_id);
    }
}

/// A poll that is under way ends with its context, without an answer; another context with the same
/// source goes on.
impl Drop for Root {
    fn drop(&mut self) {
        if let (Some(active), Some(_)) = (&self.active, self.call) {
            active.source.poller.borrow_mut().abandon();
        }
    }
}

impl Context for Root {
    fn on_http_call_response(
        &mut self,
        token_id: u32,
        num_headers: usize,
        body_size: usize,
        _num_trailers: usize,
    ) {
        if self.call != Some(token_id) {
            return;
        }
        self.call = None;
        self.on_answer(num_headers, body_size);
        self.poll();
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _plugin_configuration_size: usize) -> bool {
        match self.configure() {
            Ok(()) => {
                // The first poll is the tick's: while Envoy starts there are no clusters yet.
                self.set_tick_period(TICK);
                true
            }
            Err(why) => {
                log::error!("latchkey: the plugin configuration is refused: {why}");
                false
            }
        }
    }

    fn on_tick(&mut self) {
        self.poll();
        self.serve_waiting(now_ms());
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        let gateway = self.active.as_ref().map(|active| Rc::clone(&active.gateway));
        Some(Box::new(Http::new(context_id, gateway)))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// What the headers of an answer say.
struct AnswerHeaders {
    status: Vec<u8>,
    is_ours: bool,
}

fn answer_headers() -> AnswerHeaders {
    let mut answer = AnswerHeaders { status: Vec::new(), is_ours: false };
    for (name, value) in
        hostcalls::get_map_bytes(MapType::HttpCallResponseHeaders).unwrap_or_default()
    {
        match name.as_str() {
            ":status" => answer.status = value,
            ORIGIN_HEADER => answer.is_ours = true,
            _ => {}
        }
    }
    answer
}

/// How often the root context looks for what is due: a twentieth of the second within which a
/// change must be in force, at a cost of 20 wake-ups a second and VM.
const TICK: Duration = Duration::from_millis(50);
