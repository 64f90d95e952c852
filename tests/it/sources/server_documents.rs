//! Lists of servers in other shapes: folders, lines, and a registry's own words.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith::source::{Extent, Feed, Polled};
use mapsmith_core::ServerList;
use mapsmith_core::server::list::Host;
use mapsmith_core::status::{PollKind, Watch};
use serde_json::{Value, json};
use wiremock::matchers::path;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::assert_says;
use super::server_list::{poll, snapshot, source};

type ServerFeed = Box<dyn Feed<ServerList>>;

async fn failure(feed: &mut ServerFeed) -> String {
    match feed.poll(Extent::Changes, None, Timestamp::UNIX_EPOCH).await {
        Ok(polled) => panic!("an answer: {:?}", names(&polled)),
        Err(error) => error.to_string(),
    }
}

fn names(polled: &Polled<ServerList>) -> Vec<&str> {
    polled.entries.servers.iter().map(|server| &*server.name).collect()
}

fn list(servers: &[(&str, &str)]) -> String {
    let row = |(name, address): &(&str, &str)| json!({"name": name, "address": address});
    servers.iter().map(row).collect::<Value>().to_string()
}

/// Replaces a file as a careful writer does it.
fn write(file: &Path, text: &str) {
    let new = file.with_file_name(".new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

/// Waits for the feed to notice a change by itself.
async fn changes(feed: &mut ServerFeed) {
    let bound = Duration::from_secs(30);
    tokio::time::timeout(bound, feed.changed()).await.expect("the change is noticed");
}

#[tokio::test]
async fn each_file_of_a_folder_is_a_list_and_all_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let mut feed = source(json!({"type": "file", "path": folder.path()}));
    assert_says(&failure(&mut feed).await, &["is a folder without a file", "file with []"]);
    write(&file("20-b.json"), &list(&[("b", "10.0.0.2:80")]));
    write(&file("10-a"), &list(&[("a", "10.0.0.1:80"), ("b c", "10.0.0.3:80")]));
    for passed_over in [".hidden", "a.json~", "a.json.tmp"] {
        fs::write(file(passed_over), "no list").unwrap();
    }
    fs::create_dir(file("folder")).unwrap();
    let polled = poll(&mut feed, None).await;
    assert_eq!((polled.kind, names(&polled)), (PollKind::Full, vec!["a", "b"]));
    let rejected: Vec<_> = polled.entries.rejected.iter().map(|row| &*row.place).collect();
    assert_eq!(rejected, ["10-a row 2 \"b c\""]);
    assert_eq!(feed.notes().watch, Some(Watch::Watched));

    write(&file("30-c.json"), "[{\"name\": \"c\",");
    changes(&mut feed).await;
    assert_says(&failure(&mut feed).await, &["30-c.json: the JSON text is cut off at line 1"]);
    write(&file("30-c.json"), &list(&[("c", "10.0.0.4:80")]));
    changes(&mut feed).await;
    assert_eq!(names(&poll(&mut feed, None).await), ["a", "b", "c"]);
    fs::remove_file(file("20-b.json")).unwrap();
    changes(&mut feed).await;
    let polled = poll(&mut feed, Some(&snapshot(&polled))).await;
    assert_eq!(names(&polled), ["a", "c"]);
    // One name in two files: neither counts over the other.
    write(&file("40-d.json"), &list(&[("a", "10.0.0.9:80")]));
    let polled = poll(&mut feed, None).await;
    assert!(polled.entries.disputed.contains("a"), "{:?}", polled.entries);
    assert_says(&polled.entries.rejected.last().unwrap().place, &["40-d.json row 1 \"a\""]);
    symlink(file("gone"), file("50-e.json")).unwrap();
    assert_says(&failure(&mut feed).await, &["50-e.json: there is no such file"]);
    fs::remove_file(file("50-e.json")).unwrap();
    let mut small = source(json!({"type": "file", "path": folder.path(), "max_bytes": "60"}));
    assert_says(&failure(&mut small).await, &["larger than max_bytes (60 bytes"]);
}

#[tokio::test]
async fn a_folder_is_no_node_map() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("nodes.map"), "a m1\n").unwrap();
    let mut nodes =
        super::Registry::new(json!({"type": "file", "path": folder.path(), "format": "map"}));
    assert_says(&nodes.failure().await, &["is a folder; only a list of servers may be one"]);
}

/// A volume as Kubernetes mounts it: the files are links through `..data`, which is turned at once.
struct Volume(tempfile::TempDir);

impl Volume {
    fn turn(&self, version: &str, files: &[(&str, String)]) {
        let data = self.0.path().join(version);
        fs::create_dir(&data).unwrap();
        for (name, text) in files {
            fs::write(data.join(name), text).unwrap();
        }
        symlink(version, self.0.path().join("..data_tmp")).unwrap();
        fs::rename(self.0.path().join("..data_tmp"), self.0.path().join("..data")).unwrap();
        for (name, _) in files {
            let link = self.0.path().join(name);
            if fs::symlink_metadata(&link).is_err() {
                symlink(Path::new("..data").join(name), link).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_volume_of_kubernetes_is_followed_when_its_link_is_turned() {
    for whole in [true, false] {
        let volume = Volume(tempfile::tempdir().unwrap());
        let file = |number: u8| {
            let address = format!("10.0.0.{number}:80");
            ("servers.json", list(&[(&format!("s{number}"), &address)]))
        };
        volume.turn("..2026_11_20", &[file(1)]);
        let path = if whole { volume.0.path().to_owned() } else { volume.0.path().join(file(1).0) };
        let mut feed = source(json!({"type": "file", "path": path}));
        assert_eq!(names(&poll(&mut feed, None).await), ["s1"]);
        for number in [2, 3] {
            volume.turn(&format!("..2026_11_2{number}"), &[file(number)]);
            changes(&mut feed).await;
            assert_eq!(names(&poll(&mut feed, None).await), [format!("s{number}")]);
            fs::remove_dir_all(volume.0.path().join(if number == 2 {
                "..2026_11_20"
            } else {
                "..2026_11_22"
            }))
            .unwrap();
        }
    }
}

#[tokio::test]
async fn proxymgrs_lines_are_servers() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x");
    let mut feed = source(json!({"type": "file", "path": file, "format": "lines"}));
    fs::write(&file, "10.0.0.2:80\n10.0.0.1:80\n").unwrap();
    assert_eq!(names(&poll(&mut feed, None).await), ["10.0.0.1:80", "10.0.0.2:80"]);
    fs::write(&file, "# a comment\n10.0.0.2:80\n\n10.0.0.1:99999\n").unwrap();
    let polled = poll(&mut feed, None).await;
    assert_eq!(names(&polled), ["10.0.0.2:80"]);
    assert_eq!(polled.entries.rejected[0].place, "line 4");
    fs::write(&file, "<html><title>Gone</title></html>\n").unwrap();
    assert_says(&failure(&mut feed).await, &["the file is not a list of host:port lines"]);
}

/// A document over HTTP.
async fn served(body: Value, settings: Value) -> (MockServer, ServerFeed) {
    let server = MockServer::start().await;
    let answer = ResponseTemplate::new(200).set_body_json(body);
    Mock::given(path("/registrations/foo/1.0.0")).respond_with(answer).mount(&server).await;
    let url = format!("{}/registrations/foo/1.0.0", server.uri());
    let mut all = json!({"type": "http_json", "url": url});
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    (server, source(all))
}

#[tokio::test]
async fn registrations_of_a_thalassa_server_are_servers_by_the_fields_names() {
    let fields = json!({"address_field": "host"});
    let registration = |host: &str, port: Value| {
        json!({
            "name": "foo", "version": "1.0.0", "host": host, "port": port,
            "meta": {"hostname": host, "secondsToExpire": 5},
            "id": format!("/foo/1.0.0/{host}/{port}"), "lastKnown": 1_700_000_000_000_u64,
        })
    };
    let all = json!([
        registration("127.0.0.1", json!(8080)),
        registration("127.0.0.1", json!("8081")),
        registration("h", json!("80x")),
    ]);
    let (_server, mut feed) = served(all, fields.clone()).await;
    let polled = poll(&mut feed, None).await;
    assert_eq!(names(&polled), ["127.0.0.1:8080", "127.0.0.1:8081"]);
    assert_says(&polled.entries.rejected[0].reason, &["port is not a whole number"]);
    // A name that nobody has registered is an empty list there, which the backend's `empty` judges.
    let (_server, mut feed) = served(json!([]), fields).await;
    assert_eq!(names(&poll(&mut feed, None).await), [""; 0]);
}

#[tokio::test]
async fn an_inventorys_own_words_are_read_and_what_they_do_not_fit_is_a_failure() {
    let answer = json!({"result": {"hosts": [
        {"fqdn": "web1", "net": {"ip": "10.0.0.1"}, "listens": "8080", "share": 7, "spare": true},
        {"fqdn": "web2", "net": {"ip": "10.0.0.2"}, "listens": 8080},
        {"fqdn": "web3", "net": {}},
    ]}});
    let settings = json!({
        "list_field": "result.hosts",
        "name_field": "fqdn",
        "address_field": "net.ip",
        "port_field": "listens",
        "weight_field": "share",
        "backup_field": "spare",
    });
    let (_server, mut feed) = served(answer.clone(), settings.clone()).await;
    let polled = poll(&mut feed, None).await;
    let first = &polled.entries.servers[0];
    assert_eq!(names(&polled), ["web1", "web2"]);
    assert_eq!((first.weight, first.backup, first.port), (Some(7), true, 8080));
    assert_eq!(first.host, Host::Address("10.0.0.1".parse().unwrap()));
    assert_eq!(polled.entries.rejected[0].place, "row 3 \"web3\"");
    let wrong = |key: &str, field: &str| {
        let mut settings = settings.clone();
        settings[key] = json!(field);
        settings
    };
    for (answer, settings, parts) in [
        (answer.clone(), wrong("list_field", "hosts"), &["no list in the field \"hosts\""][..]),
        (answer.clone(), wrong("list_field", "result"), &["list_field"]),
        (
            answer.clone(),
            wrong("address_field", "ip"),
            &["no row has the field \"ip\" (address_field)", "fqdn, listens, net"],
        ),
        (json!({"error": "down"}), settings.clone(), &["error object"]),
    ] {
        let (_server, mut feed) = served(answer, settings).await;
        assert_says(&failure(&mut feed).await, parts);
    }
}
