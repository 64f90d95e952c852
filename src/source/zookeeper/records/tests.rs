//! What registrar, Muppet and ProxyMgr write and read, case by case.

use mapsmith_core::server::list::Host;
use serde_json::{Value, json};

use super::registrar::RecordType;
use super::*;

fn child(name: &str, data: impl ToString) -> Child {
    Child { name: name.to_owned(), data: data.to_string().into_bytes() }
}

fn registrar(records: &[RecordType], ports: &[u16]) -> Servers {
    let (records, ports) = (records.to_vec(), ports.to_vec());
    Servers::new(ChildFormat::Registrar(Registrar { records, ports }))
}

/// Muppet's two: the web API on its fixed ports, and the buckets API on those of the record.
fn webapi() -> Servers {
    registrar(&[RecordType::Host], &[80, 81])
}

fn buckets() -> Servers {
    registrar(&[RecordType::LoadBalancer], &[])
}

/// Each server as `NAME ADDRESS:PORT`.
fn servers(list: &ServerList) -> Vec<String> {
    let describe = |server: &mapsmith_core::server::list::ListedServer| match &server.host {
        Host::Address(address) => format!("{} {address}:{}", server.name, server.port),
        Host::Name(name) => format!("{} {name}:{}", server.name, server.port),
    };
    list.servers.iter().map(describe).collect()
}

fn read(format: &mut Servers, children: &[Child]) -> (Vec<String>, ServerList, Rejections) {
    let (list, rejections) = format.read(children);
    (servers(&list), list, rejections)
}

#[test]
fn a_domain_reversed_and_a_service_are_a_path() {
    for (domain, service, path) in [
        ("region.example.com", "manta", "/com/example/region/manta"),
        ("region.example.com", "buckets-api", "/com/example/region/buckets-api"),
        ("emy-10.joyent.us", "manta", "/us/joyent/emy-10/manta"),
        // Muppet does not lower-case, registrar does: the records are there.
        ("Emy-10.Joyent.US", "manta", "/us/joyent/emy-10/manta"),
        ("emy-10.joyent.us.", "Buckets-API", "/us/joyent/emy-10/buckets-api"),
    ] {
        assert_eq!(Registrar::path(domain, service), path);
    }
}

#[test]
fn muppets_records_are_the_servers_that_muppet_had_and_what_it_died_of_is_rejected() {
    let ports = json!(["8081", "8082"]);
    let balancer = |ports: Value| {
        let own = json!({"address": "127.0.0.3", "ports": ports});
        json!({"type": "load_balancer", "load_balancer": own})
    };
    let both = ["c 127.0.0.3:8081", "c 127.0.0.3:8082"];
    let both = both.map(|server| server.replacen("c ", &format!("c:{} ", &server[12..]), 1));
    type Case<'a> = (&'a str, fn() -> Servers, Value, &'a [String], u64, u64);
    let cases: [Case<'_>; 6] = [
        (
            "lb-under-manta-ignored",
            webapi,
            json!({"type": "load_balancer", "host": {"address": "127.0.0.2"}}),
            &[],
            1,
            0,
        ),
        ("lb-under-buckets", buckets, balancer(ports), &both, 0, 0),
        ("numeric-ports", buckets, balancer(json!([8081, 8082])), &both, 0, 0),
        ("no-address", webapi, json!({"type": "host"}), &[], 0, 1),
        ("json-null", webapi, json!(null), &[], 0, 1),
        (
            "buckets-without-ports",
            buckets,
            json!({"type": "load_balancer", "load_balancer": {"address": "127.0.0.3"}}),
            &[],
            0,
            1,
        ),
    ];
    for (id, format, data, expected, skipped, rejected) in cases {
        let (found, list, rejections) = read(&mut format(), &[child("c", data)]);
        assert_eq!(found, expected, "{id}");
        let count = |reason| rejections.counts.get(&reason).copied().unwrap_or_default();
        let counts = (count(Invalid::RecordType), count(Invalid::ServerRow));
        assert_eq!((counts, rejections.total()), ((skipped, rejected), skipped + rejected), "{id}");
        assert_eq!(list.rejected.len() as u64, rejected, "{id}: a skipped one is no mistake");
    }
    let (found, list, _) = read(&mut webapi(), &[child("c1", "hello")]);
    assert_eq!((found.len(), &*list.rejected[0].reason), (0, "does not hold JSON"));
}

#[test]
fn each_record_that_registrar_writes_is_the_servers_that_it_says() {
    let host = |own: Value| json!({"type": "host", "address": "127.0.0.1", "host": own});
    for (id, mut format, data, expected) in [
        (
            "host-admin-ip",
            webapi(),
            host(json!({"address": "127.0.0.1"})),
            &["HOST:80 127.0.0.1:80", "HOST:81 127.0.0.1:81"][..],
        ),
        (
            "host-ttl",
            registrar(&[RecordType::Host], &[8080]),
            json!({"type": "host", "address": "127.0.0.1", "ttl": 120,
                "host": {"address": "127.0.0.1"}}),
            &["HOST:8080 127.0.0.1:8080"],
        ),
        (
            "with-service",
            registrar(&[RecordType::Host], &[]),
            host(json!({"address": "127.0.0.1", "ports": [80]})),
            &["HOST:80 127.0.0.1:80"],
        ),
        (
            "lb-with-ports",
            registrar(&[], &[]),
            json!({"type": "load_balancer", "address": "172.27.10.72", "load_balancer":
                {"address": "172.27.10.72", "ports": [8081, 8082]}}),
            &["HOST:8081 172.27.10.72:8081", "HOST:8082 172.27.10.72:8082"],
        ),
    ] {
        assert_eq!(read(&mut format, &[child("HOST", data)]).0, expected, "{id}");
    }
}

#[test]
fn without_a_record_type_the_members_of_the_service_count() {
    for (name, is_member) in [
        ("db_host", false),
        ("host", false),
        ("load_balancer", true),
        ("moray_host", true),
        ("ops_host", true),
        ("redis_host", true),
        ("rr_host", true),
        ("service", false),
        ("database", false),
    ] {
        let mut record = json!({"type": name});
        record[name] = json!({"address": "10.0.0.1", "ports": [1]});
        let children = [child("c", &record)];
        let (found, _, rejections) = read(&mut registrar(&[], &[]), &children);
        assert_eq!(found.len(), usize::from(is_member), "{name}");
        assert_eq!(rejections.total(), u64::from(!is_member), "{name}");
        // Asked for by its name, each counts.
        let asked = RecordType::ALL.into_iter().find(|known| known.to_string() == name);
        let taken = asked.map(|asked| read(&mut registrar(&[asked], &[]), &children).0.len());
        assert_eq!(taken, asked.map(|_| 1), "{name}");
    }
}

#[test]
fn proxymgrs_children_are_servers_by_address_and_port() {
    let mut format = Servers::new(ChildFormat::ProxyMgr);
    let children = [
        child("n2", r#"{"address":"9.9.9.9","port":1}"#),
        child("n1", r#"{"address":"1.2.3.4","port":8080}"#),
    ];
    let (found, ..) = read(&mut format, &children);
    assert_eq!(found, ["1.2.3.4:8080 1.2.3.4:8080", "9.9.9.9:1 9.9.9.9:1"]);
}

#[test]
fn a_bad_child_is_rejected_and_its_earlier_good_value_is_kept() {
    let mut format = Servers::new(ChildFormat::ProxyMgr);
    let good = child("n1", r#"{"address":"1.2.3.4","port":8080}"#);
    let bad = |data: &str| [child("n1", data), child("n2", r#"{"address":"9.9.9.9","port":1}"#)];
    let (_, list, _) = read(&mut format, &bad("not json"));
    assert_eq!(list.rejected[0].name, None, "nothing is known of it yet");
    read(&mut format, &[good]);
    for data in ["not json", "", "[1]", r#"{"address":"1.2.3.4","port":0}"#, r#"{"port":1}"#] {
        let (found, list, rejections) = read(&mut format, &bad(data));
        assert_eq!(found, ["9.9.9.9:1 9.9.9.9:1"], "{data}");
        let kept = list.rejected.iter().map(|row| (&*row.place, row.name.as_deref()));
        assert_eq!(
            kept.collect::<Vec<_>>(),
            [("child \"n1\"", Some("1.2.3.4:8080"))],
            "{data}: kept as long as it is bad"
        );
        assert_eq!(rejections.total(), 1, "{data}");
    }
    // Once it was gone, nothing of it is kept.
    read(&mut format, &[]);
    assert_eq!(read(&mut format, &bad("not json")).1.rejected[0].name, None);
}

#[test]
fn campanjas_children_are_named_like_their_hosts() {
    let mut format = Servers::new(ChildFormat::CampanjaZk(8080));
    assert!(!format.reads_data());
    let children = [child("web2.example", ""), child("10.0.0.1", ""), child("no host", "")];
    let (found, list, _) = read(&mut format, &children);
    assert_eq!(found, ["10.0.0.1:8080 10.0.0.1:8080", "web2.example:8080 web2.example:8080"]);
    assert_eq!(list.rejected.len(), 1);
}

#[test]
fn children_are_nodes_and_hold_their_master() {
    let names = Names::new(true, &BTreeMap::from([("puppet00".to_owned(), "m1".to_owned())]));
    let children = [
        child("A.example", "puppet00\n"),
        child("b.example", "m2"),
        child("c.example", ""),
        Child { name: "d.example".to_owned(), data: vec![0xff] },
        child("e example", "m1"),
        child("f.example", "m1 m2"),
    ];
    let (map, rejections) = Nodes(Arc::new(names)).read(&children);
    let entries: Vec<_> = map.iter().collect();
    assert_eq!(entries, [("a.example", "m1"), ("b.example", "m2")]);
    for (node, reason) in [
        ("c.example", Invalid::NoMaster),
        ("d.example", Invalid::NotString),
        ("e example", Invalid::KeyWhitespace),
        ("f.example", Invalid::ValueWhitespace),
    ] {
        assert_eq!(rejections.reason(node), Some(reason), "{node}");
    }
}

#[test]
fn whatever_a_child_holds_is_rejected_or_valid() {
    use proptest::prelude::*;
    let text = prop_oneof![
        ".{0,40}",
        r#"\{"type":"host","host":\{"address":".{0,20}","ports":\[.{0,9}\]\}\}"#,
        r#"\{"address":".{0,20}","port":.{0,9}\}"#,
    ];
    proptest!(|(rows in proptest::collection::vec((".{0,20}", text), 0..8))| {
        let children: Vec<_> = rows.iter().map(|(name, data)| child(name, data)).collect();
        for mut format in [
            webapi(),
            registrar(&[RecordType::Host], &[]),
            Servers::new(ChildFormat::ProxyMgr),
            Servers::new(ChildFormat::CampanjaZk(1)),
        ] {
            let (list, _) = format.read(&children);
            let valid = |name: &str| mapsmith_core::server::is_valid_name(name);
            prop_assert!(list.servers.iter().all(|server| valid(&server.name)));
            prop_assert!(list.rejected.iter().flat_map(|row| &row.name).all(|name| valid(name)));
        }
    });
}
