//! Where a token may be, and what a request may not say by other means.

use serde::Deserialize;

use super::check_token;

/// One place where a token may be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// A header of this name, in lower case, holds `Bearer <token>` (RFC 6750, section 2.1).
    Bearer(String),
    /// A header of this name, in lower case, holds the token.
    Header(String),
    /// A query parameter of this name holds the token.
    Query(String),
}

impl Carrier {
    /// Returns the name of the header that it is, if it is one.
    #[must_use]
    pub fn header(&self) -> Option<&str> {
        match self {
            Self::Bearer(name) | Self::Header(name) => Some(name),
            Self::Query(_) => None,
        }
    }

    /// Returns the name of the query parameter that it is, if it is one.
    #[must_use]
    pub fn parameter(&self) -> Option<&str> {
        match self {
            Self::Bearer(_) | Self::Header(_) => None,
            Self::Query(name) => Some(name),
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::Bearer(name) | Self::Header(name) => {
                check_token("header", name)?;
                if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    return Err(format!("expected a name in lower case, found `{name}`"));
                }
                Ok(())
            }
            Self::Query(name) => check_token("query", name),
        }
    }
}

/// Which `OPTIONS` requests pass without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preflight {
    /// Those with `Access-Control-Request-Method`: preflights of the Fetch standard, section 3.2.
    Cors,
    /// All.
    EveryOptions,
}

/// By what frameworks let a client say another method than the request's own.
///
/// A request that says another method is refused: the upstream would act on a method that was not
/// judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodOverride {
    /// Names of headers, in lower case.
    pub headers: Vec<String>,
    /// Names of query parameters.
    pub parameters: Vec<String>,
}
