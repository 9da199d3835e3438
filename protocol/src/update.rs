//! Updates: what the control plane tells a filter of accounts, tokens and rights.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{KeyHash, Limit, Resource, Revision, RightSet, Subject};

/// One page of a snapshot, or a delta.
///
/// A snapshot holds every account and every token that is usable as of its first page's revision or
/// later: what changes while its pages are read, the delta from that revision brings. A delta holds
/// every token that changed since `base` and is usable, and names those that no longer are. Equal sets
/// of rights and of networks are sent once and referred to by their index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// What the filter holds once it has taken this in; of a snapshot, that of the first page counts.
    pub revision: Revision,
    /// What a delta starts from; absent in a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Revision>,
    /// By what the next page of the snapshot is asked for; absent in the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Whether a delta holds a part of the changes only, up to its revision.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
    /// Ids of accounts that `tokens` refers to, and of those whose limits or resources are said.
    #[serde(default)]
    pub accounts: Vec<String>,
    /// Indices into `limit_sets`, plus one, of the limits of `accounts`; 0 is without limits. Where it is
    /// shorter, the filter has been told of the accounts after that, and their limits stay as they are.
    #[serde(default)]
    pub account_limits: Vec<u32>,
    /// Ids of accounts that there are no longer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed_accounts: Vec<String>,
    /// Sets of limits that `account_limits` and `tokens` refer to.
    #[serde(default)]
    pub limit_sets: Vec<Vec<Limit>>,
    /// Limits of each client address that calls without a token.
    #[serde(default)]
    pub anonymous_limits: Vec<Limit>,
    /// Resources of accounts, all that an account has; those of accounts that are not here stay as
    /// they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<AccountResources>,
    /// Sets of rights that `tokens` refers to.
    #[serde(default)]
    pub right_sets: Vec<RightSet>,
    /// Sets of networks (CIDR) that `tokens` refers to.
    #[serde(default)]
    pub network_sets: Vec<Vec<String>>,
    /// Tokens that are usable.
    #[serde(default)]
    pub tokens: TokenColumns,
    /// Tokens that are usable no longer.
    #[serde(default, with = "packed")]
    pub removed_tokens: Vec<KeyHash>,
    /// Leases that the filter's workers are asked to give back, since others wait for them. An update
    /// with any has no other content: it is a delta from its base to that same revision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recalls: Vec<Recall>,
}

impl Update {
    /// Returns a snapshot without content.
    #[must_use]
    pub fn empty(revision: Revision) -> Self {
        Self {
            revision,
            base: None,
            next: None,
            is_cut: false,
            accounts: Vec::new(),
            account_limits: Vec::new(),
            removed_accounts: Vec::new(),
            limit_sets: Vec::new(),
            anonymous_limits: Vec::new(),
            resources: Vec::new(),
            right_sets: Vec::new(),
            network_sets: Vec::new(),
            tokens: TokenColumns::default(),
            removed_tokens: Vec::new(),
            recalls: Vec::new(),
        }
    }

    /// Returns a delta without content that asks for leases back.
    #[must_use]
    pub fn recall(revision: Revision, recalls: Vec<Recall>) -> Self {
        Self { base: Some(revision), recalls, ..Self::empty(revision) }
    }
}

/// A wish to have back what is not spent of a worker's leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall {
    /// Name of the Wasm VM that holds them.
    pub worker: String,
    /// Whose calls they are for.
    pub subject: Subject,
}

/// All resources of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountResources {
    /// Index into [`Update::accounts`].
    pub account: u32,
    /// The resources.
    pub resources: Vec<Resource>,
}

/// Tokens, one per index, in columns of equal length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenColumns {
    /// Hashes of the tokens; one base64 text on the wire.
    #[serde(with = "packed")]
    pub hashes: Vec<KeyHash>,
    /// Ids of the keys.
    pub keys: Vec<String>,
    /// Kinds of the keys.
    pub kinds: Vec<KeyKind>,
    /// Indices into [`Update::accounts`].
    pub accounts: Vec<u32>,
    /// Indices into [`Update::right_sets`].
    pub right_sets: Vec<u32>,
    /// First moments at which the tokens are no longer valid, in milliseconds since the epoch; 0
    /// is never.
    pub expires_at_ms: Vec<u64>,
    /// Indices into [`Update::network_sets`], plus one; 0 is from anywhere.
    pub network_sets: Vec<u32>,
    /// Indices into [`Update::limit_sets`], plus one, of the keys' own limits; 0 is without.
    #[serde(default)]
    pub limit_sets: Vec<u32>,
    /// Positions, ascending, of the tokens whose keys are in shadow mode: what their rights forbid is
    /// noted and let through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadowed: Vec<u32>,
}

/// What sort of key it is; decides with its rights what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// The account's key to everything; made with the account, never removed.
    ApplicationReadWrite,
    /// The account's key to read everything; made with the account, never removed.
    ApplicationReadOnly,
    /// A key with rules of its own.
    UserDefined,
}

impl KeyKind {
    /// Returns the kind's name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApplicationReadWrite => "application_read_write",
            Self::ApplicationReadOnly => "application_read_only",
            Self::UserDefined => "user_defined",
        }
    }
}

/// Hashes as one base64 text: two thirds of the bytes that a list of hexadecimal texts takes.
mod packed {
    use super::{Deserialize, Deserializer, Engine, KeyHash, STANDARD, Serializer, de};

    pub(super) fn serialize<S: Serializer>(hashes: &[KeyHash], to: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| *hash.as_bytes()).collect();
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<KeyHash>, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        let bytes = STANDARD
            .decode(text.as_bytes())
            .map_err(|error| de::Error::custom(format_args!("hashes are not base64: {error}")))?;
        let (hashes, rest) = bytes.as_chunks::<{ KeyHash::BYTES }>();
        if !rest.is_empty() {
            return Err(de::Error::custom("hashes end within a hash"));
        }
        Ok(hashes.iter().copied().map(KeyHash::from_bytes).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn update_has_this_form_on_the_wire() {
        let update = Update {
            revision: Revision { number: 2, mark: 1 },
            base: Some(Revision { number: 1, mark: 7 }),
            next: Some("t00".to_owned()),
            is_cut: true,
            accounts: vec!["acme".to_owned()],
            account_limits: vec![1],
            removed_accounts: vec!["gone".to_owned()],
            limit_sets: vec![vec![Limit {
                name: "calls".to_owned(),
                amount: 9,
                bucket_seconds: 60,
                buckets: 2,
                identity: None,
                generation: 0,
            }]],
            anonymous_limits: vec![],
            resources: vec![AccountResources {
                account: 0,
                resources: vec![Resource {
                    name: "posts".to_owned(),
                    relations: std::collections::BTreeMap::new(),
                }],
            }],
            right_sets: vec![RightSet::from(vec![crate::Rule {
                resource: "posts".to_owned(),
                actions: vec!["read".to_owned()],
            }])],
            network_sets: vec![vec!["10.0.0.0/8".to_owned()]],
            tokens: TokenColumns {
                hashes: vec![KeyHash::from_bytes([0; 32])],
                keys: vec!["key_1".to_owned()],
                kinds: vec![KeyKind::UserDefined],
                accounts: vec![0],
                right_sets: vec![0],
                expires_at_ms: vec![0],
                network_sets: vec![1],
                limit_sets: vec![0],
                shadowed: vec![0],
            },
            removed_tokens: vec![KeyHash::from_bytes([0xff; 32])],
            recalls: vec![],
        };
        let wire = r#"{"revision":"2-0000000000000001","base":"1-0000000000000007","next":"t00","is_cut":true,"accounts":["acme"],"account_limits":[1],"removed_accounts":["gone"],"limit_sets":[[{"name":"calls","amount":9,"bucket_seconds":60,"buckets":2}]],"anonymous_limits":[],"resources":[{"account":0,"resources":[{"name":"posts","relations":{}}]}],"right_sets":[[{"resource":"posts","actions":["read"]}]],"network_sets":[["10.0.0.0/8"]],"tokens":{"hashes":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","keys":["key_1"],"kinds":["user_defined"],"accounts":[0],"right_sets":[0],"expires_at_ms":[0],"network_sets":[1],"limit_sets":[0],"shadowed":[0]},"removed_tokens":"//////////////////////////////////////////8="}"#;
        assert_eq!(serde_json::to_string(&update).unwrap(), wire);
        assert_eq!(serde_json::from_str::<Update>(wire).unwrap(), update);
    }

    /// Compatibility: a field added later is ignored, one left out has its default.
    #[test]
    fn update_of_another_release_is_read() {
        let wire = r#"{"revision":"0-0000000000000001","something_new":[1]}"#;
        let update: Update = serde_json::from_str(wire).unwrap();
        assert!(update.tokens.hashes.is_empty() && update.base.is_none() && update.next.is_none());
    }

    #[test]
    fn unreadable_hashes_are_an_error() {
        for hashes in ["AAAA", "%", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            let wire = format!(r#"{{"revision":"0-1","removed_tokens":"{hashes}"}}"#);
            assert!(serde_json::from_str::<Update>(&wire).is_err(), "{hashes}");
        }
    }
}
