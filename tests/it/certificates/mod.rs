//! Certificates and CRLs of a gateway with TLS: brought into a real HAProxy without a reload.

mod facts;
mod prompt;
mod refused;
mod reload;
mod replaced;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::haproxy::{Binary, Gateway, Plan};
use crate::support::mapsmith::Mapsmith;
use crate::support::process::{Ending, Process};
use crate::support::run;
use crate::support::scene::{BOUND, ON_REQUEST, file_source_settings, gateway_settings};
use crate::support::{eventually, free_port};

/// A CA as `openssl ca` keeps it, in a folder of its own, with the gateway's and two clients'
/// certificates. What is in `loaded` HAProxy loads; the rest is what Mapsmith reads.
struct Authority(TempDir);

const AUTHORITY: &str = "[ca]
default_ca = ours
[ours]
database = index.txt
crlnumber = crlnumber
default_md = sha256
default_crl_days = 30
certificate = ca.pem
private_key = ca.key
";

impl Authority {
    fn new() -> Self {
        let authority = Self(tempfile::tempdir().unwrap());
        authority.write("ca.cnf", AUTHORITY);
        authority.write("index.txt", "");
        authority.write("crlnumber", "0A\n");
        authority.write("san", "subjectAltName = IP:127.0.0.1\n");
        authority.shell(
            "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 3650 -subj \
                '/O=Test/CN=Puppet CA: puppet00'",
        );
        for (name, serial) in [("gateway", 16), ("renewed", 17), ("good", 18), ("bad", 19)] {
            authority.shell(&format!(
                "openssl req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj \
                    /CN={name} && openssl x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key \
                    -set_serial {serial} -days 100 -extfile san -out {name}.pem && cat {name}.pem \
                    {name}.key >{name}-pair.pem"
            ));
        }
        authority.issue("crl.pem", "");
        authority.shell(
            "mkdir loaded && cp ca.pem crl.pem loaded && cp gateway-pair.pem loaded/cert.pem && cp \
                gateway-pair.pem cert.pem",
        );
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn shell(&self, command: &str) {
        run("sh", &["-c", &format!("cd {} && {command}", self.0.path().display())]);
    }

    /// Replaces a file, as who writes it should: by a rename.
    fn replace(&self, name: &str, text: &str) {
        self.write("new", text);
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    /// Issues a CRL.
    fn issue(&self, name: &str, arguments: &str) {
        self.shell(&format!(
            "openssl ca -config ca.cnf -gencrl {arguments} -out issued && mv issued {name}"
        ));
    }

    fn revoke(&self, name: &str) {
        self.shell(&format!("openssl ca -config ca.cnf -revoke {name}.pem"));
    }

    /// A CRL of so many certificates that nobody has.
    fn issue_long(&self, name: &str, revoked: usize) {
        let rows: String = (0..revoked)
            .map(|number| {
                format!(
                    "R\t350101000000Z\t251101000000Z\t{:08X}\tunknown\t/CN=n{number}\n",
                    0x100_0000 + number
                )
            })
            .collect();
        self.write("index.txt", &(self.read("index.txt") + &rows));
        self.issue(name, "");
    }
}

/// A gateway that wants clients' certificates on a port of its own.
struct Scene {
    authority: Authority,
    gateway: Gateway,
    port: u16,
}

impl Scene {
    fn start(binary: &Binary, more: impl FnOnce(Plan) -> Plan) -> Self {
        let (authority, port) = (Authority::new(), free_port());
        let loaded = authority.path("loaded");
        let loaded = loaded.display();
        let frontend = format!(
            "frontend secure
    bind 127.0.0.1:{port} ssl crt {loaded}/cert.pem ca-file {loaded}/ca.pem crl-file \
             {loaded}/crl.pem verify required
    http-request return status 200 content-type text/plain string welcome\n"
        );
        let gateway = more(Gateway::plan(binary).entry("a", "m1").more(&frontend)).start();
        Self { authority, gateway, port }
    }

    /// A Mapsmith with these files: the kind, the file's name, and more settings.
    fn mapsmith(&self, files: &[(&str, &str, &str)]) -> Mapsmith {
        let files: String = files
            .iter()
            .map(|(kind, name, more)| {
                format!(
                    "[[tls_file]]\nkind = {kind:?}\npath = {:?}\nfrom = {:?}\npoll = \
                        \"1s\"\n{more}\n",
                    self.authority.path("loaded").join(name),
                    self.authority.path(name)
                )
            })
            .collect();
        self.mapsmith_with(&files)
    }

    /// A Mapsmith with these settings of its files.
    fn mapsmith_with(&self, files: &str) -> Mapsmith {
        let settings =
            ON_REQUEST.to_owned() + &gateway_settings(&self.gateway) + &self.nodes() + files;
        Mapsmith::config(&settings).start()
    }

    /// A source with the gateway's node.
    fn nodes(&self) -> String {
        let nodes = self.authority.path("nodes.map");
        fs::write(&nodes, "a m1\n").unwrap();
        file_source_settings("nodes", &nodes)
    }

    /// Whether a client with this certificate is let in, on a connection of its own.
    fn is_welcome(&self, client: &str) -> bool {
        let path = |ending: &str| self.authority.path(&format!("{client}.{ending}"));
        let answer = self.s_client(&format!(
            "-quiet -cert {} -key {}",
            path("pem").display(),
            path("key").display()
        ));
        answer.contains("welcome")
    }

    /// A connection of a client with this certificate, which stays open.
    fn open(&self, client: &str) -> Connection {
        let mut command = Command::new("openssl");
        let address = format!("127.0.0.1:{}", self.port);
        command.args(["s_client", "-quiet", "-no_ign_eof", "-connect", &address, "-cert"]);
        command.arg(self.authority.path(&format!("{client}.pem"))).arg("-key");
        command.arg(self.authority.path(&format!("{client}.key")));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Connection(command.spawn().unwrap())
    }

    /// The certificate that is served on a new connection.
    fn served(&self) -> String {
        let text = self.s_client("-showcerts");
        let begin = text.find("-----BEGIN").unwrap_or_else(|| panic!("{text}"));
        let end = text.find("-----END CERTIFICATE-----").unwrap();
        text[begin..end].lines().collect()
    }

    fn s_client(&self, arguments: &str) -> String {
        let command = format!(
            "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 20 openssl s_client -connect \
                127.0.0.1:{} -CAfile {} {arguments}",
            self.port,
            self.authority.path("ca.pem").display()
        );
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until the instance stands so with its only file.
    fn wait_for_state(&self, mapsmith: &Mapsmith, state: &str) -> Value {
        mapsmith.wait_for(&format!("the file is {state}"), BOUND, |mapsmith| {
            let status = mapsmith.get("/v1/status").1;
            let files = status["instances"][0]["tls_files"].as_array()?;
            files.iter().all(|file| file["state"] == state).then(|| status.clone())
        })
    }

    /// Waits until this is said of what `from` holds.
    fn wait_for_error(&self, mapsmith: &Mapsmith, part: &str) {
        mapsmith.wait_for(&format!("{part:?} is said"), BOUND, |mapsmith| {
            let status = mapsmith.get("/v1/status").1;
            status["tls_files"][0]["error"].as_str()?.contains(part).then_some(())
        });
    }

    fn loaded(&self, name: &str) -> String {
        self.authority.read(&format!("loaded/{name}"))
    }
}

/// A connection by OpenSSL's client; ends with it.
struct Connection(Child);

impl Connection {
    /// Whether a request is answered.
    fn is_served(&mut self) -> bool {
        let request = b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n";
        self.0.stdin.as_mut().unwrap().write_all(request).unwrap();
        let (mut answer, mut byte) = (Vec::new(), [0]);
        let output = self.0.stdout.as_mut().unwrap();
        while !answer.ends_with(b"welcome") && output.read_exact(&mut byte).is_ok() {
            answer.extend(byte);
        }
        answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"welcome")
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The CRL as the Puppet CA gives it out: by HTTPS, to who shows a certificate of the CA. Gone when
/// it is dropped.
struct Published<'s> {
    scene: &'s Scene,
    address: String,
    _server: Process,
}

impl<'s> Published<'s> {
    fn start(scene: &'s Scene) -> Self {
        let command = format!(
            "cd {} && exec openssl s_server -accept 127.0.0.1:0 -HTTP -Verify 1 \
                -verify_return_error -CAfile ca.pem -cert gateway.pem -key gateway.key",
            scene.authority.path("").display()
        );
        let log = scene.authority.path("server.log");
        let server = Process::start(&["sh", "-c", &command], &log, Ending::default());
        let address = eventually("openssl listens", BOUND, || {
            server.log().lines().find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned))
        });
        let published = Self { scene, address, _server: server };
        published.publish();
        published
    }

    /// Gives out what the CRL is now.
    fn publish(&self) {
        let answer = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n".to_owned();
        let authority = &self.scene.authority;
        authority.replace("published", &(answer + &authority.read("crl.pem")));
    }

    /// The gateway's CRL comes from here; with more settings.
    fn settings(&self, more: &str) -> String {
        let path = |name: &str| self.scene.authority.path(name).display().to_string();
        format!(
            "[[tls_file]]\nkind = \"crl\"\npath = {:?}\nfrom = \"https://{}/published\"\nca = \
                {:?}\ncert = {:?}\nkey = {:?}\n{more}",
            path("loaded/crl.pem"),
            self.address,
            path("ca.pem"),
            path("good.pem"),
            path("good.key"),
        )
    }
}

/// The certificate in a PEM file, as [`Scene::served`] gives it.
fn first_certificate(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let end = text.find("-----END CERTIFICATE-----").unwrap();
    text[text.find("-----BEGIN").unwrap()..end].lines().collect()
}

fn contents(status: &Value) -> String {
    json!(status["tls_files"][0]["contents"]).to_string()
}
