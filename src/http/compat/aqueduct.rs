//! The API of Thalassa Aqueduct.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use mapsmith_core::access::Role;
use mapsmith_core::compat::aqueduct::{self, Backend, Frontend, Refusal, body, shown, spec};
use mapsmith_core::compat::thalassa;
use mapsmith_core::objects::{Object, ObjectKey, ObjectKind, Objects, Spec};
use serde::Serialize;
use serde_json::{Value, json as object_of};

use super::hapi::{Fault, Names, Payload, body_limit, json, missing};
use super::{Listener, Route, Shared};
use crate::api::Api;
use crate::api::declared::{ConfigOrder, ConfigRequest};
use crate::api::types::SwitchRequest;
use crate::http::declared::Asker;

const FRONTEND: &str = "/frontends/{key}";
const BACKEND: &str = "/backends/{key}";

/// What the audit has of the names of objects.
const FRONTENDS: &str = "frontends/frontend:";
const BACKENDS: &str = "backends/";

const fn read(
    path: &'static str,
    handler: fn() -> axum::routing::MethodRouter<Arc<Listener>>,
) -> Route {
    Route { method: Method::GET, path, needs: Role::Viewer, target: "", often: false, handler }
}

/// All of them.
pub(super) static ROUTES: &[Route] = &[
    read("/frontends", || get(frontends)),
    read(FRONTEND, || get(frontend)),
    read("/backends", || get(backends)),
    read(BACKEND, || get(backend)),
    read("/backends/{key}/members", || get(members)),
    read("/haproxy/config", || get(haproxy_config)),
    Route {
        method: Method::PUT,
        path: FRONTEND,
        needs: Role::Admin,
        target: FRONTENDS,
        often: false,
        handler: || put(put_frontend).layer(body_limit()),
    },
    Route {
        method: Method::PUT,
        path: BACKEND,
        needs: Role::Admin,
        target: BACKENDS,
        often: false,
        handler: || put(put_backend).layer(body_limit()),
    },
    Route {
        method: Method::DELETE,
        path: FRONTEND,
        needs: Role::Admin,
        target: FRONTENDS,
        often: false,
        handler: || delete(delete_frontend),
    },
    Route {
        method: Method::DELETE,
        path: BACKEND,
        needs: Role::Admin,
        target: BACKENDS,
        often: false,
        handler: || delete(delete_backend),
    },
    Route {
        method: Method::POST,
        path: BACKEND,
        needs: Role::Operator,
        target: BACKENDS,
        often: false,
        handler: || post(switch).layer(body_limit()),
    },
];

/// A change was done.
fn done() -> Response {
    json(&200)
}

/// An object by its key, if there is one.
fn find(objects: &Objects, key: Result<ObjectKey, Refusal>) -> Option<(ObjectKey, &Object)> {
    let key = key.ok()?;
    objects.get(&key).map(|object| (key.clone(), object))
}

fn show_backend(api: &Api, key: &str, object: &Object) -> Value {
    let registered = takes(api, key, object).map(|(name, version)| {
        let heard = api.heard(Some(&name), Some(&version));
        let members = heard.iter().map(|(member, at)| thalassa::shown(member, *at)).collect();
        shown::Registered { name, version, members }
    });
    shown::backend(key, object, registered)
}

/// What a backend takes of what is registered: as it is declared, unless it was switched since.
fn takes(api: &Api, key: &str, object: &Object) -> Option<(String, String)> {
    let from = object.spec.get("from")?;
    let text = |key: &str| from.get(key).and_then(Value::as_str).map(str::to_owned);
    let (name, declared) = (text("name")?, text("version")?);
    let switched = api.version_of(key).filter(|it| it.name == name && it.declared == declared);
    let version = switched.map_or(declared, |switched| switched.version);
    Some((name, version))
}

async fn frontends(State(listener): Shared) -> Response {
    let objects = listener.api.declared_objects();
    let all = aqueduct::all(&objects, ObjectKind::Frontend).into_iter();
    json(&all.map(|(key, object)| shown::frontend(key, object)).collect::<Vec<_>>())
}

async fn frontend(State(listener): Shared, Names(key): Names<String>) -> Response {
    let objects = listener.api.declared_objects();
    match find(&objects, aqueduct::frontend_key(&objects, &key)) {
        Some((_, object)) => json(&shown::frontend(&key, object)),
        None => missing("frontend", &key),
    }
}

async fn backends(State(listener): Shared) -> Response {
    let objects = listener.api.declared_objects();
    let all = aqueduct::all(&objects, ObjectKind::Backend).into_iter();
    json(&all.map(|(key, object)| show_backend(&listener.api, key, object)).collect::<Vec<_>>())
}

async fn backend(State(listener): Shared, Names(key): Names<String>) -> Response {
    let objects = listener.api.declared_objects();
    match find(&objects, aqueduct::backend_key(&key)) {
        Some((_, object)) => json(&show_backend(&listener.api, &key, object)),
        None => missing("backend", &key),
    }
}

async fn members(State(listener): Shared, Names(key): Names<String>) -> Response {
    let objects = listener.api.declared_objects();
    match find(&objects, aqueduct::backend_key(&key)) {
        Some((_, object)) => json(&show_backend(&listener.api, &key, object)["members"]),
        None => missing("backend", &key),
    }
}

async fn haproxy_config(State(listener): Shared) -> Result<Response, Fault> {
    let text = listener.api.haproxy_config(false).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

async fn put_frontend(
    State(listener): Shared,
    Names(key): Names<String>,
    asker: Asker,
    Payload(payload): Payload,
) -> Result<Response, Fault> {
    let mut said: Frontend = body::frontend(&payload)?;
    let objects = listener.api.declared_objects();
    let key = aqueduct::frontend_key(&objects, &key)?;
    said.natives = shown::natives(key.kind, &said.natives, objects.get(&key))?;
    let spec = spec::frontend(&said)?;
    declare(&listener, asker, key, spec, &said).await
}

async fn put_backend(
    State(listener): Shared,
    Names(key): Names<String>,
    asker: Asker,
    Payload(payload): Payload,
) -> Result<Response, Fault> {
    let mut said: Backend = body::backend(&payload)?;
    let objects = listener.api.declared_objects();
    let object = aqueduct::backend_key(&key)?;
    said.natives = shown::natives(object.kind, &said.natives, objects.get(&object))?;
    let spec = spec::backend(&key, &said, listener.api.members_source())?;
    let switched = listener.api.version_of(&key).filter(|it| {
        // What it says is what it said before somebody switched it.
        let (name, version) = (Some(&it.name), Some(&it.declared));
        it.version != it.declared && said.name.as_ref() == name && said.version.as_ref() == version
    });
    match switched {
        None => declare(&listener, asker, object, spec, &said).await,
        Some(switched) => {
            let again = asker.clone();
            declare(&listener, asker, object, spec, &said).await?;
            switch_to(&listener, again, &key, switched.declared).await
        }
    }
}

async fn declare(
    listener: &Listener,
    asker: Asker,
    key: ObjectKey,
    spec: Spec,
    said: &impl Serialize,
) -> Result<Response, Fault> {
    let said = match serde_json::to_value(said) {
        Ok(Value::Object(said)) => said,
        _ => Spec::new(),
    };
    change(listener, asker, ConfigRequest::Said { key, spec, said }).await
}

async fn delete_frontend(
    State(listener): Shared,
    Names(key): Names<String>,
    asker: Asker,
) -> Result<Response, Fault> {
    let objects = listener.api.declared_objects();
    let found = find(&objects, aqueduct::frontend_key(&objects, &key));
    let Some((object, _)) = found else {
        return Ok(missing("frontend", &key));
    };
    change(&listener, asker, ConfigRequest::Delete { key: object }).await
}

async fn delete_backend(
    State(listener): Shared,
    Names(key): Names<String>,
    asker: Asker,
) -> Result<Response, Fault> {
    let objects = listener.api.declared_objects();
    let Some((object, _)) = find(&objects, aqueduct::backend_key(&key)) else {
        return Ok(missing("backend", &key));
    };
    change(&listener, asker, ConfigRequest::Delete { key: object }).await
}

/// Another version, or another name and version, of a backend whose members register. Where it has
/// members they serve until those of the new version are ready.
async fn switch(
    State(listener): Shared,
    Names(key): Names<String>,
    asker: Asker,
    Payload(payload): Payload,
) -> Result<Response, Fault> {
    let body::Switch { name, version } = body::switch(&payload)?;
    let api = &listener.api;
    let objects = api.declared_objects();
    let Some((object, known)) = find(&objects, aqueduct::backend_key(&key)) else {
        return Ok(missing("backend", &key));
    };
    let taken = takes(api, &key, known);
    let is_same_name = |taken: &str| name.as_ref().is_none_or(|name| name == taken);
    if let (Some((taken, of)), Some(_)) = (&taken, api.version_of(&key))
        && is_same_name(taken)
        && (*of == version || !api.heard(Some(taken), Some(of)).is_empty())
    {
        return switch_to(&listener, asker, &key, version).await;
    }
    let mut spec = known.spec.clone();
    let mut said = known.said.clone();
    match (said.as_mut(), taken) {
        (None, None) => {
            let text = format!("the backend {key} was declared with its servers, and no version");
            return Err(Fault::conflict(text));
        }
        (_, Some((taken, _))) => {
            let source = spec.get("from").and_then(|from| from.get("source")).cloned();
            let name = name.clone().unwrap_or(taken);
            let from = object_of!({"source": source, "name": name, "version": version});
            spec.insert("from".to_owned(), from);
        }
        (Some(_), None) => {}
    }
    if let Some(said) = said.as_mut() {
        said.insert("version".to_owned(), version.into());
        said.extend(name.map(|name| ("name".to_owned(), name.into())));
        // One that took nobody may do so now.
        if let Ok(backend) = serde_json::from_value::<Backend>(Value::Object(said.clone()))
            && !spec.contains_key("from")
        {
            spec = spec::backend(&key, &backend, api.members_source())?;
        }
    }
    let request = match said {
        Some(said) => ConfigRequest::Said { key: object, spec, said },
        None => ConfigRequest::Put { key: object, spec, owner: None },
    };
    change(&listener, asker, request).await
}

async fn switch_to(
    listener: &Listener,
    asker: Asker,
    key: &str,
    version: String,
) -> Result<Response, Fault> {
    let request = SwitchRequest { version, min_ready: None, reason: None };
    let (by, ticket) = (asker.by.clone(), Arc::clone(&asker.ticket));
    listener.api.switch_backend(key, request, by, (None, false), ticket).await?;
    Ok(done())
}

/// Old clients are answered as soon as a change is stored, as they always were.
async fn change(
    listener: &Listener,
    asker: Asker,
    request: ConfigRequest,
) -> Result<Response, Fault> {
    let order = ConfigOrder { by: asker.by.clone(), ..ConfigOrder::default() };
    listener.api.change_config(request, order, Arc::clone(&asker.ticket)).await?;
    Ok(done())
}
