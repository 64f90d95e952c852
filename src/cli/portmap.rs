//! `mapsmith portmap`: what a portmap declares, and what is wrong with it. It asks nobody.

use std::fmt::Write as _;
use std::io::Read as _;

use anyhow::Context;
use mapsmith_core::portmap::{MAX_TEXT, Portmap, ServersFrom, Service};

use super::output::{Colour, paint, pluralize, table};
use super::{FAILED, OutputFormat, SUCCESS, print};

/// What `--help` says below the arguments.
pub(super) const GRAMMAR: &str = "\
A portmap is a list of services, with commas, spaces or line breaks between them:

  TYPE://PORT:NAME[:PORT][{KEY:VALUE,...}]

  TYPE   http            HTTP to servers with HTTP
         https           HTTPS to servers with HTTPS, verified by their name
         https+insecure  HTTPS to servers with HTTPS, whatever certificate they show
         https-http      HTTPS to servers with HTTP
         tcp             connections as they are
         tcp-proxy-v2    connections with a PROXY protocol header
  PORT   where HAProxy listens, 1 to 65534; each port once
  NAME   the servers' DNS name, or an IPv4 address
  :PORT  the servers' port: the name is asked for its addresses. Without it, for SRV records
  {...}  the servers' health check; each key once, in any order
         check  a path that must be answered 200; without it a connection is enough
         port   the port that is checked; without it the server's own
         rise   after so many good checks a server is up; 2 unless given
         fall   after so many failed checks it is down; 1 unless given

A service that is wrong is rejected, with its column in the whole text (characters, from 1). The
others count.

Examples:
  mapsmith portmap 'http://80:web.example.com:8080'
  mapsmith portmap 'https-http://443:web.example.com:8080{check:/healthz,fall:3},tcp://22:ssh.test'
  mdata-get cloud.tritoncompute:portmap | mapsmith portmap - --output json";

pub(super) fn portmap(text: String, format: OutputFormat) -> anyhow::Result<u8> {
    let text = if text == "-" { standard_input()? } else { text };
    let portmap = Portmap::parse(&text);
    print(format, &portmap, describe)?;
    Ok(if portmap.rejected.is_empty() { SUCCESS } else { FAILED })
}

/// No more of it than is read as a portmap, and one byte that tells there is more.
fn standard_input() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let most = MAX_TEXT as u64 + 1;
    let read = std::io::stdin().lock().take(most).read_to_end(&mut bytes);
    read.context("standard input can't be read")?;
    // What is no UTF-8 is rejected where it stands, and the rest is read.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn describe(portmap: &Portmap) -> String {
    let mut text = String::new();
    if portmap.services.is_empty() {
        text.push_str("no services\n");
    } else {
        let head = ["listens", "type", "servers", "health check"].map(str::to_owned).to_vec();
        let rows: Vec<_> = std::iter::once(head).chain(portmap.services.iter().map(row)).collect();
        text.push_str(&table("", &rows));
    }
    if !portmap.rejected.is_empty() {
        let count = pluralize(portmap.rejected.len(), "piece");
        let _ = writeln!(text, "\n{}", paint(Colour::Red, &format!("{count} rejected")));
        for rejected in &portmap.rejected {
            let _ = writeln!(text, "  {rejected}");
        }
    }
    text
}

fn row(service: &Service) -> Vec<String> {
    let mut servers = ServersFrom::new(service).to_string();
    let host = service.backend_name.host();
    if let Some(host) = host.filter(|_| service.service_type.verifies_servers()) {
        let _ = write!(servers, ", verified as {host}");
    }
    let asked = service.check_path.as_ref().map(|path| format!("GET {}", path.as_str()));
    let mut check = asked.unwrap_or_else(|| "connection".to_owned());
    if let Some(port) = service.check_port {
        let _ = write!(check, " at port {port}");
    }
    let (rise, fall) = (service.rise_or_default(), service.fall_or_default());
    let _ = write!(check, ", rise {rise}, fall {fall}");
    vec![service.listen_port.to_string(), service.service_type.to_string(), servers, check]
}
