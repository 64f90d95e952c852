//! Listeners for clients that were written for other programs' APIs: their paths, their shapes,
//! their words. What they ask for is done as for everybody else: same store, same checks, same
//! audit.
//!
//! These clients know no tokens. So who may ask is said by the settings, by address, and no web
//! page in a browser may: a program does not send what a browser tells of a page, and asks for this
//! machine by an address or by a name that the settings give.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Query, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use jiff::Timestamp;
use mapsmith_core::access::{Identity, Role};

use super::access::{self, Peer};
use super::answers::{self, RequestId};
use super::guard::{LONGEST_TARGET, Record};
use super::request::Author;
use crate::api::Api;
use crate::settings::OldClients;
use crate::store::audit::{Actor, AuditShare};
use crate::store::{AuditRequest, AuditTicket};
use crate::telemetry::API_REFUSALS;

mod aqueduct;
mod hapi;
mod list;
mod thalassa;

use hapi::Fault;

/// The parameters of changes of `/v1` that say how a change is made.
const ELSEWHERE: &[&str] = &["dry_run", "wait", "force", "missing", "reason"];

/// What all requests to a listener share.
struct Listener {
    api: Arc<Api>,
    clients: OldClients,
}

impl Listener {
    /// Whether its clients have at least this role.
    fn needs(&self, needs: Role) -> Result<(), Fault> {
        let OldClients { name, role, .. } = &self.clients;
        match *role < needs {
            true => Err(Fault::forbidden(format!(
                "this needs the role {needs}; compat.{name}.role is {role}"
            ))),
            false => Ok(()),
        }
    }
}

type Shared = State<Arc<Listener>>;

/// A method of a path, for those who have at least this role.
struct Route {
    method: Method,
    path: &'static str,
    needs: Role,
    /// What it changes, as the audit has it, but for the names in the path.
    target: &'static str,
    /// Whether it is asked for all the time: members say that they are there.
    often: bool,
    handler: fn() -> MethodRouter<Arc<Listener>>,
}

impl Route {
    fn changes(&self) -> bool {
        self.method != Method::GET
    }
}

/// The routes of the listener of this name.
pub fn router(api: Arc<Api>, clients: OldClients) -> Router {
    let routes = if clients.name == "thalassa" { thalassa::ROUTES } else { aqueduct::ROUTES };
    let listener = Arc::new(Listener { api, clients });
    let with_guards = routes.iter().fold(Router::new(), |router, route| {
        let guard = Guard { listener: Arc::clone(&listener), route };
        let handler = (route.handler)();
        router.route(route.path, handler.route_layer(from_fn_with_state(guard, admit)))
    });
    with_guards
        .fallback(hapi::not_found)
        // As hapi does: a path with another method is another path.
        .method_not_allowed_fallback(hapi::not_found)
        .layer(from_fn_with_state(answers::Reached::default(), answers::complete))
        .with_state(listener)
}

/// What is answered where all connections are in use.
pub fn spare_router() -> Router {
    Router::new().fallback(async || Fault::busy("all connections are in use; try again"))
}

/// A route, and what it takes to let somebody in.
#[derive(Clone)]
struct Guard {
    listener: Arc<Listener>,
    route: &'static Route,
}

/// Lets a request through to its handler, and notes what came of it.
async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match guard.prepare(&mut parts).await {
        Ok(record) => {
            let response = next.run(Request::from_parts(parts, body)).await;
            if let Some(mut record) = record {
                record.end(Some(response.status()));
            }
            response
        }
        Err(fault) => guard.refuse(fault, &parts),
    }
}

impl Guard {
    /// Puts who asks into the request, and of a change the audit's ticket.
    async fn prepare(&self, parts: &mut Parts) -> Result<Option<Record>, Fault> {
        let Listener { api, clients } = &*self.listener;
        let (peer, changes) = (Peer::of(parts), self.route.changes());
        if !clients.allows(peer.address.ip()) {
            let name = clients.name;
            return Err(Fault::forbidden(format!(
                "{} may not ask here; name it in compat.{name}.allow",
                peer.address.ip()
            )));
        }
        if !access::is_of_a_program(parts, |host| clients.is_named(host)) {
            let name = clients.name;
            return Err(Fault::forbidden(format!(
                "requests of web pages are refused, and requests by another name than an address, \
                    localhost or one of compat.{name}.hosts"
            )));
        }
        match self.route.often {
            true => api.access.admit_member_from(peer.address.ip()),
            false => api.access.admit_from(peer.address.ip(), changes),
        }
        .map_err(Fault::too_many)?;
        self.listener.needs(self.route.needs)?;
        let identity = Identity::compat(clients.name, clients.role);
        if !changes {
            return Ok(None);
        }
        is_taken_as_said(parts)?;
        let named = RawPathParams::from_request_parts(parts, &()).await.ok();
        let names: Vec<_> = named.iter().flatten().map(|(_, name)| name).collect();
        let target = format!("{}{}", self.route.target, names.join("/"));
        let id = parts.extensions.get().map_or(String::new(), |RequestId(id)| id.clone());
        let request = AuditRequest {
            actor: Actor::from(&identity),
            address: Some(peer.address.ip()),
            method: self.route.method.to_string(),
            route: self.route.path.to_owned(),
            request_id: id,
            share: match self.route.often {
                true => AuditShare::Registrations,
                false => AuditShare::Usual,
            },
            ..AuditRequest::of_the_clock(
                Timestamp::now(),
                target.chars().take(LONGEST_TARGET).collect(),
            )
        };
        parts.extensions.insert(Author(Some(request.actor.name.clone())));
        let ticket = Arc::new(AuditTicket::new(request));
        parts.extensions.insert(Arc::clone(&ticket));
        Ok(Some(Record::of_change(Arc::clone(api), ticket)))
    }

    /// Refused before anything was done: counted, and logged now and then.
    fn refuse(&self, fault: Fault, parts: &Parts) -> Response {
        let address = Peer::of(parts).address.ip();
        let status = fault.status();
        metrics::counter!(API_REFUSALS, "status" => status.as_str().to_owned()).increment(1);
        if self.listener.api.access.is_refusal_logged(address) {
            let (name, method, route) =
                (self.listener.clients.name, &self.route.method, self.route.path);
            tracing::warn!(
                target: "mapsmith::audit",
                %address,
                %method,
                route,
                status = status.as_u16(),
                "compat.{name} refused a request: {fault}"
            );
        }
        fault.into_response()
    }
}

/// What a change may be asked for elsewhere and not here. Whoever sends it relies on it, so it is
/// not passed over. Old clients never send it.
fn is_taken_as_said(parts: &Parts) -> Result<(), Fault> {
    let conditions = [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_UNMODIFIED_SINCE];
    let header = conditions.iter().find(|name| parts.headers.contains_key(*name));
    // What can't be read nobody relies on.
    let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
    let query = query.map(|Query(query)| query).unwrap_or_default();
    let parameter = query.iter().find(|(name, _)| ELSEWHERE.contains(&name.as_str()));
    let what = match (header, parameter) {
        (None, None) => return Ok(()),
        (Some(header), _) => format!("the header {header}"),
        (None, Some((name, _))) => format!("the parameter {name}"),
    };
    let text = format!("{what} is not known here: ask the API of Mapsmith itself (/v1)");
    Err(Fault::new(StatusCode::BAD_REQUEST, text))
}
