//! What etcd's words mean, and what follows from them. *Pure.*

use etcd_client::Error;
use tonic::{Code, Status};

use crate::source::error::{Excerpt, SourceErrorKind};
use crate::source::transport::tls::root_cause;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The login is not valid any more, or never was.
    Login(SourceErrorKind),
    /// It is this member's, and another may answer.
    Member(SourceErrorKind),
    /// Each member would say the same.
    Etcd(SourceErrorKind),
    /// The revision that was being read is kept no longer.
    Compacted,
    /// An answer is larger than was allowed for.
    PageTooLarge,
}

impl Failure {
    /// What the client says of a request for the keys of a prefix, made as this user.
    pub(super) fn new(error: &Error, prefix: &str, user: Option<&str>) -> Self {
        match error {
            Error::GRpcStatus(status) => Self::of_status(status, prefix, user),
            other => Self::Member(SourceErrorKind::Registry(other.to_string())),
        }
    }

    fn of_status(status: &Status, prefix: &str, user: Option<&str>) -> Self {
        let text = said(status);
        let says = |words: &str| status.message().contains(words);
        let registry = |text: String| SourceErrorKind::Registry(text);
        match status.code() {
            Code::PermissionDenied => Self::Etcd(registry(no_permission(&text, prefix, user))),
            Code::Unauthenticated => Self::Login(registry(login_refused(&text, user))),
            Code::InvalidArgument
                if says("invalid user ID or password")
                    || says("revision of auth store is old")
                    || says("user name is empty") =>
            {
                Self::Login(registry(login_refused(&text, user)))
            }
            // Of this library's own, before it decodes.
            Code::OutOfRange if says("message length too large") => Self::PageTooLarge,
            Code::OutOfRange if says("compacted") => Self::Compacted,
            _ if std::error::Error::source(status).is_some() => {
                let (during, cause) = ("before or within the answer", root_cause(status));
                let cause = with_remedy(cause);
                Self::Member(SourceErrorKind::Disconnected { during, cause })
            }
            Code::Unavailable
                if ["no leader", "timed out", "leader changed"].iter().any(|words| says(words)) =>
            {
                Self::Member(registry(format!(
                    "the etcd members have no leader, or lost it just now ({text}); see to them \
                        (etcdctl endpoint status --cluster)"
                )))
            }
            Code::Unimplemented => Self::Member(registry(format!(
                "does not speak etcd's version 3 ({text}); is it an etcd's client port?"
            ))),
            code => Self::Member(registry(format!("{text} ({code:?})"))),
        }
    }

    /// As an error, where nothing else is done about it.
    pub(super) fn into_fault(self, prefix: &str) -> SourceErrorKind {
        match self {
            Self::Login(fault) | Self::Member(fault) | Self::Etcd(fault) => fault,
            Self::Compacted => SourceErrorKind::Registry(format!(
                "the revision at which {prefix} was being read was compacted, twice; compact less \
                    often (etcd's --auto-compaction-retention)"
            )),
            Self::PageTooLarge => SourceErrorKind::Registry(format!(
                "a single key of {prefix} holds more than is read at once"
            )),
        }
    }
}

/// How a connection ends with whoever is no etcd, or speaks TLS where it is not expected, or does
/// not where it is.
const FOREIGN: [&str; 6] = [
    "frame with invalid size",
    "broken pipe",
    "connection closed",
    "handshake eof",
    "protocol error",
    "corrupt message",
];

/// What broke a connection, with what to look at where it may be none to an etcd.
pub(super) fn with_remedy(cause: String) -> String {
    match FOREIGN.iter().any(|words| cause.contains(words)) {
        true => format!("{cause}; is it etcd's client port (2379 mostly), with http or https?"),
        false => cause,
    }
}

/// Whether a login failed because the etcd knows of none.
pub(super) fn needs_no_login(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status)
        if status.message().contains("authentication is not enabled"))
}

/// The server's words, bounded and harmless.
pub(super) fn said(status: &Status) -> String {
    let mut excerpt = Excerpt::new(None);
    excerpt.push(status.message().as_bytes());
    excerpt.to_string()
}

fn no_permission(text: &str, prefix: &str, user: Option<&str>) -> String {
    let who = match user {
        Some(user) => format!("the user {user:?}"),
        None => "who shows no other name than a certificate's".to_owned(),
    };
    format!(
        "no permission to read {prefix} for {who} ({text}); grant it to a role of that user \
            (etcdctl role grant-permission ROLE --prefix=true read {prefix})"
    )
}

fn login_refused(text: &str, user: Option<&str>) -> String {
    match user {
        Some(user) => {
            format!("refuses the login of {user:?} ({text}); see user and password_file")
        }
        None => format!("demands a login ({text}); set user and password_file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: Code, message: &str, user: Option<&str>) -> (String, String) {
        let error = Error::GRpcStatus(Status::new(code, message));
        let failure = Failure::new(&error, "/web/", user);
        let kind = format!("{failure:?}");
        let kind = kind.split('(').next().unwrap().to_owned();
        (kind, failure.into_fault("/web/").to_string())
    }

    #[test]
    fn a_connection_to_something_else_says_what_to_look_at() {
        for cause in [
            "stream closed because of a broken pipe",
            "http2 error: frame with invalid size",
            "tls handshake eof",
        ] {
            let told = with_remedy(cause.to_owned());
            assert!(told.starts_with(cause) && told.contains("client port"), "{told}");
        }
        let refused = "Connection refused (os error 111)";
        assert_eq!(with_remedy(refused.to_owned()), refused);
    }

    #[test]
    fn etcds_words_say_who_can_help_and_what_to_do() {
        let user = Some("mapsmith");
        for (code, message, user, kind, parts) in [
            (
                Code::PermissionDenied,
                "etcdserver: permission denied",
                user,
                "Etcd",
                &["no permission to read /web/", "\"mapsmith\"", "grant-permission ROLE"][..],
            ),
            (
                Code::Unauthenticated,
                "etcdserver: invalid auth token",
                user,
                "Login",
                &["refuses the login of \"mapsmith\"", "invalid auth token", "password_file"],
            ),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                user,
                "Login",
                &["see user and password_file"],
            ),
            (
                Code::InvalidArgument,
                "etcdserver: user name is empty",
                None,
                "Login",
                &["demands a login", "set user"],
            ),
            (
                Code::Unavailable,
                "etcdserver: no leader",
                None,
                "Member",
                &["have no leader", "etcdctl endpoint status"],
            ),
            (Code::Unavailable, "etcdserver: request timed out", None, "Member", &["no leader"]),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                None,
                "Compacted",
                &["was compacted, twice"],
            ),
            (
                Code::OutOfRange,
                "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes",
                None,
                "PageTooLarge",
                &["a single key of /web/"],
            ),
            (Code::Unimplemented, "unknown service", None, "Member", &["client port"]),
            (Code::Internal, "a\u{1b}[31mb", None, "Member", &["a\\u{1b}[31mb (Internal)"]),
        ] {
            let (found, text) = told(code, message, user);
            assert_eq!(found, kind, "{message}");
            parts.iter().for_each(|part| assert!(text.contains(part), "{part:?}: {text}"));
        }
        let disabled = Status::new(Code::FailedPrecondition, "authentication is not enabled");
        assert!(needs_no_login(&Error::GRpcStatus(disabled)));
    }
}
