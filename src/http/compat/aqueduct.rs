//! The API of Thalassa Aqueduct.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use mapsmith_core::Note;
use mapsmith_core::access::Role;
use mapsmith_core::compat::aqueduct::{self, Backend, Frontend, Refusal, body, shown, spec};
use mapsmith_core::objects::{Object, ObjectKey, ObjectKind, Objects, Spec};
use serde::Serialize;
use serde_json::{Value, json as object_of};

use super::hapi::{Fault, Names, Payload, body_limit, json, missing};
use super::list::{self, Members, Piece};
use super::{Listener, Route, Shared};
use crate::api::Api;
use crate::api::declared::{ConfigOrder, ConfigRequest, Turn};
use crate::api::types::SwitchRequest;
use crate::http::declared::Asker;
use crate::store::member_service::SwitchOrder;

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

/// What a backend takes of what is registered: as it is declared, unless it was switched since.
pub(super) fn takes(api: &Api, key: &str, object: &Object) -> Option<(String, String)> {
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
    let mut pieces = vec![Piece::Begin("[")];
    pieces.extend(all.map(|(key, _)| Piece::Backend(key.to_owned())));
    pieces.push(Piece::End("]"));
    list::respond(listener, Arc::clone(&objects), pieces)
}

async fn backend(State(listener): Shared, Names(key): Names<String>) -> Response {
    let objects = listener.api.declared_objects();
    match find(&objects, aqueduct::backend_key(&key)) {
        Some(_) => list::respond(listener, Arc::clone(&objects), [Piece::Backend(key)]),
        None => missing("backend", &key),
    }
}

async fn members(State(listener): Shared, Names(key): Names<String>) -> Response {
    let objects = listener.api.declared_objects();
    let Some((_, object)) = find(&objects, aqueduct::backend_key(&key)) else {
        return missing("backend", &key);
    };
    match takes(&listener.api, &key, object) {
        None => json(&shown::backend(&key, object, None)["members"]),
        Some((name, version)) => {
            let (name, version) = (Some(name), Some(version));
            let members = Members { name, version, after: None };
            let pieces = [Piece::Begin("["), Piece::Members(members), Piece::End("]")];
            list::respond(listener, Arc::clone(&objects), pieces)
        }
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
    let turn = listener.turn_to_change().await?;
    let objects = listener.api.declared_objects();
    let request = blocking(move || {
        let key = aqueduct::frontend_key(&objects, &key)?;
        said.natives = shown::natives(&said.natives, objects.get(&key))?;
        let spec = spec::frontend(&said)?;
        Ok(ConfigRequest::Said { key, spec, said: fields(&said) })
    });
    change(&listener, asker, turn, request.await?, None).await
}

async fn put_backend(
    State(listener): Shared,
    Names(key): Names<String>,
    asker: Asker,
    Payload(payload): Payload,
) -> Result<Response, Fault> {
    let said: Backend = body::backend(&payload)?;
    let turn = listener.turn_to_change().await?;
    let objects = listener.api.declared_objects();
    let switched = listener.api.version_of(&key).filter(|it| {
        // What it says is what it said before somebody switched it.
        let (name, version) = (Some(&it.name), Some(&it.declared));
        it.version != it.declared && said.name.as_ref() == name && said.version.as_ref() == version
    });
    let back = switched.map(|it| (it.backend, it.declared));
    let registrations = listener.api.members_source().to_owned();
    let request = blocking(move || declaration(&key, said, &objects, &registrations));
    change(&listener, asker, turn, request.await?, back).await
}

/// The declaration of a backend, as things stand.
fn declaration(
    key: &str,
    mut said: Backend,
    objects: &Objects,
    registrations: &str,
) -> Result<ConfigRequest, Fault> {
    let object = aqueduct::backend_key(key)?;
    said.natives = shown::natives(&said.natives, objects.get(&object))?;
    let spec = spec::backend(key, &said, registrations)?;
    Ok(ConfigRequest::Said { key: object, spec, said: fields(&said) })
}

fn fields(said: &impl Serialize) -> Spec {
    match serde_json::to_value(said) {
        Ok(Value::Object(said)) => said,
        _ => Spec::new(),
    }
}

/// What may be long keeps no other request waiting.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let failed = |error: tokio::task::JoinError| {
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

async fn delete_frontend(
    State(listener): Shared,
    Names(key): Names<String>,
    asker: Asker,
) -> Result<Response, Fault> {
    let turn = listener.turn_to_change().await?;
    let objects = listener.api.declared_objects();
    let found = find(&objects, aqueduct::frontend_key(&objects, &key));
    let Some((object, _)) = found else {
        return Ok(missing("frontend", &key));
    };
    change(&listener, asker, turn, ConfigRequest::Delete { key: object }, None).await
}

async fn delete_backend(
    State(listener): Shared,
    Names(key): Names<String>,
    asker: Asker,
) -> Result<Response, Fault> {
    let turn = listener.turn_to_change().await?;
    let objects = listener.api.declared_objects();
    let Some((object, _)) = find(&objects, aqueduct::backend_key(&key)) else {
        return Ok(missing("backend", &key));
    };
    change(&listener, asker, turn, ConfigRequest::Delete { key: object }, None).await
}

/// Another version, or another name and version, of a backend whose members register. Where it has
/// members they serve until those of the new version are ready.
async fn switch(
    State(listener): Shared,
    Names(key): Names<String>,
    asker: Asker,
    Payload(payload): Payload,
) -> Result<Response, Fault> {
    let wanted = body::switch(&payload)?;
    let api = &listener.api;
    let objects = api.declared_objects();
    let Some((_, known)) = find(&objects, aqueduct::backend_key(&key)) else {
        return Ok(missing("backend", &key));
    };
    if is_switch(api, &key, known, &wanted) {
        return switch_to(&listener, asker, &key, wanted.version).await;
    }
    // What follows changes what is declared, so it is read once more under the turn.
    let turn = listener.turn_to_change().await?;
    let objects = api.declared_objects();
    let Some((object, known)) = find(&objects, aqueduct::backend_key(&key)) else {
        return Ok(missing("backend", &key));
    };
    if is_switch(api, &key, known, &wanted) {
        drop(turn);
        return switch_to(&listener, asker, &key, wanted.version).await;
    }
    let (known, taken) = (known.clone(), takes(api, &key, known));
    let registrations = api.members_source().to_owned();
    let request = blocking(move || of_version(object, known, wanted, taken, &registrations));
    change(&listener, asker, turn, request.await?, None).await
}

/// Whether it is but another version of what has members, and no other declaration.
fn is_switch(api: &Api, key: &str, known: &Object, wanted: &body::Switch) -> bool {
    let (Some((taken, of)), Some(_)) = (takes(api, key, known), api.version_of(key)) else {
        return false;
    };
    let is_same_name = wanted.name.as_ref().is_none_or(|name| *name == taken);
    is_same_name && (of == wanted.version || api.is_any_heard(&taken, &of))
}

/// A backend's declaration with this version of what it takes.
fn of_version(
    key: ObjectKey,
    known: Object,
    body::Switch { name, version }: body::Switch,
    taken: Option<(String, String)>,
    registrations: &str,
) -> Result<ConfigRequest, Fault> {
    let Object { mut spec, mut said, .. } = known;
    match (said.as_mut(), taken) {
        (None, None) => {
            let name = &key.name;
            let text = format!("the backend {name} was declared with its servers, and no version");
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
    let Some(mut said) = said else { return Ok(ConfigRequest::Put { key, spec, owner: None }) };
    said.insert("version".to_owned(), version.into());
    said.extend(name.map(|name| ("name".to_owned(), name.into())));
    // One that took nobody may do so now.
    if let Ok(backend) = serde_json::from_value::<Backend>(Value::Object(said.clone()))
        && !spec.contains_key("from")
    {
        spec = spec::backend(&key.name, &backend, registrations)?;
    }
    Ok(ConfigRequest::Said { key, spec, said })
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

impl Listener {
    /// What is read under it is not changed by others meanwhile: neither their changes nor the
    /// secrets that clients don't see are lost. Whatever changes what is declared needs it.
    async fn turn_to_change(&self) -> Result<Turn, Fault> {
        self.needs(Role::Admin)?;
        Ok(self.api.turn_to_change().await?)
    }
}

/// Old clients are answered as soon as a change is stored, as they always were. `switch` is a
/// backend and a version that it gets together with it.
async fn change(
    listener: &Listener,
    asker: Asker,
    turn: Turn,
    request: ConfigRequest,
    switch: Option<(String, String)>,
) -> Result<Response, Fault> {
    let note = Note { reason: None, by: asker.by.clone() };
    let switch =
        switch.map(|(backend, version)| SwitchOrder { backend, version, min_ready: None, note });
    let order = ConfigOrder { by: asker.by.clone(), switch, ..ConfigOrder::default() };
    let ticket = Arc::clone(&asker.ticket);
    listener.api.change_in_turn(Some(turn), request, order, ticket).await?;
    Ok(done())
}
