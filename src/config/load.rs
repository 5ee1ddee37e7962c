//! Reading a configuration file.

use std::fs;
use std::path::Path;

use super::error::ConfigErrors;
use super::raw::{Overrides, Raw};
use super::settings::Settings;
use super::validate::validate;

/// The settings: overrides over the file over the defaults; the password of the store from its place.
///
/// # Errors
/// Everything that is wrong, each with its place, key and rule; or that a file cannot be read.
pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Settings, ConfigErrors> {
    let mut settings = validated(file, overrides)?;
    let password_file = settings.store.password_file.clone();
    settings.store.url.find_password(password_file.as_deref())?;
    Ok(settings)
}

fn validated(file: Option<&Path>, overrides: &Overrides) -> Result<Settings, ConfigErrors> {
    let Some(path) = file else { return validate(&Raw::new(None, overrides)?) };
    let name = path.display().to_string();
    let text = fs::read_to_string(path)
        .map_err(|error| ConfigErrors::of_file(name.clone(), format!("cannot be read: {error}")))?;
    validate(&Raw::new(Some((&name, &text)), overrides)?)
}
