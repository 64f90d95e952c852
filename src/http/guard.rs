//! Stands before every route of the table: who asks, may they, how often, and what is noted of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts, Query, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use mapsmith_core::access::{Grant, Identity, Role};
use mapsmith_core::names::is_invisible;
use mapsmith_core::overrides::LONGEST_REASON;
use metrics::counter;
use serde::Deserialize;

use super::access::{self, Peer};
use super::answers::{REVISION, RequestId};
use super::error::HttpError;
use super::etag;
use super::request::Author;
use super::routes::{Needs, Route, SESSION};
use crate::api::{self, Api, NotRun};
use crate::store::audit::{Actor, AuditShare};
use crate::store::{AuditRequest, AuditTicket};
use crate::telemetry::API_REFUSALS;

/// The most characters that are kept of what a path names.
pub(super) const LONGEST_TARGET: usize = 512;

/// A route, and what it takes to let somebody in.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) api: Arc<Api>,
    pub(super) route: &'static Route,
}

/// Lets a request through to its handler, and notes what came of it.
pub(super) async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let peer = Peer::of(&parts);
    let id = parts.extensions.get().map_or(String::new(), |RequestId(id)| id.clone());
    match guard.prepare(&mut parts, &peer, &id).await {
        Ok(record) => {
            let response = next.run(Request::from_parts(parts, body)).await;
            guard.note(record, &response);
            guard.with_revision(response)
        }
        Err(error) => guard.refuse(error, peer.address.ip()),
    }
}

impl Guard {
    /// Puts what the handler needs into the request: who asks, and of a change its author, the
    /// audit's actor, and its ticket.
    async fn prepare(&self, parts: &mut Parts, peer: &Peer, id: &str) -> Result<Record, HttpError> {
        let (access, changes) = (&self.api.access, self.route.changes());
        let mut record = Record::new(Arc::clone(&self.api));
        let needed = match self.route.needs {
            Needs::Nothing => return Ok(record),
            Needs::Probe => {
                if access.is_open_locally() {
                    access::is_local(access, parts)?;
                }
                return Ok(record);
            }
            Needs::Login => {
                match access.is_open_locally() {
                    true => access::is_local(access, parts)?,
                    false => access::is_of_no_other_site(access, parts)?,
                }
                record.request = Some(self.request(parts, peer, id).await?);
                return Ok(record);
            }
            Needs::Role(needed) | Needs::NodeGrant(needed) | Needs::MemberGrant(needed) => needed,
            Needs::CommandGrant => Role::None,
        };
        // A page of any site may open a WebSocket, so this is as much as a change.
        let from_a_page = changes || access::opens_a_socket(parts);
        let identity = access::identify(access, parts, peer, from_a_page)?;
        match self.route.needs {
            _ if self.route.path == SESSION => access.admit_login(&identity),
            Needs::MemberGrant(_) => access.admit_member(&identity),
            _ => access.admit(&identity, changes),
        }
        .map_err(HttpError::TooMany)?;
        let is_granted = match self.route.needs {
            Needs::NodeGrant(_) => has_grant(&identity, |it| matches!(it, Grant::Node(_))),
            Needs::MemberGrant(_) => has_grant(&identity, |it| matches!(it, Grant::Register(_))),
            _ => false,
        };
        if identity.role < needed && !is_granted {
            return Err(HttpError::Role { needed, identity });
        }
        let of_commands = |grant: &Grant| matches!(grant, Grant::Commands(_));
        if self.route.needs == Needs::CommandGrant && !identity.grants.iter().any(of_commands) {
            return Err(api::Error::from(NotRun::no_grant(&identity)).into());
        }
        if changes {
            self.check_condition(parts)?;
            let mut request = self.request(parts, peer, id).await?;
            request.actor = Actor::from(&identity);
            if identity.role < needed {
                // It may register, and no more.
                request.share = AuditShare::Registrations;
            }
            parts.extensions.insert(Author(Some(request.actor.name.clone())));
            let ticket = Arc::new(AuditTicket::new(request));
            if is_dry_run(parts) {
                ticket.changes_nothing();
            }
            parts.extensions.insert(Arc::clone(&ticket));
            record.ticket = Some(ticket);
        }
        parts.extensions.insert(identity);
        Ok(record)
    }

    /// A condition that nobody looks at is refused: whoever sends it relies on it.
    fn check_condition(&self, parts: &Parts) -> Result<(), HttpError> {
        let is_given = [header::IF_MATCH, header::IF_NONE_MATCH]
            .iter()
            .any(|name| parts.headers.contains_key(name));
        let is_required = self.api.settings.api.require_if_match;
        match self.route.is_conditional {
            false if is_given => Err(HttpError::BadRequest(
                "this change takes no If-Match and no If-None-Match: what it changes has no ETag"
                    .to_owned(),
            )),
            true if is_required && !etag::says_what_it_changes(&parts.headers) => {
                Err(HttpError::ConditionRequired)
            }
            _ => Ok(()),
        }
    }

    /// The request as the audit has it. Its actor is not known yet.
    async fn request(
        &self,
        parts: &mut Parts,
        peer: &Peer,
        id: &str,
    ) -> Result<AuditRequest, HttpError> {
        let reason = reason(parts)?;
        let named = RawPathParams::from_request_parts(parts, &()).await.ok();
        let target = self.route.target(|name| {
            let mut named = named.as_ref()?.iter();
            named.find_map(|(key, value)| (key == name).then(|| value.to_owned()))
        });
        Ok(AuditRequest {
            address: Some(peer.address.ip()),
            method: self.route.method.to_string(),
            route: self.route.path.to_owned(),
            reason,
            request_id: id.to_owned(),
            ..AuditRequest::of_the_clock(
                Timestamp::now(),
                target.chars().take(LONGEST_TARGET).collect(),
            )
        })
    }

    /// The answer with the number of the map in force, where it is for somebody who is known and
    /// does not name another one.
    fn with_revision(&self, mut response: Response) -> Response {
        let number = self.api.revision_in_force().filter(|_| self.route.needs.somebody());
        if let Some(number) = number {
            response.headers_mut().entry(REVISION).or_insert(HeaderValue::from(number));
        }
        response
    }

    fn note(&self, mut record: Record, response: &Response) {
        let identity = response.extensions().get::<Identity>();
        match (record.request.take(), identity) {
            (Some(request), Some(identity)) => {
                let request = AuditRequest { actor: Actor::from(identity), ..request };
                record.ticket = Some(Arc::new(AuditTicket::new(request)));
            }
            // Nobody was logged in.
            (Some(_), None) => self.count(response.status()),
            (None, _) => {}
        }
        record.end(Some(response.status()));
    }

    /// Counts what was refused because of who asked or how often.
    fn count(&self, status: StatusCode) {
        let counted =
            [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS];
        if counted.contains(&status) {
            counter!(API_REFUSALS, "status" => status.as_str().to_owned()).increment(1);
        }
    }

    /// Refused before anything was done: counted, and logged now and then.
    fn refuse(&self, error: HttpError, address: IpAddr) -> Response {
        let error = match error {
            HttpError::Unauthorized { tried: true } => match self.api.access.failed(address) {
                Ok(()) => error,
                Err(wait) => HttpError::TooManyFailed(wait),
            },
            error => error,
        };
        let (text, response) = (error.to_string(), error.into_response());
        let status = response.status();
        self.count(status);
        if self.api.access.is_refusal_logged(address) {
            let (method, route) = (&self.route.method, self.route.path);
            tracing::warn!(
                target: "mapsmith::audit",
                %address,
                %method,
                route,
                status = status.as_u16(),
                "the API refused a request: {text}"
            );
        }
        response
    }
}

fn has_grant(identity: &Identity, wanted: impl Fn(&Grant) -> bool) -> bool {
    identity.grants.iter().any(wanted)
}

/// What is noted once a request was answered, or once whoever asked went away.
pub(super) struct Record {
    api: Arc<Api>,
    /// Of one who is not known yet.
    request: Option<AuditRequest>,
    ticket: Option<Arc<AuditTicket>>,
    begun: Instant,
}

impl Record {
    fn new(api: Arc<Api>) -> Self {
        Self { api, request: None, ticket: None, begun: Instant::now() }
    }

    /// Of a change by somebody who is known.
    pub(super) fn of_change(api: Arc<Api>, ticket: Arc<AuditTicket>) -> Self {
        let mut record = Self::new(api);
        record.ticket = Some(ticket);
        record
    }

    pub(super) fn end(&mut self, status: Option<StatusCode>) {
        if let Some(ticket) = self.ticket.take() {
            let ms = self.begun.elapsed().as_secs_f64() * 1000.0;
            let ms = (ms * 1000.0).round() / 1000.0;
            self.api.audit.answered(ticket, status.map(|status| status.as_u16()), ms);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.end(None);
    }
}

/// Whether it is only asked what would be. Whoever can't be understood is refused by the handler.
fn is_dry_run(parts: &Parts) -> bool {
    #[derive(Deserialize)]
    struct DryRun {
        #[serde(default)]
        dry_run: bool,
    }
    Query::try_from_uri(&parts.uri).is_ok_and(|Query(DryRun { dry_run })| dry_run)
}

/// Why somebody changes something, in their own words.
fn reason(parts: &Parts) -> Result<Option<String>, HttpError> {
    #[derive(Deserialize)]
    struct Reason {
        reason: Option<String>,
    }
    // What can't be read is refused by the handler.
    let Ok(Query(Reason { reason })) = Query::try_from_uri(&parts.uri) else { return Ok(None) };
    match reason {
        Some(reason)
            if reason.chars().count() > LONGEST_REASON || reason.chars().any(is_invisible) =>
        {
            Err(HttpError::BadRequest(format!(
                "reason has at most {LONGEST_REASON} characters, and none that can't be seen"
            )))
        }
        reason => Ok(reason.filter(|reason| !reason.is_empty())),
    }
}
