//! The smallest HTTP/1.1 client that serves the tests: plain TCP, keep-alive, bodies by length, in
//! chunks or to the end.
//!
//! Of our own because a test must see each connection's fate: what a client library repeats unseen
//! would hide it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than any answer a test waits for, the ones that wait for a reload included.
const PATIENCE: Duration = Duration::from_secs(90);

/// An answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// The media type with its parameters; empty where there is none.
    pub content_type: String,
    pub retry_after: Option<String>,
    /// All headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// Whether the connection can carry another request.
    pub reusable: bool,
}

impl Response {
    /// The first header of this name, which is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

/// A connection that carries one request after another.
pub struct Connection {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), address })
    }

    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Response> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "Host") {
            request.push_str(&format!("Host: {}\r\n", self.address));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(body);
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.response()
    }

    fn response(&mut self) -> io::Result<Response> {
        let status_line = self.line()?;
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| malformed(&status_line))?;
        let (mut length, mut chunked, mut reusable) = (None, false, true);
        let (mut content_type, mut retry_after) = (String::new(), None);
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            let line = line.to_ascii_lowercase();
            let (name, value) = line.split_once(':').ok_or_else(|| malformed(&line))?;
            match (name, value.trim()) {
                ("content-length", value) => {
                    length = Some(value.parse().map_err(|_| malformed(&line))?)
                }
                ("transfer-encoding", value) => chunked = value == "chunked",
                ("connection", "close") => reusable = false,
                ("content-type", value) => content_type = value.to_owned(),
                ("retry-after", value) => retry_after = Some(value.to_owned()),
                _ => {}
            }
        }
        let mut body = Vec::new();
        // These never have one (RFC 9110, section 6.4.1).
        let has_body = !matches!(status, 204 | 304);
        if has_body && chunked {
            loop {
                let line = self.line()?;
                let size = u64::from_str_radix(&line, 16).map_err(|_| malformed(&line))?;
                self.take(size, &mut body)?;
                self.line()?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = length.filter(|_| has_body) {
            self.take(length, &mut body)?;
        } else if has_body {
            reusable = false;
            self.stream.read_to_end(&mut body)?;
        }
        Ok(Response {
            status,
            content_type,
            retry_after,
            headers,
            body: String::from_utf8_lossy(&body).into_owned(),
            reusable,
        })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn take(&mut self, size: u64, body: &mut Vec<u8>) -> io::Result<()> {
        let read = self.stream.by_ref().take(size).read_to_end(body)?;
        if read as u64 == size { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// One request on a connection of its own.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Response> {
    let mut headers = headers.to_vec();
    headers.push(("Connection", "close"));
    Connection::open(address)?.request(method, path, &headers, body)
}

fn malformed(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP/1.1: {line:?}"))
}
