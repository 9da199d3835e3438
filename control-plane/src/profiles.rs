//! The installed API profiles.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use latchkey_filter::profile::{Profile, SHIPPED};

/// The installed profiles, by name.
#[derive(Debug)]
pub(crate) struct Profiles(BTreeMap<String, InstalledProfile>);

/// A profile with its source.
#[derive(Debug)]
pub(crate) struct InstalledProfile {
    /// The JSON text, as filters get it.
    pub(crate) json: String,
    pub(crate) profile: Arc<Profile>,
    /// Whether it is as it ships with the product; a file of its name takes its place.
    is_shipped: bool,
}

impl Profiles {
    /// Returns the profiles that ship with the product and those in a folder, which take the place of
    /// shipped ones with their names.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, is no profile, or has the name of another file's.
    pub(crate) fn load(folder: Option<&Path>) -> anyhow::Result<Self> {
        let mut profiles = Self(BTreeMap::new());
        for (name, json) in SHIPPED {
            profiles.add(json, true).with_context(|| format!("the profile `{name}`"))?;
        }
        let Some(folder) = folder else {
            return Ok(profiles);
        };
        let entries = std::fs::read_dir(folder).with_context(|| {
            format!("cannot read the folder of profiles `{}`", folder.display())
        })?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                profiles.add_file(&path)?;
            }
        }
        Ok(profiles)
    }

    /// Adds the profile in a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, is no profile, or has the name of another file's.
    pub(crate) fn add_file(&mut self, path: &Path) -> anyhow::Result<String> {
        let json = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the profile `{}`", path.display()))?;
        self.add(&json, false).with_context(|| format!("the profile `{}`", path.display()))
    }

    fn add(&mut self, json: &str, is_shipped: bool) -> anyhow::Result<String> {
        let profile = Profile::parse(json).map_err(anyhow::Error::msg)?;
        let name = profile.name.clone();
        let profile = Arc::new(profile);
        let installed = InstalledProfile { json: json.trim().to_owned(), profile, is_shipped };
        if self.0.insert(name.clone(), installed).is_some_and(|before| !before.is_shipped) {
            bail!("there are two profiles with the name `{name}`");
        }
        Ok(name)
    }

    /// Returns the profile of a name.
    pub(crate) fn get(&self, name: &str) -> Option<&InstalledProfile> {
        self.0.get(name)
    }

    /// Returns all profiles, by name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Profile> {
        self.0.values().map(|installed| &*installed.profile)
    }

    /// Returns the id of each profile's default plan, by the profile's name.
    pub(crate) fn default_plans(&self) -> BTreeMap<String, String> {
        self.all().map(|profile| (profile.name.clone(), profile.default_plan.clone())).collect()
    }

    /// Returns the names of all profiles, for messages.
    pub(crate) fn names(&self) -> String {
        self.0.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_takes_the_place_of_a_shipped_profile_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (_, flotiq) = SHIPPED[0];
        let edited = flotiq.replace(r#""enforce": true"#, r#""enforce": false"#);
        std::fs::write(folder.path().join("one.json"), &edited).unwrap();
        let profiles = Profiles::load(Some(folder.path())).unwrap();
        assert!(!profiles.get("flotiq").unwrap().profile.enforce);
        assert!(profiles.get("fltr").unwrap().profile.enforce);
        std::fs::write(folder.path().join("two.json"), &edited).unwrap();
        let error = format!("{:#}", Profiles::load(Some(folder.path())).unwrap_err());
        assert!(error.contains("two profiles with the name `flotiq`"), "{error}");
    }
}
