//! A portmap, and the other values that a load balancer's metadata has beside it.

use std::collections::BTreeSet;

use mapsmith_core::ServiceForms;
use mapsmith_core::config::Config;
use mapsmith_core::config::values::FilePath;
use mapsmith_core::portmap::metadata::{self, CertificateNames, MetricsAcl, Syslog, Timeouts};
use mapsmith_core::portmap::texts::Wanted;
use mapsmith_core::portmap::{Declaration, Naming, Portmap};
use mapsmith_core::render::render;
use mapsmith_core::render::words::words;

pub fn portmap(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let portmap = Portmap::parse(&text);
    let length = text.chars().count();
    for rejected in &portmap.rejected {
        assert!(text.contains(&rejected.string), "{rejected:?}");
        assert!((1..=length + 1).contains(&rejected.column), "{rejected:?}");
        one_line(&rejected.to_string());
    }
    let ports: BTreeSet<_> = portmap.services.iter().map(|service| service.listen_port).collect();
    assert_eq!(ports.len(), portmap.services.len());
    let printed: Vec<_> = portmap.services.iter().map(ToString::to_string).collect();
    let again = Portmap::parse(&printed.join(","));
    assert_eq!((again.services, again.rejected), (portmap.services.clone(), Vec::new()));
    declared(&portmap);
    values(&text);
    wanted(&text);
}

/// Every service can be declared and rendered, and HAProxy reads each line of it.
fn declared(portmap: &Portmap) {
    let path = |path: &str| FilePath::try_from(path.to_owned()).expect("a path");
    let declaration = Declaration {
        naming: Naming::Port,
        listen: Vec::new(),
        certificate: Some(path("/site.pem")),
        alpn: Vec::new(),
        ca: path("/ca.pem"),
        max_servers: metadata::MIN_SERVERS,
    };
    let mut config = Config::default();
    for service in declaration.declare(&portmap.services) {
        let service = service.expect("there is a certificate");
        config.frontends.push(service.frontend);
        config.backends.push(service.backend);
    }
    assert_eq!(config.problems(), []);
    for line in render(&config).text().lines() {
        assert!(words(line).is_ok(), "{line}");
    }
}

/// Of metadata with this portmap each text is the service that is called by its port, and nothing
/// that is in force goes because of what can't be read.
fn wanted(text: &str) {
    let key = |key: &str, text: &str| (key.to_owned(), text.to_owned());
    let keys = ServiceForms::from([key("loadbalancer", "true"), key("portmap", text)]);
    let in_force = ServiceForms::from([key("9", "tcp://9:a.test:9")]);
    for in_force in [ServiceForms::new(), in_force] {
        let wanted = Wanted::new(&keys.clone().into(), &in_force, true);
        let services = wanted.services.unwrap_or_default().texts;
        let good: Vec<_> = services.iter().filter(|(_, text)| text.is_ok()).collect();
        assert!(wanted.kept.is_none() || in_force.is_empty() || services.contains_key("9"));
        assert!(!good.is_empty() || wanted.kept.is_some(), "{text:?}");
        for (name, text) in services {
            match text {
                Ok(text) => {
                    let Portmap { services, rejected } = Portmap::parse(&text);
                    let ports: Vec<_> =
                        services.iter().map(|one| one.listen_port.to_string()).collect();
                    assert_eq!((ports, rejected), (vec![name], Vec::new()), "{text:?}");
                }
                Err(why) => one_line(&why),
            }
        }
        wanted.kept.iter().for_each(|why| one_line(why));
    }
}

/// What is wrong with a value is told in a line, and nothing worse comes of it.
fn values(text: &str) {
    let acl = MetricsAcl::parse(text);
    let names = CertificateNames::parse(text);
    let of_names: BTreeSet<_> = names.names.iter().collect();
    assert_eq!(of_names.len(), names.names.len());
    let readings = [
        metadata::max_servers(text).problem,
        metadata::metrics_port(text).problem,
        Syslog::parse(text).problem,
        Timeouts::parse(text).err().map(|error| error.to_string()),
    ];
    let problems = readings.into_iter().flatten().chain(acl.problems).chain(names.problems);
    problems.for_each(|problem| one_line(&problem));
}

fn one_line(text: &str) {
    assert!(text.len() < 10_000 && !text.contains(char::is_control), "{text:?}");
}
