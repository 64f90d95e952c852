//! Writes ZooKeeper's nodes. Each call has a session of its own, which has ended when it returns:
//! nothing of it outlives a server that is killed.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use zookeeper_client::{
    Acl, Acls, AuthId, Client as Connected, CreateMode, Error, Permission, SessionState,
};

/// A busy machine's slowest answer.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Client {
    address: SocketAddr,
    /// A thread of its own, so that a call may block inside another runtime.
    runtime: Option<Runtime>,
}

impl Client {
    pub(super) fn new(address: SocketAddr) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { address, runtime: Some(runtime.expect("a runtime")) }
    }

    /// Creates a node that everybody may change and read, or only who has this name and password.
    pub(super) fn create(&self, path: &str, data: &[u8], only: Option<(&str, &str)>) {
        let (path, data) = (path.to_owned(), data.to_owned());
        let only = only.map(|(user, password)| format!("{user}:{password}"));
        self.with(async move |client| {
            make_parents(&client, &path).await;
            let anyone = CreateMode::Persistent.with_acls(Acls::anyone_all());
            let created = match only {
                None => client.create(&path, &data, &anyone).await,
                Some(secret) => {
                    client.auth("digest", secret.as_bytes()).await.expect("a digest is taken");
                    let creator = [Acl::new(Permission::ALL, AuthId::new("auth", ""))];
                    let options = CreateMode::Persistent.with_acls(Acls::new(&creator));
                    client.create(&path, &data, &options).await
                }
            };
            created.unwrap_or_else(|error| panic!("{path} can't be created: {error}"));
        });
    }

    pub(super) fn create_all(&self, path: &str, children: Vec<(String, String)>) {
        let path = path.to_owned();
        self.with(async move |client| {
            make_parents(&client, &format!("{path}/any")).await;
            let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
            // Sent one after another; the answers are waited for together.
            let children =
                children.into_iter().map(|(child, data)| (format!("{path}/{child}"), data));
            let children: Vec<_> = children.collect();
            let created =
                children.iter().map(|(path, data)| client.create(path, data.as_bytes(), &options));
            let answers: Vec<_> = created.collect();
            for answer in answers {
                answer.await.unwrap_or_else(|error| panic!("below {path}: {error}"));
            }
        });
    }

    pub(super) fn set(&self, path: &str, data: &[u8]) {
        let (path, data) = (path.to_owned(), data.to_owned());
        self.with(async move |client| {
            let set = client.set_data(&path, &data, None).await;
            set.unwrap_or_else(|error| panic!("{path} can't be set: {error}"));
        });
    }

    pub(super) fn delete(&self, path: &str) {
        let path = path.to_owned();
        self.with(async move |client| {
            let deleted = client.delete(&path, None).await;
            deleted.unwrap_or_else(|error| panic!("{path} can't be deleted: {error}"));
        });
    }

    pub(super) fn delete_all(&self, path: &str) {
        let path = path.to_owned();
        self.with(async move |client| {
            let mut left = vec![path];
            while let Some(path) = left.pop() {
                let children = client.list_children(&path).await.expect("the path is there");
                if children.is_empty() {
                    client.delete(&path, None).await.expect("nobody else deletes it");
                    continue;
                }
                left.push(path.clone());
                left.extend(children.iter().map(|child| format!("{path}/{child}")));
            }
        });
    }

    /// Carries something out in a session of its own.
    fn with<F>(&self, work: impl FnOnce(Connected) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (done, outcome) = mpsc::channel();
        let address = self.address.to_string();
        let task = async move {
            // A session lasts as long as a call may take.
            let connector = Connected::connector().with_session_timeout(PATIENCE);
            let client = connector.connect(&address).await.expect("ZooKeeper can be reached");
            work(client.clone()).await;
            let mut state = client.state_watcher();
            drop(client);
            while !matches!(state.state(), SessionState::Closed | SessionState::Expired) {
                state.changed().await;
            }
            let _ = done.send(());
        };
        self.runtime.as_ref().expect("it is there until the end").spawn(task);
        outcome.recv_timeout(PATIENCE).expect("ZooKeeper does what it is told");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Waiting for its threads is not allowed where a test is async.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn make_parents(client: &Connected, path: &str) {
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    for (end, _) in path.match_indices('/').skip(1) {
        match client.create(&path[..end], b"", &options).await {
            Ok(_) | Err(Error::NodeExists) => {}
            Err(error) => panic!("{path} can't be created: {error}"),
        }
    }
}
