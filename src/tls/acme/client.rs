//! HTTP to a certificate authority: bounded, over the HTTP client that everything else uses, and
//! with what it says of when to come back.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use reqwest::{Certificate, Client};

use super::Failure;
use crate::settings::Acme;

/// For one request, which an authority answers at once.
const BOUND: Duration = Duration::from_secs(30);
/// The most bytes of an answer; chains of certificates have a few thousand.
const LARGEST: usize = 1024 * 1024;
/// The longest that an authority is left alone because it asks for it: a week, in which rate limits
/// are over.
const LONGEST_REST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// An authority that can't be reached, as opposed to one that refuses.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreachable(String);

/// The client of one attempt.
#[derive(Clone)]
pub(super) struct Http {
    client: Client,
    rest: Arc<Mutex<Option<Duration>>>,
}

impl Http {
    /// With the CA of the settings as it is now; blocks for its file.
    ///
    /// # Errors
    /// The file can't be read or used.
    pub fn new(acme: &Acme) -> Result<Self, Failure> {
        let unfit = |error: String| Failure::local(format!("acme.ca: {error}"));
        let mut builder = Client::builder().timeout(BOUND);
        if let Some(path) = &acme.ca {
            let text = std::fs::read(path)
                .map_err(|error| unfit(format!("{} can't be read: {error}", path.display())))?;
            let certificates = Certificate::from_pem_bundle(&text)
                .map_err(|error| unfit(format!("{}: {error}", path.display())))?;
            if certificates.is_empty() {
                return Err(unfit(format!("{} holds no certificate in PEM form", path.display())));
            }
            builder = builder.tls_certs_only(certificates);
        }
        let client = builder.build().map_err(|error| unfit(describe(&error)))?;
        Ok(Self { client, rest: Arc::default() })
    }

    /// How long the authority has asked to be left alone, in its last refusal.
    pub fn rest(&self) -> Option<Duration> {
        // Nothing panics while it holds the lock.
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (client, rest) = (self.client.clone(), Arc::clone(&self.rest));
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = to_bytes(Body::new(body), LARGEST).await;
            let body = body.map_err(|error| Error::Other(Box::new(error)))?;
            let unreachable =
                |error: &reqwest::Error| Error::Other(Box::new(Unreachable(describe(error))));
            let url = parts.uri.to_string();
            let request = client.request(parts.method, &url).headers(parts.headers).body(body);
            let mut response = request.send().await.map_err(|error| unreachable(&error))?;
            let (status, headers) = (response.status(), response.headers().clone());
            let mut body = Vec::new();
            while let Some(part) = response.chunk().await.map_err(|error| unreachable(&error))? {
                if body.len() + part.len() > LARGEST {
                    return Err(Error::Other(format!("{url}: over {LARGEST} bytes").into()));
                }
                body.extend_from_slice(&part);
            }
            if !status.is_success() {
                *rest.lock().unwrap_or_else(PoisonError::into_inner) = retry_after(&headers);
            }
            if status.is_server_error() || is_foreign(status, &headers) {
                let error = format!("{url} answered {status}");
                return Err(Error::Other(Box::new(Unreachable(error))));
            }
            let mut parts = Response::new(()).into_parts().0;
            (parts.status, parts.headers) = (status, headers);
            Ok(BytesResponse { parts, body: Box::new(Bytes::from(body)) })
        })
    }
}

/// Whether a failure is told by something else than an authority, like a proxy.
fn is_foreign(status: StatusCode, headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    !status.is_success() && !kind.is_some_and(|kind| kind.contains("json"))
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let rest = match text.parse().map(Duration::from_secs) {
        Ok(rest) => rest,
        Err(_) => {
            let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            Duration::try_from(until.duration_since(jiff::Timestamp::now())).ok()?
        }
    };
    Some(rest.min(LONGEST_REST))
}

/// With its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_left_alone_as_long_as_it_asks_within_a_week() {
        let rest = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(rest("120"), Some(Duration::from_secs(120)));
        assert_eq!(rest("99999999"), Some(LONGEST_REST));
        assert_eq!(rest("Fri, 31 Dec 2100 23:59:59 GMT"), Some(LONGEST_REST));
        assert_eq!(rest("Fri, 31 Dec 1999 23:59:59 GMT"), None, "that is over");
        assert_eq!(rest("soon"), None);
    }
}
