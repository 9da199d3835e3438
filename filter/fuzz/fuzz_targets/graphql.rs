//! GraphQL documents: read as published parsers read them, whatever the bytes.

#![no_main]

use latchkey_filter::authorize::reach::graphql::document;
use libfuzzer_sys::fuzz_target;

#[path = "../oracle.rs"]
mod oracle;

fuzz_target!(|text: &str| oracle::check(text));
