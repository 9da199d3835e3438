//! Small pieces of pages.

use std::fmt;

use askama::filters::HtmlSafe;
use fast_qr::convert::Builder;
use fast_qr::convert::svg::SvgBuilder;
use fast_qr::qr::QRBuilder;
use latchkey_protocol::Rule;
use latchkey_protocol::right::EVERY;

use super::once;
use crate::store::KeyState;
use crate::time::Time;

/// HTML as it stands: nothing of it comes from outside unescaped.
#[derive(Debug)]
pub(crate) struct Markup(String);

impl Markup {
    /// Returns nothing.
    pub(crate) const fn none() -> Self {
        Self(String::new())
    }
}

impl fmt::Display for Markup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HtmlSafe for Markup {}

/// Returns what a form begins with: what shows that it came from the session's own page, an id by which it
/// is taken once, and the button that the return key presses in text fields, which would be the first one
/// of the form otherwise, whatever that does. If the key is to do nothing, the button is disabled.
pub(crate) fn form(csrf: &str, id: &str, is_sent_by_return: bool) -> Markup {
    let (disabled, name) = (if is_sent_by_return { "" } else { " disabled" }, once::FIELD);
    Markup(format!(
        r#"<div class="form-head visually-hidden" aria-hidden="true"><button tabindex="-1"{disabled}></button><input type="hidden" name="csrf" value="{csrf}"><input type="hidden" name="{name}" value="{id}"></div>"#
    ))
}

/// Returns a time: in UTC, until the reader's browser puts it into the reader's zone.
pub(crate) fn time(at: &Time) -> Markup {
    let (exact, shown) = (at.rfc3339(), at.to_text());
    Markup(format!(r#"<time datetime="{exact}" title="{shown}">{shown}</time>"#))
}

/// Returns a time to the second.
pub(crate) fn time_seconds(at: &Time) -> Markup {
    let exact = at.rfc3339();
    let shown = format!("{}, {}", at.to_day(), at.to_clock());
    Markup(format!(r#"<time datetime="{exact}" title="{shown}" data-seconds>{shown}</time>"#))
}

/// Returns a time in milliseconds since the epoch.
pub(crate) fn time_ms(at_ms: &u64) -> Markup {
    time(&Time::from_unsigned_ms(*at_ms))
}

/// Returns a time, or a word where there is none.
pub(crate) fn time_or(at: &Option<Time>, none: &'static str) -> Markup {
    at.as_ref().map_or_else(|| Markup(none.to_owned()), time)
}

/// Returns a number with separators, as in `1,234,567`.
pub(crate) fn number(number: &u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Returns `1 call`, `2 calls`.
pub(crate) fn count(count: &u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if *count == 1 { one } else { many })
}

/// Returns a length of time in words, such as `30 days`.
pub(crate) fn duration(seconds: u64) -> String {
    let (amount, unit) = match seconds {
        s if s >= 86_400 && s.is_multiple_of(86_400) => (s / 86_400, "day"),
        s if s >= 3_600 && s.is_multiple_of(3_600) => (s / 3_600, "hour"),
        s if s >= 60 && s.is_multiple_of(60) => (s / 60, "minute"),
        s => (s, "second"),
    };
    format!("{amount} {unit}{}", if amount == 1 { "" } else { "s" })
}

/// Returns an age in a unit that tells it roughly, such as `3 days`.
pub(crate) fn age(seconds: u64) -> String {
    let unit = [86_400, 3_600, 60].into_iter().find(|unit| seconds >= *unit).unwrap_or(1);
    duration(seconds / unit * unit)
}

/// Returns a state with a mark that needs no colour.
pub(crate) fn state(state: &KeyState) -> Markup {
    let (class, mark, text) = match state {
        KeyState::Active => ("good", "●", "Active"),
        KeyState::Expired => ("bad", "◌", "Expired"),
        KeyState::Revoked => ("bad", "✕", "Removed"),
        KeyState::Suspended => ("warn", "❚❚", "Suspended"),
    };
    badge(class, mark, text)
}

/// Returns a word that stands out, with a mark in front.
pub(crate) fn badge(class: &str, mark: &str, text: &str) -> Markup {
    Markup(format!(
        r#"<span class="badge {class}"><span aria-hidden="true">{mark}</span> {text}</span>"#
    ))
}

/// Returns a rule in a few words, such as `blogposts: READ, CREATE`.
pub(crate) fn rule(rule: &Rule) -> String {
    let resource = if rule.resource == EVERY { "everything" } else { &rule.resource };
    let actions: Vec<String> = rule.actions.iter().map(|action| action_name(action)).collect();
    format!("{resource}: {}", actions.join(", "))
}

/// Returns an action as people see it.
pub(crate) fn action_name(action: &str) -> String {
    if action == EVERY { "all actions".to_owned() } else { action.to_uppercase().replace('_', " ") }
}

/// Returns a message as a sentence: with a capital and a full stop, and code as code.
pub(crate) fn sentence(message: &str) -> Markup {
    let mut chars = message.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    let Markup(mut html) = code(&format!("{first}{}", chars.as_str()));
    if !message.ends_with(['.', '!', '?']) {
        html.push('.');
    }
    Markup(html)
}

/// Returns a message with what stands between backticks as code.
pub(crate) fn code(message: &str) -> Markup {
    let mut html = String::with_capacity(message.len() + 16);
    let mut is_code = false;
    for (index, part) in message.split('`').enumerate() {
        if index > 0 {
            html.push_str(if is_code { "</code>" } else { "<code>" });
            is_code = !is_code;
        }
        escape(part.chars(), &mut html);
    }
    if is_code {
        html.push_str("</code>");
    }
    Markup(html)
}

/// Returns the attributes of the field with an id in which something is wrong; another element may describe
/// it as well.
pub(crate) fn invalid(id: &str, other: &str) -> Markup {
    let gap = if other.is_empty() { "" } else { " " };
    Markup(format!(r#" {INVALID} aria-describedby="{other}{gap}{id}-error""#))
}

/// Returns the attribute of a field that an element describes.
pub(crate) fn described(by: &str) -> Markup {
    Markup(format!(r#" aria-describedby="{by}""#))
}

/// Returns what is wrong with the field of an id, if anything is.
pub(crate) fn errors(id: &str, messages: &[&str]) -> Markup {
    if messages.is_empty() {
        return Markup::none();
    }
    let sentences: Vec<String> = messages.iter().map(|text| sentence(text).to_string()).collect();
    Markup(format!(r#"<p class="error" id="{id}-error">{}</p>"#, sentences.join(" ")))
}

/// By what a field in error is known. No text of a page holds it: quotation marks in texts are escaped.
pub(crate) const INVALID: &str = r#"aria-invalid="true""#;

fn escape(text: impl Iterator<Item = char>, html: &mut String) {
    for character in text {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
}

/// Returns a QR code of a text as SVG; none if the text is too long for one.
pub(crate) fn qr(text: &str) -> Option<Markup> {
    let code = QRBuilder::new(text).build().ok()?;
    Some(Markup(SvgBuilder::default().margin(3).to_str(&code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_becomes_a_sentence_and_nothing_else() {
        for (message, shown) in [
            ("expected `*`, found `<b>`", "Expected <code>*</code>, found <code>&lt;b&gt;</code>."),
            ("`x` is \"there\" twice!", "<code>x</code> is &quot;there&quot; twice!"),
            ("one ` only", "One <code> only</code>."),
            ("", "."),
        ] {
            assert_eq!(sentence(message).to_string(), shown);
        }
    }

    #[test]
    fn numbers_and_times_are_for_people() {
        for (given, shown) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")]
        {
            assert_eq!(number(&given), shown);
        }
        assert_eq!(duration(2_592_000), "30 days");
        assert_eq!(duration(3_600), "1 hour");
        assert_eq!(age(200_000), "2 days");
        assert_eq!(age(59), "59 seconds");
        let at = Time::from_ms(1_700_000_000_000);
        assert_eq!(
            time(&at).to_string(),
            r#"<time datetime="2023-11-14T22:13:20Z" title="14 Nov 2023, 22:13 UTC">14 Nov 2023, 22:13 UTC</time>"#
        );
    }
}
