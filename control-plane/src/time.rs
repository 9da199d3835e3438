//! Points in time, as the API shows them.

use jiff::civil::{DateTime, date};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

/// A point in time, in whole milliseconds: RFC 3339 in UTC in JSON, milliseconds since the epoch in the
/// store. The last one is the end of the year 9999, which to many programs means never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, format = DateTime, examples("2026-12-31T23:59:59Z"))]
pub(crate) struct Time(i64);

impl Time {
    /// Returns the present.
    pub(crate) fn now() -> Self {
        Self(Timestamp::now().as_millisecond())
    }

    /// Returns the time so many milliseconds after the epoch, nearest to it that can be shown.
    pub(crate) fn from_ms(ms: i64) -> Self {
        Self(ms.clamp(FIRST_MS, LAST_MS))
    }

    /// Returns the time so many milliseconds after the epoch, nearest to it that can be shown.
    pub(crate) fn from_unsigned_ms(ms: u64) -> Self {
        Self::from_ms(i64::try_from(ms).unwrap_or(i64::MAX))
    }

    /// Returns the time as RFC 3339 in UTC, to the second.
    pub(crate) fn rfc3339(self) -> String {
        self.civil().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// Returns the time for people, to the minute.
    pub(crate) fn to_text(self) -> String {
        self.civil().strftime("%-d %b %Y, %H:%M UTC").to_string()
    }

    /// Returns the time of the day (UTC) for people, to the second.
    pub(crate) fn to_clock(self) -> String {
        self.civil().strftime("%H:%M:%S UTC").to_string()
    }

    /// Returns the day (UTC) for people.
    pub(crate) fn to_day(self) -> String {
        self.civil().strftime("%-d %b %Y").to_string()
    }

    /// Returns the milliseconds since the epoch.
    pub(crate) fn as_ms(self) -> i64 {
        self.0
    }

    /// Reads a time of RFC 3339 (section 5.6); what is below a millisecond is cut off.
    ///
    /// # Errors
    ///
    /// What was expected.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let unknown = || format!("expected a time such as `2026-12-31T23:59:59Z`, found `{text}`");
        let (local, offset_minutes) = split(text).ok_or_else(unknown)?;
        let local: DateTime = local.parse().map_err(|_| unknown())?;
        let ms = local.duration_since(EPOCH).as_millis();
        let ms = ms - i128::from(offset_minutes) * 60_000;
        match i64::try_from(ms) {
            Ok(ms) if (FIRST_MS..=LAST_MS).contains(&ms) => Ok(Self(ms)),
            Ok(_) | Err(_) => Err(format!(
                "expected a time from {} to {}, found `{text}`",
                Self(FIRST_MS).rfc3339(),
                Self(LAST_MS).rfc3339()
            )),
        }
    }

    fn civil(self) -> DateTime {
        EPOCH.saturating_add(SignedDuration::from_millis(self.0))
    }
}

/// Returns the local time in a time, and the minutes by which it is ahead of UTC; none if it has another form.
fn split(text: &str) -> Option<(&str, i64)> {
    let bytes = text.as_bytes();
    let has_form = |from: usize, form: &[u8]| {
        bytes.get(from..from + form.len()).is_some_and(|part| {
            part.iter().zip(form).all(|(byte, form)| match form {
                b'9' => byte.is_ascii_digit(),
                form => byte.eq_ignore_ascii_case(form),
            })
        })
    };
    if !has_form(0, b"9999-99-99T99:99:99") {
        return None;
    }
    let mut end = SECONDS_END;
    if bytes.get(end) == Some(&b'.') {
        let digits = bytes.iter().skip(end + 1).take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=9).contains(&digits) {
            return None;
        }
        end += 1 + digits;
    }
    let (local, zone) = text.split_at_checked(end)?;
    if zone.eq_ignore_ascii_case("z") {
        return Some((local, 0));
    }
    let is_offset = zone.len() == 6 && (has_form(end, b"+99:99") || has_form(end, b"-99:99"));
    let hours: i64 = zone.get(1..3).filter(|_| is_offset)?.parse().ok()?;
    let minutes: i64 = zone.get(4..6)?.parse().ok()?;
    let ahead = hours * 60 + minutes;
    (hours < 24 && minutes < 60)
        .then_some((local, if zone.starts_with('-') { -ahead } else { ahead }))
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let form = if self.0 % 1000 == 0 { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%.3fZ" };
        to.collect_str(&self.civil().strftime(form))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(from)?).map_err(de::Error::custom)
    }
}

const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// The first moment of the year 0, and the last one of the year 9999: RFC 3339 has no others.
const FIRST_MS: i64 = -62_167_219_200_000;
const LAST_MS: i64 = 253_402_300_799_999;

/// Where the seconds of a time end.
const SECONDS_END: usize = 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_read_and_written_in_one_form() {
        for (text, written) in [
            ("2026-12-31T23:59:59Z", "2026-12-31T23:59:59Z"),
            ("2026-12-31t23:59:59z", "2026-12-31T23:59:59Z"),
            ("2026-12-31T23:59:59.5Z", "2026-12-31T23:59:59.500Z"),
            ("2026-12-31T23:59:59.123456789Z", "2026-12-31T23:59:59.123Z"),
            ("2027-01-01T01:29:59+01:30", "2026-12-31T23:59:59Z"),
            ("2026-12-31T13:59:59-10:00", "2026-12-31T23:59:59Z"),
            ("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999Z"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
        ] {
            let time = Time::parse(text).unwrap();
            assert_eq!(serde_json::to_value(time).unwrap(), written, "{text}");
            assert_eq!(Time::from_ms(time.as_ms()), time, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_of_rfc_3339_is_refused() {
        for text in [
            "",
            "2026-12-31",
            "2026-12-31 23:59:59Z",
            "2026-12-31T23Z",
            "2026-12-31T23:59:59",
            "2026-12-31T23:59:59.Z",
            "2026-12-31T23:59:59+01",
            "2026-12-31T23:59:59+24:00",
            "2026-12-31T23:59:59+01:00[Europe/Warsaw]",
            "2026-02-30T00:00:00Z",
            "2026-12-31T24:00:00Z",
            "+02026-12-31T23:59:59Z",
            "2026-12-31T23:59:59Zä",
        ] {
            assert!(Time::parse(text).is_err(), "{text}");
        }
        let error = Time::parse("9999-12-31T23:59:59-00:01").unwrap_err();
        assert!(error.contains("to 9999-12-31T23:59:59Z"), "{error}");
    }
}
