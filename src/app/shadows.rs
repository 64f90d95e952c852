//! The tasks of sources that are compared and never applied. Whatever becomes of them, the others
//! go on.

use mapsmith_core::{Content, ServerList, SourceState};
use tokio::sync::watch;

use super::daemon::Daemon;
use crate::engine::Decision;
use crate::settings;
use crate::shadow::{Shadows, follow_list, follow_map};
use crate::source::{Feed, Registries, SourceError, TargetedLookups};

impl Daemon {
    /// Polls the shadows, and compares each with what is applied: with what `sources` say, or with
    /// the servers of `decision`. `lists` are the lists that are applied, which may be the shadow
    /// of another backend.
    pub(super) fn start_shadows(
        &mut self,
        registries: &Registries,
        sources: &[watch::Receiver<SourceState>],
        lists: &[watch::Receiver<SourceState<ServerList>>],
        decision: &watch::Receiver<Decision>,
    ) -> Shadows {
        let settings = self.settings();
        let mut shadows = Shadows::default();
        for source in settings.shadow_sources() {
            let name = source.name.clone();
            let state = self.start_shadow(name.clone(), source, registries.node_map(&name));
            let compared = shadows.add(state.clone(), None);
            let work = follow_map(state, sources.to_vec(), compared);
            self.start_until_shutdown(format!("shadow {name}"), work);
        }
        let applied = settings.server_lists().into_iter().map(|(_, list)| list);
        let mut states: Vec<_> = applied.zip(lists.iter().cloned()).collect();
        for (source, list) in settings.shadow_lists() {
            let state = self.start_shadow(list.to_string(), source, registries.servers(list));
            states.push((list, state));
        }
        for backend in &settings.backends {
            let list = backend.shadow_from.as_ref();
            let state = states.iter().find(|(known, _)| Some(*known) == list);
            let Some((list, state)) = state else { continue };
            let compared = shadows.add(state.clone(), Some(&backend.name));
            let name = format!("shadow {list} of backend {}", backend.name);
            let (hold, decision) = (settings.damping.hold, decision.clone());
            let work = follow_list(backend.clone(), hold, state.clone(), decision, compared);
            self.start_until_shutdown(name, work);
        }
        shadows
    }

    /// A round of its own: nothing that is applied waits for it. One that can't be made is told,
    /// and keeps nothing from starting.
    fn start_shadow<C: Content>(
        &mut self,
        name: String,
        source: &settings::Source,
        feed: Result<Box<dyn Feed<C>>, SourceError>,
    ) -> watch::Receiver<SourceState<C>> {
        match feed {
            Ok(feed) => {
                let round = self.round();
                self.start_poller(name, source, feed, round, TargetedLookups::new())
            }
            Err(error) => {
                tracing::error!("{error}; it is a shadow, so all else goes on without it");
                let kind = source.kind.to_string();
                let mut state = SourceState::before_first_poll(name, kind, false);
                state.status.error = Some(error.to_string());
                watch::channel(state).1
            }
        }
    }
}
