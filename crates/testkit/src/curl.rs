//! HTTPS requests with client certificates, by curl: the tests' own client speaks no TLS.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::authority::Authority;

/// Who asks: the certificate he shows, if any, and what he trusts.
#[derive(Clone, Debug)]
pub struct Client {
    ca: PathBuf,
    certificate: Option<(PathBuf, PathBuf)>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// 0 where there was none: the connection was refused, or TLS was.
    pub status: u16,
    pub body: String,
    /// What curl complained about.
    pub complaint: String,
}

impl Client {
    /// Without a certificate.
    pub fn stranger(ca: PathBuf) -> Self {
        Self { ca, certificate: None }
    }

    /// With a certificate and its key.
    pub fn with(ca: PathBuf, certificate: PathBuf, key: PathBuf) -> Self {
        Self { ca, certificate: Some((certificate, key)) }
    }

    /// With the certificate of that name which the authority has issued.
    pub fn of(authority: &Authority, name: &str) -> Self {
        Self::with(authority.ca(), authority.certificate(name), authority.key(name))
    }

    pub fn get(&self, server: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(server, path, headers, None)
    }

    pub fn post(&self, server: SocketAddr, path: &str, body: &str) -> Answer {
        self.send(server, path, &[], Some(body))
    }

    fn send(
        &self,
        server: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Answer {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--http1.1", "--max-time", "120", "--cacert"]);
        curl.arg(&self.ca).args(["--write-out", "\n%{http_code}"]);
        if let Some((certificate, key)) = &self.certificate {
            curl.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        for (name, value) in headers {
            curl.args(["--header", &format!("{name}: {value}")]);
        }
        if body.is_some() {
            curl.args(["--data-binary", "@-"]);
        }
        curl.arg(format!("https://{server}{path}"));
        curl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut curl = curl.spawn().expect("curl starts: scripts/setup installs it");
        let mut input = curl.stdin.take().expect("its input is a pipe");
        input.write_all(body.unwrap_or_default().as_bytes()).expect("curl reads the body");
        drop(input);
        let output = curl.wait_with_output().expect("curl ends");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = printed.rsplit_once('\n').expect("curl writes the status last");
        Answer {
            status: status.parse().expect("a status"),
            body: body.to_owned(),
            complaint: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
