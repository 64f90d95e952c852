//! The HTTP API: routes and who may use them. What the answers mean stands in `dto`; what they cost
//! is behind [`Control`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use mapsmith_core::{HeldChange, OverrideChange, Overrides, Pin};

mod access;
mod body;
pub mod dto;
pub mod error;
mod handlers;
mod serve;

pub use access::Token;
use dto::{ExplainReport, LearnedReport, Readiness, ReloadReport, StatusReport};
use error::ApiError;
pub use serve::{connections_within, serve};

/// The longest that a reload or an override may be waited for.
pub const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// What the API needs of the running program; `app` implements it.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// Everything at a probe.
    fn status(&self) -> StatusReport;
    /// The changes that the guard holds back, the map's first.
    fn held(&self) -> Vec<HeldChange>;
    /// Which task stands still, if one does without which nothing is decided.
    fn stands_still(&self) -> Option<String>;
    /// Whether a desired map exists and at least one instance holds it.
    fn readiness(&self) -> Readiness;
    /// Polls every source now; with `wait` answers when every instance holds the result, or when
    /// the time is over.
    async fn reload(&self, wait: Option<Duration>) -> ReloadReport;
    /// Why a node goes where it goes. `node` is a valid key.
    async fn explain(&self, node: &str) -> ExplainReport;
    /// The learned routes of each instance whose stick table was read; none without `[learned]`.
    fn learned(&self) -> Vec<LearnedReport>;
    /// Lets exactly this held change through.
    ///
    /// # Errors
    /// Why not, for a person.
    async fn approve(&self, id: &str) -> Result<HeldChange, String>;
    /// The overrides in force.
    ///
    /// # Errors
    /// [`ApiError::NoStore`].
    fn overrides(&self) -> Result<Arc<Overrides>, ApiError>;
    /// A node's pin. `node` is a valid key.
    ///
    /// # Errors
    /// [`ApiError::NoStore`], or [`ApiError::NoOverride`] where it has none.
    fn pin(&self, node: &str) -> Result<Pin, ApiError>;
    /// Stores a change of the overrides and puts it in force; with `wait` answers when every
    /// instance holds the result, or when the time is over. The names in it are valid. With `force`
    /// masters are taken that nobody knows.
    ///
    /// # Errors
    /// There is no store, it did not take the change, a master is unknown, or there is nothing to
    /// end.
    async fn change_override(
        &self,
        change: OverrideChange,
        force: bool,
        wait: Option<Duration>,
    ) -> Result<ReloadReport, ApiError>;
    /// The metrics in Prometheus's text format.
    fn metrics(&self) -> String;
}

/// The routes over a running program.
pub fn router(control: Arc<dyn Control>, token: Option<Token>) -> Router {
    let v1 = Router::new()
        .route("/status", get(handlers::status))
        .route("/reload", post(handlers::reload))
        .route("/nodes/{node}", get(handlers::explain))
        .route("/learned", get(handlers::learned))
        .route("/held", get(handlers::held))
        .route("/held/approve", post(handlers::approve))
        .route("/overrides", get(handlers::overrides))
        .route(
            "/overrides/{node}",
            get(handlers::pin).put(handlers::set_pin).delete(handlers::unpin),
        )
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
        .with_state(control)
}

/// The routes where `most` connections are in use: whether the process lives is answered still, or
/// a supervisor would restart it.
pub fn spare_router(control: Arc<dyn Control>, most: usize) -> Router {
    Router::new()
        .route("/healthz", get(handlers::healthz))
        .fallback(async move || ApiError::Full(most))
        .with_state(control)
}
