//! Frontends and backends that are declared through the API, beside those of the settings file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mapsmith_core::access::{Identity, Role};
use mapsmith_core::objects::secrets::hidden;
use mapsmith_core::objects::{Document, Object, ObjectKey, ObjectKind, Objects, Spec, Standing};
use mapsmith_core::render::rendered;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::types::{
    ConfigChangeReport, ConfigReport, ConfigStatus, ObjectOrigin, ObjectReport, ObjectState,
    ObjectStatus, ObjectsReport, SettingsObjects,
};
use super::{Api, Error, NumberCondition};
use crate::declared::{Link, Progress, in_force};
use crate::services::Known;
use crate::settings::{Declared, Settings, SettingsFile};
use crate::store::member_service::SwitchOrder;

mod body;
mod change;
mod judge;
mod members;
mod words;

pub use body::{document_of, object_of, patch_of};
pub use change::Turn;
pub(crate) use judge::FORCE;

/// What is declared, as the API sees it.
pub struct Declarations {
    /// The settings file, with what is declared beside it as this daemon began with it.
    pub(crate) file: SettingsFile,
    pub(crate) link: Arc<Link>,
    /// The services over both; none where the settings name none.
    pub(crate) known: Option<watch::Receiver<Known>>,
}

/// Whether answers have the secrets of what is declared: those for admins do, who could not put it
/// back elsewhere without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    Shown,
    Hidden,
}

impl Secrets {
    /// What somebody is shown.
    pub fn for_whom(identity: &Identity) -> Self {
        if identity.role >= Role::Admin { Self::Shown } else { Self::Hidden }
    }

    fn of(self, spec: &Spec) -> Spec {
        match self {
            Self::Shown => spec.clone(),
            Self::Hidden => hidden(spec),
        }
    }
}

/// How a change is made.
#[derive(Debug, Default)]
pub struct ConfigOrder {
    pub condition: NumberCondition,
    pub dry_run: bool,
    /// Frontends may be left without a backend: they wait for it. What is another owner's may be taken
    /// over.
    pub force: bool,
    pub wait: Option<Duration>,
    /// Who asks.
    pub by: Option<String>,
    /// Another version of a backend's members, which is ordered together with it.
    pub switch: Option<SwitchOrder>,
}

/// What is asked for.
#[derive(Debug)]
pub enum ConfigRequest {
    Put {
        key: ObjectKey,
        spec: Spec,
        owner: Option<String>,
    },
    /// Some keys of what is declared already (RFC 7396).
    Merge {
        key: ObjectKey,
        patch: Spec,
        owner: Option<String>,
    },
    /// What an old client has said, and what that comes to.
    Said {
        key: ObjectKey,
        spec: Spec,
        said: Spec,
    },
    Rules {
        frontend: ObjectKey,
        rules: Vec<Value>,
    },
    Delete {
        key: ObjectKey,
    },
    Document {
        document: Document,
        prune: bool,
    },
}

impl ConfigRequest {
    /// What is to be there afterwards, also where it is so already.
    fn keys(&self) -> BTreeSet<ObjectKey> {
        match self {
            Self::Put { key, .. }
            | Self::Merge { key, .. }
            | Self::Said { key, .. }
            | Self::Rules { frontend: key, .. } => BTreeSet::from([key.clone()]),
            Self::Delete { .. } => BTreeSet::new(),
            Self::Document { document, .. } => document.objects.keys().cloned().collect(),
        }
    }
}

/// An answer to a change.
#[derive(Debug)]
pub struct ConfigAnswer {
    pub report: ConfigChangeReport,
    /// Whether it made what was not there.
    pub created: bool,
}

impl Api {
    /// All frontends.
    pub fn frontends(&self, secrets: Secrets) -> ObjectsReport {
        ObjectsReport { items: self.objects_of(ObjectKind::Frontend, secrets) }
    }

    /// How each backend stands that is declared, but for services.
    pub(super) fn backends_declared(&self) -> BTreeMap<String, ObjectStatus> {
        let backends = self.objects_of(ObjectKind::Backend, Secrets::Hidden).into_iter();
        backends.filter_map(|report| Some((report.name, report.status?))).collect()
    }

    /// A frontend or backend, as it is declared.
    ///
    /// # Errors
    /// There is none.
    pub fn object(&self, key: &ObjectKey, secrets: Secrets) -> Result<ObjectReport, Error> {
        let objects = self.declared.link.latest();
        match (self.declared().of_file.get(key), objects.get(key)) {
            (Some(spec), _) => Ok(self.of_file(key, spec)),
            (None, Some(object)) => Ok(self.of_api(key, object, secrets)),
            (None, None) => Err(Error::NoObject(key.clone())),
        }
    }

    /// What can't count, with the reason.
    pub(super) fn set_aside(&self) -> Vec<(String, String)> {
        let of_key = |(key, reason): (ObjectKey, String)| (key.to_string(), reason);
        judge::reasons(self.declared()).map(of_key).collect()
    }

    /// The frontends that wait for backends, with these.
    pub(super) fn waiting_frontends(&self) -> Vec<(String, Vec<String>)> {
        let waiting =
            |(key, waits_for): (&ObjectKey, &Vec<String>)| (key.to_string(), waits_for.clone());
        judge::pending(self.declared()).map(waiting).collect()
    }

    /// The number of an object's last change; none of the settings file's.
    pub fn object_number(&self, key: &ObjectKey) -> Option<u64> {
        self.declared.link.latest().get(key).map(|object| object.number)
    }

    /// What is stored, as it is kept.
    pub fn declared_objects(&self) -> Arc<Objects> {
        self.declared.link.latest()
    }

    /// All that is declared.
    pub fn config(&self, secrets: Secrets) -> ConfigReport {
        let objects = self.declared.link.latest();
        let of_kind = |kind| {
            let of_kind = objects.items.iter().filter(move |(key, _)| key.kind == kind);
            of_kind.map(|(key, object)| self.of_api(key, object, secrets)).collect()
        };
        let of_settings = |kind| {
            let of_kind = self.declared().of_file.iter().filter(move |(key, _)| key.kind == kind);
            of_kind.map(|(key, spec)| self.of_file(key, spec)).collect()
        };
        let (state, detail) = self.state_of(objects.number);
        ConfigReport {
            frontends: of_kind(ObjectKind::Frontend),
            backends: of_kind(ObjectKind::Backend),
            status: ConfigStatus {
                etag: format!("{:x}", objects.number),
                state,
                detail,
                settings: SettingsObjects {
                    frontends: of_settings(ObjectKind::Frontend),
                    backends: of_settings(ObjectKind::Backend),
                },
            },
        }
    }

    /// The number of the last change of all that is declared.
    pub fn config_number(&self) -> u64 {
        self.declared.link.latest().number
    }

    /// The text of HAProxy's configuration, without secrets: as it should be now, or with
    /// `candidate` with all that is stored.
    ///
    /// # Errors
    /// It is somebody else's, or not known yet.
    pub async fn haproxy_config(&self, candidate: bool) -> Result<String, Error> {
        if self.settings.haproxy.is_none() {
            return Err(Error::NotManaged);
        }
        let config = match candidate {
            false => self.desired.borrow().config.as_ref().map(|desired| desired.config.clone()),
            true => {
                let (_, settings) = self.candidate(self.declared.link.latest()).await?;
                let servers = self.desired.borrow().servers.clone();
                in_force(&settings, servers.as_deref()).map(|desired| desired.config)
            }
        };
        let config = config.ok_or(Error::NotReady)?;
        let text = rendered(&config).map_err(|error| Error::NotChecked(error.to_string()))?;
        Ok(text.shown())
    }

    /// Whether the settings file has an object of this name.
    pub(super) fn is_of_file(&self, key: &ObjectKey) -> bool {
        self.declared().of_file.contains_key(key)
    }

    fn declared(&self) -> &Declared {
        self.declared.file.declared()
    }

    /// The settings with these objects, and with the services over them.
    async fn candidate(&self, objects: Arc<Objects>) -> Result<(SettingsFile, Settings), Error> {
        let file = self.declared.file.clone();
        let known = self.declared.known.as_ref().map(|known| known.borrow().clone());
        let made = spawn_blocking(move || {
            let merged = file.with_objects(objects)?;
            let settings = match known {
                Some(known) => {
                    known.under(&file.settings, &merged.settings).settings(&merged.settings)
                }
                None => merged.settings.clone(),
            };
            Ok((merged, settings))
        });
        let made = made.await.map_err(|error| Error::NotChecked(error.to_string()))?;
        made.map_err(|error: crate::settings::SettingsError| Error::NotChecked(error.to_string()))
    }

    fn objects_of(&self, kind: ObjectKind, secrets: Secrets) -> Vec<ObjectReport> {
        let of_file = self.declared().of_file.iter().filter(|(key, _)| key.kind == kind);
        let of_file = of_file.map(|(key, spec)| self.of_file(key, spec));
        let objects = self.declared.link.latest();
        let of_api = objects.items.iter().filter(|(key, _)| key.kind == kind);
        of_file.chain(of_api.map(|(key, object)| self.of_api(key, object, secrets))).collect()
    }

    fn of_file(&self, key: &ObjectKey, spec: &Spec) -> ObjectReport {
        let status = self.is_managed().is_ok().then(|| {
            let (state, detail) = self.state_of(0);
            ObjectStatus {
                origin: ObjectOrigin::Settings,
                state,
                detail,
                etag: None,
                changed_at: None,
                changed_by: None,
                reason: None,
            }
        });
        ObjectReport { name: key.name.clone(), owner: None, keys: hidden(spec), status }
    }

    fn of_api(&self, key: &ObjectKey, object: &Object, secrets: Secrets) -> ObjectReport {
        let (mut state, mut detail) = self.state_of(object.number);
        let is_as_begun = self.declared().objects.get(key) == Some(object);
        match self.declared().standings.get(key) {
            Some(Standing::Pending { waits_for }) if is_as_begun => {
                let text = format!("there is no backend {}", waits_for.join(", "));
                (state, detail) = (ObjectState::Pending, Some(text));
            }
            Some(Standing::SetAside { reason }) if is_as_begun => {
                (state, detail) = (ObjectState::SetAside, Some(reason.clone()));
            }
            _ => {}
        }
        ObjectReport {
            name: key.name.clone(),
            owner: Some(object.owner.clone()),
            keys: secrets.of(&object.spec),
            status: Some(ObjectStatus {
                origin: ObjectOrigin::Api,
                state,
                detail,
                etag: Some(format!("{:x}", object.number)),
                changed_at: Some(object.changed_at),
                changed_by: object.note.by.clone(),
                reason: object.note.reason.clone(),
            }),
        }
    }

    fn set_aside_frontends(&self) -> BTreeSet<ObjectKey> {
        let standings = self.declared().standings.iter();
        let idle = standings.filter(|(key, standing)| {
            key.kind == ObjectKind::Frontend && matches!(standing, Standing::SetAside { .. })
        });
        idle.map(|(key, _)| key.clone()).collect()
    }

    /// How what has this number stands in HAProxy.
    fn state_of(&self, number: u64) -> (ObjectState, Option<String>) {
        let reached = self.declared.link.reached();
        if reached.number < number {
            return (ObjectState::Requested, None);
        }
        match reached.progress {
            Progress::InForce => (ObjectState::InForce, None),
            Progress::Applying => (ObjectState::Requested, None),
            Progress::Behind(why) => (ObjectState::Behind, Some(why)),
        }
    }
}
