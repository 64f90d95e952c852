//! Every route of the API, with who may use it. The router is built from this table alone.

use std::sync::Arc;

use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use mapsmith_core::access::Role;

use super::body::{LARGEST, LARGEST_BATCH};
use super::handlers::{self, access};
use super::{
    commands, declared, events, history, map, members, nodes, openapi, overrides, problems,
    registrations, rollback, rollout, servers, stats,
};
use crate::api::Api;

/// Where browsers log in and out.
pub(super) const SESSION: &str = "/v1/session";

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Everybody: it tells nothing.
    Nothing,
    /// Everybody, but where nobody has to say who they are no page of another site: for scrapers.
    Probe,
    /// Everybody who has a token in the body, but no page of another site.
    Login,
    /// Somebody who is known, with at least this role.
    Role(Role),
    /// The same, or somebody with a grant for the nodes of a master: of which the handler asks.
    NodeGrant(Role),
    /// The same, or somebody with a grant for members: of which the handler asks. It may be used
    /// often: members say all the time that they are there.
    MemberGrant(Role),
    /// Somebody who is known, of whatever role, with a grant for a command: the handler asks which.
    CommandGrant,
}

impl Needs {
    /// Whether it is known who asks.
    pub(super) fn somebody(self) -> bool {
        !matches!(self, Self::Nothing | Self::Probe | Self::Login)
    }
}

/// A method of a path.
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    pub needs: Needs,
    /// The most bytes of its body.
    pub(super) largest_body: usize,
    /// Whether the handler looks at `If-Match`, and at `If-None-Match` of a change.
    pub(super) is_conditional: bool,
    pub(super) handler: fn() -> MethodRouter<Arc<Api>>,
}

impl Route {
    const fn new(
        method: Method,
        path: &'static str,
        needs: Needs,
        handler: fn() -> MethodRouter<Arc<Api>>,
    ) -> Self {
        Self { method, path, needs, largest_body: LARGEST, is_conditional: false, handler }
    }

    const fn if_unchanged(mut self) -> Self {
        self.is_conditional = true;
        self
    }

    const fn with_large_body(mut self) -> Self {
        self.largest_body = LARGEST_BATCH;
        self
    }

    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        self.method != Method::GET
    }

    /// What a request changes, where `parameter` gives what a name in the path stands for: the path
    /// up to the last of them, like `masters/master1`.
    pub(super) fn target(&self, parameter: impl Fn(&str) -> Option<String>) -> String {
        let path = self.path.trim_start_matches("/v1/");
        let named = path.rfind('}').map_or(path, |end| &path[..=end]);
        let name = |part: &str| {
            let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
            name.and_then(&parameter).unwrap_or_else(|| part.to_owned())
        };
        named.split('/').map(name).collect::<Vec<_>>().join("/")
    }
}

const ANYBODY: Needs = Needs::Role(Role::None);
const VIEWER: Needs = Needs::Role(Role::Viewer);
const OPERATOR: Needs = Needs::Role(Role::Operator);
const ADMIN: Needs = Needs::Role(Role::Admin);
const NODE_GRANT: Needs = Needs::NodeGrant(Role::Operator);
const MEMBER_GRANT: Needs = Needs::MemberGrant(Role::Operator);
const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const PATCH: Method = Method::PATCH;
const DELETE: Method = Method::DELETE;

/// One of a backend.
const DRAIN: &str = "/v1/masters/{master}/drain";
const SERVER: &str = "/v1/backends/{backend}/servers/{server}";

/// One of all members.
const MEMBER: &str = "/v1/registrations/{name}/{version}/{host}/{port}";

/// One of all.
const FRONTEND: &str = "/v1/frontends/{frontend}";

/// All of them.
pub static ROUTES: &[Route] = &[
    Route::new(GET, "/v1/about", ANYBODY, || get(access::about)),
    Route::new(GET, "/v1/status", VIEWER, || get(handlers::status)),
    Route::new(GET, "/v1/attention", VIEWER, || get(handlers::attention)),
    Route::new(POST, "/v1/reload", OPERATOR, || post(handlers::reload)),
    Route::new(GET, "/v1/nodes", VIEWER, || get(nodes::nodes)),
    Route::new(POST, "/v1/nodes", OPERATOR, || post(registrations::register_many))
        .with_large_body(),
    Route::new(DELETE, "/v1/nodes", OPERATOR, || delete(registrations::unregister_many))
        .with_large_body(),
    Route::new(GET, "/v1/nodes/{node}", VIEWER, || get(handlers::explain)),
    Route::new(PUT, "/v1/nodes/{node}", NODE_GRANT, || put(registrations::register)),
    Route::new(DELETE, "/v1/nodes/{node}", NODE_GRANT, || delete(registrations::unregister)),
    Route::new(POST, "/v1/nodes/{node}/commands", Needs::CommandGrant, || post(commands::run)),
    Route::new(GET, "/v1/commands", VIEWER, || get(commands::commands)),
    Route::new(PUT, "/v1/nodes/{node}/owner", OPERATOR, || put(handlers::own)),
    Route::new(GET, "/v1/map", VIEWER, || get(map::map)),
    Route::new(GET, "/v1/revisions", VIEWER, || get(history::revisions)),
    Route::new(GET, "/v1/revisions/{number}", VIEWER, || get(history::revision)),
    Route::new(GET, "/v1/revisions/{number}/diff", VIEWER, || get(history::diff)),
    Route::new(GET, "/v1/revisions/{number}/map", VIEWER, || get(history::map)),
    Route::new(GET, "/v1/learned", VIEWER, || get(handlers::learned)),
    Route::new(GET, "/v1/held", VIEWER, || get(handlers::held)),
    Route::new(POST, "/v1/revisions/{number}/rollback", OPERATOR, || post(rollback::roll_back))
        .if_unchanged(),
    Route::new(GET, "/v1/hold", VIEWER, || get(rollback::hold)),
    Route::new(DELETE, "/v1/hold", OPERATOR, || delete(rollback::resume)).if_unchanged(),
    Route::new(POST, "/v1/held/approve", OPERATOR, || post(handlers::approve)),
    Route::new(POST, "/v1/held/{id}/approve", OPERATOR, || post(rollback::approve)),
    Route::new(POST, "/v1/held/{id}/reject", OPERATOR, || post(rollback::reject)),
    Route::new(DELETE, "/v1/held/{id}/reject", OPERATOR, || delete(rollback::unreject)),
    Route::new(GET, "/v1/rollouts", VIEWER, || get(rollout::rollouts)),
    Route::new(GET, "/v1/rollouts/{id}", VIEWER, || get(rollout::rollout)),
    Route::new(POST, "/v1/rollouts/{id}/promote", OPERATOR, || post(rollout::promote))
        .if_unchanged(),
    Route::new(POST, "/v1/rollouts/{id}/abort", OPERATOR, || post(rollout::abort)).if_unchanged(),
    Route::new(GET, "/v1/overrides", VIEWER, || get(overrides::overrides)),
    Route::new(GET, "/v1/overrides/{node}", VIEWER, || get(overrides::node_override)),
    Route::new(PUT, "/v1/overrides/{node}", OPERATOR, || put(overrides::set_override))
        .if_unchanged(),
    Route::new(DELETE, "/v1/overrides/{node}", OPERATOR, || delete(overrides::end_override))
        .if_unchanged(),
    Route::new(GET, "/v1/masters/{master}", VIEWER, || get(handlers::master)),
    Route::new(GET, DRAIN, VIEWER, || get(overrides::drain_of)),
    Route::new(POST, DRAIN, OPERATOR, || post(overrides::drain)).if_unchanged(),
    Route::new(DELETE, DRAIN, OPERATOR, || delete(overrides::undrain)).if_unchanged(),
    Route::new(GET, "/v1/backends", VIEWER, || get(servers::backends)),
    Route::new(GET, "/v1/backends/{backend}", VIEWER, || get(servers::backend)),
    Route::new(PUT, "/v1/backends/{backend}", ADMIN, || put(declared::put_backend)).if_unchanged(),
    Route::new(PATCH, "/v1/backends/{backend}", ADMIN, || patch(declared::patch_backend))
        .if_unchanged(),
    Route::new(DELETE, "/v1/backends/{backend}", ADMIN, || delete(declared::delete_backend))
        .if_unchanged(),
    Route::new(GET, SERVER, VIEWER, || get(servers::ordered)),
    Route::new(PUT, SERVER, OPERATOR, || put(servers::set)).if_unchanged(),
    Route::new(DELETE, SERVER, OPERATOR, || delete(servers::reset)).if_unchanged(),
    Route::new(GET, "/v1/backends/{backend}/versions", VIEWER, || get(members::versions)),
    Route::new(POST, "/v1/backends/{backend}/switch", OPERATOR, || post(members::switch)),
    Route::new(GET, "/v1/registrations", VIEWER, || get(members::all)),
    Route::new(GET, "/v1/registrations/{name}", VIEWER, || get(members::of_name)),
    Route::new(GET, "/v1/registrations/{name}/{version}", VIEWER, || get(members::of_version)),
    Route::new(PUT, MEMBER, MEMBER_GRANT, || put(members::register)),
    Route::new(DELETE, MEMBER, MEMBER_GRANT, || delete(members::unregister)),
    Route::new(GET, "/v1/frontends", VIEWER, || get(declared::frontends)),
    Route::new(GET, FRONTEND, VIEWER, || get(declared::frontend)),
    Route::new(PUT, FRONTEND, ADMIN, || put(declared::put_frontend)).if_unchanged(),
    Route::new(PATCH, FRONTEND, ADMIN, || patch(declared::patch_frontend)).if_unchanged(),
    Route::new(DELETE, FRONTEND, ADMIN, || delete(declared::delete_frontend)).if_unchanged(),
    Route::new(GET, "/v1/frontends/{frontend}/rules", VIEWER, || get(declared::rules)),
    Route::new(PUT, "/v1/frontends/{frontend}/rules", ADMIN, || put(declared::put_rules))
        .if_unchanged(),
    Route::new(GET, "/v1/config", VIEWER, || get(declared::config)),
    Route::new(PUT, "/v1/config", ADMIN, || put(declared::put_config))
        .with_large_body()
        .if_unchanged(),
    // What is checked is code, too.
    Route::new(POST, "/v1/config/check", ADMIN, || post(declared::check_config)).with_large_body(),
    Route::new(GET, "/v1/haproxy/config", VIEWER, || get(declared::haproxy_config)),
    Route::new(GET, "/v1/certificates", VIEWER, || get(handlers::certificates)),
    Route::new(POST, "/v1/certificates/{name}/renew", OPERATOR, || post(handlers::renew)),
    Route::new(POST, SESSION, Needs::Login, || post(access::log_in)),
    Route::new(DELETE, SESSION, ANYBODY, || delete(access::log_out)),
    Route::new(GET, "/v1/tokens", ADMIN, || get(access::tokens)),
    Route::new(POST, "/v1/tokens", ADMIN, || post(access::create_token)),
    Route::new(DELETE, "/v1/tokens/{id}", ADMIN, || delete(access::revoke_token)),
    Route::new(POST, "/v1/tokens/{id}/rotate", ADMIN, || post(access::rotate_token)),
    Route::new(GET, "/v1/events", VIEWER, || get(events::events)),
    Route::new(GET, "/v1/activity", VIEWER, || get(events::activity)),
    Route::new(GET, "/v1/stats", VIEWER, || get(stats::stats)),
    Route::new(GET, "/v1/stats/stream", VIEWER, || get(stats::stream)),
    Route::new(GET, "/v1/audit", VIEWER, || get(access::audit)),
    Route::new(GET, "/v1/problems/{kind}", Needs::Nothing, || get(problems::problem)),
    Route::new(GET, "/openapi.json", Needs::Nothing, || get(openapi::openapi)),
    Route::new(GET, "/metrics", Needs::Probe, || get(handlers::metrics)),
    Route::new(GET, "/readyz", Needs::Probe, || get(handlers::readyz)),
    Route::new(GET, "/healthz", Needs::Nothing, || get(handlers::healthz)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::problems::PAGES;

    fn route(method: &Method, path: &str) -> &'static Route {
        ROUTES.iter().find(|route| route.method == *method && route.path == path).unwrap()
    }

    #[test]
    fn whatever_changes_something_needs_more_than_to_look() {
        for route in ROUTES.iter().filter(|route| route.changes()) {
            let is_ones_own = route.path == SESSION;
            let least = match route.needs {
                Needs::Role(role) | Needs::NodeGrant(role) | Needs::MemberGrant(role) => Some(role),
                Needs::CommandGrant | Needs::Nothing | Needs::Probe | Needs::Login => None,
            };
            let is_guarded = least >= Some(Role::Operator) || route.needs == Needs::CommandGrant;
            assert!(is_guarded || is_ones_own, "{} {}", route.method, route.path);
        }
        for route in ROUTES.iter().filter(|route| route.path.starts_with("/v1/")) {
            let is_a_text = route.path.starts_with(PAGES);
            let is_known = is_a_text || !matches!(route.needs, Needs::Nothing | Needs::Probe);
            assert!(is_known, "{} {}", route.method, route.path);
        }
        let tokens = ROUTES.iter().filter(|route| route.path.starts_with("/v1/tokens"));
        assert!(tokens.map(|route| route.needs).all(|needs| needs == ADMIN));
    }

    #[test]
    fn a_target_is_what_the_path_names() {
        let named = |name: &str| Some(format!("<{name}>"));
        for (method, path, expected) in [
            (Method::POST, "/v1/masters/{master}/drain", "masters/<master>"),
            (Method::PUT, "/v1/overrides/{node}", "overrides/<node>"),
            (Method::PUT, SERVER, "backends/<backend>/servers/<server>"),
            (Method::POST, "/v1/tokens/{id}/rotate", "tokens/<id>"),
            (Method::POST, "/v1/held/approve", "held/approve"),
            (Method::POST, "/v1/reload", "reload"),
            (Method::PUT, "/v1/nodes/{node}", "nodes/<node>"),
            (Method::POST, "/v1/nodes", "nodes"),
        ] {
            assert_eq!(route(&method, path).target(named), expected);
        }
    }
}
