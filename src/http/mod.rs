//! The HTTP API: routes and who may use them. What the answers mean stands in `dto`; what they cost is behind [`Control`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::model::HeldChange;

mod access;
pub mod dto;
pub mod error;
mod handlers;

pub use access::Token;
use dto::{ExplainReport, Readiness, ReloadReport, StatusReport};

/// The longest that a reload may be waited for.
pub const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// What the API needs of the running program; `app` implements it.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// Everything at a glance.
    fn status(&self) -> StatusReport;
    /// The change that the guard holds back.
    fn held(&self) -> Option<HeldChange>;
    /// Whether a desired map exists and at least one instance holds it.
    fn readiness(&self) -> Readiness;
    /// Polls every source now; with `wait` answers when every instance holds the result, or when the time is over.
    async fn reload(&self, wait: Option<Duration>) -> ReloadReport;
    /// Why a node goes where it goes. `node` is a legal key.
    async fn explain(&self, node: &str) -> ExplainReport;
    /// Lets exactly this held change through.
    ///
    /// # Errors
    /// Why not, for a person.
    async fn approve(&self, id: &str) -> Result<HeldChange, String>;
    /// The metrics in Prometheus's text format.
    fn metrics(&self) -> String;
}

/// The routes over a running program.
pub fn router(control: Arc<dyn Control>, token: Option<Token>) -> Router {
    let v1 = Router::new()
        .route("/status", get(handlers::status))
        .route("/reload", post(handlers::reload))
        .route("/nodes/{node}", get(handlers::explain))
        .route("/held", get(handlers::held))
        .route("/held/approve", post(handlers::approve))
        .layer(axum::middleware::from_fn_with_state(token.map(Arc::new), access::admit));
    Router::new()
        .nest("/v1", v1)
        .route("/metrics", get(handlers::metrics))
        .route("/healthz", get(handlers::healthz))
        .route("/readyz", get(handlers::readyz))
        .fallback(handlers::not_found)
        .method_not_allowed_fallback(handlers::method_not_allowed)
        .with_state(control)
}

/// How long requests under way may take to end at a shutdown: a client that never finishes its request must not keep the daemon.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// Serves until shutdown; requests under way have a moment to end.
///
/// # Errors
/// What the listener answers.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) -> std::io::Result<()> {
    let serving = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let bound = async {
        shutdown.cancelled().await;
        tokio::time::sleep(LAST_REQUESTS).await;
    };
    tokio::select! {
        result = serving => result,
        () = bound => Ok(()),
    }
}
