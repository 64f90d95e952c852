//! The kinds of problems that an answer can be, each with a page of its own: what it means and what
//! to do. docs/api.md has the same texts.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::error::HttpError;
use super::request::{NoQuery, Parameters};

/// Where the pages are.
pub(super) const PAGES: &str = "/v1/problems/";

/// A kind of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// Its name: the last part of its page's path.
    pub name: &'static str,
    pub status: StatusCode,
    pub title: &'static str,
    /// When it comes, and what to do.
    pub text: &'static str,
}

impl Kind {
    /// What tells it apart, wherever the API is reached.
    pub(super) fn page(self) -> String {
        format!("{PAGES}{}", self.name)
    }
}

macro_rules! kinds {
    ($($constant:ident $name:literal $status:ident $title:literal $text:literal)*) => {
        impl Kind {
            $(pub(super) const $constant: Self = Self {
                name: $name,
                status: StatusCode::$status,
                title: $title,
                text: $text,
            };)*
            pub(super) const ALL: &[Self] = &[$(Self::$constant),*];
        }
    };
}

kinds! {
    INVALID "invalid-request" BAD_REQUEST "The request is not valid"
        "a parameter, a body or a name that is not valid; `detail` says what would be"
    UNAUTHORIZED "unauthorized" UNAUTHORIZED "Nobody who is known"
        "the token, or whatever else says who you are, is missing, wrong or over"
    FORBIDDEN "forbidden" FORBIDDEN "Not allowed"
        "the role does not suffice (`needs`); the grant is for nodes of another master, or for \
        other members, or there is none for the command; a web page \
        of another site asks; nobody has to say who they are, and the request names this machine \
        by a name"
    NOT_FOUND "not-found" NOT_FOUND "Not found"
        "no such path, override, drain, frontend, backend, server, token, certificate, revision \
        or rollout; a node or member that is not registered, or a command for a node that is not in \
        the map; a command that the settings do not name; no hold; a map where the settings have no \
        source of one; a master that nobody knows"
    METHOD "method-not-allowed" METHOD_NOT_ALLOWED "Another method"
        "the path knows other methods: those of the header `Allow`"
    TOO_SLOW "request-timeout" REQUEST_TIMEOUT "The body did not arrive"
        "the body did not arrive within 10 seconds"
    CONFLICT "conflict" CONFLICT "Not as things stand"
        "the change to approve or reject is not the one that is held; a canary on its way, or a \
        rollout that is over; an unknown master; an owner for an unknown node; a drain that would \
        move nothing; the last server that is ready; no source of registrations; an owner without \
        `[ownership]`; commands without `[commands]`; a certificate that is being renewed; a token that is over, or whose name \
        another one has; a backend that a frontend needs; the name of a service; too many \
        frontends and backends, or members; a backend that takes no members"
    HELD "held" CONFLICT "Held by the guard"
        "the guard holds the change, or a part of it; `report` has its id, which approves it"
    ON_HOLD "on-hold" CONFLICT "Held by a rollback"
        "a rollback holds the sources back; `DELETE` what `resume` names to follow them again, or \
        roll back with `replace`"
    READ_ONLY "read-only" CONFLICT "Another Mapsmith decides"
        "another Mapsmith writes the map file, so this one changes nothing; ask that one"
    NO_STORE "no-store" CONFLICT "There is no store"
        "the settings name no `[store]`, which what was asked for needs"
    NO_MEMBERS "no-members" CONFLICT "Too few members"
        "too few members of the version are registered to switch a backend to it: `have`, where \
        `min_ready` must be"
    OWNED "owned-by-settings" CONFLICT "The settings file's"
        "the settings file declares that frontend or backend, or another of its name; change the \
        file, and send SIGHUP"
    NOT_MANAGED "not-managed" CONFLICT "HAProxy is somebody else's"
        "HAProxy's configuration is not Mapsmith's here: set `managed` in `[haproxy]`"
    GONE "gone" GONE "No longer kept"
        "what was asked for is no longer kept; `oldest` is the oldest revision or event that is"
    CHANGED "precondition-failed" PRECONDITION_FAILED "Changed meanwhile"
        "it is not as `If-Match` or `If-None-Match` says: somebody else has changed it. `current` \
        is what it is now; of the map `changes` are the revisions since"
    INVALID_CONFIG "invalid-configuration" UNPROCESSABLE_ENTITY "The configuration has no sense"
        "a frontend or backend has a key that there is not, a value that is none, or contradicts \
        something; `errors` has each. Nothing is stored"
    REFUSED "refused-by-haproxy" UNPROCESSABLE_ENTITY "HAProxy refuses the configuration"
        "HAProxy's own check refuses it; `errors` has HAProxy's words, the line, and whose it is. \
        Nothing is stored"
    PRECONDITION "precondition-required" PRECONDITION_REQUIRED "Say what you have seen"
        "a rollback needs `If-Match` with the `ETag` of `GET /v1/map`, promoting or aborting a \
        rollout with that of the rollout, and `PUT /v1/config` with that of `GET /v1/config`; \
        with `api.require_if_match` whatever has an `ETag` does"
    TOO_LARGE "too-large" PAYLOAD_TOO_LARGE "The body is too large"
        "the body is larger than 64 KiB, or many nodes or a whole configuration than 16 MiB"
    MEDIA_TYPE "unsupported-media-type" UNSUPPORTED_MEDIA_TYPE "Not JSON"
        "the body's `Content-Type` is another than `application/json`"
    RATE_LIMITED "rate-limited" TOO_MANY_REQUESTS "Too many requests"
        "too many requests, too many wrong tokens, or a command while another one of yours or four in \
        all run; `Retry-After` says how long to wait"
    FILE_FAILED "file-failed" INTERNAL_SERVER_ERROR "The map file can't be written"
        "the map file can't be written, so no instance gets the change; `report` says why"
    STORE_FAILED "store-failed" INTERNAL_SERVER_ERROR "The store failed"
        "the store did not take the change, or could not be read; `detail` says why"
    SOURCE_FAILED "source-failed" BAD_GATEWAY "A source failed"
        "a source gave no good answer, and the last good one stays in force; `report` says which"
    BUSY "busy" SERVICE_UNAVAILABLE "Too many at once"
        "every connection is in use, four large bodies are being read, too many wait for another \
        map or follow events or statistics, two configurations are being checked, a task has \
        something else to do, or Mapsmith begins with other settings; try again after `Retry-After`"
    NOT_READY "not-ready" SERVICE_UNAVAILABLE "Not known yet"
        "there is no map in force yet, or no configuration of HAProxy's; `/readyz` says what is \
        missing"
    NOT_CHECKED "not-checked" SERVICE_UNAVAILABLE "HAProxy can't be asked"
        "HAProxy can't check the configuration now, so nothing is stored; `detail` says why"
}

/// Says what a kind of problem means.
#[utoipa::path(
    get,
    path = "/v1/problems/{kind}",
    responses((status = 200, body = String), (status = 404))
)]
pub(super) async fn problem(
    Path(name): Path<String>,
    _: Parameters<NoQuery>,
) -> Result<Response, HttpError> {
    let kind = Kind::ALL.iter().find(|kind| kind.name == name);
    let kind = kind.ok_or_else(|| HttpError::NotFound(format!("{PAGES}{name}")))?;
    let page = format!("{} ({})\n\n{}.\n", kind.title, kind.status.as_u16(), kind.text);
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], page).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_every_kind_of_problem_in_the_same_words() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md");
        let document = std::fs::read_to_string(path).unwrap();
        for kind in Kind::ALL {
            let row = format!("| {} | `{}` | {} |", kind.status.as_u16(), kind.name, kind.text);
            assert!(document.contains(&row), "docs/api.md lacks the row\n{row}");
        }
        let rows =
            document.lines().filter(|line| line.starts_with("| 4") || line.starts_with("| 5"));
        assert_eq!(rows.count(), Kind::ALL.len(), "docs/api.md has rows of kinds that are none");
    }
}
