//! Calls to the control plane, and their answers. Made from a root context only.

use std::time::Duration;

use latchkey_protocol::poll::ORIGIN_HEADER;
use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType, Status};

use crate::config::{Config, EdgeToken};

/// Where the control plane is, and with what credential it is called.
pub(super) struct ControlPlane {
    pub(super) cluster: String,
    authority: String,
    path_prefix: String,
    authorization: String,
}

/// What came back from a call.
pub(super) enum Answer {
    /// The control plane's own.
    Own {
        /// HTTP status.
        status: u16,
        body: Vec<u8>,
    },
    /// One that something on the way gave.
    Foreign {
        /// HTTP status.
        status: u16,
    },
    /// None, or only a part.
    Broken,
}

impl ControlPlane {
    pub(super) fn new(config: &Config, edge_token: &EdgeToken) -> Self {
        let control_plane = &config.control_plane;
        Self {
            cluster: control_plane.cluster.clone(),
            authority: control_plane.authority.clone(),
            path_prefix: control_plane.path_prefix.clone(),
            authorization: format!("Bearer {}", edge_token.reveal()),
        }
    }

    /// Makes a call: GET, or POST where there is a body. Returns its token.
    pub(super) fn call(
        &self,
        path: &str,
        body: Option<&[u8]>,
        timeout_ms: u64,
    ) -> Result<u32, Status> {
        let path = format!("{}{path}", self.path_prefix);
        let mut headers = vec![
            (":method", if body.is_some() { "POST" } else { "GET" }),
            (":path", path.as_str()),
            (":authority", self.authority.as_str()),
            ("authorization", self.authorization.as_str()),
            ("accept", "application/json"),
        ];
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let timeout = Duration::from_millis(timeout_ms);
        hostcalls::dispatch_http_call(&self.cluster, headers, body, vec![], timeout)
    }
}

impl Answer {
    /// Reads the answer that the host is handing over.
    pub(super) fn read(num_headers: usize, body_bytes: usize) -> Self {
        // Without headers the host has none to give, and asking is an error.
        if num_headers == 0 {
            return Self::Broken;
        }
        let map = MapType::HttpCallResponseHeaders;
        let mut status = 0;
        let mut is_own = false;
        for (name, value) in hostcalls::get_map_bytes(map).unwrap_or_default() {
            match name.as_str() {
                ":status" => {
                    let text = std::str::from_utf8(&value).unwrap_or_default();
                    status = text.parse().unwrap_or_default();
                }
                ORIGIN_HEADER => is_own = true,
                _ => {}
            }
        }
        if !is_own {
            return Self::Foreign { status };
        }
        let kind = BufferType::HttpCallResponseBody;
        let body = hostcalls::get_buffer(kind, 0, body_bytes).ok().flatten();
        Self::Own { status, body: body.unwrap_or_default() }
    }
}

/// What is told of an answer that is of no use.
impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own { status, .. } => write!(f, "the control plane answered {status}"),
            Self::Foreign { status } => write!(f, "a proxy on the way answered {status}"),
            Self::Broken => f.write_str("the answer did not arrive whole"),
        }
    }
}
