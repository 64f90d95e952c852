//! The HTTP API of Thalassa. Its publication of changes over sockets is not offered.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::{delete, get, post};
use jiff::Timestamp;
use mapsmith_core::access::Role;
use mapsmith_core::compat::thalassa;
use mapsmith_core::members::MemberKey;
use serde_json::json as object_of;

use super::hapi::{Fault, Names, Payload, body_limit, json};
use super::list::{self, Members, Piece};
use super::{Listener, Route, Shared};
use crate::api::members::MemberOrder;
use crate::http::declared::Asker;

const MEMBER: &str = "/registrations/{name}/{version}/{host}/{port}";
const TARGET: &str = "registrations/";

const fn read(
    path: &'static str,
    handler: fn() -> axum::routing::MethodRouter<Arc<Listener>>,
) -> Route {
    let (needs, target) = (Role::Viewer, "");
    Route { method: Method::GET, path, needs, target, often: false, handler }
}

/// All of them.
pub(super) static ROUTES: &[Route] = &[
    read("/registrations", || get(all)),
    read("/registrations/{name}", || get(of_name)),
    read("/registrations/{name}/{version}", || get(of_version)),
    read("/status", || get(status)),
    Route {
        method: Method::POST,
        path: MEMBER,
        needs: Role::Operator,
        target: TARGET,
        often: true,
        handler: || post(register).layer(body_limit()),
    },
    Route {
        method: Method::DELETE,
        path: MEMBER,
        needs: Role::Operator,
        target: TARGET,
        often: true,
        handler: || delete(unregister),
    },
];

/// The member that a path names.
struct Named(MemberKey);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        type Four = Names<(String, String, String, String)>;
        let Names((name, version, host, port)) = Four::from_request_parts(parts, state).await?;
        Ok(Self(thalassa::key(&name, &version, &host, &port)?))
    }
}

/// What is registered, the registry itself included.
fn list(listener: Arc<Listener>, name: Option<String>, version: Option<String>) -> Response {
    let own_version = env!("CARGO_PKG_VERSION");
    let is_asked_for = name.as_ref().is_none_or(|name| name == thalassa::ITSELF)
        && version.as_ref().is_none_or(|version| version == own_version);
    let members = Members { name, version, after: None };
    let mut pieces = vec![Piece::Begin("["), Piece::Members(members)];
    if is_asked_for {
        let (address, now) = (listener.clients.listen, Timestamp::now().as_millisecond());
        let host = address.ip().to_string();
        let itself = thalassa::itself(own_version, &host, address.port(), now);
        pieces.push(Piece::Element(itself));
    }
    pieces.push(Piece::End("]"));
    list::respond(listener, Arc::default(), pieces)
}

async fn all(State(listener): Shared) -> Response {
    list(listener, None, None)
}

async fn of_name(State(listener): Shared, Names(name): Names<String>) -> Response {
    list(listener, Some(name), None)
}

async fn of_version(
    State(listener): Shared,
    Names((name, version)): Names<(String, String)>,
) -> Response {
    list(listener, Some(name), Some(version))
}

async fn status() -> Response {
    json(&object_of!({"status": "ok"}))
}

async fn register(
    State(listener): Shared,
    Named(key): Named,
    asker: Asker,
    Payload(payload): Payload,
) -> Result<Response, Fault> {
    let by = asker.by.clone().unwrap_or_default();
    let member = thalassa::member(key, payload, &by, Timestamp::now())?;
    let ticket = Arc::clone(&asker.ticket);
    listener.api.register_member(member, MemberOrder::default(), ticket).await?;
    Ok(json(&200))
}

async fn unregister(
    State(listener): Shared,
    Named(key): Named,
    asker: Asker,
) -> Result<Response, Fault> {
    let order = MemberOrder { missing_ok: true, ..MemberOrder::default() };
    let ticket = Arc::clone(&asker.ticket);
    listener.api.unregister_member(key, order, ticket).await?;
    Ok(json(&200))
}
