//! The edge: the only files that talk to the host.

mod control_plane;
mod host;
mod http_context;
mod metrics;
mod root_context;
mod shared_data;
mod source;
mod waiting;
mod wake;

use proxy_wasm::types::LogLevel;

use root_context::Root;

mod start {
    use super::{LogLevel, Root};

    proxy_wasm::main! {{
        proxy_wasm::set_log_level(LogLevel::Info);
        proxy_wasm::set_root_context(|context_id| Box::new(Root::new(context_id)));
    }}
}
