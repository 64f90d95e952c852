//! What the API says and takes, one file a resource. `cli` reads the same types.

mod access;
mod attention;
mod commands;
mod declared;
mod events;
mod explain;
mod gone;
mod held;
mod history;
mod hold;
mod learned;
mod map;
mod masters;
mod members;
mod nodes;
mod overrides;
mod problem;
mod readiness;
mod references;
mod registrations;
mod reload;
mod rollout;
mod servers;
mod stats;
mod status;

pub use access::{
    About, AuditPage, CreateTokenRequest, Limit, Limits, LoginRequest, NewTokenReport, TokenReport,
    TokensReport,
};
pub use attention::AttentionReport;
pub use commands::{
    CommandInfo, CommandParam, CommandsReport, RunCommandReport, RunCommandRequest,
};
pub use declared::{
    ConfigBody, ConfigChangeReport, ConfigReport, ConfigStatus, ObjectOrigin, ObjectReport,
    ObjectState, ObjectStatus, ObjectsReport, RulesBody, SettingsObjects,
};
pub use events::ActivityReport;
pub use explain::{
    ExplainCanary, ExplainChange, ExplainInstance, ExplainRegistration, ExplainReport,
    ExplainSource,
};
pub use gone::{GoneNodeReport, GoneReport};
pub use held::ApproveRequest;
pub use history::{DiffReport, RevisionReport, RevisionState, RevisionsReport};
pub use hold::{
    HoldReport, HoldsReport, MasterShare, RollbackReport, RollbackRequest, VerdictRequest,
};
pub use learned::LearnedReport;
pub use map::MapReport;
pub use masters::{MasterInstance, MasterReport};
pub use members::{
    MemberChangeReport, MemberEffect, MemberReport, MemberState, MemberVersion, MembersReport,
    RegisterMemberRequest, SwitchReport, SwitchRequest, VersionReport, VersionsReport,
};
pub use nodes::{NodeReport, NodesReport};
pub use overrides::{
    DrainRequest, NodeOverride, OverrideKind, OverrideRequest, OverridesReport, OwnRequest,
};
pub use problem::Problem;
pub use readiness::Readiness;
pub use references::ReferencesReport;
pub use registrations::{
    NodeElsewhere, RegisterNode, RegisterRequest, RegistrationReport, UnregisterNode,
};
pub use reload::{
    DryRunReport, ReloadInstance, ReloadOutcome, ReloadReport, ReloadServers, ReloadSource,
};
pub use rollout::{
    ApproveHeldRequest, ApproveReport, CanaryRequest, RejectReport, RolloutChangeReport,
    RolloutInstance, RolloutReport, RolloutRequest, RolloutsReport, UnrejectReport,
};
pub use servers::{
    BackendReport, BackendSummary, BackendsReport, ServerChangeReport, ServerInstance,
    ServerReport, ServerRequest,
};
pub use stats::StatsReport;
pub use status::{ApiReport, ApiTlsReport, MasterLoad, OwnerLoad, OwnershipReport, StatusReport};
