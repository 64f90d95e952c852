//! Who may not read, is told nothing wrong: each refusal is a failure, with what to do.

use std::fs;

use serde_json::json;

use super::{LIST, Scene, fails, failure, json_of, names, poll, registry, web};
use crate::sources::assert_says;
use crate::support::authority::Authority;
use crate::support::etcd::Etcd;
use crate::support::master::Master;
use crate::support::pool::settles;

#[test]
fn a_permission_that_is_taken_away_changes_nothing_and_the_password_is_never_printed() {
    let masters = ["m1", "m2"].map(Master::start);
    let scene = Scene::new();
    let file = scene.folder.path().join("password");
    fs::write(&file, "s3cret-of-etcd\n").unwrap();
    scene.etcd.put("/services/web/n1", &json_of(&masters[0]));
    scene.etcd.require_users("gateway", "s3cret-of-etcd", "/services/");
    let root = |words: &[&str]| scene.etcd.ctl_as_root(words);
    root(&["role", "grant-permission", "reader", "--prefix=true", "read", "/mapsmith/"]);
    let config = scene.config(&format!("user = \"gateway\"\npassword_file = {file:?}\n"));
    let mapsmith = config.start();
    let first = [("n1", masters[0].address())];
    settles(&scene.gateway, &mapsmith, &first);

    root(&["role", "revoke-permission", "reader", "--prefix=true", "/services/"]);
    root(&["put", "/services/web/n2", &json_of(&masters[1])]);
    mapsmith.post("/v1/reload");
    fails(&mapsmith, LIST, "no permission to read /services/web/ for the user \"gateway\"");
    fails(&mapsmith, LIST, "etcdctl role grant-permission");
    settles(&scene.gateway, &mapsmith, &first);

    root(&["role", "grant-permission", "reader", "--prefix=true", "read", "/services/"]);
    mapsmith.post("/v1/reload");
    let both = [first[0], ("n2", masters[1].address())];
    settles(&scene.gateway, &mapsmith, &both);

    // A restart forgets who had logged in.
    scene.etcd.restart();
    root(&["del", "/services/web/n2"]);
    settles(&scene.gateway, &mapsmith, &first);
    assert!(!mapsmith.log().contains("s3cret-of-etcd"), "{}", mapsmith.log());
}

#[tokio::test]
async fn a_login_that_is_valid_no_more_is_made_anew_and_a_wrong_one_is_named() {
    let etcd = Etcd::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    etcd.put("/web/a", "10.0.0.1:80");
    fs::write(&file, "right-password").unwrap();
    let with_user = json!({
        "endpoints": [etcd.url()], "user": "gateway", "password_file": file,
    });
    // Before there are users, nobody needs to log in.
    let early = registry(with_user.clone());
    let mut early = web(early.as_ref());
    assert_eq!(names(&poll(&mut early).await), ["a"]);

    etcd.require_users("gateway", "right-password", "/web/");
    assert_eq!(names(&poll(&mut early).await), ["a"], "it logs in once it must");
    let nobody = registry(json!({"endpoints": [etcd.url()]}));
    assert_says(&failure(&mut web(nobody.as_ref())).await, &["demands a login", "set user"]);

    // Another password in etcd and in the file: the login of before ends with the old one.
    etcd.ctl_as_root(&["user", "delete", "gateway"]);
    etcd.ctl_as_root(&["user", "add", "gateway:new-password"]);
    etcd.ctl_as_root(&["user", "grant-role", "gateway", "reader"]);
    let refused = failure(&mut early).await;
    assert_says(&refused, &["refuses the login of \"gateway\"", "see user and password_file"]);
    assert!(!refused.contains("right-password"), "{refused}");
    fs::write(&file, "new-password\n").unwrap();
    assert_eq!(names(&poll(&mut early).await), ["a"]);
    fs::remove_file(&file).unwrap();
    let missing = registry(with_user);
    let message = failure(&mut web(missing.as_ref())).await;
    assert_says(&message, &["password_file", "can't be read"]);
}

#[tokio::test]
async fn tls_is_spoken_with_both_certificates_and_a_refusal_says_whose_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let authority = Authority::create(&path("right"));
    ["etcd", "client", "gateway"].iter().for_each(|name| authority.issue(name));
    let stranger = Authority::create(&path("wrong"));
    stranger.issue("gateway");
    let etcd = Etcd::start_with_tls(&authority);
    etcd.put("/web/a", "10.0.0.1:80");
    let settings = |trusted: &Authority, shown: Option<&Authority>| {
        let mut settings = json!({"endpoints": [etcd.url()], "ca": trusted.ca()});
        if let Some(shown) = shown {
            settings["cert"] = json!(shown.certificate("gateway"));
            settings["key"] = json!(shown.key("gateway"));
        }
        registry(settings)
    };
    let good = settings(&authority, Some(&authority));
    assert_eq!(names(&poll(&mut web(good.as_ref())).await), ["a"]);
    for (registry, parts) in [
        (settings(&stranger, Some(&authority)), &["server's certificate is not trusted"][..]),
        (settings(&authority, None), &["demands a client certificate; set cert and key"]),
        (settings(&authority, Some(&stranger)), &["refused this client's certificate"]),
    ] {
        assert_says(&failure(&mut web(registry.as_ref())).await, parts);
    }
    let plain = registry(json!({"endpoints": [etcd.url().replace("https", "http")]}));
    assert_says(&failure(&mut web(plain.as_ref())).await, &[&etcd.address().to_string()]);
}
