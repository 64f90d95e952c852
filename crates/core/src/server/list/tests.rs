//! Rows of lists as persons and registries write them.

use proptest::prelude::*;

use super::*;

fn raw(name: Option<&str>, address: &str) -> RawServer {
    RawServer { name: name.map(str::to_owned), address: address.to_owned(), ..RawServer::default() }
}

/// Names and places, or places and reasons.
type Pairs = Vec<(String, String)>;

fn listed(rows: &[RawServer], repeats: Repeats) -> (Pairs, Pairs, Rejections) {
    let mut builder = ServerListBuilder::default();
    for (index, row) in rows.iter().enumerate() {
        builder.push(&format!("row {index}"), row.clone());
    }
    let (list, rejections) = builder.finish(repeats);
    let servers =
        list.servers.iter().map(|server| (server.name.clone(), location(server))).collect();
    (
        servers,
        list.rejected.into_iter().map(|rejected| (rejected.place, rejected.reason)).collect(),
        rejections,
    )
}

#[test]
fn addresses_are_read_in_every_usual_form() {
    for (address, port, expected) in [
        ("10.0.0.1:8140", None, "10.0.0.1:8140"),
        ("10.0.0.1", Some(8140), "10.0.0.1:8140"),
        ("10.0.0.1:8140", Some(8140), "10.0.0.1:8140"),
        ("fe80::1", Some(1), "[fe80::1]:1"),
        ("[FE80::0:1]:65535", None, "[fe80::1]:65535"),
        ("Puppet00.Example:8140", None, "puppet00.example:8140"),
        ("localhost", Some(80), "localhost:80"),
        ("my_host.svc.", Some(80), "my_host.svc.:80"),
    ] {
        let (host, port) =
            parse_address(address, port).unwrap_or_else(|error| panic!("{address}: {error}"));
        let server = ListedServer {
            name: "n".to_owned(),
            host,
            port,
            weight: None,
            backup: false,
            options: None,
        };
        assert_eq!(location(&server), expected, "{address}");
    }
}

#[test]
fn what_is_no_address_is_told_from_one() {
    for (address, port, part) in [
        ("", Some(1), "is not an address"),
        ("10.0.0.300:1", None, "is not an address"),
        ("10.0.0.1;quit:1", None, "is not an address"),
        ("a b:1", None, "is not an address"),
        ("host:", None, "is not an address"),
        ("host:http", None, "is not an address"),
        ("host:+1", None, "is not an address"),
        ("[10.0.0.1]:1", None, "is not an address"),
        ("[::1", None, "is not an address"),
        ("-x.example:1", None, "is not an address"),
        ("0.0.0.0:1", None, "a server cannot have"),
        ("ff02::1", Some(1), "a server cannot have"),
        ("10.0.0.1", None, "has no port"),
        ("fe80::1", None, "has no port"),
        ("10.0.0.1:0", None, "not within 1 to 65535"),
        ("10.0.0.1:65536", None, "not within 1 to 65535"),
        ("10.0.0.1", Some(-1), "not within 1 to 65535"),
        ("10.0.0.1:1", Some(2), "but port is 2"),
    ] {
        let error = parse_address(address, port).unwrap_err();
        assert!(error.contains(part), "{address:?} {port:?}: {error}");
    }
}

#[test]
fn a_server_without_a_name_gets_a_stable_legal_one() {
    let (servers, rejected, _) = listed(
        &[
            raw(None, "10.0.0.1:8140"),
            raw(None, "[fe80:0::1]:8140"),
            raw(None, "Puppet00.example:8140"),
        ],
        Repeats::LowestAddress,
    );
    let names: Vec<_> = servers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["10.0.0.1:8140", "fe80::1:8140", "puppet00.example:8140"]);
    assert!(names.iter().all(|name| is_valid_name(name)) && rejected.is_empty());
}

#[test]
fn rows_that_are_none_are_left_out_by_place_and_the_rest_goes_on() {
    let rows = [
        raw(Some("a"), "10.0.0.1:1"),
        raw(Some("b/c"), "10.0.0.2:1"),
        raw(Some("d"), "nowhere:"),
        RawServer { weight: Some(257), ..raw(Some("e"), "10.0.0.3:1") },
        RawServer {
            options: Some(vec!["resolvers dns".to_owned()]),
            ..raw(Some("f"), "10.0.0.4:1")
        },
        RawServer {
            options: Some(vec!["agent-send password=geheim twice".to_owned()]),
            ..raw(Some("h"), "10.0.0.6:1")
        },
        RawServer {
            weight: Some(0),
            options: Some(vec!["maxconn 5".to_owned()]),
            ..raw(Some("g"), "10.0.0.5:1")
        },
    ];
    let (servers, rejected, rejections) = listed(&rows, Repeats::First);
    assert_eq!(servers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a", "g"]);
    let places: Vec<_> = rejected.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(places, ["row 1", "row 2", "row 3", "row 4", "row 5"]);
    assert!(rejected[3].1.contains("resolvers"), "{rejected:?}");
    assert!(rejected[4].1.contains("agent-send password=*** twice"), "{rejected:?}");
    for (reason, count) in [
        (Invalid::ServerName, 1),
        (Invalid::ServerAddress, 1),
        (Invalid::ServerWeight, 1),
        (Invalid::ServerOption, 2),
    ] {
        assert_eq!(rejections.counts[&reason], count, "{reason}");
    }
}

#[test]
fn a_row_that_went_wrong_says_whose_it_is_however_many_did() {
    let mut builder = ServerListBuilder::default();
    let rows = 2 * NAMED_REJECTIONS;
    for row in 0..rows {
        let (weight, named) = (Some(300), row % 2 == 0);
        let name = format!("s{row:04}");
        let address = format!("host{row:04}.example:80");
        let row = raw(named.then_some(name.as_str()), &address);
        builder.push("row", RawServer { weight, ..row });
    }
    builder.push("row", raw(Some("a b"), "10.0.0.1:1"));
    builder.push("row", raw(None, "nowhere"));
    let (list, rejections) = builder.finish(Repeats::LowestAddress);
    assert_eq!(list.rejected.len(), NAMED_REJECTIONS);
    assert_eq!((list.rejected_count, rejections.total()), (rows as u64 + 2, rows as u64 + 2));
    assert_eq!(list.unknown.len(), rows);
    for name in ["s0000", "host0001.example:80", "s1998", "host1999.example:80"] {
        assert!(list.unknown.contains(name), "{name}");
    }
}

#[test]
fn of_two_servers_of_one_name_a_written_list_keeps_the_first_and_a_registrys_the_lowest() {
    let mut rows = [raw(Some("a"), "10.0.0.2:1"), raw(Some("a"), "10.0.0.1:1")];
    let at = |rows: &[RawServer], repeats| listed(rows, repeats).0[0].1.clone();
    assert_eq!(at(&rows, Repeats::First), "10.0.0.2:1");
    assert_eq!(at(&rows, Repeats::LowestAddress), "10.0.0.1:1");
    let (_, rejected, rejections) = listed(&rows, Repeats::LowestAddress);
    assert!(rejected[0].0 == "row 0" && rejected[0].1.contains("10.0.0.1:1"), "{rejected:?}");
    assert_eq!(rejections.counts[&Invalid::ServerTwice], 1);
    rows.reverse();
    assert_eq!(at(&rows, Repeats::LowestAddress), "10.0.0.1:1");
}

proptest! {
    #[test]
    fn whatever_the_rows_hold_the_list_is_valid(
        rows in proptest::collection::vec((".{0,12}", ".{0,20}", any::<Option<i64>>()), 0..8),
    ) {
        let mut builder = ServerListBuilder::default();
        for (name, address, port) in &rows {
            builder.push(name, RawServer { port: *port, ..raw(Some(name), address) });
            builder.push(name, RawServer { port: *port, ..raw(None, address) });
        }
        let (list, rejections) = builder.finish(Repeats::LowestAddress);
        prop_assert!(
            list.servers.iter().all(|server| is_valid_name(&server.name) && server.port > 0)
        );
        prop_assert!(list.servers.is_sorted_by(|a, b| a.name < b.name));
        prop_assert_eq!(list.servers.len() as u64 + rejections.total(), rows.len() as u64 * 2);
    }
}
