//! API profiles: how one HTTP API is read, as data.
//!
//! A profile is a JSON file. It says where the token is carried ([`carriers`]), what each route
//! needs ([`routes`]) and how a GraphQL schema names it ([`graphql`]), how refusals look
//! ([`answers`]), and what the API's keys are like ([`keys`]). The code knows no API by name: another
//! API is another file.

pub mod answers;
pub mod carriers;
pub mod graphql;
pub mod keys;
pub mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use latchkey_protocol::{Identity, Limit};
use serde::Deserialize;

use answers::{AnswerSet, Answers, RateLimitHeaders};
use carriers::{Carrier, MethodOverride, Preflight};
use keys::{KeyRules, PlanDefault};
use routes::{Access, Route, RouteTable};

use crate::authorize::edits::HeaderNames;
use crate::authorize::token::TokenForm;

/// The profiles that ship with the product: name and JSON text.
pub const SHIPPED: [(&str, &str); 2] = [
    ("flotiq", include_str!("../profiles/flotiq.json")),
    ("fltr", include_str!("../profiles/fltr.json")),
];

/// How one HTTP API is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "ProfileFile")]
pub struct Profile {
    /// Name by which accounts and listeners refer to it.
    pub name: String,
    /// The API's name for people.
    pub title: String,
    /// What the API's keys are like.
    pub keys: KeyRules,
    /// Plan of an account that names none.
    pub default_plan: String,
    /// Plans that come with the profile.
    pub plans: Vec<PlanDefault>,
    /// Where a token may be, in the order in which they are documented to clients.
    pub carriers: Vec<Carrier>,
    /// By what a token is known wherever else it stands.
    pub token_form: TokenForm,
    /// Headers that are for the gateway alone.
    pub removed_headers: HeaderNames,
    /// Names of the headers that may carry a token, as `Vary` lists them.
    pub vary: String,
    /// Where a token is expected, for people.
    pub token_places: String,
    /// Authentication scheme named in `WWW-Authenticate`.
    pub challenge: String,
    /// Which `OPTIONS` requests pass without a key.
    pub preflight: Preflight,
    /// How many preflights a client may send to a worker in a minute.
    pub preflights_per_minute: NonZeroU16,
    /// By what an upstream might be told another method than the request's.
    pub method_override: MethodOverride,
    /// Resource → held action → the actions that it implies.
    pub implied_actions: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// Routes, by path.
    pub routes: RouteTable,
    /// What a request needs that no route lists.
    pub unlisted: Access,
    /// Names of all parameters that decide on some route, each once.
    pub deciding_parameters: Vec<String>,
    /// Whether they may stand on routes that do not list them.
    pub unlisted_parameters: Permission,
    /// What happens to a read that asks for more relation steps than its key may read.
    pub hydration: TooDeep,
    /// Whether GraphQL queries may ask for the schema.
    pub introspection: Permission,
    /// Whether user defined keys may use GraphQL.
    pub graphql_scoped_keys: Permission,
    /// Whether requests are refused for want of a right; else that is noted and they pass.
    pub enforce: bool,
    /// How refusals look.
    pub answers: Answers,
    /// Answers that differ on routes that name the set.
    pub answer_sets: BTreeMap<String, AnswerSet>,
    /// Longest window, in seconds, of a limit whose exhaustion is answered as a throttle.
    pub throttle_seconds: u64,
    /// Which headers tell clients what their limits leave.
    pub rate_limit_headers: Vec<RateLimitHeaders>,
    /// Headers of every refusal.
    pub refusal_headers: BTreeMap<String, String>,
}

/// What happens to a read that asks for more relation steps than its key may read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TooDeep {
    /// It is refused.
    #[default]
    Deny,
    /// It goes on with as many steps as the key may read.
    Lower,
}

/// Whether something may be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// It may.
    #[default]
    Allow,
    /// It may not.
    Deny,
}

impl Profile {
    /// Returns the profile that a JSON text describes.
    ///
    /// # Errors
    ///
    /// A sentence that names the field and what was expected.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| error.to_string())
    }

    /// Returns the held actions that imply an action on a resource, itself not included.
    pub fn implying<'a>(
        &'a self,
        resource: &str,
        action: &'a str,
    ) -> impl Iterator<Item = &'a str> {
        self.implied_actions
            .get(resource)
            .into_iter()
            .flatten()
            .filter(move |(_, implied)| implied.iter().any(|name| name == action))
            .map(|(held, _)| held.as_str())
    }

    /// Reports whether calls without a token are limited by the plan that the profile comes with, so
    /// that none is admitted before the limits are known.
    #[must_use]
    pub fn limits_anonymous(&self) -> bool {
        let default = self.plans.iter().find(|plan| plan.id == self.default_plan);
        let is_anonymous = |limit: &Limit| limit.identity == Some(Identity::Anonymous);
        default.is_some_and(|plan| plan.limits.iter().any(is_anonymous))
    }

    /// Returns the answer set of a name, if there is one.
    #[must_use]
    pub fn answer_set(&self, name: Option<&str>) -> Option<&AnswerSet> {
        self.answer_sets.get(name?)
    }
}

/// The file's form, checked as a whole when it becomes a [`Profile`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    name: String,
    title: String,
    keys: KeyRules,
    default_plan: String,
    plans: Vec<PlanDefault>,
    carriers: Vec<Carrier>,
    challenge: String,
    preflight: Preflight,
    #[serde(default = "default_preflights_per_minute")]
    preflights_per_minute: NonZeroU16,
    #[serde(default)]
    method_override: MethodOverride,
    #[serde(default)]
    implied_actions: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    routes: Vec<Route>,
    unlisted: Access,
    #[serde(default = "denied")]
    unlisted_parameters: Permission,
    #[serde(default)]
    hydration: TooDeep,
    #[serde(default)]
    introspection: Permission,
    #[serde(default)]
    graphql_scoped_keys: Permission,
    #[serde(default = "enforced")]
    enforce: bool,
    answers: Answers,
    #[serde(default)]
    answer_sets: BTreeMap<String, AnswerSet>,
    #[serde(default = "default_throttle_seconds")]
    throttle_seconds: u64,
    #[serde(default)]
    rate_limit_headers: Vec<RateLimitHeaders>,
    #[serde(default)]
    refusal_headers: BTreeMap<String, String>,
}

impl TryFrom<ProfileFile> for Profile {
    type Error = String;

    fn try_from(file: ProfileFile) -> Result<Self, Self::Error> {
        check_name("name", &file.name)?;
        if file.carriers.is_empty() {
            return Err("`carriers`: expected at least one place where a token may be".to_owned());
        }
        for (index, carrier) in file.carriers.iter().enumerate() {
            carrier.check().map_err(|error| format!("`carriers[{index}]`: {error}"))?;
        }
        check_token("challenge", &file.challenge)?;
        if !file.plans.iter().any(|plan| plan.id == file.default_plan) {
            return Err(format!(
                "`default_plan`: expected the id of one of `plans`, found `{}`",
                file.default_plan
            ));
        }
        for (index, plan) in file.plans.iter().enumerate() {
            plan.check().map_err(|error| format!("`plans[{index}]{error}"))?;
        }
        file.keys.check()?;
        for (name, value) in &file.refusal_headers {
            check_token("refusal_headers", name)?;
            if value.bytes().any(|byte| byte.is_ascii_control()) {
                return Err(format!("`refusal_headers.{name}`: expected no control characters"));
            }
        }
        for (index, route) in file.routes.iter().enumerate() {
            if let Some(set) = route.answers.as_deref()
                && !file.answer_sets.contains_key(set)
            {
                return Err(format!(
                    "`routes[{index}].answers`: expected a name in `answer_sets`, found `{set}`"
                ));
            }
        }

        let deciding: BTreeSet<&str> =
            file.routes.iter().flat_map(Route::deciding_parameters).collect();
        Ok(Self {
            deciding_parameters: deciding.into_iter().map(str::to_owned).collect(),
            token_form: TokenForm::new(&file.keys.token),
            removed_headers: HeaderNames::removed(&file.carriers, &file.method_override.headers),
            vary: vary(&file.carriers),
            token_places: token_places(&file.carriers),
            routes: RouteTable::new(file.routes)?,
            name: file.name,
            title: file.title,
            keys: file.keys,
            default_plan: file.default_plan,
            plans: file.plans,
            carriers: file.carriers,
            challenge: file.challenge,
            preflight: file.preflight,
            preflights_per_minute: file.preflights_per_minute,
            method_override: file.method_override,
            implied_actions: file.implied_actions,
            unlisted: file.unlisted,
            unlisted_parameters: file.unlisted_parameters,
            hydration: file.hydration,
            introspection: file.introspection,
            graphql_scoped_keys: file.graphql_scoped_keys,
            enforce: file.enforce,
            answers: file.answers,
            answer_sets: file.answer_sets,
            throttle_seconds: file.throttle_seconds,
            rate_limit_headers: file.rate_limit_headers,
            refusal_headers: file.refusal_headers,
        })
    }
}

/// A minute: shorter windows are there against bursts.
const fn default_throttle_seconds() -> u64 {
    60
}

fn vary(carriers: &[Carrier]) -> String {
    carriers.iter().filter_map(Carrier::header).collect::<Vec<_>>().join(", ")
}

fn token_places(carriers: &[Carrier]) -> String {
    let places = carriers.iter().map(|carrier| match carrier {
        Carrier::Bearer(name) => format!("the header {name} as Bearer"),
        Carrier::Header(name) => format!("the header {name}"),
        Carrier::Query(name) => format!("the query parameter {name}"),
    });
    places.collect::<Vec<_>>().join(" or ")
}

/// Ten a second: what a page sends that asks anew before each request.
fn default_preflights_per_minute() -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(599)
}

const fn denied() -> Permission {
    Permission::Deny
}

const fn enforced() -> bool {
    true
}

fn check_name(field: &str, name: &str) -> Result<(), String> {
    let usable = !name.is_empty()
        && name.len() <= 63
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if usable {
        return Ok(());
    }
    Err(format!("`{field}`: expected 1 to 63 of `a-z`, `0-9` and `-`, found `{name}`"))
}

/// Checks a `token` of RFC 9110, section 5.6.2: what a header's or scheme's name may be.
fn check_token(field: &str, text: &str) -> Result<(), String> {
    let is_token_char =
        |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_token_char) {
        return Ok(());
    }
    Err(format!("`{field}`: expected letters, digits and `-`, found `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_profiles_are_valid() {
        for (name, json) in SHIPPED {
            assert_eq!(Profile::parse(json).unwrap().name, name);
        }
    }

    #[test]
    fn error_names_the_field() {
        let (_, flotiq) = SHIPPED[0];
        for (from, to, field) in [
            (r#""name": "flotiq""#, r#""name": "Flotiq!""#, "`name`"),
            (r#""default_plan": "free""#, r#""default_plan": "gold""#, "`default_plan`"),
            (r#"{"query": "auth_token"}"#, r#"{"cookie": "t"}"#, "carriers[1]"),
            (r#"{"query": "auth_token"}"#, r#"{"query": ""}"#, "carriers[1]"),
            (r#""{type}:read"]"#, r#""{typo}:read"]"#, "routes[0].needs[0]"),
            (r#""{type}:read"]"#, r#""read"]"#, "routes[0].needs"),
            (r#"["POST"], "path""#, r#"["post"], "path""#, "routes[1].methods"),
            (r#"/content/{type}/removed"#, r#"/content/{typ}/batch"#, "routes[2]"),
            (r#""answers": "graphql""#, r#""answers": "gql""#, "answers"),
            (r#""status": 401"#, r#""status": "401""#, "answers.unauthenticated.status"),
            (r#""challenge": "ApiKey""#, r#""challenge": "Api Key""#, "`challenge`"),
            (r#""application_keys": true,"#, r#""application_keyz": true,"#, "keys"),
            (r#""max_steps": 2"#, r#""max_steps": 0"#, "hydration.max_steps"),
            (r#"["{type}", "{type}List"]"#, r#"["{name}"]"#, "graphql.root_fields"),
            (r#"["{type}", "{type}List"]"#, "[]", "graphql.root_fields"),
            (r#""introspection": "allow""#, r#""introspection": "no""#, "introspection"),
            (r#""enforce": true"#, r#""enforce": "no""#, "enforce"),
            (r#""form": "json""#, r#""form": "xml""#, "properties[0].form"),
            (
                r#""unlisted_parameters": "deny""#,
                r#""unlisted_parameters": 0"#,
                "unlisted_parameters",
            ),
            (r#""preflights_per_minute": 600"#, r#""preflights_per_minute": 0"#, "preflights"),
        ] {
            let broken = flotiq.replacen(from, to, 1);
            assert_ne!(broken, flotiq, "{from}");
            let error = Profile::parse(&broken).unwrap_err();
            assert!(error.contains(field), "{field}: {error}");
        }
    }
}
