//! A registry of type `http_json` whose answer a test sets: real HTTP, and every fault that a real
//! one shows now and then.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// A registry, gone on drop.
pub struct Registry {
    server: MockServer,
    answer: Arc<Mutex<ResponseTemplate>>,
    asked: Arc<AtomicUsize>,
}

impl Registry {
    /// A registry that names each node's master.
    pub fn start(nodes: &[(&str, &str)]) -> Self {
        let answer = Arc::new(Mutex::new(ResponseTemplate::new(500)));
        let asked = Arc::new(AtomicUsize::new(0));
        let responder = Responder { answer: answer.clone(), asked: asked.clone() };
        // The server runs on a thread of its own; only its start is asynchronous.
        let starting = async {
            let server = MockServer::start().await;
            Mock::given(any()).respond_with(responder).mount(&server).await;
            server
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let registry = Self { server: runtime.block_on(starting), answer, asked };
        registry.knows(nodes);
        registry
    }

    /// The document's address.
    pub fn url(&self) -> String {
        format!("{}/nodes.json", self.server.uri())
    }

    /// From now on it names these nodes.
    pub fn knows(&self, nodes: &[(&str, &str)]) {
        self.answers(200, &object(nodes));
    }

    /// From now on it answers this, whatever it is.
    pub fn answers(&self, status: u16, body: &str) {
        self.set(ResponseTemplate::new(status).set_body_raw(body, "application/json"));
    }

    /// From now on it takes requests and answers none.
    pub fn hangs(&self) {
        self.set(ResponseTemplate::new(200).set_delay(Duration::from_secs(3600)));
    }

    /// From now on it takes its time to name these nodes.
    pub fn takes(&self, delay: Duration, nodes: &[(&str, &str)]) {
        self.set(
            ResponseTemplate::new(200)
                .set_body_raw(object(nodes), "application/json")
                .set_delay(delay),
        );
    }

    /// How often it was asked so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn set(&self, answer: ResponseTemplate) {
        *self.answer.lock().expect("no thread panics with it") = answer;
    }
}

fn object(nodes: &[(&str, &str)]) -> String {
    let nodes: Map<String, Value> =
        nodes.iter().map(|(node, master)| ((*node).to_owned(), (*master).into())).collect();
    Value::Object(nodes).to_string()
}

struct Responder {
    answer: Arc<Mutex<ResponseTemplate>>,
    asked: Arc<AtomicUsize>,
}

impl Respond for Responder {
    fn respond(&self, _: &Request) -> ResponseTemplate {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.answer.lock().expect("no thread panics with it").clone()
    }
}
