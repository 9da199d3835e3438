//! Points in time, as the API shows them.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

/// A point in time: RFC 3339 in UTC in JSON, milliseconds since the epoch in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[schema(value_type = String, format = DateTime, examples("2026-12-31T23:59:59Z"))]
pub(crate) struct Time(Timestamp);

impl Time {
    /// Returns the present.
    pub(crate) fn now() -> Self {
        Self(Timestamp::now())
    }

    /// Returns the time so many milliseconds after the epoch, nearest to it that can be shown.
    pub(crate) fn from_ms(ms: i64) -> Self {
        let fallback = if ms < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Self(Timestamp::from_millisecond(ms).unwrap_or(fallback))
    }

    /// Returns the time so many milliseconds after the epoch, nearest to it that can be shown.
    pub(crate) fn from_unsigned_ms(ms: u64) -> Self {
        Self::from_ms(i64::try_from(ms).unwrap_or(i64::MAX))
    }

    /// Returns the time as RFC 3339 in UTC, to the second.
    pub(crate) fn rfc3339(self) -> String {
        self.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// Returns the time for people, to the minute.
    pub(crate) fn to_text(self) -> String {
        self.0.strftime("%-d %b %Y, %H:%M UTC").to_string()
    }

    /// Returns the time of the day (UTC) for people, to the second.
    pub(crate) fn to_clock(self) -> String {
        self.0.strftime("%H:%M:%S UTC").to_string()
    }

    /// Returns the day (UTC) for people.
    pub(crate) fn to_day(self) -> String {
        self.0.strftime("%-d %b %Y").to_string()
    }

    /// Returns the milliseconds since the epoch.
    pub(crate) fn as_ms(self) -> i64 {
        self.0.as_millisecond()
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Self).map_err(|_| {
            de::Error::custom(format_args!(
                "expected a time such as `2026-12-31T23:59:59Z`, found `{text}`"
            ))
        })
    }
}
