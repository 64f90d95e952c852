//! Asks a running Mapsmith through its API.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use reqwest::header::{ACCEPT, ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH};
use reqwest::{
    Certificate, Client, ClientBuilder, Identity, Method, RequestBuilder, Response, StatusCode,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::unanswered::{broken, may_change, no_answer};
use super::DEFAULT_CONFIG;
use crate::api::Token;
use crate::api::access::tls::names;
use crate::api::types::{Problem, ReloadReport};
use crate::settings::{Api, Settings};

mod unanswered;

pub(super) use unanswered::{OF_A_CA, OTHERWISE};

/// Where the running Mapsmith is.
#[derive(Args)]
pub(super) struct Connection {
    /// The API of the running Mapsmith, instead of the one that the settings file names; without
    /// either http://127.0.0.1:7070
    #[arg(long, env = "MAPSMITH_URL", hide_env_values = true)]
    url: Option<String>,
    /// The API's token, instead of the one that the settings file names; better given by the
    /// variable
    #[arg(long, env = "MAPSMITH_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The CA of the API's certificate (PEM), instead of what the settings file names or the system
    /// trusts
    #[arg(long, value_name = "FILE", env = "MAPSMITH_CA")]
    ca: Option<PathBuf>,
    /// A certificate to show to the API (PEM)
    #[arg(long, value_name = "FILE", env = "MAPSMITH_CERT", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", env = "MAPSMITH_KEY", requires = "cert")]
    key: Option<PathBuf>,
    /// By which name of its certificate the API is asked, and where that is.
    #[arg(skip)]
    named: Option<(String, SocketAddr)>,
    /// What is trusted beside what the system trusts, as the settings have it.
    #[arg(skip)]
    trusted: Vec<PathBuf>,
    /// Why that may not be enough.
    #[arg(skip)]
    lacking: Vec<String>,
}

/// Where the API is unless anything says otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:7070";

/// How long an answer may take beyond what was asked to be waited for.
const BOUND: Duration = Duration::from_secs(15);
/// How long the API may take to be reached: before that nothing is sent.
const REACHED: Duration = Duration::from_secs(10);
/// How long a stream may be silent: it says something every 15 seconds.
const SILENCE: Duration = Duration::from_secs(45);

/// An answer: what was asked for, or the API's problem.
pub(super) enum Answer<T> {
    Good(T),
    Problem(Box<Problem>),
}

impl<T> Answer<T> {
    /// The report of what did not end well, where it is a problem with one; else the answer.
    pub(super) fn failure(self) -> Result<ReloadReport, Self> {
        match self {
            Self::Problem(mut problem) => match problem.report.take() {
                Some(report) => Ok(*report),
                None => Err(Self::Problem(problem)),
            },
            good => Err(good),
        }
    }

    /// The answer, where a problem is a failure.
    pub(super) fn good(self) -> anyhow::Result<T> {
        match self {
            Self::Good(answer) => Ok(answer),
            Self::Problem(problem) => {
                Err(anyhow!("{} ({})", problem.detail, status_in_words(&problem)))
            }
        }
    }
}

/// Like `404 Not Found`.
fn status_in_words(problem: &Problem) -> String {
    let status = StatusCode::from_u16(problem.status);
    status.map_or_else(|_| problem.status.to_string(), |status| status.to_string())
}

impl Connection {
    /// Takes address and token from the settings, unless the address is given otherwise: a token is
    /// for the API that it belongs to. A settings file that nobody named need not be there, nor
    /// readable to the one who asks.
    pub(super) fn find(&mut self, config: Option<&Path>) -> anyhow::Result<()> {
        if self.url.is_some() {
            return Ok(());
        }
        let api = match Settings::load_api(
            config.unwrap_or(Path::new(DEFAULT_CONFIG)),
            std::env::vars_os(),
        ) {
            Ok(api) => api,
            Err(_) if config.is_none() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.find_tls(&api);
        self.url = Some(url_of(&api, self.named.as_ref())?);
        if let (None, Some(path)) = (&self.token, &api.token_file) {
            let token = Token::read(path).map_err(|error| {
                anyhow!(
                    "{error}; ask as a user who may read it, or give the token by MAPSMITH_TOKEN"
                )
            })?;
            self.token = Some(token.reveal().to_owned());
        }
        Ok(())
    }

    /// Where the API speaks TLS, it is asked by a name that its certificate has, at the address
    /// that it listens on. The files are the daemon's: what can't be read of them is told where the
    /// API can't be asked without.
    fn find_tls(&mut self, api: &Api) {
        let Some(tls) = &api.tls else { return };
        // The chain may hold the CA; for Puppet it is the clients' CA, too.
        let ca = tls.client_ca.iter().map(|path| ("api.tls.client_ca", path));
        for (key, path) in ca.chain([("api.tls.cert", &tls.cert)]) {
            match certificate(path) {
                Ok(first) => {
                    if path == &tls.cert {
                        let mut names = names(&first).into_iter();
                        let name = names.find(|name| !name.contains(['*', '@', ':']));
                        self.named = name.map(|name| (name, reachable(api.listen)));
                    }
                    self.trusted.push(path.clone());
                }
                Err(why) => self.lacking.push(format!("{key} {}: {why}", path.display())),
            }
        }
    }

    /// The client of one request.
    fn client(&self, times: impl FnOnce(ClientBuilder) -> ClientBuilder) -> anyhow::Result<Client> {
        // The API is near; a proxy of the environment is not for it.
        let mut client = times(Client::builder().no_proxy());
        let read = |path: &Path| {
            std::fs::read(path).with_context(|| format!("{}: can't be read", path.display()))
        };
        let certificates = |path: &Path| {
            Certificate::from_pem_bundle(&read(path)?)
                .with_context(|| format!("{}: holds no certificate", path.display()))
        };
        match &self.ca {
            Some(ca) => client = client.tls_certs_only(certificates(ca)?),
            None => {
                for path in &self.trusted {
                    client = client.tls_certs_merge(certificates(path)?);
                }
            }
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            let pair = [read(cert)?, b"\n".to_vec(), read(key)?].concat();
            let identity = Identity::from_pem(&pair).with_context(|| {
                format!("{} and {} can't be used together", cert.display(), key.display())
            })?;
            client = client.identity(identity);
        }
        if let Some((name, address)) = &self.named {
            client = client.resolve(name, *address);
        }
        Ok(client.build()?)
    }

    fn url(&self) -> &str {
        self.url.as_deref().unwrap_or(DEFAULT_URL)
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, segments: &[&str]) -> anyhow::Result<T> {
        self.ask(Method::GET, segments, None, NOTHING, Duration::ZERO).await?.good()
    }

    /// `segments` are the path's parts, escaped here.
    pub(super) async fn ask<'q, T: DeserializeOwned>(
        &self,
        method: Method,
        segments: &[&str],
        query: impl IntoIterator<Item = (&'q str, &'q str)>,
        body: Option<&impl Serialize>,
        wait: Duration,
    ) -> anyhow::Result<Answer<T>> {
        self.ask_if(method, segments, query, body, wait, None).await
    }

    /// The same, for the state of things that has this entity tag. Without one, where the API wants
    /// to know what was seen, for what is there now: whoever orders it has looked just before.
    pub(super) async fn ask_if<'q, T: DeserializeOwned>(
        &self,
        method: Method,
        segments: &[&str],
        query: impl IntoIterator<Item = (&'q str, &'q str)>,
        body: Option<&impl Serialize>,
        wait: Duration,
        if_match: Option<String>,
    ) -> anyhow::Result<Answer<T>> {
        let client = self.client(|client| client.connect_timeout(REACHED).timeout(wait + BOUND))?;
        let url = self.url_of(segments, query)?;
        let request = |condition: Option<(HeaderName, String)>| {
            let mut request = client.request(method.clone(), url.clone());
            if let Some((name, tag)) = condition {
                request = request.header(name, tag);
            }
            match body {
                Some(body) => request.json(body),
                None => request,
            }
        };
        let is_blind = if_match.is_none();
        let mut response = self.send(request(if_match.map(|tag| (IF_MATCH, tag)))).await?;
        if is_blind
            && response.status() == StatusCode::PRECONDITION_REQUIRED
            && let Some(seen) = self.seen(&client, segments).await?
        {
            response = self.send(request(Some(seen))).await?;
        }
        let status = response.status();
        let (url, body) = (response.url().clone(), response.bytes().await);
        let body = body.map_err(|error| {
            let why = broken(self.url(), error.is_timeout(), may_change(&method, &url));
            anyhow::Error::from(error).context(why)
        })?;
        if status.is_success() {
            // An answer without a body says that all is done.
            let body = if body.is_empty() { &b"null"[..] } else { &body[..] };
            return Ok(Answer::Good(serde_json::from_slice(body).with_context(|| {
                format!(
                    "what {} answers is not what this version of the CLI expects (is it a \
                        Mapsmith, and of this version?)",
                    self.url()
                )
            })?));
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Ok(Answer::Problem(Box::new(self.of_token(problem)))),
            Err(_) => bail!(
                "{} answered {status}, which is not an answer of Mapsmith's{}",
                self.url(),
                if status == StatusCode::NOT_FOUND { "; is the URL the API's root?" } else { "" }
            ),
        }
    }

    /// The problem, with what is to be done about the token where that is what it is about. Of a
    /// certificate that was shown the API says so itself.
    fn of_token(&self, mut problem: Problem) -> Problem {
        if problem.status == StatusCode::UNAUTHORIZED && !problem.detail.contains("certificate") {
            let detail = match self.token.as_deref() {
                None | Some("") => {
                    "the API asks for its token: give it by MAPSMITH_TOKEN or --token, or name the \
                        settings with its api.token_file by -c"
                }
                Some(_) => {
                    "the token that was given is not one of this API, or is over: give one that is \
                        good by MAPSMITH_TOKEN or --token"
                }
            };
            detail.clone_into(&mut problem.detail);
        }
        problem
    }

    /// The condition that a resource is as it is now; none where it has no entity tag.
    async fn seen(
        &self,
        client: &Client,
        segments: &[&str],
    ) -> anyhow::Result<Option<(HeaderName, String)>> {
        // A hold is one of the map.
        let of = if segments == ["v1", "hold"] { &["v1", "map"] } else { segments };
        let now = self.send(client.get(self.url_of(of, None)?)).await?;
        if now.status() == StatusCode::NOT_FOUND {
            return Ok(Some((IF_NONE_MATCH, "*".to_owned())));
        }
        let tag = now.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
        Ok(tag.map(|tag| (IF_MATCH, tag.to_owned())))
    }

    /// A stream of server-sent events, after the one of this number.
    pub(super) async fn follow<'q>(
        &self,
        segments: &[&str],
        query: impl IntoIterator<Item = (&'q str, &'q str)>,
        after: Option<u64>,
    ) -> anyhow::Result<Response> {
        let client = self.client(|client| client.connect_timeout(BOUND).read_timeout(SILENCE))?;
        let mut request =
            client.get(self.url_of(segments, query)?).header(ACCEPT, "text/event-stream");
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after.to_string());
        }
        self.send(request).await
    }

    /// `segments` are the path's parts, escaped here.
    fn url_of<'q>(
        &self,
        segments: &[&str],
        query: impl IntoIterator<Item = (&'q str, &'q str)>,
    ) -> anyhow::Result<reqwest::Url> {
        let mut url = reqwest::Url::parse(self.url()).with_context(|| {
            format!("--url {:?} is not a valid URL (example: http://127.0.0.1:7070)", self.url())
        })?;
        // A URL can't name these: its path would lead elsewhere.
        if let Some(invalid) = segments.iter().find(|segment| ["", ".", ".."].contains(segment)) {
            bail!("{invalid:?} is not a valid node or master name");
        }
        match url.path_segments_mut() {
            Ok(mut path) => {
                path.pop_if_empty().extend(segments);
            }
            Err(()) => bail!("--url {:?} is not a base of a path", self.url()),
        }
        for (name, value) in query {
            url.query_pairs_mut().append_pair(name, value);
        }
        Ok(url)
    }

    /// With who asks.
    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let (client, request) = request.build_split();
        let request = request?;
        let changes = may_change(request.method(), request.url());
        client.execute(request).await.map_err(|error| {
            let sent =
                (!error.is_connect()).then(|| broken(self.url(), error.is_timeout(), changes));
            let error = anyhow::Error::from(error);
            let cause = error.root_cause().to_string();
            let why = no_answer(self.url(), &cause, &self.lacking, sent);
            error.context(why)
        })
    }
}

/// The first certificate of a file.
pub(super) fn certificate(path: &Path) -> Result<CertificateDer<'static>, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let first = CertificateDer::from_pem_slice(&pem);
    first.map_err(|_| "holds no certificate".to_owned())
}

/// Where to ask an API that listens there: "every address" is none to connect to.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(address) if address.is_unspecified() => {
            listen.set_ip(Ipv4Addr::LOCALHOST.into())
        }
        IpAddr::V6(address) if address.is_unspecified() => {
            listen.set_ip(Ipv6Addr::LOCALHOST.into())
        }
        _ => {}
    }
    listen
}

fn url_of(api: &Api, named: Option<&(String, SocketAddr)>) -> anyhow::Result<String> {
    let listen = api.listen;
    if listen.port() == 0 {
        bail!(
            "api.listen: {listen} leaves the port to the system, so it is not known; give the \
                API's address with --url"
        );
    }
    let scheme = if api.tls.is_some() { "https" } else { "http" };
    Ok(match named {
        Some((name, address)) => format!("{scheme}://{name}:{}", address.port()),
        None => format!("{scheme}://{}", reachable(listen)),
    })
}

pub(super) const NOTHING: Option<&()> = None;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_order_whose_connection_breaks_is_not_said_to_have_come_to_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = format!("http://{}", listener.local_addr().unwrap());
        let broken = tokio::spawn(async move {
            // Half an answer, or none.
            for answer in ["", "", "", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nnull"] {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                assert!(connection.read(&mut request).await.unwrap() > 0);
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let at = Connection {
            url: Some(here),
            token: None,
            ca: None,
            cert: None,
            key: None,
            named: None,
            trusted: Vec::new(),
            lacking: Vec::new(),
        };
        let tell = async |method: Method, query: Option<(&'static str, &'static str)>| {
            let path = ["v1", "overrides", "a"];
            let asked = at.ask::<()>(method, &path, query, NOTHING, Duration::ZERO).await;
            format!("{:#}", asked.err().expect("a failure"))
        };
        let carried_out = "it may have been carried out; look at `mapsmith status`";
        for (method, query, changes) in [
            (Method::DELETE, None, true),
            (Method::DELETE, Some(("dry_run", "true")), false),
            (Method::GET, None, false),
            (Method::DELETE, None, true),
        ] {
            let told = tell(method.clone(), query).await;
            assert!(told.contains("broke before the answer was there"), "{method}: {told}");
            assert_eq!(told.contains(carried_out), changes, "{method}, {query:?}: {told}");
            assert!(!told.contains("no Mapsmith answers"), "{method}: {told}");
        }
        broken.await.unwrap();
        let told = tell(Method::DELETE, None).await;
        assert!(told.contains("no Mapsmith answers") && !told.contains("carried out"), "{told}");
    }
}
