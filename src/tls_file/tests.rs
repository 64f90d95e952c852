//! A task's rounds over files, with the clock in hand.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::source::PollRequests;

const SECOND: Duration = Duration::from_secs(1);

struct Scene {
    folder: TempDir,
    task: TlsFile,
    state: watch::Receiver<InForce>,
}

impl Scene {
    /// A certificate with its key in a file of its own.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let settings = serde_json::from_value(json!({
            "kind": "certificate", "path": at("haproxy.pem"), "from": at("cert.pem"),
            "key_from": at("key.pem"), "timeout": "30s",
        }));
        let (task, state) = TlsFile::new(&settings.unwrap()).unwrap();
        Self { folder, task, state }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn round(&mut self) -> bool {
        self.task.round(Extent::Changes, Timestamp::now()).await
    }

    fn error(&self) -> String {
        self.state.borrow().status.error.clone().unwrap_or_default()
    }

    fn in_force(&self) -> Vec<String> {
        self.state.borrow().status.contents.clone()
    }
}

fn pair(name: &str) -> (String, String) {
    let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn a_pair_is_written_as_one_file_and_half_of_a_new_one_changes_nothing() {
    let mut scene = Scene::new();
    let (cert, key) = pair("one");
    fs::write(scene.path("cert.pem"), &cert).unwrap();
    assert!(!scene.round().await);
    assert!(scene.error().contains("key.pem: can't be read"), "{}", scene.error());
    assert!(!scene.path("haproxy.pem").exists() && scene.in_force().is_empty());

    fs::write(scene.path("key.pem"), &key).unwrap();
    assert!(scene.round().await, "{}", scene.error());
    let written = fs::read_to_string(scene.path("haproxy.pem")).unwrap();
    assert!(written.contains(cert.trim()) && written.contains(key.trim()));
    assert_eq!(mode(&scene.path("haproxy.pem")), 0o600);
    let first = scene.state.borrow().content.clone().unwrap();

    let (cert, key) = pair("two");
    fs::write(scene.path("cert.pem"), &cert).unwrap();
    assert!(!scene.round().await);
    assert!(scene.error().contains("don't belong together"), "{}", scene.error());
    assert_eq!(fs::read_to_string(scene.path("haproxy.pem")).unwrap(), written);
    assert!(Arc::ptr_eq(&first, scene.state.borrow().content.as_ref().unwrap()));

    fs::write(scene.path("key.pem"), &key).unwrap();
    assert!(scene.round().await, "{}", scene.error());
    assert!(scene.in_force()[0].contains("CN=two"), "{:?}", scene.in_force());
    assert!(!format!("{:?}", scene.state.borrow()).contains("PRIVATE"));
}

#[tokio::test]
async fn the_file_is_the_last_good_content_and_is_kept_while_from_can_not_be_read() {
    let mut scene = Scene::new();
    let (cert, key) = pair("one");
    let text = format!("{cert}{key}");
    fs::write(scene.path("haproxy.pem"), &text).unwrap();
    assert!(!scene.round().await);
    assert!(scene.in_force()[0].contains("CN=one"), "{:?}", scene.in_force());

    fs::write(scene.path("haproxy.pem"), "cut").unwrap();
    assert!(!scene.round().await);
    assert_eq!(fs::read_to_string(scene.path("haproxy.pem")).unwrap(), text);
    fs::remove_file(scene.path("haproxy.pem")).unwrap();
    assert!(!scene.round().await);
    assert_eq!(fs::read_to_string(scene.path("haproxy.pem")).unwrap(), text);

    let (cert, key) = pair("two");
    fs::write(scene.path("haproxy.pem"), format!("{cert}{key}")).unwrap();
    assert!(!scene.round().await);
    assert!(scene.in_force()[0].contains("CN=two"), "an operator's file counts");
}

#[tokio::test]
async fn a_file_that_can_not_be_written_leaves_what_is_in_force() {
    let mut scene = Scene::new();
    let (cert, key) = pair("one");
    fs::write(scene.path("cert.pem"), cert).unwrap();
    fs::write(scene.path("key.pem"), key).unwrap();
    fs::create_dir(scene.path("haproxy.pem")).unwrap();
    assert!(!scene.round().await);
    assert!(scene.error().contains("not a regular file"), "{}", scene.error());
    assert!(scene.state.borrow().content.is_none());
}

/// A server that sends all of a CA file to whoever asks, and the task that asks it.
async fn of_a_simple_server(poll: Option<Duration>) -> (MockServer, TempDir, TlsFile) {
    let server = MockServer::start().await;
    let whole = ResponseTemplate::new(200).set_body_string(pair("ca").0);
    Mock::given(method("GET")).respond_with(whole).mount(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let settings = serde_json::from_value(json!({
        "kind": "ca", "path": folder.path().join("ca.pem"), "from": server.uri(), "timeout": "30s",
    }));
    let settings = settings::TlsFile { poll, ..settings.unwrap() };
    let (task, _) = TlsFile::new(&settings).unwrap();
    (server, folder, task)
}

#[tokio::test]
async fn reloads_in_a_loop_are_a_few_reads_and_each_is_answered() {
    let (server, _folder, task) = of_a_simple_server(Some(SECOND * 3600)).await;
    let (requests, shutdown) = (PollRequests::new(), CancellationToken::new());
    let mut state = task.state.subscribe();
    let began = Instant::now();
    let running = tokio::spawn(task.run(requests.round(), shutdown.clone()));
    for _ in 0..4 {
        let request = requests.request_everything();
        state.wait_for(|state| state.answered >= request).await.unwrap();
    }
    let reads = server.received_requests().await.unwrap().len();
    let most = began.elapsed().as_millis() / SPACING.as_millis() + 1;
    assert!(reads as u128 <= most, "{reads} reads, where the time allows {most}");
    assert_eq!(state.borrow().status.error, None);
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_server_that_sends_all_of_it_each_time_is_asked_more_rarely_unless_poll_says_how_often() {
    for (poll, often, rarely) in
        [(None, Duration::from_millis(500), REPEATS_POLL), (Some(SECOND), SECOND, SECOND)]
    {
        let (_server, _folder, mut task) = of_a_simple_server(poll).await;
        for _ in 0..2 {
            task.from.read_later(Extent::Changes).await;
            assert_eq!(task.poll(), often);
        }
        task.from.read_later(Extent::Changes).await;
        assert_eq!(task.poll(), rarely);
    }
}
