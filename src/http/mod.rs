//! The HTTP API: routes and who may use them. Maps `api` to HTTP and decides nothing.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;

mod access;
mod answers;
mod body;
mod commands;
pub mod compat;
mod declared;
mod error;
mod etag;
mod events;
mod guard;
mod handlers;
mod history;
mod map;
mod members;
mod nodes;
mod openapi;
mod overrides;
mod problems;
mod registrations;
mod request;
mod rollback;
mod rollout;
mod routes;
mod serve;
mod servers;
mod stats;

use answers::Reached;
use error::HttpError;
use guard::Guard;
pub use routes::{Needs, ROUTES, Route};
pub use serve::{begin_metrics, connections_within, serve};

use crate::api::Api;

/// The routes of the table, each behind its guard.
pub fn router(api: Arc<Api>) -> Router {
    let reached = Reached::of(&api);
    let with_guards = ROUTES.iter().fold(Router::new(), |router, route| {
        let guard = Guard { api: Arc::clone(&api), route };
        // Nobody's body is read who may not ask.
        let handler = (route.handler)()
            .route_layer(from_fn_with_state(body::Takes::of(route), body::arrives))
            .route_layer(DefaultBodyLimit::max(route.largest_body));
        let handler = match route.largest_body > body::LARGEST {
            true => handler.route_layer(from_fn(body::has_room)),
            false => handler,
        };
        let handler = handler.route_layer(from_fn_with_state(guard, guard::admit));
        router.route(route.path, handler)
    });
    with_guards
        .fallback(handlers::not_found)
        .method_not_allowed_fallback(handlers::method_not_allowed)
        .layer(from_fn_with_state(reached, answers::complete))
        .with_state(api)
}

/// The routes where `most` connections are in use: whether the process lives is answered still, or
/// a supervisor would restart it.
pub fn spare_router(api: Arc<Api>, most: usize) -> Router {
    let reached = Reached::of(&api);
    Router::new()
        .route("/healthz", get(handlers::healthz))
        .fallback(async move || HttpError::Full(most))
        .layer(from_fn_with_state(reached, answers::complete))
        .with_state(api)
}
