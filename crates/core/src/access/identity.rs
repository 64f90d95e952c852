//! Who asks.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::token::COMPAT;
use super::{Grant, Role};

/// How somebody was recognized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdentityKind {
    /// A program of this machine, where nothing asks for more.
    Local,
    /// Who has the token of `api.token_file`.
    File,
    /// Who has a token of the store.
    Token,
    /// Who has shown a certificate.
    Certificate,
    /// A browser in which somebody has logged in with a token.
    Session,
    /// A client of another API, which knows no tokens.
    Compat,
    /// Nobody: what ends by itself.
    Clock,
}

impl IdentityKind {
    /// As it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::File => "file",
            Self::Token => "token",
            Self::Certificate => "certificate",
            Self::Session => "session",
            Self::Compat => "compat",
            Self::Clock => "clock",
        }
    }
}

/// Somebody who is known, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Identity {
    pub kind: IdentityKind,
    /// For people.
    pub name: String,
    /// A token's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub role: Role,
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub grants: Vec<Grant>,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Identity {
    fn admin(kind: IdentityKind) -> Self {
        let (name, role) = (kind.name().to_owned(), Role::Admin);
        Self { kind, name, id: None, role, grants: Vec::new(), expires_at: None }
    }

    /// A program of this machine.
    pub fn local() -> Self {
        Self::admin(IdentityKind::Local)
    }

    /// Who has the token of `api.token_file`.
    pub fn file() -> Self {
        Self::admin(IdentityKind::File)
    }

    /// A client of another API that is asked at a listener of its own, of this name.
    pub fn compat(listener: &str, role: Role) -> Self {
        let name = format!("{COMPAT}{listener}");
        Self { name, role, ..Self::admin(IdentityKind::Compat) }
    }

    /// What ends by itself.
    pub fn clock() -> Self {
        Self::admin(IdentityKind::Clock)
    }

    /// Whom the limits are counted for: a session is its token's.
    pub fn limited_as(&self) -> String {
        match (self.kind, &self.id) {
            (IdentityKind::Session | IdentityKind::Token, Some(id)) => format!("token:{id}"),
            (IdentityKind::Session, None) => IdentityKind::File.name().to_owned(),
            (kind, _) => format!("{}:{}", kind.name(), self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_the_limits_of_its_token() {
        let token =
            Identity { id: Some("k3v9x2ab".to_owned()), ..Identity::admin(IdentityKind::Token) };
        let session = Identity { kind: IdentityKind::Session, ..token.clone() };
        assert_eq!(token.limited_as(), session.limited_as());
        assert_ne!(token.limited_as(), Identity::file().limited_as());
        for kind in [
            IdentityKind::Local,
            IdentityKind::Certificate,
            IdentityKind::Compat,
            IdentityKind::Clock,
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
