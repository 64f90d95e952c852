//! The tasks of sources that are compared and never applied. Whatever becomes of them, the others
//! go on.

use mapsmith_core::{Content, ServerList, SourceState};
use tokio::sync::watch;

use super::daemon::Daemon;
use crate::engine::Decision;
use crate::settings;
use crate::shadow::{Shadows, follow_list, follow_map};
use crate::source::poller::Use;
use crate::source::{self, Feed, Registries, TargetedLookups};

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
            // One that can't be made keeps nothing from starting, and is tried again.
            let late = |_| source::late_node_map(source, settings.map.lowercase);
            let feed = registries.node_map(&name).unwrap_or_else(late);
            let state = self.start_shadow(name.clone(), source, feed);
            let compared = shadows.add(state.clone(), None);
            let work = follow_map(state, sources.to_vec(), compared);
            self.start_until_shutdown(format!("shadow {name}"), work);
        }
        let applied = settings.server_lists().into_iter().map(|(_, list)| list);
        let mut states: Vec<_> = applied.zip(lists.iter().cloned()).collect();
        for (source, list) in settings.shadow_lists() {
            let late = |_| source::late_servers(source, settings.map.lowercase, list);
            let feed = registries.servers(list).unwrap_or_else(late);
            let state = self.start_shadow(list.to_string(), source, feed);
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

    /// A round of its own: nothing that is applied waits for it.
    fn start_shadow<C: Content>(
        &mut self,
        name: String,
        source: &settings::Source,
        feed: Box<dyn Feed<C>>,
    ) -> watch::Receiver<SourceState<C>> {
        let (round, lookups) = (self.round(), TargetedLookups::new());
        self.start_poller_for(Use::Compared, name, source, feed, round, lookups)
    }
}
