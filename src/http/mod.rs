//! The HTTP API: routes and who may use them. Maps `api` to HTTP and decides nothing.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post, put};

mod access;
mod body;
mod error;
mod etag;
mod handlers;
mod history;
mod map;
mod nodes;
mod request;
mod serve;

pub use access::Token;
use error::HttpError;
pub use serve::{connections_within, serve};

use crate::api::Api;

pub fn router(api: Arc<Api>, token: Option<Token>) -> Router {
    let v1 = Router::new()
        .route("/status", get(handlers::status))
        .route("/reload", post(handlers::reload))
        .route("/nodes", get(nodes::nodes))
        .route("/nodes/{node}", get(handlers::explain))
        .route("/nodes/{node}/owner", put(handlers::own))
        .route("/map", get(map::map))
        .route("/revisions", get(history::revisions))
        .route("/revisions/{number}", get(history::revision))
        .route("/revisions/{number}/diff", get(history::diff))
        .route("/revisions/{number}/map", get(history::map))
        .route("/learned", get(handlers::learned))
        .route("/held", get(handlers::held))
        .route("/held/approve", post(handlers::approve))
        .route("/overrides", get(handlers::overrides))
        .route(
            "/overrides/{node}",
            get(handlers::node_override).put(handlers::set_override).delete(handlers::end_override),
        )
        .route("/masters/{master}", get(handlers::master))
        .route("/masters/{master}/drain", post(handlers::drain).delete(handlers::undrain))
        .layer(from_fn(body::arrives))
        .layer(DefaultBodyLimit::max(body::LARGEST));
    // With a token it is what admits; a scraper may then use any name and needs none.
    let open = Router::new()
        .route("/metrics", get(handlers::metrics))
        .route("/readyz", get(handlers::readyz));
    let (v1, open) = match token {
        Some(token) => (v1.layer(from_fn_with_state(Arc::new(token), access::has_token)), open),
        None => (v1.layer(from_fn(access::is_local)), open.layer(from_fn(access::is_local))),
    };
    Router::new()
        .nest("/v1", v1)
        .merge(open)
        .route("/healthz", get(handlers::healthz))
        .fallback(handlers::not_found)
        .method_not_allowed_fallback(handlers::method_not_allowed)
        .with_state(api)
}

/// The routes where `most` connections are in use: whether the process lives is answered still, or
/// a supervisor would restart it.
pub fn spare_router(api: Arc<Api>, most: usize) -> Router {
    Router::new()
        .route("/healthz", get(handlers::healthz))
        .fallback(async move || HttpError::Full(most))
        .with_state(api)
}
