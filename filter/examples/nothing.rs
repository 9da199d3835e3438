//! A filter that does nothing: what it costs to have any Wasm filter at all.
//!
//! `filter/build.sh nothing` makes `target/nothing.wasm` of it, which `make bench` measures beside
//! the filter.

#[cfg(target_arch = "wasm32")]
mod start {
    use proxy_wasm::traits::{Context, HttpContext, RootContext};
    use proxy_wasm::types::ContextType;

    #[derive(Debug)]
    struct Nothing;

    impl Context for Nothing {}

    impl HttpContext for Nothing {}

    impl RootContext for Nothing {
        fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
            Some(Box::new(Self))
        }

        fn get_type(&self) -> Option<ContextType> {
            Some(ContextType::HttpContext)
        }
    }

    proxy_wasm::main! {{
        proxy_wasm::set_root_context(|_context_id| Box::new(Nothing));
    }}
}
