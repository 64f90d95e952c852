//! `[site]`: what this gateway is called.

use serde::Deserialize;

use super::keys::section;

/// The longest `site.name`, in characters.
const MOST_NAME: usize = 64;

section! {
    /// What this gateway is called.
    #[derive(Debug, Clone, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Site {
        /// The gateway's name, 1 to 64 characters. It is written into the second line of the map
        /// file, for whoever finds that file.
        pub name: Option<String>,
    }
}

impl Site {
    pub(super) fn problems(&self, problems: &mut Vec<String>) {
        if let Some(name) = &self.name
            && (!(1..=MOST_NAME).contains(&name.chars().count())
                || name.chars().any(char::is_control))
        {
            problems.push(format!(
                "site.name: must have 1 to {MOST_NAME} characters, and no control characters"
            ));
        }
    }
}
