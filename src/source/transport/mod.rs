//! How the registries' answers reach this machine: HTTP and TLS, a body as it comes, and tokens.

mod body;
pub(super) mod handshake;
pub(super) mod http;
pub(super) mod secret;
pub(super) mod servers;
pub(super) mod status;
pub(super) mod tls;
