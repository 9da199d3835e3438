//! Stage: the path, in the one form that is judged and forwarded.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A path that every reader reads alike.
#[derive(Debug, PartialEq, Eq)]
pub struct CanonicalPath<'a> {
    /// Decoded segments; the last is empty if the path ends with a slash.
    pub segments: Vec<Cow<'a, str>>,
    /// The path as it is forwarded: unreserved characters decoded, all else as it was sent.
    pub text: Cow<'a, str>,
}

/// Why a path could be read in more than one way, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// `\`, which some readers take for a slash.
    #[error("the path holds a backslash")]
    Backslash,
    /// A control character, plain or encoded.
    #[error("the path holds a control character")]
    ControlCharacter,
    /// `.` or `..`, plain or encoded.
    #[error("the path holds a dot segment")]
    DotSegment,
    /// Encoded twice, such as `%252F`.
    #[error("the path is percent-encoded twice")]
    DoubleEncoding,
    /// `//`.
    #[error("the path holds an empty segment")]
    EmptySegment,
    /// `%2F`.
    #[error("the path holds an encoded slash")]
    EncodedSlash,
    /// `#`, which ends the path for some readers.
    #[error("the path holds a fragment")]
    Fragment,
    /// `%` without two hexadecimal digits.
    #[error("the path holds a percent sign that encodes nothing")]
    InvalidEncoding,
    /// Bytes that are not UTF-8, or not ASCII where they are not encoded.
    #[error("the path is not UTF-8")]
    InvalidUtf8,
    /// `;`, with which some readers begin parameters of a segment.
    #[error("the path holds a semicolon")]
    PathParameter,
    /// No slash at the start.
    #[error("the path does not start with a slash")]
    Relative,
}

impl<'a> CanonicalPath<'a> {
    /// Returns the canonical form of a path without its query.
    ///
    /// Percent-encoded unreserved characters are decoded (RFC 3986, section 6.2.2.2); other
    /// encodings stay, in capitals.
    ///
    /// # Errors
    ///
    /// A [`PathError`] if two readers could see two different paths.
    pub fn parse(path: &'a str) -> Result<Self, PathError> {
        let Some(relative) = path.strip_prefix('/') else {
            return Err(PathError::Relative);
        };
        // Nearly all paths have nothing that has to be looked at character by character.
        let is_plain = relative.bytes().all(is_plain);
        let count = relative.bytes().filter(|&byte| byte == b'/').count() + 1;
        let mut segments = Vec::with_capacity(count);
        let mut text = String::new();
        for (index, raw) in relative.split('/').enumerate() {
            if raw.is_empty() && index + 1 < count {
                return Err(PathError::EmptySegment);
            }
            if is_plain {
                segments.push(Cow::Borrowed(check_dots(raw)?));
            } else {
                text.push('/');
                write_canonical(raw, &mut text)?;
                segments.push(Cow::Owned(decode(raw)?));
            }
        }
        let text = if is_plain { Cow::Borrowed(path) } else { Cow::Owned(text) };
        Ok(Self { segments, text })
    }
}

/// Reports whether a byte of a path is read and forwarded as it is, whatever stands around it.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'#' | b'%' | b';' | b'\\')
}

fn check_dots(segment: &str) -> Result<&str, PathError> {
    if segment == "." || segment == ".." { Err(PathError::DotSegment) } else { Ok(segment) }
}

fn decode(raw: &str) -> Result<String, PathError> {
    let decoded: Cow<'_, [u8]> = percent_decode_str(raw).into();
    let decoded = std::str::from_utf8(&decoded).map_err(|_| PathError::InvalidUtf8)?;
    check_dots(decoded)?;
    for character in decoded.chars() {
        match character {
            '/' => return Err(PathError::EncodedSlash),
            '\\' => return Err(PathError::Backslash),
            ';' => return Err(PathError::PathParameter),
            _ if character.is_control() => return Err(PathError::ControlCharacter),
            _ => {}
        }
    }
    let encoded_again = decoded.as_bytes().windows(3).any(
        |window| matches!(window, [b'%', a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()),
    );
    if encoded_again {
        return Err(PathError::DoubleEncoding);
    }
    Ok(decoded.to_owned())
}

fn write_canonical(raw: &str, text: &mut String) -> Result<(), PathError> {
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (Some(high), Some(low)) = (hex_digit(bytes.next()), hex_digit(bytes.next()))
                else {
                    return Err(PathError::InvalidEncoding);
                };
                let decoded = high * 16 + low;
                if is_unreserved(decoded) {
                    text.push(char::from(decoded));
                } else {
                    text.push_str(&format!("%{decoded:02X}"));
                }
            }
            b'#' => return Err(PathError::Fragment),
            0x80.. => return Err(PathError::InvalidUtf8),
            _ if byte.is_ascii_control() => return Err(PathError::ControlCharacter),
            _ => text.push(char::from(byte)),
        }
    }
    Ok(())
}

fn hex_digit(byte: Option<u8>) -> Option<u8> {
    match byte? {
        byte @ b'0'..=b'9' => Some(byte - b'0'),
        byte @ b'a'..=b'f' => Some(byte - b'a' + 10),
        byte @ b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn path_that_two_readers_could_read_differently_is_refused() {
        for (path, error) in [
            ("", PathError::Relative),
            ("*", PathError::Relative),
            ("a/b", PathError::Relative),
            ("//a", PathError::EmptySegment),
            ("/a//b", PathError::EmptySegment),
            ("/a//", PathError::EmptySegment),
            ("/a/./b", PathError::DotSegment),
            ("/a/../b", PathError::DotSegment),
            ("/a/..", PathError::DotSegment),
            ("/a/%2e%2E/b", PathError::DotSegment),
            ("/a/.%2e/b", PathError::DotSegment),
            ("/a%2Fb", PathError::EncodedSlash),
            ("/a%2fb", PathError::EncodedSlash),
            ("/a\\b", PathError::Backslash),
            ("/a%5cb", PathError::Backslash),
            ("/a%00b", PathError::ControlCharacter),
            ("/a%0d%0ab", PathError::ControlCharacter),
            ("/a\tb", PathError::ControlCharacter),
            ("/a%7f", PathError::ControlCharacter),
            ("/a%c2%85", PathError::ControlCharacter),
            ("/a%252Fb", PathError::DoubleEncoding),
            ("/a%2562", PathError::DoubleEncoding),
            ("/a;b=c", PathError::PathParameter),
            ("/a/..;/b", PathError::PathParameter),
            ("/a%3bb", PathError::PathParameter),
            ("/a#b", PathError::Fragment),
            ("/a%", PathError::InvalidEncoding),
            ("/a%2", PathError::InvalidEncoding),
            ("/a%zz", PathError::InvalidEncoding),
            ("/a%ff", PathError::InvalidUtf8),
            ("/a%c0%ae", PathError::InvalidUtf8),
            ("/ä", PathError::InvalidUtf8),
        ] {
            assert_eq!(CanonicalPath::parse(path), Err(error), "{path}");
        }
    }

    #[test]
    fn harmless_encodings_have_one_form() {
        for (path, text, last) in [
            ("/", "/", ""),
            ("/a/", "/a/", ""),
            ("/%61b", "/ab", "ab"),
            ("/a%20b", "/a%20b", "a b"),
            ("/%c3%a4", "/%C3%A4", "ä"),
            ("/a%2bb+c", "/a%2Bb+c", "a+b+c"),
            ("/100%25", "/100%25", "100%"),
            ("/...", "/...", "..."),
            ("/a:b@c!$&'()*,=", "/a:b@c!$&'()*,=", "a:b@c!$&'()*,="),
        ] {
            let canonical = CanonicalPath::parse(path).unwrap();
            assert_eq!(canonical.text, text, "{path}");
            assert_eq!(canonical.segments.last().unwrap(), last, "{path}");
        }
    }

    proptest! {
        /// What is forwarded is what was judged: read again, it is the same path.
        #[test]
        fn canonical_form_is_read_as_the_same_path(path in "/[a-c%/.;\\\\0-9A-Fé ]{0,24}") {
            if let Ok(canonical) = CanonicalPath::parse(&path) {
                let again = CanonicalPath::parse(&canonical.text);
                prop_assert_eq!(again.as_ref(), Ok(&canonical));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(path in "\\PC{0,64}") {
            let _ = CanonicalPath::parse(&path);
        }
    }
}
