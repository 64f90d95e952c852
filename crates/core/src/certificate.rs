//! The certificates that frontends show: what is reported of them, and what certificate authorities
//! are answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateSource {
    /// A certificate authority, which Mapsmith asks for it.
    Acme,
    /// Mapsmith signs it with its own key.
    SelfSigned,
    /// Somebody else issues it.
    File,
}

/// A `[[certificate]]` of the settings whose content Mapsmith keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateStatus {
    /// Its name in the settings.
    pub name: String,
    pub source: CertificateSource,
    /// The file that HAProxy loads.
    pub path: String,
    /// What is in force; none before the first.
    pub in_force: Option<IssuedCertificate>,
    /// What Mapsmith does to renew it; none where somebody else does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<Renewal>,
}

/// A certificate that frontends show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IssuedCertificate {
    /// The names that it is for.
    pub names: Vec<String>,
    pub issuer: String,
    /// Whether it is signed with its own key, so that no client trusts it by itself.
    pub self_signed: bool,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

/// How the renewal of a certificate stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Renewal {
    /// The names that it should be for.
    pub names: Vec<String>,
    /// When it begins, or is tried again.
    pub next_at: Option<Timestamp>,
    /// What is being done right now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// How often it has failed since it last succeeded.
    #[serde(default)]
    pub failures: u32,
    /// Why it last failed; the certificate in force stays meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What every HAProxy should answer to certificate authorities right now.
#[derive(Debug, Clone, Default)]
pub struct OpenChallenges {
    /// Another one with each change; 0 is none.
    pub number: u64,
    /// By token. Both are base64url, and an answer may have a `.` too.
    pub answers: Arc<BTreeMap<String, String>>,
}
