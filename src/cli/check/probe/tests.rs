use mapsmith_core::Server;
use mapsmith_core::plan::servers::replay::added;
use mapsmith_core::server::{DesiredBackend, ObservedBackend, ServerOptions};

use super::*;

fn server(name: &str, last: u8, port: u16) -> Server {
    Server {
        name: name.to_owned(),
        address: ServerAddress { ip: [10, 0, 0, last].into(), port },
        weight: None,
        backup: false,
        options: ServerOptions::default(),
    }
}

#[test]
fn masters_are_asked_where_the_settings_and_haproxy_have_them_and_nobody_else_is() {
    let servers = [server("m1", 1, 8140), server("other", 9, 8140)];
    let servers = servers.into_iter().map(|server| (server.name.clone(), server)).collect();
    let wanted = DesiredBackend { servers, ..DesiredBackend::default() };
    let desired = DesiredServers { number: 1, backends: [("puppet".to_owned(), wanted)].into() };
    let of = |servers: &[Server]| ObservedBackend {
        algorithm: None,
        servers: servers.iter().map(|server| (server.name.clone(), added(server))).collect(),
    };
    let mut slot = server("m1", 0, 8140);
    slot.address.ip = [0, 0, 0, 0].into();
    let seen: ObservedServers = [
        ("puppet".to_owned(), of(&[server("m1", 2, 8140), server("other", 9, 1)])),
        ("m2".to_owned(), of(&[server("s1", 3, 8140), server("s2", 4, 0)])),
        ("slots".to_owned(), of(&[slot])),
    ]
    .into();
    let masters = ["m1", "m2", "m3"].map(str::to_owned).into();
    let found: Vec<_> = addresses(&masters, &desired, &[seen])
        .into_iter()
        .map(|(master, places)| {
            (master, places.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        })
        .collect();
    assert_eq!(
        found,
        [
            ("m1".to_owned(), "10.0.0.1:8140 10.0.0.2:8140".to_owned()),
            ("m2".to_owned(), "10.0.0.3:8140".to_owned()),
        ]
    );
}

#[test]
fn a_master_is_asked_by_its_name_and_never_at_what_the_name_resolves_to() {
    let address = ServerAddress { ip: [10, 0, 0, 1].into(), port: 8140 };
    for (master, expected, named) in [
        ("puppet1.example", "https://puppet1.example:8140/puppet/v3/environments", true),
        ("10.0.0.7", "https://10.0.0.1:8140/puppet/v3/environments", false),
        ("0x7f.1", "https://10.0.0.1:8140/puppet/v3/environments", false),
        ("a:b", "https://10.0.0.1:8140/puppet/v3/environments", false),
        ("a@b", "https://10.0.0.1:8140/puppet/v3/environments", false),
        ("a/b", "https://10.0.0.1:8140/puppet/v3/environments", false),
    ] {
        let (url, name) = url(master, &address, "https").unwrap();
        assert_eq!((url.as_str(), name.is_some()), (expected, named), "{master}");
    }
}

#[test]
fn only_who_believes_a_claim_fails() {
    let address = ServerAddress { ip: [10, 0, 0, 1].into(), port: 8140 };
    for (plain, tls, part) in [
        (Answer::Status(200), Answer::None, "believes whoever claims"),
        (Answer::None, Answer::Status(200), "over TLS without a certificate: whoever reaches"),
        (Answer::ToAnybody, Answer::None, "answers anybody"),
    ] {
        let error = judge(&address, Some((plain, tls))).unwrap_err();
        assert!(error.contains(part) && error.contains("puppet-master.cfg"), "{error}");
    }
    assert_eq!(
        judge(&address, Some((Answer::None, Answer::Status(403)))).unwrap(),
        "10.0.0.1:8140: no answer in plain text, 403 over TLS without a certificate"
    );
    let told = judge(&address, Some((Answer::TimedOut, Answer::Status(503)))).unwrap();
    assert!(told.contains("no answer within 3 s") && told.contains("503, which tells"), "{told}");
    assert!(judge(&address, None).unwrap_err().contains("was not asked"));
    assert!(join(Vec::new()).is_err());
}
