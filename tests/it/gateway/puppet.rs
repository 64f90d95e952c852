//! The gateway of Puppet agents and the guard beside a master, on every HAProxy, with certificates
//! by OpenSSL and stand-ins for Puppet Server. `tests/it/puppet` has the real ones.

use std::process::Command;

use tempfile::TempDir;

use super::{each, rendered};
use crate::support::authority::Authority;
use crate::support::curl::{Answer, Client};
use crate::support::haproxy::{Binary, installed};
use crate::support::puppet::{MASTERS, StandIn, plan};
use crate::support::scene::BOUND;
use crate::support::shipped::{PUPPET, PUPPET_MASTER, Plan, Shipped, path_of};
use crate::support::{eventually, program};

/// The gateway, shipped and rendered.
const GATEWAYS: [&str; 2] = [PUPPET, rendered::PUPPET];

/// An authority that has signed the masters, a gateway and agents of these names.
struct Signed {
    authority: Authority,
    _folder: TempDir,
}

impl Signed {
    fn by_ca(agents: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let authority = Authority::create(folder.path());
        MASTERS.iter().chain(&["gateway"]).chain(agents).for_each(|name| authority.issue(name));
        Self { authority, _folder: folder }
    }
}

/// A stand-in with its guard for each of the two masters.
struct Masters<'a> {
    /// Of the gateway before them.
    file: &'static str,
    authority: &'a Authority,
    servers: [Option<StandIn>; 2],
    guards: [Shipped; 2],
}

impl<'a> Masters<'a> {
    fn start(binary: &Binary, signed: &'a Signed, file: &'static str) -> Self {
        let authority = &signed.authority;
        let servers = MASTERS.map(StandIn::start);
        let guards = [0, 1].map(|number| {
            files(Plan::of(binary, PUPPET_MASTER), authority)
                .set("PUPPETSERVER_ADDRESS", &servers[number].address().to_string())
                .set("MASTER_CERTIFICATE", &text(authority.both(MASTERS[number])))
                .set("GATEWAY_NAMES", "elsewhere gateway")
                .start()
        });
        Self { file, authority, servers: servers.map(Some), guards }
    }

    fn plan(&self, binary: &Binary) -> Plan {
        let addresses = [self.guards[0].address(), self.guards[1].address()];
        let (both, ca) = (self.authority.both("gateway"), self.authority.ca());
        let gateway = match self.file == PUPPET {
            true => Plan::of(binary, PUPPET),
            false => rendered::puppet_plan(binary),
        };
        plan(gateway, &both, &ca, &self.authority.crl(), addresses)
            .instead_of("inter 2s", "inter 200ms")
    }

    fn server(&self, number: usize) -> &StandIn {
        self.servers[number].as_ref().expect("it runs")
    }

    fn client(&self, name: &str) -> Client {
        Client::of(self.authority, name)
    }

    fn stranger(&self) -> Client {
        Client::stranger(self.authority.ca())
    }
}

fn text(path: std::path::PathBuf) -> String {
    path.into_os_string().into_string().expect("a path in UTF-8")
}

fn files(plan: Plan, authority: &Authority) -> Plan {
    plan.set("PUPPET_CA", &text(authority.ca())).set("PUPPET_CRL", &text(authority.crl()))
}

/// Starts it, and waits until every master is up.
fn start(plan: Plan) -> Shipped {
    let gateway = plan.start();
    gateway.wait_for("every master has passed its check", || {
        let stat = gateway.command("show stat");
        let up = stat.lines().filter(|row| row.contains(",UP,") && row.contains(",L7OK,"));
        (up.count() == 3).then_some(())
    });
    gateway
}

/// The status, and the first line of the body: the master's name, where one answered.
fn said(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.body.lines().next().unwrap_or_default())
}

#[test]
fn haproxy_of_every_version_takes_both_files_without_a_warning() {
    let Signed { authority, _folder: folder } = Signed::by_ca(&[]);
    let map = folder.path().join("node-master.map");
    std::fs::write(&map, "").expect("the map file can be written");
    for binary in installed() {
        for file in [PUPPET, PUPPET_MASTER] {
            let mut check = Command::new(&binary.path);
            check.arg("-c").arg("-f").arg(path_of(file)).env("NODE_MASTER_MAP", &map);
            check.env("PUPPET_CA", authority.ca()).env("PUPPET_CRL", authority.crl());
            for name in ["GATEWAY_CERTIFICATE", "MASTER_CERTIFICATE"] {
                check.env(name, authority.both("gateway"));
            }
            let output = check.output().expect("HAProxy starts");
            let printed =
                String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            let is_clean = output.status.success() && !printed.contains("WARNING");
            assert!(is_clean, "{:?} {file}: {}\n{printed}", binary.version, output.status);
        }
    }
}

#[test]
fn a_node_is_routed_by_its_certificate_whatever_its_headers_say() {
    let signed = Signed::by_ca(&["web1", "web2"]);
    for (binary, file) in each(GATEWAYS) {
        let masters = Masters::start(binary, &signed, file);
        let plan = masters.plan(binary).entry("web1", "puppet00").entry("web2", "puppet01");
        let gateway = start(plan);
        let claims = [
            ("X-Client-Verify", "SUCCESS"),
            ("x-CLIENT-dn", "CN=web1"),
            ("X-Client-Cert", "claimed"),
            ("X-Node-Name", "web1"),
        ];
        let path = "/puppet/v3/node/web2";
        let answer = masters.client("web2").get(gateway.address(), path, &claims);
        let lines: Vec<_> = answer.body.lines().collect();
        assert_eq!(answer.status, 200, "{:?} {answer:?}\n{}", binary.version, gateway.log());
        assert_eq!(lines.len(), 4, "{answer:?}");
        assert_eq!(lines[..3], ["puppet01", "x-client-verify: SUCCESS", "x-client-dn: CN=web2"]);
        let begin = "x-client-cert: -----BEGIN%20CERTIFICATE-----%0AMII";
        assert!(lines[3].starts_with(begin) && lines[3].ends_with("-----%0A"), "{answer:?}");
        assert_eq!(
            said(&masters.client("web1").get(gateway.address(), "/", &[])),
            (200, "puppet00")
        );

        // Without a certificate only the CA answers, and hears of no certificate.
        let refused = masters.stranger().get(gateway.address(), path, &claims);
        let text = "Only /puppet-ca/ answers without a certificate that the Puppet CA has signed.";
        assert_eq!(said(&refused), (403, text));
        let ca = "/puppet-ca/v1/certificate/ca";
        let answer = masters.stranger().get(gateway.address(), ca, &claims);
        assert_eq!((answer.status, answer.body.as_str()), (200, "puppet00\n"));
        // Nobody is sent to the CA by the map, nor away from it.
        let answer = masters.client("web2").get(gateway.address(), ca, &[]);
        assert_eq!(said(&answer), (200, "puppet00"));
    }
}

#[test]
fn a_guard_believes_a_gateway_alone() {
    let signed = Signed::by_ca(&["web1"]);
    for binary in installed() {
        let masters = Masters::start(binary, &signed, PUPPET);
        let guard = &masters.guards[1];
        let claims = [("X-Client-Verify", "SUCCESS"), ("X-Client-DN", "CN=victim")];
        let gateway = masters.client("gateway").get(guard.address(), "/", &claims);
        let believed = "puppet01\nx-client-verify: SUCCESS\nx-client-dn: CN=victim\n";
        assert_eq!((gateway.status, gateway.body.as_str()), (200, believed));
        let agent = masters.client("web1").get(guard.address(), "/", &claims);
        let own = "puppet01\nx-client-verify: SUCCESS\nx-client-dn: CN=web1\nx-client-cert: ---";
        assert!(agent.status == 200 && agent.body.starts_with(own), "{agent:?}");
        let stranger = masters.stranger().get(guard.address(), "/", &claims);
        assert_eq!((stranger.status, stranger.body.as_str()), (200, "puppet01\n"));
    }
}

#[test]
fn a_missing_file_costs_one_request_and_a_master_that_dies_over_a_request_none() {
    let signed = Signed::by_ca(&["web1"]);
    for (binary, file) in each(GATEWAYS) {
        let masters = Masters::start(binary, &signed, file);
        let gateway = start(masters.plan(binary).entry("web1", "puppet00"));
        let client = masters.client("web1");
        let asked = || [0, 1].map(|number| masters.server(number).served().len());
        assert_eq!(client.get(gateway.address(), "/missing", &[]).status, 404);
        assert_eq!(asked(), [1, 0]);
        // A catalog with all the node's facts, that fits in a buffer with its headers.
        let facts = "x".repeat(100_000);
        masters.server(0).crashes();
        let answer = client.post(gateway.address(), "/puppet/v3/catalog/web1", &facts);
        assert_eq!(said(&answer), (200, "puppet01"), "{:?}\n{}", binary.version, gateway.log());
        assert_eq!(asked(), [2, 1], "once on each");
        // One that does not fit is not sent again, as it may have been run.
        let answer = client.post(gateway.address(), "/puppet/v3/catalog/web1", &facts.repeat(2));
        assert_eq!(answer.status, 502, "{answer:?}");
        assert!(answer.body.contains("broke off"), "{answer:?}");
        // The CA is asked nowhere else.
        let answer = client.get(gateway.address(), "/puppet-ca/v1/certificate/ca", &[]);
        assert_eq!(answer.status, 502, "{answer:?}");
    }
}

#[test]
fn a_catalog_by_another_master_than_the_mapped_one_is_counted_and_logged() {
    let signed = Signed::by_ca(&["web1", "web2"]);
    for (binary, file) in each(GATEWAYS) {
        let masters = Masters::start(binary, &signed, file);
        let gateway = start(masters.plan(binary).entry("web1", "puppet00"));
        let count = || {
            let table = gateway.command("show table compiled_elsewhere");
            let row = table.lines().find(|row| row.contains("key=puppet00 "))?.to_owned();
            row.split(' ').find_map(|field| field.strip_prefix("gpc0=")).map(str::to_owned)
        };
        let catalog = |node: &str| {
            let path = format!("/puppet/v3/catalog/{node}");
            masters.client(node).post(gateway.address(), &path, "facts")
        };
        assert_eq!(said(&catalog("web1")), (200, "puppet00"));
        // Of a node that is not mapped any master's is as good.
        assert_eq!(catalog("web2").status, 200);
        assert_eq!(count(), None, "{:?}", binary.version);
        masters.server(0).crashes();
        for expected in ["1", "2"] {
            assert_eq!(said(&catalog("web1")), (200, "puppet01"), "{:?}", binary.version);
            assert_eq!(count().as_deref(), Some(expected), "{:?}", binary.version);
        }
        // What is no catalog names no compiler.
        assert_eq!(said(&masters.client("web1").get(gateway.address(), "/", &[])).1, "puppet01");
        assert_eq!(count().as_deref(), Some("2"));
        gateway.wait_for("the log says who compiled it", || {
            let logged = r#"node="web1" master="puppet00" compiler="puppet01""#;
            gateway.log().contains(logged).then_some(())
        });
    }
}

#[test]
fn a_node_without_a_master_that_is_up_has_the_same_other_one_for_its_whole_run() {
    let nodes = ["n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8"];
    let signed = Signed::by_ca(&nodes);
    for (binary, file) in each(GATEWAYS) {
        let mut masters = Masters::start(binary, &signed, file);
        // In the map with no server, with another, or not at all.
        let plan = masters.plan(binary).entry("n1", "puppet09").entry("n2", "puppet01");
        let gateway = start(plan);
        let ask = |masters: &Masters, node: &str| {
            let answer = masters.client(node).get(gateway.address(), "/", &[]);
            assert_eq!(answer.status, 200, "{:?} {answer:?}\n{}", binary.version, gateway.log());
            said(&answer).1.to_owned()
        };
        let homes = nodes.map(|node| ask(&masters, node));
        assert_eq!(homes[1], "puppet01");
        assert_eq!(nodes.map(|node| ask(&masters, node)), homes, "each has one master");
        assert!(MASTERS.iter().all(|master| homes.contains(&(*master).to_owned())), "{homes:?}");

        // No request fails from the first one on, whether HAProxy has found it down or not.
        masters.servers[1] = None;
        for node in nodes {
            assert_eq!(ask(&masters, node), "puppet00");
        }
        masters.servers[0] = None;
        let answer = eventually("HAProxy knows that all masters are down", BOUND, || {
            let answer = masters.client("n2").get(gateway.address(), "/", &[]);
            answer.body.contains("(0 up)").then_some(answer)
        });
        let text = "No master takes the request of the node n2 now (0 up): try again later.";
        assert_eq!(said(&answer), (503, text));
        // The CA's backend has checks of its own: until they fail the guard answers for its master.
        let text = "The Puppet CA is not available now: try again later.";
        eventually("HAProxy knows that the CA is down", BOUND, || {
            let path = "/puppet-ca/v1/certificate/ca";
            let answer = masters.client("n2").get(gateway.address(), path, &[]);
            assert_eq!(answer.status, 503, "{answer:?}");
            (said(&answer).1 == text).then_some(())
        });
    }
}

#[test]
fn a_revoked_node_is_refused_once_haproxy_has_the_list_resumed_sessions_included() {
    for (binary, file) in each(GATEWAYS) {
        let signed = Signed::by_ca(&["web1", "web2"]);
        let masters = Masters::start(binary, &signed, file);
        let gateway = start(masters.plan(binary).entry("web1", "puppet00"));
        let ask = |node: &str| masters.client(node).get(gateway.address(), "/", &[]);
        assert_eq!(said(&ask("web1")), (200, "puppet00"));
        let strict = masters.plan(binary).entry("web1", "puppet00");
        let lax = strict.instead_of(" no-tls-tickets", "").instead_of("tune.ssl.cachesize 0", "");
        assert!(resumes(&masters, &start(lax)), "OpenSSL's client would");
        assert!(!resumes(&masters, &gateway), "{:?}", binary.version);

        masters.authority.revoke("web1");
        assert_eq!(ask("web1").status, 200, "HAProxy reads the file when it starts");
        let file = masters.authority.crl();
        let list = std::fs::read_to_string(&file).expect("the list");
        let file = file.display();
        let reply = gateway.command(&format!("set ssl crl-file {file} <<\n{}\n\n", list.trim()));
        assert!(reply.contains("transaction created"), "{reply}");
        let reply = gateway.command(&format!("commit ssl crl-file {file}"));
        assert!(reply.contains("Success!"), "{reply}");
        let refused = ask("web1");
        assert_eq!(refused.status, 0, "{:?} {refused:?}", binary.version);
        assert!(refused.complaint.contains("revoked"), "{refused:?}");
        assert_eq!(ask("web2").status, 200);
        gateway.wait_for("the log says why", || gateway.log().contains("verify=23").then_some(()));
    }
}

/// Whether the session of a first connection is resumed by a second, as OpenSSL's client says.
fn resumes(masters: &Masters, gateway: &Shipped) -> bool {
    let authority = masters.authority;
    let beside = |name: &str| authority.ca().with_file_name(name);
    let (session, request) = (beside("session"), beside("request"));
    std::fs::write(&request, "GET / HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n")
        .expect("a file");
    let connect = |how: &str| {
        let output = Command::new(program("openssl"))
            .args(["s_client", "-ign_eof", "-connect", &gateway.address().to_string(), "-cert"])
            .arg(authority.certificate("web1"))
            .arg("-key")
            .arg(authority.key("web1"))
            .arg(how)
            .arg(&session)
            .stdin(std::fs::File::open(&request).expect("a file"))
            .output()
            .expect("openssl starts");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(printed.contains("HTTP/1.1 200"), "{printed}");
        printed
    };
    let _ = std::fs::remove_file(&session);
    connect("-sess_out");
    // There may be none to resume.
    session.exists() && connect("-sess_in").contains("Reused, ")
}

#[test]
fn masters_can_be_added_to_and_removed_from_the_gateway_at_runtime() {
    let signed = Signed::by_ca(&["web1"]);
    for (binary, file) in each(GATEWAYS) {
        let masters = Masters::start(binary, &signed, file);
        let gateway = start(masters.plan(binary).entry("web1", "new"));
        let (ca, crl) = (text(masters.authority.ca()), text(masters.authority.crl()));
        let both = text(masters.authority.both("gateway"));
        let address = masters.guards[1].address();
        let options = format!(
            "ssl verify required ca-file {ca} crl-file {crl} crt {both} check check-ssl \
             sni str(puppet01) check-sni puppet01 verifyhost puppet01"
        );
        gateway.command(&format!("add server puppet/new {address} {options}"));
        gateway.command("enable health puppet/new; enable server puppet/new");
        gateway.command("set server puppet/puppet01 state maint");
        gateway.wait_for("the old one can go", || {
            let reply = gateway.command("del server puppet/puppet01");
            reply.contains("Server deleted.").then_some(())
        });
        gateway.wait_for("the new master serves what is mapped to it", || {
            let answer = masters.client("web1").get(gateway.address(), "/", &[]);
            (said(&answer) == (200, "puppet01")).then_some(())
        });
    }
}
