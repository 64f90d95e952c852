//! A configuration as it is written, before its check.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mapsmith_core::config::Config;
use mapsmith_core::desired::config::DesiredConfig;
use mapsmith_core::render::{Rendered, TemplateError, rendered, stamp};

use super::check::{self, CHECK_BOUND, Verdict};
use super::files::{Files, supply};
use super::sockets::Sockets;
use crate::settings::Haproxy;

/// What should be in place.
pub struct Candidate {
    /// What is desired.
    pub(super) of: Arc<DesiredConfig>,
    /// What it is rendered from: the same, but for what is quarantined, and with the servers
    /// that stay because nobody knows them.
    pub(super) from: Arc<DesiredConfig>,
    pub rendered: Rendered,
    /// As it is written: with its stamp.
    pub text: String,
    pub mark: String,
}

impl Candidate {
    /// With these sockets in place of the addresses that they listen on: they are no part of its
    /// mark.
    ///
    /// # Errors
    /// The user's template does not give a text.
    pub fn new(of: &Arc<DesiredConfig>, sockets: &Sockets) -> Result<Self, TemplateError> {
        Self::placed(of, &sockets.placed(&of.config))
    }

    /// With its listening addresses as they stand in `placed`.
    ///
    /// # Errors
    /// The user's template does not give a text.
    pub fn placed(of: &Arc<DesiredConfig>, placed: &Config) -> Result<Self, TemplateError> {
        let rendered = rendered(placed)?;
        let mark = Self::mark_of(of)?;
        let text = stamp::stamped(rendered.text(), &mark);
        Ok(Self { of: Arc::clone(of), from: Arc::clone(of), rendered, text, mark })
    }

    /// The mark of a configuration: of all of it but its servers, and of the options that all
    /// servers of a backend have, which nothing but a reload changes.
    ///
    /// # Errors
    /// The user's template does not give a text.
    pub fn mark_of(of: &DesiredConfig) -> Result<String, TemplateError> {
        let config = of.without_servers();
        let mut text = rendered(&config)?.text().to_owned();
        for backend in &config.backends {
            let options = &backend.server_options;
            let mut fixed =
                options.iter().filter(|option| !option.starts_with("maxconn ")).peekable();
            if fixed.peek().is_some() {
                let fixed: Vec<_> = fixed.map(String::as_str).collect();
                text.push_str(&format!("{} {}\n", backend.name, fixed.join(" ")));
            }
        }
        Ok(stamp::mark(&text))
    }

    /// Puts it in place, whatever is there, if HAProxy accepts it. A Mapsmith that runs has it
    /// loaded then.
    ///
    /// # Errors
    /// It can't be checked or written.
    pub async fn take_over(
        &self,
        haproxy: &Haproxy,
        node_map: Option<&Path>,
    ) -> anyhow::Result<(PathBuf, Verdict)> {
        supply(haproxy, node_map)?;
        let config = haproxy.configuration();
        let files = Files::new(&config, haproxy.files().path());
        let file = files.write_candidate(&self.text)?;
        let includes = haproxy.includes.iter().map(|file| Path::new(file.as_str()));
        let checked: Vec<&Path> = [file.as_path()].into_iter().chain(includes).collect();
        let (program, none) = (haproxy.program(), Sockets::default());
        let verdict = check::check(program, &checked, &self.rendered, &none, CHECK_BOUND).await?;
        if verdict.valid {
            files.switch(&self.text, true)?;
        }
        Ok((config, verdict))
    }
}
