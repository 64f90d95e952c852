//! What is made of each thing that a gateway may do.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mapsmith_core::commands::PathTemplate;
use mapsmith_core::config::values::{Secret, Text};
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A gateway that says this to whoever comes, and then leaves, or stays silent.
async fn gateway(says: String, leaves: bool) -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = tokio::spawn(async move {
        let mut heard = Vec::new();
        // Whoever came a second time would be heard, too.
        while let Ok(Ok((mut stream, _))) =
            tokio::time::timeout(Duration::from_millis(300), listener.accept()).await
        {
            let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
            while !text.ends_with(b"}") {
                match stream.read(&mut buffer).await.unwrap() {
                    0 => break,
                    count => text.extend_from_slice(&buffer[..count]),
                }
            }
            heard.push(String::from_utf8(text).unwrap());
            // A client that has what it wants may be gone.
            let _ = stream.write_all(says.as_bytes()).await;
            if !leaves {
                let _ = stream.read(&mut buffer).await;
            }
        }
        heard
    });
    (address, heard)
}

fn settings(address: SocketAddr) -> Commands {
    Commands {
        gateway: format!("http://{address}"),
        backend: None,
        secret_file: None,
        ca: None,
        cert: None,
        key: None,
        secret: Some(Secret::new(Text::try_from("s3cret-s3cret-s3cret".to_owned()).unwrap())),
    }
}

fn command() -> Command {
    Command {
        name: "run".to_owned(),
        path: PathTemplate::try_from("/nodes/{node}/commands".to_owned()).unwrap(),
        method: Method::Post,
        body: [("a".to_owned(), Value::from(1))].into_iter().collect::<Map<_, _>>(),
        parameters: Vec::new(),
        timeout: Duration::from_millis(400),
        max_bytes: 10,
    }
}

fn order(node: &str) -> Order {
    Order {
        id: "c-1".to_owned(),
        node: node.to_owned(),
        master: "m1".to_owned(),
        by: Identity::file(),
        request: command().request(node, &BTreeMap::new()).unwrap(),
    }
}

/// What is made of this answer, and what the gateway has heard.
async fn ending(says: &str, leaves: bool) -> (Ending, Vec<String>) {
    let (address, heard) = gateway(says.to_owned(), leaves).await;
    let ending = carry_out(&settings(address), &command(), &order("web1")).await;
    (ending, heard.await.unwrap())
}

fn answer(status: u16, mark: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\nX-Mapsmith-Gateway: {mark}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn an_answer_of_the_masters_is_its_outcome() {
    let (done, heard) = ending(&answer(200, "answered", "done"), true).await;
    assert_eq!((done.outcome, done.status, done.is_cut), (Outcome::Ok, Some(200), false));
    assert_eq!((done.output.as_slice(), done.why), (&b"done"[..], None));
    assert_eq!(heard.len(), 1, "{heard:?}");
    let sent = heard[0].to_ascii_lowercase();
    for part in [
        "post /nodes/web1/commands http/1.1\r\n",
        "\r\nx-node-name: web1\r\n",
        "\r\nx-command-id: c-1\r\n",
        "\r\nx-mapsmith-actor: file:file\r\n",
        "\r\nx-mapsmith-master: m1\r\n",
        "\r\nx-mapsmith-secret: s3cret-s3cret-s3cret\r\n",
        "\r\n\r\n{\"a\":1}",
    ] {
        assert!(sent.contains(part), "{part:?} is not in {sent}");
    }
    for (status, outcome) in
        [(404, Outcome::Refused), (302, Outcome::Refused), (503, Outcome::Failed)]
    {
        let (ended, heard) = ending(&answer(status, "answered", ""), true).await;
        assert_eq!((ended.outcome, heard.len()), (outcome, 1), "{status}");
    }
    let (cut, _) = ending(&answer(200, "answered", "0123456789abc"), false).await;
    assert_eq!(
        (cut.outcome, cut.output.as_slice(), cut.is_cut),
        (Outcome::Ok, &b"0123456789"[..], true)
    );
}

#[tokio::test]
async fn what_has_no_whole_answer_of_the_masters_is_unknown_and_never_repeated() {
    let broken = "HTTP/1.1 200 X\r\nX-Mapsmith-Gateway: answered\r\nContent-Length: 9\r\n\r\nha";
    for (says, leaves, part) in [
        (answer(502, "unknown", "it broke off"), true, "the gateway says: it broke off"),
        (answer(200, "", "hello"), true, "200 without X-Mapsmith-Gateway"),
        ("HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n".to_owned(), true, "200 without"),
        (String::new(), true, "the connection to the gateway broke off"),
        (String::new(), false, "no answer within 400ms"),
        (broken.to_owned(), true, "the master's answer broke off"),
        (broken.to_owned(), false, "was not whole within 400ms"),
        ("HTTP/1.1 200 X\r\n".to_owned(), false, "no answer within 400ms"),
    ] {
        let (ended, heard) = ending(&says, leaves).await;
        assert_eq!((ended.outcome, heard.len()), (Outcome::Unknown, 1), "{says:?}: {ended:?}");
        assert!(ended.why.as_deref().is_some_and(|why| why.contains(part)), "{part}: {ended:?}");
    }
}

#[tokio::test]
async fn where_nothing_was_sent_it_is_said() {
    let (ended, _) = ending(&answer(503, "not-sent", "no\r\n server"), true).await;
    assert_eq!(ended.outcome, Outcome::NoMaster);
    let why = ended.why.unwrap();
    assert_eq!(why, "the gateway says: no server: nothing was sent to the master");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let ended = carry_out(&settings(nobody), &command(), &order("web1")).await;
    assert_eq!(ended.outcome, Outcome::NoMaster, "{ended:?}");
    let none = Commands { secret: None, ..settings(nobody) };
    let ended = carry_out(&none, &command(), &order("web1")).await;
    assert_eq!(ended.outcome, Outcome::NoMaster, "{ended:?}");
}

#[tokio::test]
async fn a_nodes_name_leads_nowhere_else() {
    for (node, path) in [
        ("a/../../admin", "/nodes/a%2F..%2F..%2Fadmin/commands"),
        ("%2e%2e", "/nodes/%252e%252e/commands"),
        ("a?b#c", "/nodes/a%3Fb%23c/commands"),
        ("ü\u{1F600}", "/nodes/%C3%BC%F0%9F%98%80/commands"),
    ] {
        let (address, heard) = gateway(answer(200, "answered", ""), true).await;
        let ended = carry_out(&settings(address), &command(), &order(node)).await;
        assert_eq!(ended.outcome, Outcome::Ok, "{node}: {ended:?}");
        let heard = heard.await.unwrap();
        assert!(heard[0].starts_with(&format!("POST {path} HTTP/1.1\r\n")), "{heard:?}");
        assert!(heard[0].contains(&format!("\r\nx-node-name: {node}\r\n")), "{heard:?}");
    }
    let split = Order { node: "a\r\nX-Evil: 1".to_owned(), ..order("a") };
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let ended = carry_out(&settings(nobody), &command(), &split).await;
    assert_eq!(ended.outcome, Outcome::NoMaster);
    assert!(ended.why.unwrap().contains("X-Node-Name can't be"));
}
