//! Spellings: what some reader on the way to the API could take a text for.
//!
//! Servers and frameworks fold names, each in its own way. What is judged under one name must not be
//! read under another behind the gateway, so two names are the same here if they are to any of them.

use std::borrow::Cow;

/// Reports whether an upstream could read two names of headers as one.
///
/// Gateways to CGI and its like write names in capitals and put `_` for `-` (RFC 3875, section
/// 4.1.18); PHP and lighttpd do so for every character that is neither a letter nor a digit.
#[must_use]
pub fn is_same_header(name: &str, other: &str) -> bool {
    let fold =
        |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    name.len() == other.len()
        && name.bytes().zip(other.bytes()).all(|(a, b)| a == b || fold(a) == fold(b))
}

/// The name of a parameter as a client spelled it, decoded once, and what readers could see in it.
///
/// Capitals and signs tell no two names apart: `Content-Type`, `content.type` and `contentType` could
/// all be `content_type`. Only a sign at the start does, so that `method` is not `_method`. What is
/// encoded again is read decoded, each time; a character that is not ASCII could be the letter that it
/// looks like; what stands before a bracket, `.` or NUL, or beside `?`, `;`, `&` or `=`, could be a name, too.
#[derive(Debug)]
pub struct Spelled<'a> {
    text: Cow<'a, [u8]>,
    /// With which letters the names begin that it could be, a bit for each.
    initials: u32,
    /// Where it could be read in more than one way, all of them.
    outline: Option<Box<[u8]>>,
}

impl<'a> Spelled<'a> {
    /// Returns a name.
    #[must_use]
    pub fn new(text: Cow<'a, [u8]>) -> Self {
        let plain = without_index(&text);
        if plain.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
            let initials = initial(letters(plain).next().unwrap_or_default());
            return Self { text, initials, outline: None };
        }
        let mut outline = Vec::new();
        for reading in decodings(&text) {
            draw(&folded(&reading), &mut outline);
        }
        let pieces = outline.split(|&mark| matches!(mark, NEXT | AGAIN));
        let initials = pieces.fold(0, |all, piece| {
            let first = piece.iter().find(|mark| !matches!(**mark, SIGN | CUT));
            all | match first {
                None => 0,
                Some(&UNKNOWN) => u32::MAX,
                Some(&letter) => initial(letter),
            }
        });
        Self { text, initials, outline: Some(outline.into()) }
    }

    /// Returns with which letters the names begin that it could be, a bit for each.
    #[must_use]
    pub fn initials(&self) -> u32 {
        self.initials
    }

    /// Returns it as it was spelled.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Reports whether some reader could take it for another name.
    #[must_use]
    pub fn could_be(&self, name: &str) -> bool {
        // Nearly all names are plain, and others.
        if self.initials & initial_of(name) == 0 {
            return false;
        }
        match &self.outline {
            None => has_letters_of(without_index(&self.text), name),
            Some(outline) => {
                let name = Letters::of(name);
                let mut readings = outline.split(|&mark| mark == AGAIN);
                readings.any(|reading| {
                    let mut pieces = reading.split(|&mark| mark == NEXT);
                    name.are_in(reading) || pieces.any(|piece| name.are_in(piece))
                })
            }
        }
    }
}

/// Adds the outline of a text: its letters and digits in lower case, and marks for what is between.
fn draw(text: &[u8], outline: &mut Vec<u8>) {
    outline.push(AGAIN);
    for &byte in text {
        let mark = match byte {
            b'?' | b';' | b'&' | b'=' => NEXT,
            b'[' | b']' | b'.' | 0 => CUT,
            0x80.. => UNKNOWN,
            _ if byte.is_ascii_alphanumeric() => byte.to_ascii_lowercase(),
            _ => SIGN,
        };
        // However many signs there are: they are as good as one.
        match outline.last().copied() {
            Some(SIGN) if mark == CUT => {
                outline.pop();
                outline.push(CUT);
            }
            Some(SIGN | CUT) if matches!(mark, SIGN | CUT) => {}
            Some(NEXT) if mark == NEXT => {}
            Some(_) | None => outline.push(mark),
        }
    }
}

/// What outlines are compared with: the letters and digits of a name.
struct Letters {
    letters: Vec<u8>,
    /// Whether a sign comes first.
    needs_sign: bool,
}

impl Letters {
    fn of(name: &str) -> Self {
        let needs_sign = name.bytes().next().is_some_and(|first| !first.is_ascii_alphanumeric());
        Self { letters: letters(name.as_bytes()).take(MAX_LETTERS).collect(), needs_sign }
    }

    /// Reports whether a part of an outline could be the name.
    fn are_in(&self, piece: &[u8]) -> bool {
        let Self { letters, needs_sign } = self;
        if *needs_sign && !matches!(piece.first(), Some(&(SIGN | CUT | UNKNOWN | NEXT))) {
            return false;
        }
        let whole = 1_u64 << letters.len();
        // How many letters of the name may be there so far, a bit for each number.
        let mut matched = 1_u64;
        let (mut plain, mut unknown) = (0, 0);
        let is_enough =
            |plain: usize, matched: u64| matched & whole != 0 && plain * 2 >= letters.len();
        for &mark in piece {
            match mark {
                CUT if is_enough(plain, matched) => return true,
                CUT | SIGN | NEXT => {}
                UNKNOWN => {
                    // Two bytes at the least for a character, which stands for two letters at the most.
                    unknown += 1;
                    matched |= matched << 1;
                }
                letter => {
                    plain += 1;
                    let next = |(at, other): (usize, &u8)| {
                        if *other == letter && matched & (1 << at) != 0 { 1 << (at + 1) } else { 0 }
                    };
                    matched = letters.iter().enumerate().map(next).fold(0, |all, bit| all | bit);
                }
            }
            if matched == 0 || plain > letters.len() || unknown > MAX_UNKNOWN {
                return false;
            }
        }
        is_enough(plain, matched)
    }
}

/// Marks in outlines: the text as it is read when it is decoded once more begins.
const AGAIN: u8 = b'%';
/// The next part begins.
const NEXT: u8 = b'&';
/// A sign, or several.
const SIGN: u8 = b'-';
/// Signs at which some readers end a name.
const CUT: u8 = b'.';
/// A byte of a character that is not ASCII.
const UNKNOWN: u8 = 0xff;

/// Most letters of a name that are compared.
const MAX_LETTERS: usize = 48;

/// Most bytes that are not ASCII in what could be the name of a parameter of ours.
const MAX_UNKNOWN: usize = 2 * MAX_LETTERS;

/// Returns the bit of the letter with which a name begins.
#[must_use]
pub fn initial_of(name: &str) -> u32 {
    initial(letters(name.as_bytes()).next().unwrap_or_default())
}

fn initial(letter: u8) -> u32 {
    1 << (letter % 32)
}

/// Returns a name without the brackets by which it says that it is one of a list: `[]` or `[0]`.
fn without_index(name: &[u8]) -> &[u8] {
    let Some(inner) = name.strip_suffix(b"]") else {
        return name;
    };
    let digits = inner.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = inner.get(..inner.len() - digits).unwrap_or_default();
    rest.strip_suffix(b"[").unwrap_or(name)
}

/// Returns a text as readers see it that decode `%XX`, `%uXXXX` and `\uXXXX` once, twice and so on, until
/// there is nothing left to decode; itself first.
pub fn decodings(text: &[u8]) -> impl Iterator<Item = Cow<'_, [u8]>> {
    std::iter::successors(Some(Cow::Borrowed(text)), |text| decoded_once(text).map(Cow::Owned))
        .take(MAX_ROUNDS + 1)
}

/// Returns a text with nothing left to decode, as far as it is decoded here.
#[must_use]
pub fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    decodings(text).last().unwrap_or_default()
}

/// Reports whether a text is encoded more often than anything on the way decodes.
#[must_use]
pub fn is_encoded_too_often(text: &[u8]) -> bool {
    decodings(text).nth(MAX_ROUNDS).is_some_and(|text| decoded_once(&text).is_some())
}

/// Reports whether two names have the same letters and digits, and both a sign at the start if `name`
/// has one.
fn has_letters_of(spelled: &[u8], name: &str) -> bool {
    let starts_with_sign =
        |text: &[u8]| text.first().is_some_and(|first| !first.is_ascii_alphanumeric());
    letters(spelled).eq(letters(name.as_bytes()))
        && (starts_with_sign(spelled) || !starts_with_sign(name.as_bytes()))
}

/// Returns the letters and digits of a text, in lower case.
fn letters(text: &[u8]) -> impl Iterator<Item = u8> {
    let letters = text.iter().filter(|byte| byte.is_ascii_alphanumeric());
    letters.map(u8::to_ascii_lowercase)
}

/// Decodes a text once; none if there is nothing to decode.
fn decoded_once(text: &[u8]) -> Option<Vec<u8>> {
    let first = text.iter().position(|&byte| matches!(byte, b'%' | b'\\'))?;
    let mut decoded = Vec::with_capacity(text.len());
    let (plain, mut rest) = text.split_at_checked(first)?;
    decoded.extend_from_slice(plain);
    let mut is_changed = false;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%'
            && let Some((digits, after)) = after.split_first_chunk::<2>()
            && let Some(number) = number(digits)
        {
            // Four bits each of two digits: it fits.
            decoded.extend(u8::try_from(number));
            rest = after;
            is_changed = true;
        } else if matches!(byte, b'%' | b'\\')
            && let Some((&[b'u' | b'U', ref digits @ ..], after)) = after.split_first_chunk::<5>()
            && let Some(number) = number(digits)
        {
            let character = char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER);
            decoded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            rest = after;
            is_changed = true;
        } else {
            decoded.push(byte);
        }
    }
    is_changed.then_some(decoded)
}

/// Returns the number that hexadecimal digits say.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, &digit| Some(number * 16 + char::from(digit).to_digit(16)?))
}

/// Returns a text with the letters of other alphabets that some readers take for ASCII as those: the
/// wide ones, those that differ by case rules, and those in two bytes that one would do for.
#[must_use]
pub fn folded(text: &[u8]) -> Cow<'_, [u8]> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut shortest = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after.split_first()) {
            (0xc0 | 0xc1, Some((&low, after))) => {
                shortest.push(((byte & 1) << 6) | (low & 0x3f));
                rest = after;
            }
            _ => shortest.push(byte),
        }
    }
    let characters = String::from_utf8_lossy(&shortest);
    let folded = characters.chars().map(|character| match character {
        '\u{ff01}'..='\u{ff5e}' => {
            char::from_u32(u32::from(character) - 0xfee0).unwrap_or(character)
        }
        'ſ' => 's',
        'ı' | 'İ' => 'i',
        '\u{212a}' => 'k',
        _ => character,
    });
    Cow::Owned(folded.collect::<String>().into_bytes())
}

/// How often a text is decoded at most: more often than anything on the way does.
const MAX_ROUNDS: usize = 6;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn could_be(spelled: &[u8], name: &str) -> bool {
        Spelled::new(Cow::Borrowed(spelled)).could_be(name)
    }

    const NAMES: [&str; 6] =
        ["hydrate", "updateExisting", "content_type", "auth_token", "order_by", "_method"];

    fn signs() -> impl Iterator<Item = char> {
        (0_u8..128).map(char::from).filter(|sign| !sign.is_ascii_alphanumeric())
    }

    /// Servers used to read headers as the real ones that were let through as others.
    #[test]
    fn header_is_the_same_with_other_signs_and_capitals() {
        for name in ["x-latchkey-account", "x-http-method-override", "content-type", "x_auth_token"]
        {
            for sign in signs() {
                let spelled = name.replace(['-', '_'], &sign.to_string());
                assert!(is_same_header(&spelled, name), "{spelled:?}");
                assert!(is_same_header(&spelled.to_uppercase(), name), "{spelled:?}");
                let longer = format!("{name}{sign}");
                assert!(!is_same_header(&longer, name), "{longer:?}");
            }
            let other = name.replacen('e', "f", 1);
            assert!(!is_same_header(&other, name), "{other}");
        }
    }

    #[test]
    fn every_sign_at_every_place_could_be_the_name() {
        for name in NAMES {
            for sign in signs() {
                for place in 0..=name.len() {
                    let mut spelled = name.to_owned();
                    spelled.insert(place, sign);
                    assert!(could_be(spelled.as_bytes(), name), "{spelled:?}");
                }
            }
            for sign in signs() {
                let spelled = name.replace('_', &sign.to_string());
                assert!(could_be(spelled.as_bytes(), name), "{spelled:?}");
            }
        }
    }

    #[test]
    fn every_letter_in_another_form_could_be_the_name() {
        for name in NAMES {
            for (place, letter) in name.char_indices() {
                let code = u32::from(letter);
                let wide = char::from_u32(code + 0xfee0).unwrap();
                for form in [
                    letter.to_ascii_uppercase().to_string(),
                    letter.to_ascii_lowercase().to_string(),
                    format!("%{code:02x}"),
                    format!("%25{code:02X}"),
                    format!("%2525{code:02x}"),
                    format!("%u{code:04x}"),
                    format!("%U{code:04X}"),
                    format!("%25u{code:04x}"),
                    wide.to_string(),
                    format!("%u{:04X}", u32::from(wide)),
                ] {
                    let mut spelled = name.to_owned();
                    spelled.replace_range(place..=place, &form);
                    assert!(could_be(spelled.as_bytes(), name), "{spelled:?}");
                }
                let mut overlong = name.as_bytes().to_vec();
                let low = u8::try_from(code & 0x3f).unwrap();
                let bytes = [0xc0 | u8::try_from(code >> 6).unwrap(), 0x80 | low];
                overlong.splice(place..=place, bytes);
                assert!(could_be(&overlong, name), "{overlong:x?}");
            }
        }
    }

    #[test]
    fn name_within_another_could_be_it() {
        for name in NAMES {
            for spelled in [
                format!("{name}[]"),
                format!("{name}[0]"),
                format!("{name}[x][y]"),
                format!("{name}[x"),
                format!("{name}.x"),
                format!("{name}\0x"),
                format!("?{name}"),
                format!("a?{name}"),
                format!("a;{name}[x]"),
                format!("a&{name}"),
                format!("a%26{name}"),
                format!("{name}%00x"),
                format!("{name}%5bx"),
                format!(" {name} "),
            ] {
                assert!(could_be(spelled.as_bytes(), name), "{spelled:?}");
            }
        }
    }

    #[test]
    fn other_names_are_others() {
        for name in NAMES {
            for other in
                ["", "q", "page", "limit", "a[b]", "%", "%zz", "method", "x.y", "é", "hydr"]
            {
                assert!(!could_be(other.as_bytes(), name), "{other} {name}");
            }
            for other in
                [format!("{name}s"), format!("x{name}"), format!("x[{name}]"), format!("a.{name}")]
            {
                assert!(!could_be(other.as_bytes(), name), "{other} {name}");
            }
        }
    }

    #[test]
    fn text_is_decoded_until_nothing_is_left() {
        for (text, expected) in [
            ("plain", "plain"),
            ("%66tq_", "ftq_"),
            ("%2566tq_", "ftq_"),
            ("%252566tq%5f", "ftq_"),
            ("%u0066tq_%", "ftq_%"),
            ("%%36%36", "f"),
            ("%zz%4", "%zz%4"),
        ] {
            assert_eq!(decoded(text.as_bytes()), expected.as_bytes(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            for name in NAMES {
                let _ = could_be(&text, name);
            }
            let _ = decoded(&text);
        }
    }
}
