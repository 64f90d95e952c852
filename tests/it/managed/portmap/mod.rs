//! A load balancer that metadata declares, as Triton's Moirai serves it: each service of the
//! portmap is a port of a real HAProxy.

mod changes;
mod dns;
mod example;
mod faults;
mod sticky;
mod verbs;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::services::{Client, answer};
use super::{Ground, Managed, PATIENCE};
use crate::support::haproxy::Binary;
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::scene::metric;
use crate::support::{eventually, free_port};

const PREFIX: &str = "cloud.tritoncompute:";

/// Metadata in a file, and a HAProxy that serves it.
struct Site {
    managed: Managed,
    metadata: PathBuf,
}

impl Site {
    /// With this portmap. `more` are settings.
    fn start(binary: &'static Binary, portmap: &str, more: &str) -> Self {
        let ground = Ground::new(binary);
        let metadata = ground.file("metadata.json");
        write(&metadata, &json!({"loadbalancer": "true", "portmap": portmap}));
        let place = format!("path = {:?}", metadata.display().to_string());
        let settings = ground.settings("own", &settings(&place, more));
        let managed = Managed { mapsmith: Mapsmith::config(&settings).start(), ground };
        managed.wait_for_state("in_force");
        Self { managed, metadata }
    }

    /// Has the metadata say these keys and no others.
    fn say(&self, keys: &Value) {
        write(&self.metadata, keys);
    }

    fn declare(&self, portmap: &str) {
        self.say(&json!({"loadbalancer": "true", "portmap": portmap}));
    }

    fn wait_for_answer(&self, port: u16, name: &str) {
        let what = format!("{name} answers on port {port}");
        self.managed
            .mapsmith
            .wait_for(&what, PATIENCE, |_| (answer(port).ok()? == name).then_some(()));
    }

    fn wait_until_closed(&self, port: u16) {
        self.managed.mapsmith.wait_for(&format!("port {port} is closed"), PATIENCE, |_| {
            TcpStream::connect(("127.0.0.1", port)).is_err().then_some(())
        });
    }

    /// What status says of services.
    fn status(&self) -> Value {
        eventually("the API answers", PATIENCE, || {
            let response = self.managed.mapsmith.try_ask("GET", "/v1/status").ok()?;
            let status: Value = serde_json::from_str(&response.body).ok()?;
            Some(status["services"].clone())
        })
    }

    /// Waits until why the metadata is not followed has this part.
    fn wait_for_kept(&self, part: &str) {
        self.managed.mapsmith.wait_for(&format!("it is kept: {part}"), PATIENCE, |_| {
            self.status()["kept"].to_string().contains(part).then_some(())
        });
    }

    /// Waits until the reason why this piece or key is rejected has this part.
    fn wait_for_rejected(&self, name: &str, part: &str) -> Value {
        self.managed.mapsmith.wait_for(&format!("{name} is rejected: {part}"), PATIENCE, |_| {
            let status = self.status();
            let mut rejected = status["rejected"].as_array()?.iter();
            let found = rejected
                .find(|one| one["name"] == name && one["reason"].to_string().contains(part));
            found.cloned()
        })
    }

    /// The file that HAProxy loads.
    fn file(&self) -> String {
        fs::read_to_string(self.managed.ground.file("haproxy.cfg")).expect("the file")
    }

    fn metric(&self, name: &str) -> Option<f64> {
        metric(&self.managed.mapsmith, name)
    }
}

/// Settings with metadata at this place.
pub(super) fn settings(place: &str, more: &str) -> String {
    format!(
        "[[source]]\nname = \"md\"\ntype = \"metadata\"\n{place}\n\
        [portmap]\nsource = \"md\"\naddress = \"127.0.0.1\"\n{more}\n\
        [damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"0s\"\n"
    )
}

/// Replaces a file of metadata as a whole.
pub(super) fn write(file: &Path, keys: &Value) {
    let keys: serde_json::Map<_, _> = keys
        .as_object()
        .expect("an object")
        .iter()
        .map(|(key, value)| (format!("{PREFIX}{key}"), value.clone()))
        .collect();
    let new = file.with_extension("new");
    fs::write(&new, Value::Object(keys).to_string()).expect("metadata can be written");
    fs::rename(new, file).expect("it takes the file's place");
}

/// A service whose server is this one.
pub(super) fn service(kind: &str, port: u16, server: &Master) -> String {
    format!("{kind}://{port}:127.0.0.1:{}", server.address().port())
}

/// A stand-in for `mdata-get`: keys are files of a folder, and a file `fail` has its exit code.
struct MdataGet {
    folder: PathBuf,
}

impl MdataGet {
    fn new(folder: &Path) -> Self {
        let mdata = Self { folder: folder.join("mdata") };
        fs::create_dir(&mdata.folder).expect("a folder");
        let text = format!(
            "#!/bin/sh\ncd {}\nif [ -e fail ]; then echo 'no metadata socket' >&2; \
                exit $(cat fail); fi\nif [ -e \"$1\" ]; then exec cat \"$1\"; fi\n\
                echo \"No metadata for '$1'\" >&2\nexit 1\n",
            mdata.folder.display()
        );
        fs::write(mdata.program(), text).expect("a program");
        fs::set_permissions(mdata.program(), fs::Permissions::from_mode(0o755)).expect("a mode");
        mdata
    }

    fn program(&self) -> PathBuf {
        self.folder.join("mdata-get")
    }

    /// As `mdata-put` does.
    fn put(&self, key: &str, value: &str) {
        let new = self.folder.join("new");
        fs::write(&new, format!("{value}\n")).expect("a value");
        fs::rename(new, self.folder.join(format!("{PREFIX}{key}"))).expect("a key");
    }

    fn delete(&self, key: &str) {
        fs::remove_file(self.folder.join(format!("{PREFIX}{key}"))).expect("a key");
    }

    /// Has every call fail with this exit code, or none.
    fn fail(&self, code: Option<i32>) {
        let file = self.folder.join("fail");
        match code {
            Some(code) => fs::write(file, code.to_string()).expect("a file"),
            None => fs::remove_file(file).expect("a file"),
        }
    }
}
