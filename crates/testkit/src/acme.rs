//! A real certificate authority with ACME: pebble, and the DNS that it asks, pebble-challtestsrv.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::authority::Authority;
use crate::daemon::Daemon;
use crate::{find_program, free_port, http, program, run};

/// How it behaves.
#[derive(Clone, Debug)]
pub struct Plan {
    environment: Vec<String>,
    http_port: u16,
    binding: Option<(String, String)>,
    starts: bool,
}

impl Plan {
    /// It asks for http-01 at this port, at once.
    pub fn asks_at(http_port: u16) -> Self {
        let environment = vec!["PEBBLE_VA_NOSLEEP=1".to_owned()];
        Self { environment, http_port, binding: None, starts: true }
    }

    /// Of a hundred good nonces it refuses so many.
    pub fn refuses_nonces(mut self, percent: u8) -> Self {
        self.environment.push(format!("PEBBLE_WFE_NONCEREJECT={percent}"));
        self
    }

    /// It takes accounts only with this external key: its id, and the HMAC key in base64url.
    pub fn binds_accounts(mut self, kid: &str, key: &str) -> Self {
        self.binding = Some((kid.to_owned(), key.to_owned()));
        self
    }

    /// It can't be reached before [`Acme::launch`].
    pub fn is_down(mut self) -> Self {
        self.starts = false;
        self
    }

    pub fn start(self) -> Acme {
        Acme::start(self)
    }
}

/// A running authority, gone on drop. Its names lead to 127.0.0.1.
pub struct Acme {
    ca: Daemon,
    dns: Daemon,
    address: SocketAddr,
    management: SocketAddr,
    dns_address: SocketAddr,
    dns_management: SocketAddr,
}

impl Acme {
    fn start(plan: Plan) -> Self {
        let local = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (address, management) = (local(), local());
        let (dns_address, dns_management) = (local(), local());
        let dns = Daemon::new("challtestsrv", |_| {
            let program = program("pebble-challtestsrv").display().to_string();
            let (dns, management) = (dns_address.to_string(), dns_management.to_string());
            let arguments = [
                ("-dns01", &*dns),
                ("-management", &*management),
                ("-http01", ""),
                ("-https01", ""),
                ("-tlsalpn01", ""),
                ("-defaultIPv6", ""),
            ];
            let arguments = arguments.into_iter().flat_map(|(name, value)| [name, value]);
            [program].into_iter().chain(arguments.map(str::to_owned)).collect()
        });
        dns.launch(|| {
            http::request(dns_management, "POST", "/http-request-history", &[], "{}").is_ok()
        });
        let ca = Daemon::new("pebble", |folder| {
            let authority = Authority::create(folder);
            authority.issue("localhost");
            let configuration = serde_json::json!({"pebble": {
                "listenAddress": address.to_string(),
                "managementListenAddress": management.to_string(),
                "certificate": authority.certificate("localhost"),
                "privateKey": authority.key("localhost"),
                "httpPort": plan.http_port,
                "tlsPort": free_port(),
                "ocspResponderURL": "",
                "externalAccountBindingRequired": plan.binding.is_some(),
                "externalAccountMACKeys": BTreeMap::from_iter(plan.binding.clone()),
            }});
            let file = folder.join("pebble.json");
            fs::write(&file, configuration.to_string()).expect("the folder can be written to");
            let env = find_program("env").expect("env is there").display().to_string();
            let pebble = program("pebble").display().to_string();
            let arguments = ["-config".to_owned(), file.display().to_string()];
            let dns = ["-dnsserver".to_owned(), dns_address.to_string()];
            let command = [env].into_iter().chain(plan.environment.clone()).chain([pebble]);
            command.chain(arguments).chain(dns).collect()
        });
        let acme = Self { ca, dns, address, management, dns_address, dns_management };
        if plan.starts {
            acme.launch();
        }
        acme
    }

    /// Starts it; it knows nothing of what was before, and has another root.
    pub fn launch(&self) {
        self.ca.launch(|| self.fetch("/roots/0").is_some());
    }

    /// Lines of settings that have Mapsmith ask it.
    pub fn settings(&self) -> String {
        format!(
            "[acme]\ndirectory = \"https://{}/dir\"\nterms_agreed = true\nca = \"{}\"\n\
            resolver = \"{}\"\n",
            self.address,
            self.ca.folder().join("ca.pem").display(),
            self.dns_address
        )
    }

    /// The certificate (PEM) that its certificates are verified by.
    pub fn root(&self) -> String {
        self.fetch("/roots/0").expect("pebble tells its root")
    }

    fn fetch(&self, path: &str) -> Option<String> {
        let url = format!("https://{}{path}", self.management);
        let output = Command::new("curl").args(["-sfk", "--max-time", "10", &url]).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Where its names lead from now on.
    pub fn names_lead_to(&self, address: &str) {
        self.tell("/set-default-ipv4", &format!("{{\"ip\": \"{address}\"}}"));
    }

    /// Where TXT records are set: `POST /set-txt`, `/clear-txt`.
    pub fn dns_management(&self) -> SocketAddr {
        self.dns_management
    }

    fn tell(&self, path: &str, body: &str) {
        run("curl", &["-sf", "-d", body, &format!("http://{}{path}", self.dns_management)]);
    }

    /// How many orders were placed since it was first started.
    pub fn orders(&self) -> usize {
        self.ca.log().matches("Added order ").count()
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        format!("{}\n{}", self.ca.log(), self.dns.log())
    }

    /// Its folder, with its own CA as `ca.pem`.
    pub fn folder(&self) -> PathBuf {
        self.ca.folder().to_owned()
    }
}
