//! What the stand-ins share: listen, say where, and stop cleanly when told to.

use std::net::SocketAddr;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Serves `router` on `listen` until SIGTERM or SIGINT; requests under way are answered first.
///
/// The bound address goes to standard output as the one line `listening on http://...`, which
/// scripts wait for.
pub async fn serve(listen: SocketAddr, router: Router) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    // Taken before the line is printed, so that whoever read the line may stop us at once.
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await
        .context("the server failed")
}
