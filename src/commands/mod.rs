//! Takes a command to the gateway, once: one connection, one request, no redirect, no repetition,
//! no proxy. What is not known to have ended is unknown, and never tried again.

use std::error::Error as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use mapsmith_core::access::Identity;
use mapsmith_core::commands::{Command, Method, Outcome, Request};
use mapsmith_core::config::CommandGateway;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, Url, retry};
use tokio::time::{Instant, timeout_at};

use crate::settings::Commands;

/// How long a connection may take to open.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest text of the gateway's own that is passed on.
const LONGEST_REASON: usize = 300;

/// A command that is about to be sent.
#[derive(Debug)]
pub struct Order {
    pub id: String,
    pub node: String,
    /// The node's master, in the map in force.
    pub master: String,
    pub by: Identity,
    pub request: Request,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub outcome: Outcome,
    /// The master's.
    pub status: Option<u16>,
    pub output: Vec<u8>,
    /// Whether the output is only the beginning of what the master said.
    pub is_cut: bool,
    /// Why there is no answer of the master's, or no whole one.
    pub why: Option<String>,
}

impl Ending {
    fn without_answer(outcome: Outcome, why: String) -> Self {
        Self { outcome, status: None, output: Vec::new(), is_cut: false, why: Some(why) }
    }

    fn nothing_sent(why: String) -> Self {
        Self::without_answer(Outcome::NoMaster, format!("{why}: nothing was sent to the master"))
    }

    fn unknown(why: String) -> Self {
        Self::without_answer(Outcome::Unknown, format!("{why}: the command may have been run"))
    }
}

/// Sends it, and waits for what comes of it: no longer than the command may take.
pub async fn carry_out(gateway: &Commands, command: &Command, order: &Order) -> Ending {
    let deadline = Instant::now() + command.timeout;
    let sent = match prepare(gateway, command, order) {
        Ok((client, request)) => timeout_at(deadline, client.execute(request)).await,
        Err(why) => return Ending::nothing_sent(why),
    };
    let response = match sent {
        Err(_) => return Ending::unknown(format!("no answer within {:?}", command.timeout)),
        // The connection, and its TLS, come before the first byte.
        Ok(Err(error)) if error.is_connect() => {
            let why = format!("no connection to the gateway ({})", root_cause(&error));
            return Ending::nothing_sent(why);
        }
        Ok(Err(error)) => {
            let why = format!("the connection to the gateway broke off ({})", root_cause(&error));
            return Ending::unknown(why);
        }
        Ok(Ok(response)) => response,
    };
    take(response, command, deadline).await
}

/// What the answer says. The gateway marks each: one that has no mark is nobody knows whose.
async fn take(mut response: Response, command: &Command, deadline: Instant) -> Ending {
    let mark = response.headers().get(CommandGateway::ANSWER);
    let mark = mark.and_then(|mark| mark.to_str().ok()).unwrap_or_default().to_owned();
    let status = response.status().as_u16();
    let mut output = Vec::new();
    let most = if mark == CommandGateway::ANSWERED { command.max_bytes } else { LONGEST_REASON };
    let read = timeout_at(deadline, read(&mut response, most, &mut output)).await;
    let said = || {
        let said = String::from_utf8_lossy(&output);
        let said: String = said.trim().chars().filter(|it| !it.is_control()).collect();
        said.chars().take(LONGEST_REASON).collect::<String>()
    };
    match mark.as_str() {
        CommandGateway::ANSWERED => {}
        CommandGateway::NOT_SENT => {
            return Ending::nothing_sent(format!("the gateway says: {}", said()));
        }
        CommandGateway::UNKNOWN => return Ending::unknown(format!("the gateway says: {}", said())),
        _ => {
            let header = CommandGateway::ANSWER;
            return Ending::unknown(format!(
                "{status} without {header} is no answer of the frontend of commands"
            ));
        }
    }
    let ended = |outcome, is_cut, why| {
        let status = Some(status);
        Ending { outcome, status, output: output.clone(), is_cut, why }
    };
    match read {
        Ok(Ok(is_cut)) => ended(Outcome::of_status(status), is_cut, None),
        Ok(Err(error)) => {
            let why = format!("the master's answer broke off ({})", root_cause(&error));
            ended(Outcome::Unknown, true, Some(why))
        }
        Err(_) => {
            let why = format!("the master's answer was not whole within {:?}", command.timeout);
            ended(Outcome::Unknown, true, Some(why))
        }
    }
}

/// Reads at most so many bytes; whether there are more.
async fn read(
    response: &mut Response,
    most: usize,
    output: &mut Vec<u8>,
) -> Result<bool, reqwest::Error> {
    while let Some(chunk) = response.chunk().await? {
        let room = most - output.len();
        output.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The client of this one request, with the files as they are now.
fn prepare(
    gateway: &Commands,
    command: &Command,
    order: &Order,
) -> Result<(Client, reqwest::Request), String> {
    let secret = gateway.secret.as_ref().ok_or("there is no secret for the gateway yet")?;
    let url = url(gateway, &order.request.path)?;
    let mut client = Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .retry(retry::never())
        .http1_only()
        .pool_max_idle_per_host(0)
        .connect_timeout(CONNECT.min(command.timeout / 2));
    let read = |path: &Path| {
        fs::read(path).map_err(|error| format!("{}: can't be read: {error}", path.display()))
    };
    if let Some(ca) = &gateway.ca {
        let certificates = Certificate::from_pem_bundle(&read(ca)?)
            .map_err(|_| format!("{}: holds no certificate", ca.display()))?;
        client = client.tls_certs_only(certificates);
    }
    if let (Some(cert), Some(key)) = (&gateway.cert, &gateway.key) {
        let pair = [read(cert)?, b"\n".to_vec(), read(key)?].concat();
        let identity = reqwest::Identity::from_pem(&pair)
            .map_err(|_| format!("{}: can't be used with its key", cert.display()))?;
        client = client.identity(identity);
    }
    let client = client.build().map_err(|error| root_cause(&error))?;
    let method = match order.request.method {
        Method::Post => reqwest::Method::POST,
        Method::Put => reqwest::Method::PUT,
        Method::Patch => reqwest::Method::PATCH,
        Method::Delete => reqwest::Method::DELETE,
    };
    let mut request = reqwest::Request::new(method, url);
    *request.headers_mut() = headers(order, secret.reveal())?;
    let body = serde_json::to_vec(&order.request.body).map_err(|error| error.to_string())?;
    *request.body_mut() = Some(body.into());
    Ok((client, request))
}

/// The gateway's, with the path as it is: no other may come of it.
fn url(gateway: &Commands, path: &str) -> Result<Url, String> {
    let invalid = || format!("{} has no path {path}", gateway.gateway);
    let mut url = gateway.url().ok_or_else(invalid)?;
    url.set_path(path);
    match url.path() == path {
        true => Ok(url),
        false => Err(invalid()),
    }
}

fn headers(order: &Order, secret: &str) -> Result<HeaderMap, String> {
    let Order { id, node, master, by, .. } = order;
    let actor = format!("{}:{}", by.kind.name(), by.name);
    // A name may have any characters.
    let actor: String =
        actor.chars().map(|it| if it.is_ascii_graphic() || it == ' ' { it } else { '?' }).collect();
    let json = "application/json";
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (CONTENT_TYPE.as_str(), json),
        (CommandGateway::SECRET, secret),
        (CommandGateway::MASTER, master),
        ("X-Node-Name", node),
        ("X-Command-Id", id),
        ("X-Mapsmith-Actor", &actor),
    ] {
        let invalid = || format!("{name} can't be {value:?}");
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
        let mut value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| match name {
            CommandGateway::SECRET => "the secret can't be a header's value".to_owned(),
            _ => invalid(),
        })?;
        value.set_sensitive(name == CommandGateway::SECRET);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// What is behind an error of the client's.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut text = error.to_string();
    while let Some(next) = cause {
        text = next.to_string();
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests;
