//! Paths: one form for all readers, and the same once more.

#![no_main]

use latchkey_filter::authorize::path::CanonicalPath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(path) = CanonicalPath::parse(text) else {
        return;
    };
    for segment in &path.segments {
        assert!(!segment.contains(['/', '\\', ';']) && segment != "." && segment != "..", "{text}");
        assert!(!segment.chars().any(char::is_control), "{text}");
    }
    assert!(path.text.is_ascii() && !path.text.contains("//"), "{text}");
    assert_eq!(CanonicalPath::parse(&path.text).as_ref(), Ok(&path), "{text}");
});
