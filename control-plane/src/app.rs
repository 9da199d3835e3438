//! What all handlers share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ipnet::IpNet;
use latchkey_filter::profile::Profile;
use latchkey_filter::profile::keys::KeyRules;
use latchkey_protocol::{PlainToken, TokenFormat};
use tokio::sync::watch;

use crate::cli::TokenAccess;
use crate::credentials::Credential;
use crate::edge::deltas::Deltas;
use crate::edge::leases::Desk;
use crate::edge::recalls::Recalls;
use crate::edge::snapshots::Snapshots;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::panel::Panel;
use crate::profiles::Profiles;
use crate::proxies::Proxies;
use crate::sealing::SealingKey;
use crate::store::{MintedToken, Store, accounts};
use crate::token;
use crate::wrong_tokens::WrongTokens;

/// The service's state.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) profiles: Arc<Profiles>,
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) deltas: Arc<Deltas>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) desk: Desk,
    pub(crate) recalls: Arc<Recalls>,
    pub(crate) operator: Credential,
    pub(crate) edge: Credential,
    /// Proxies that are believed where requests come from.
    pub(crate) trusted_proxies: Arc<[IpNet]>,
    /// Whether it was said that one in front is not believed.
    pub(crate) has_warned_of_proxy: Arc<AtomicBool>,
    pub(crate) wrong_tokens: Arc<WrongTokens>,
    /// Where tokens are shown.
    pub(crate) token_access: TokenAccess,
    /// What keeps tokens, so that the panel can show them again.
    pub(crate) sealing: Option<Arc<SealingKey>>,
    pub(crate) panel: Arc<Panel>,
    /// Becomes true when the service is told to stop, so that nothing waits on.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl App {
    /// Returns the profile of a name that a request gave.
    ///
    /// # Errors
    ///
    /// That `profile` names none.
    pub(crate) fn profile(&self, name: &str) -> Result<&Arc<Profile>, ApiError> {
        match self.profiles.get(name) {
            Some(installed) => Ok(&installed.profile),
            None => {
                let message = format!("expected one of {}, found `{name}`", self.profiles.names());
                Err(ApiError::field("profile", message))
            }
        }
    }

    /// Returns a new token for a key of an account, and what is kept of it.
    pub(crate) fn mint(
        &self,
        format: &TokenFormat,
        account: &str,
        key: &str,
    ) -> (PlainToken, MintedToken) {
        let token = token::generate(format);
        let sealed = self.sealing.as_ref().and_then(|sealing| sealing.seal(&token, account, key));
        let minted = token::minted(&token, sealed);
        (token, minted)
    }

    /// Returns what the profile of an account says of keys.
    ///
    /// # Errors
    ///
    /// If there is no such account, or its profile is installed no longer.
    pub(crate) async fn key_rules(&self, account: &str) -> Result<&KeyRules, ApiError> {
        let account = account.to_owned();
        let account = self.store.read(move |db| accounts::get(db, &account)).await?;
        Ok(&self.profile(&account.profile)?.keys)
    }
}
