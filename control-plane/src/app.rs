//! What all handlers share.

use std::sync::Arc;

use latchkey_filter::profile::Profile;
use latchkey_filter::profile::keys::KeyRules;
use tokio::sync::watch;

use crate::credentials::Credential;
use crate::edge::leases::Desk;
use crate::edge::recalls::Recalls;
use crate::edge::snapshots::Snapshots;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::profiles::Profiles;
use crate::proxies::Proxies;
use crate::store::{Store, accounts};

/// The service's state.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) profiles: Arc<Profiles>,
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) desk: Desk,
    pub(crate) recalls: Arc<Recalls>,
    pub(crate) operator: Credential,
    pub(crate) edge: Credential,
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
