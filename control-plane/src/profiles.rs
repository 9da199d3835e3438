//! The installed API profiles.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use latchkey_filter::profile::{Profile, SHIPPED};

use crate::api::fields::Fields;
use crate::error::ApiError;

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
        check_plans(&profile)?;
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

/// Checks the plans that come with a profile as those that come by the API.
///
/// # Errors
///
/// With all fields that cannot be taken as they are.
fn check_plans(profile: &Profile) -> anyhow::Result<()> {
    let mut fields = Fields::default();
    for (index, plan) in profile.plans.iter().enumerate() {
        let at = format!("plans[{index}]");
        fields.id(&format!("{at}.id"), &plan.id);
        fields.name(&format!("{at}.name"), &plan.name);
        fields.limits(&format!("{at}.limits"), &plan.limits);
    }
    match fields.finish() {
        Err(ApiError::Fields(errors)) => {
            let errors: Vec<String> = errors
                .iter()
                .map(|error| format!("`{}`: {}", error.field, error.message))
                .collect();
            bail!("{}", errors.join("; "))
        }
        Err(error) => Err(error.into()),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plan of two billion buckets used to take 28 GB once its usage was looked at.
    #[test]
    fn plans_of_profiles_are_bounded_as_those_of_the_api() {
        let with = |of: &str, number: &str| {
            let folder = tempfile::tempdir().unwrap();
            let mut profile: serde_json::Value = serde_json::from_str(SHIPPED[1].1).unwrap();
            let limit =
                serde_json::json!({"name": "l", "amount": 5, "bucket_seconds": 60, "buckets": 1});
            profile["plans"][0]["limits"] = serde_json::json!([limit]);
            profile["plans"][0]["limits"][0][of] = serde_json::from_str(number).unwrap();
            std::fs::write(folder.path().join("p.json"), profile.to_string()).unwrap();
            Profiles::load(Some(folder.path())).map_err(|error| format!("{error:#}"))
        };
        for (of, number) in [
            ("buckets", "2000000000"),
            ("buckets", "367"),
            ("buckets", "0"),
            ("bucket_seconds", "4294967295"),
            ("bucket_seconds", "0"),
            ("amount", "9007199254740992"),
            ("name", "\"a b\""),
            ("generation", "7"),
        ] {
            let error = with(of, number).unwrap_err();
            assert!(error.contains(&format!("plans[0].limits[0].{of}")), "{of} {number}: {error}");
        }
        for (of, number) in [("buckets", "366"), ("bucket_seconds", "2678400"), ("amount", "0")] {
            with(of, number).unwrap();
        }
    }

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
