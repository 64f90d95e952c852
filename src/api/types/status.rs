//! What `GET /v1/status` says.

use jiff::Timestamp;
use mapsmith_core::attention::Attention;
use mapsmith_core::certificate::CertificateStatus;
use mapsmith_core::config::status::HaproxyStatus;
use mapsmith_core::desired::hold::Rejected;
use mapsmith_core::desired::shadow::ShadowStatus;
use mapsmith_core::revision::RevisionSummary;
use mapsmith_core::services::ServicesStatus;
use mapsmith_core::status::{
    BackendStatus, InstanceStatus, KeptNodes, MapFileStatus, SourceStatus,
};
use mapsmith_core::tls_file::TlsFileStatus;
use mapsmith_core::{DrainedMaster, HeldChange, RejectedRows};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{GoneReport, HoldReport, ReferencesReport, RolloutReport, VersionReport};

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusReport {
    /// Mapsmith's version.
    pub version: String,
    /// `site.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// What needs a person; none of a Mapsmith that does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<Attention>,
    /// The revision in force; none before the first.
    pub revision: Option<u64>,
    /// Entries of the map in force.
    pub entries: usize,
    /// Nodes of each master in the map in force, sorted by master.
    pub masters: Vec<MasterLoad>,
    /// What the latest revision changed; none if there was none since Mapsmith started.
    pub last_change: Option<RevisionSummary>,
    /// Required sources that have not answered since the start: until they have, the map file's map
    /// stays in force, or nothing is applied where there is none.
    pub waiting_for: Vec<String>,
    /// The Mapsmith that writes the map file instead of this one, which changes nothing then.
    pub read_only: Option<String>,
    /// The changes that the guard holds back, the map's first.
    pub held: Vec<HeldChange>,
    /// What a rollback leaves; none while the sources are followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldReport>,
    /// An answer of the sources that is not applied while they say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected_change: Option<Rejected>,
    /// The rollout that is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutReport>,
    /// How many nodes are pinned.
    pub pins: usize,
    /// How many nodes are kept out of the map.
    #[serde(default)]
    pub blocked: usize,
    /// The masters that are drained.
    pub drained: Vec<DrainedMaster>,
    /// Those of them that keep their nodes, because no other master is left.
    pub stuck: Vec<String>,
    /// Nodes that stay where they are because their master goes back and forth.
    #[serde(default)]
    pub flapping: KeptNodes,
    /// Nodes that an answer names with different masters, none of them newer: each stays where it
    /// is.
    #[serde(default)]
    pub conflicts: KeptNodes,
    /// Nodes that no source names any more, and that stay for a while.
    #[serde(default)]
    pub gone: GoneReport,
    /// Nodes whose owner is remembered; none where owners are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ownership: Option<OwnershipReport>,
    /// Entries of the map that point nowhere in some instance.
    pub references: ReferencesReport,
    /// Entries that are not in the map because a HAProxy's map refuses them.
    #[serde(default)]
    pub rejected: RejectedRows,
    /// The map file.
    pub map_file: Option<MapFileStatus>,
    /// The sources.
    pub sources: Vec<SourceStatus>,
    /// What is compared and never applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<ShadowStatus>,
    /// The number of the desired server lists, which grows with every change of one; none before
    /// the first was accepted.
    pub servers_number: Option<u64>,
    /// The declared backends.
    pub backends: Vec<BackendStatus>,
    /// The versions that these have of members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<VersionReport>,
    /// The files of certificates and revocations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls_files: Vec<TlsFileStatus>,
    /// The certificates that frontends show, of those whose content Mapsmith keeps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateStatus>,
    /// The HAProxy whose configuration is rendered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub haproxy: Option<HaproxyStatus>,
    /// The services of a registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<ServicesStatus>,
    /// The API's own files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<ApiReport>,
    /// The instances.
    pub instances: Vec<InstanceStatus>,
}

/// The API's own files, where it has any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiReport {
    /// Why `api.token_file` can't be read; the token of before stays good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file_error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ApiTlsReport>,
}

/// The API's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiTlsReport {
    /// Until when it is good.
    pub not_after: Option<Timestamp>,
    /// When the next CRL of clients should have come; what the last one revokes stays revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl_until: Option<Timestamp>,
    /// Why what its files hold now is not in force; what was before is.
    pub error: Option<String>,
}

/// How many nodes a master has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MasterLoad {
    /// The master, by HAProxy's name.
    pub master: String,
    /// Its nodes.
    pub nodes: usize,
}

/// Nodes whose registry names another master than their owner.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OwnershipReport {
    /// Of each owner that has such nodes, sorted by master.
    pub owners: Vec<OwnerLoad>,
    /// Why they could not be stored: a restart would lose them.
    pub error: Option<String>,
}

/// How many nodes of an owner are elsewhere, or on their way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OwnerLoad {
    pub owner: String,
    /// Nodes that others serve, because the owner is drained, pinned away from or down.
    pub away: usize,
    /// Nodes that go to it again, and that the registry does not name it for yet.
    pub returning: usize,
    /// Nodes that are about to belong to the master that the registry names.
    pub leaving: usize,
}
