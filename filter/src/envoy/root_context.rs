//! The root context: configuration, the tick, and calls to the control plane.

use std::rc::Rc;
use std::time::Duration;

use latchkey_protocol::lease;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use super::control_plane::{Answer, ControlPlane};
use super::host;
use super::http_context::{Gateway, Http};
use super::source::{self, Source};
use super::waiting;
use super::wake::{Note, Wake};
use crate::config::{Config, EdgeToken};
use crate::leases;
use crate::poller::{self, Progress};

/// One plugin configuration in one VM.
pub(super) struct Root {
    context_id: u32,
    active: Option<Active>,
    /// The poll for updates.
    poll: Link,
    /// The call for leases.
    lease: Link,
    tick: Duration,
}

struct Active {
    gateway: Rc<Gateway>,
    source: Rc<Source>,
    /// Without a credential, nothing is asked for, and nothing is served but public routes where
    /// clients without a token are not counted.
    control_plane: Option<ControlPlane>,
}

/// One kind of call, of which there is one at a time.
#[derive(Default)]
struct Link {
    /// Token of the call that is under way.
    call: Option<u32>,
    /// Number of the attempt that it is.
    attempt: u64,
    /// Whether the last one failed, so that an outage is logged once.
    is_degraded: bool,
}

impl Root {
    pub(super) fn new(context_id: u32) -> Self {
        let (poll, lease) = (Link::default(), Link::default());
        Self { context_id, active: None, poll, lease, tick: TICK }
    }

    fn configure(&mut self) -> Result<(), String> {
        let json = self.get_plugin_configuration().unwrap_or_default();
        let config = Config::parse(&json)?;
        let name = &config.control_plane.edge_token_env;
        let edge_token = config
            .control_plane
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
        // The root context before this one may have had calls under way, which are cancelled
        // without an answer.
        source.poller.borrow_mut().abandon();
        source.leases.borrow_mut().abandon();
        source.wake.replace(Wake::register(&source.worker(), self.context_id));
        let control_plane = edge_token.map(|token| ControlPlane::new(&config, &token));
        let root_id = self.get_property(vec!["plugin_root_id"]).unwrap_or_default();
        let reads_bodies = root_id == BODIES_ROOT_ID;
        let gateway = Rc::new(Gateway { config, source: Rc::clone(&source), reads_bodies });
        self.active = Some(Active { gateway, source, control_plane });
        Ok(())
    }

    /// Looks whether something was published, and takes it into use here.
    fn look_for_publication(&self) {
        let Some(active) = &self.active else {
            return;
        };
        let Some(revision) = active.source.look() else {
            return;
        };
        log::debug!("latchkey: up to date (revision={revision})");
        if active.control_plane.is_some() {
            active.source.attend();
            active.source.wake_leader();
        }
    }

    /// Does what is due for all VMs of the proxy, if this one leads: a slice of the work, or a poll.
    fn lead(&mut self) {
        let Some(active) = &self.active else {
            return;
        };
        if active.control_plane.is_none() || !active.source.attend() {
            return;
        }
        let source = Rc::clone(&active.source);
        let worked = source.poller.borrow_mut().work(host::now().steady_ms());
        match worked {
            Ok(Some(_)) => {
                self.look_for_publication();
                source.wake_others();
            }
            Ok(None) => {}
            Err(error) => self.poll.warn(active, NO_UPDATES, &error.to_string()),
        }
        if source.poller.borrow().has_work() {
            // What else waits for this thread goes first.
            if let Some(wake) = &*source.wake.borrow() {
                wake.call();
            }
        }
        self.call_for_updates();
    }

    /// Makes the poll that is due, if any.
    fn call_for_updates(&mut self) {
        let Some(active) = &self.active else {
            return;
        };
        let Some(control_plane) = &active.control_plane else {
            return;
        };
        let now_ms = host::now().steady_ms();
        let standing = active.source.standing();
        let Some(attempt) = active.source.poller.borrow_mut().poll(now_ms, &standing) else {
            return;
        };
        self.poll.attempt = attempt.number;
        let path = attempt.poll.path_and_query();
        match control_plane.call(&path, None, poller::CALL_TIMEOUT_MS) {
            Ok(token) => self.poll.call = Some(token),
            Err(status) => {
                self.on_poll_failure(now_ms, &format!("the call could not be made ({status:?})"));
            }
        }
    }

    fn on_poll_failure(&mut self, now_ms: u64, why: &str) {
        let Some(active) = &self.active else {
            return;
        };
        active.source.poller.borrow_mut().on_failure(now_ms);
        active.source.metrics.count_poll_failure();
        self.poll.warn(active, NO_UPDATES, why);
    }

    /// Takes in the answer of a poll.
    fn on_update(&mut self, answer: &Answer) {
        let Some(active) = &self.active else {
            return;
        };
        let source = Rc::clone(&active.source);
        // One that leads no more leaves it to the one that does; an answer to a poll that was given up, or
        // that another context has made anew, is not waited for.
        let leads = source.attend();
        if !leads {
            source.poller.borrow_mut().abandon();
        }
        if !source.poller.borrow().is_under_way(self.poll.attempt) {
            return;
        }
        let now_ms = host::now().steady_ms();
        match answer {
            Answer::Own { status: 200, body } => {
                let taken = source.poller.borrow_mut().on_update(now_ms, body);
                match taken {
                    Ok(Progress::Nothing | Progress::Work) => self.poll.is_degraded = false,
                    Ok(Progress::Recalled(recalls)) => {
                        self.poll.is_degraded = false;
                        source.recall(recalls);
                    }
                    Err(error) => {
                        source.metrics.count_poll_failure();
                        self.poll.warn(active, NO_UPDATES, &error.to_string());
                    }
                }
            }
            Answer::Own { status: 204, .. } => {
                self.poll.is_degraded = false;
                source.poller.borrow_mut().on_nothing_new(now_ms);
            }
            Answer::Own { .. } => {
                source.poller.borrow_mut().on_refused();
                self.on_poll_failure(now_ms, &answer.to_string());
            }
            Answer::Foreign { .. } | Answer::Broken => {
                self.on_poll_failure(now_ms, &answer.to_string());
            }
        }
    }

    /// Makes the call for leases that is due, if any.
    fn call_for_leases(&mut self) {
        let Some(active) = &self.active else {
            return;
        };
        let Some(control_plane) = &active.control_plane else {
            return;
        };
        let Some(attempt) = active.source.leases.borrow_mut().call(host::now()) else {
            return;
        };
        self.lease.attempt = attempt.number;
        active.source.metrics.count_lease_call();
        match control_plane.call(lease::PATH, Some(&attempt.body), leases::CALL_TIMEOUT_MS) {
            Ok(token) => self.lease.call = Some(token),
            Err(status) => {
                active.source.leases.borrow_mut().on_failure(attempt.number, host::now());
                self.on_lease_failure(&format!("the call could not be made ({status:?})"));
            }
        }
    }

    /// Takes in the answer of a call for leases.
    fn on_leases(&mut self, answer: &Answer) {
        let Some(active) = &self.active else {
            return;
        };
        let source = Rc::clone(&active.source);
        let (attempt, now) = (self.lease.attempt, host::now());
        let failure = match answer {
            Answer::Own { status: 200, body } => {
                let taken = source.leases.borrow_mut().on_answer(attempt, now, body);
                taken.err().map(|error| format!("the answer is not readable: {error}"))
            }
            // The call is at fault, and would be again.
            Answer::Own { status: 400 | 413 | 415 | 422, .. } => {
                source.leases.borrow_mut().on_refused_call(attempt, now);
                Some(answer.to_string())
            }
            Answer::Own { .. } | Answer::Foreign { .. } | Answer::Broken => {
                source.leases.borrow_mut().on_failure(attempt, now);
                Some(answer.to_string())
            }
        };
        match failure {
            None => self.lease.is_degraded = false,
            Some(why) => self.on_lease_failure(&why),
        }
    }

    fn on_lease_failure(&mut self, why: &str) {
        let Some(active) = &self.active else {
            return;
        };
        active.source.metrics.count_lease_failure();
        self.lease.warn(active, "no leases from the control plane, limited calls will end", why);
    }

    /// Ticks faster while there are requests to be decided, or requests wait for what other workers are
    /// about to give back.
    fn adjust_tick(&mut self) {
        let Some(active) = &self.active else {
            return;
        };
        let is_contested = active.source.leases.borrow().is_contested();
        let tick = if active.source.waiting.is_draining() {
            DRAIN_TICK
        } else if is_contested {
            FAST_TICK
        } else {
            TICK
        };
        if tick != self.tick {
            self.tick = tick;
            self.set_tick_period(tick);
        }
    }

    /// Ends a callback: decides requests that waited, where there may be what they waited for or their
    /// time is over, and makes the call for leases that is due.
    fn go_on(&mut self) {
        if let Some(active) = &self.active {
            waiting::serve(&active.source, host::now());
            let _ = hostcalls::set_effective_context(self.context_id);
        }
        self.call_for_leases();
        self.adjust_tick();
    }
}

impl Link {
    /// Logs what is wrong, once until it is right again.
    fn warn(&mut self, active: &Active, what: &str, why: &str) {
        if !self.is_degraded {
            let config = &active.gateway.config;
            let (profile, cluster) = (&config.profile.name, &config.control_plane.cluster);
            log::warn!("latchkey: {what}: {why} (profile={profile} cluster={cluster})");
        }
        self.is_degraded = true;
    }
}

/// Calls that are under way end with their context, without an answer; another context with the same
/// source goes on.
impl Drop for Root {
    fn drop(&mut self) {
        let Some(active) = &self.active else {
            return;
        };
        if self.poll.call.is_some() {
            active.source.poller.borrow_mut().abandon();
        }
        if self.lease.call.is_some() {
            active.source.leases.borrow_mut().abandon();
        }
        active.source.wake.borrow_mut().take_if(|wake| wake.is_of(self.context_id));
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
        if self.poll.call == Some(token_id) {
            self.poll.call = None;
            self.on_update(&Answer::read(num_headers, body_size));
            self.lead();
        } else if self.lease.call == Some(token_id) {
            self.lease.call = None;
            self.on_leases(&Answer::read(num_headers, body_size));
        }
        self.go_on();
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
        if let Some(active) = &self.active {
            active.source.waiting.tick();
            active.source.leases.borrow_mut().look(host::now());
            // The context that could be woken before may be gone.
            let wake = &mut *active.source.wake.borrow_mut();
            if wake.is_none() {
                *wake = Wake::register(&active.source.worker(), self.context_id);
            }
        }
        self.look_for_publication();
        self.lead();
        self.go_on();
    }

    fn on_queue_ready(&mut self, queue_id: u32) {
        let Some(active) = &self.active else {
            return;
        };
        let note = active.source.wake.borrow().as_ref().and_then(|wake| wake.answer(queue_id));
        let Some(note) = note else {
            return;
        };
        if let Note::Recall(subject) = note {
            active.source.leases.borrow_mut().recall(&subject, host::now());
        }
        self.look_for_publication();
        self.lead();
        self.go_on();
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        let gateway = self.active.as_ref().map(|active| {
            active.source.serves.set(true);
            Rc::clone(&active.gateway)
        });
        Some(Box::new(Http::new(context_id, gateway)))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

const NO_UPDATES: &str = "no updates from the control plane, keys stay as they are";

/// The `root_id` of a filter to which Envoy gives bodies while it holds the headers back: one with
/// `allow_on_headers_stop_iteration`, which a filter cannot see.
const BODIES_ROOT_ID: &[u8] = b"bodies";

/// How often the root context looks for what is due: a twentieth of the second within which a
/// change must be in force, at a cost of 20 wake-ups a second and VM.
const TICK: Duration = Duration::from_millis(50);

/// The same while there are requests to be decided: what comes from outside has its turn before each.
const DRAIN_TICK: Duration = Duration::from_millis(1);

/// The same while requests wait for leases that others hold: some round trips.
const FAST_TICK: Duration = Duration::from_millis(10);
