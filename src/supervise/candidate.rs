//! A configuration as it is written, before its check.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mapsmith_core::config::values::BindAddress;
use mapsmith_core::desired::config::DesiredConfig;
use mapsmith_core::render::{Rendered, TemplateError, rendered, stamp};

use super::check::{self, CHECK_BOUND, Verdict};
use super::files::Files;
use super::sockets::Sockets;
use crate::settings::Haproxy;

/// What should be in place.
pub struct Candidate {
    pub(super) of: Arc<DesiredConfig>,
    /// Where its frontends listen: as declared, or at a socket that is held for them.
    pub(super) places: Vec<BindAddress>,
    pub rendered: Rendered,
    /// As it is written: with its stamp.
    pub text: String,
    pub mark: String,
}

impl Candidate {
    /// With the sockets that are held for HAProxy.
    ///
    /// # Errors
    /// The user's template does not give a text.
    pub fn new(of: &Arc<DesiredConfig>, sockets: Option<&Sockets>) -> Result<Self, TemplateError> {
        let places = places(of, sockets);
        let mut placed = DesiredConfig::clone(of);
        let frontends = placed.config.frontends.iter_mut();
        let binds = frontends.flat_map(|frontend| &mut frontend.binds);
        binds.zip(&places).for_each(|(bind, place)| bind.address.clone_from(place));
        let rendered = rendered(&placed.config)?;
        let mark = stamp::mark(self::rendered(&placed.without_servers())?.text());
        let text = stamp::stamped(rendered.text(), &mark);
        Ok(Self { of: Arc::clone(of), places, rendered, text, mark })
    }

    /// Whether it is of this configuration, with these sockets.
    pub(super) fn is_of(&self, config: &Arc<DesiredConfig>, sockets: Option<&Sockets>) -> bool {
        Arc::ptr_eq(&self.of, config) && self.places == places(config, sockets)
    }

    /// Puts it in place, whatever is there, if HAProxy accepts it. A Mapsmith that runs has it
    /// loaded then.
    ///
    /// # Errors
    /// It can't be checked or written.
    pub async fn take_over(&self, haproxy: &Haproxy) -> anyhow::Result<(PathBuf, Verdict)> {
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

/// Where frontends are declared to listen, in their order.
pub(super) fn addresses(config: &DesiredConfig) -> impl Iterator<Item = &BindAddress> {
    let binds = config.config.frontends.iter().flat_map(|frontend| &frontend.binds);
    binds.map(|bind| &bind.address)
}

fn places(config: &DesiredConfig, sockets: Option<&Sockets>) -> Vec<BindAddress> {
    let place = |address: &BindAddress| match sockets {
        Some(sockets) => sockets.place(address),
        None => address.clone(),
    };
    addresses(config).map(place).collect()
}
