//! An account that its authority does not want any more.

use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::Pin;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, Response};
use instant_acme::{Account, AccountCredentials, BodyWrapper, BytesResponse, Error, HttpClient};

use jiff::SignedDuration;

use super::{Scene, Trust, oldest_and_newest};
use crate::managed::Ground;
use crate::support::acme::{Acme, Plan};

/// The HTTP client of somebody who has got hold of the account's key.
struct Http(reqwest::Client);

impl Http {
    fn new(acme: &Acme) -> Self {
        let ca = fs::read(acme.folder().join("ca.pem")).expect("it is there");
        let ca = reqwest::Certificate::from_pem(&ca).expect("PEM");
        Self(reqwest::Client::builder().tls_certs_only([ca]).build().expect("a client"))
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = to_bytes(Body::new(body), usize::MAX).await.expect("it is short");
            let request = client.request(parts.method, parts.uri.to_string());
            let answer = request.headers(parts.headers).body(body).send().await;
            let answer = answer.expect("the authority answers");
            let mut parts = Response::new(()).into_parts().0;
            (parts.status, parts.headers) = (answer.status(), answer.headers().clone());
            let body = answer.bytes().await.expect("the authority answers");
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}

impl Scene {
    /// The file with the account and its key.
    pub(super) fn account(&self) -> PathBuf {
        let files = fs::read_dir(self.file("acme")).expect("a folder").flatten();
        files.map(|entry| entry.path()).find(|path| path.is_file()).expect("an account")
    }

    fn deactivate_account(&self, acme: &Acme) {
        let text = fs::read(self.account()).expect("it can be read");
        let credentials: AccountCredentials = serde_json::from_slice(&text).expect("JSON");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let builder = Account::builder_with_http(Box::new(Http::new(acme)));
            let account = builder.from_credentials(credentials).await.expect("an account");
            account.deactivate().await.expect("it is asked for");
        });
    }
}

/// Pebble takes no shorter one.
const EXTERNAL_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

#[test]
fn an_account_that_was_deactivated_is_replaced_by_a_new_one() {
    let (acme, scene) = Scene::start(oldest_and_newest()[1], Plan::asks_at, "");
    scene.wait_for_trust(&acme);
    let before = fs::read(scene.account()).expect("it can be read");
    scene.deactivate_account(&acme);
    scene.renew_to_the_end(&Trust::of(&acme.root()));
    assert_ne!(fs::read(scene.account()).expect("it can be read"), before);
    scene.managed.wait_for_log("the account is given up, and another one is made: the authority");
    scene.managed.wait_for_log("Account has been deactivated");
    assert_eq!(acme.orders(), 2, "{}", acme.log());
    assert!(scene.certificate()["renewal"]["error"].is_null());
}

#[test]
fn where_no_new_account_is_given_it_is_told_what_to_do_and_that_helps() {
    let ground = Ground::new(oldest_and_newest()[1]);
    let acme = Plan::asks_at(ground.web.port()).binds_accounts("key-1", EXTERNAL_KEY).start();
    let key = ground.file("external.key");
    let write = |text: &str| fs::write(&key, text).expect("the folder can be written to");
    write(EXTERNAL_KEY);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let binding = format!("eab = {{ kid = \"key-1\", key_file = \"{}\" }}\n", key.display());
    let scene = Scene::on(ground, &format!("{}{binding}", acme.settings()), "acme");
    scene.wait_for_trust(&acme);
    scene.deactivate_account(&acme);
    // The authority wants a new key from whom it has deactivated.
    write(&EXTERNAL_KEY.replace('z', "y"));
    assert_eq!(scene.renew().0, 202);
    let error = scene.wait_for_error("nothing can be ordered without an account");
    assert!(error.starts_with("the authority refuses: "), "{error}");
    assert!(error.contains(&format!("another acme.eab, with its key in {}", key.display())));
    assert!(scene.pause() > SignedDuration::from_mins(4), "it is left alone for minutes");
    assert_eq!(acme.orders(), 1, "{}", acme.log());
    write(EXTERNAL_KEY);
    scene.renew_to_the_end(&Trust::of(&acme.root()));
}
