//! Whole portmaps.

use super::*;

fn services(portmap: &Portmap) -> Vec<String> {
    portmap.services.iter().map(ToString::to_string).collect()
}

fn rejected(portmap: &Portmap) -> Vec<(&str, usize)> {
    portmap.rejected.iter().map(|piece| (piece.string.as_str(), piece.column)).collect()
}

const CNS: &str = "service_name.svc.account_uuid.datacenter.cns.domain.zone:23456";

#[test]
fn good_services_survive_bad_ones_in_their_order() {
    let first = format!("tcp://12345:{CNS}");
    let web = "web.svc.ACCT.DC.cns.PROVIDER.zone:8080";
    type Case<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, usize)]);
    let cases: [Case<'_>; 16] = [
        (
            &format!("{first},invalid://443:something,tcp://99999:invalid_port"),
            &[&first],
            &[("invalid://443:something", 76), ("tcp://99999:invalid_port", 106)],
        ),
        ("tcp://0:too_small_port:12345", &[], &[("tcp://0:too_small_port:12345", 7)]),
        (
            "TcP://22:ssh.service.com:2222,HttP://80:web.service.com:8080,\
                hTTps://443:secure.service.com:8443",
            &[
                "tcp://22:ssh.service.com:2222",
                "http://80:web.service.com:8080",
                "https://443:secure.service.com:8443",
            ],
            &[],
        ),
        (
            &format!("{first}{{check:/healthz,port:32150,rise:30,fall:1}}"),
            &[&format!("{first}{{check:/healthz,port:32150,rise:30,fall:1}}")],
            &[],
        ),
        (
            "http://80:web.example.com:8080{check:/status,port:8081}, tcp://3306:db.example.com",
            &[
                "http://80:web.example.com:8080{check:/status,port:8081}",
                "tcp://3306:db.example.com",
            ],
            &[],
        ),
        ("   ", &[], &[]),
        (",, ,", &[], &[]),
        ("http://80:a.b:80 tcp://81:c.d:81", &["http://80:a.b:80", "tcp://81:c.d:81"], &[]),
        ("http://80:a.b:80\ntcp://81:c.d:81", &["http://80:a.b:80", "tcp://81:c.d:81"], &[]),
        ("http://80:a.b:80\r\ntcp://81:c.d:81\r\n", &["http://80:a.b:80", "tcp://81:c.d:81"], &[]),
        ("http://80:a.b:80|tcp://81:c.d:81", &[], &[("http://80:a.b:80|tcp://81:c.d:81", 15)]),
        ("  http://80:a.b:80 ,  tcp://81:c.d:81  ,", &["http://80:a.b:80", "tcp://81:c.d:81"], &[]),
        (
            "http://80:a.b:80{check:/x, rise:2},tcp://81:c.d:81",
            &["http://80:a.b:80{check:/x,rise:2}", "tcp://81:c.d:81"],
            &[],
        ),
        // Nobody can tell where the service was to end.
        (
            "http://80:a.b:80{check:/x,tcp://81:c.d:81",
            &[],
            &[("http://80:a.b:80{check:/x,tcp://81:c.d:81", 17)],
        ),
        ("http://80:a.b:80 {check:/x}", &["http://80:a.b:80"], &[("{check:/x}", 18)]),
        (
            &format!("https-http://443:{web}{{check:/healthz}},http://80:{web}"),
            &[&format!("https-http://443:{web}{{check:/healthz}}"), &format!("http://80:{web}")],
            &[],
        ),
    ];
    for (text, expected, wrong) in cases {
        let portmap = Portmap::parse(text);
        assert_eq!(services(&portmap), expected, "{text}");
        assert_eq!(rejected(&portmap), wrong, "{text}: {:?}", portmap.rejected);
    }
}

/// HAProxy listens twice without an error, and spreads connections over both.
#[test]
fn of_two_services_on_one_port_the_first_counts() {
    let one = "http://80:a.b:80{check:/x}";
    let portmap = Portmap::parse(&format!("{one},{one},\ttcp://80:c.d:1"));
    assert_eq!(services(&portmap), [one]);
    assert_eq!(rejected(&portmap), [(one, 35), ("tcp://80:c.d:1", 62)]);
    let error = portmap.rejected[1].error.to_string();
    assert_eq!(
        error,
        "port 80 is taken: http://80:a.b:80{check:/x} comes first and listens there; take another \
            port"
    );
    // One that is rejected takes no port.
    let portmap = Portmap::parse("http://80:a.b:0,http://80:a.b:1");
    assert_eq!(services(&portmap), ["http://80:a.b:1"]);
}

#[test]
fn columns_are_characters_of_the_whole_text() {
    let portmap = Portmap::parse("tcp://1:bücher.test:1 bücher://2:a.b \u{a0}tcp://3:a.b:x\u{a0}");
    let expected = [("tcp://1:bücher.test:1", 10), ("bücher://2:a.b", 23), ("tcp://3:a.b:x", 51)];
    assert_eq!(rejected(&portmap), expected, "{:?}", portmap.rejected);
}

#[test]
fn a_portmap_is_printed_with_the_fields_of_its_services_and_what_is_wrong() {
    let portmap = Portmap::parse("http://80:a.b:8080{check:/x,rise:3} tcp://1:a.b{rise:0}");
    let printed = serde_json::to_string(&portmap).unwrap();
    let expected = concat!(
        r#"{"services":[{"type":"http","listen_port":80,"backend_name":"a.b","#,
        r#""backend_port":8080,"check_path":"/x","check_port":null,"rise":3,"fall":null}],"#,
        r#""rejected":[{"string":"tcp://1:a.b{rise:0}","column":54,"error":"#,
        r#""invalid rise value: 0; write a number from 1 to 65535 in plain digits"}]}"#,
    );
    assert_eq!(printed, expected);
}

#[test]
fn a_text_has_bounds_and_what_is_beyond_is_rejected_and_not_silently_lost() {
    let of = |count: usize| -> String {
        (1..=count).map(|port| format!("tcp://{port}:a.b:1 ")).collect()
    };
    let portmap = Portmap::parse(&of(MAX_SERVICES + 5));
    assert_eq!((portmap.services.len(), portmap.rejected.len()), (MAX_SERVICES, 5));
    assert_eq!(portmap.rejected[0].error, PortmapError::TooManyServices);

    let portmap = Portmap::parse(&"x ".repeat(MAX_PIECES + 5));
    assert_eq!((portmap.services.len(), portmap.rejected.len()), (0, MAX_PIECES + 1));
    let last = &portmap.rejected[MAX_PIECES];
    assert_eq!((&last.error, last.column), (&PortmapError::TooManyPieces, 2 * MAX_PIECES + 1));

    let portmap = Portmap::parse(&"x".repeat(MAX_TEXT + 1));
    assert_eq!((portmap.services.len(), portmap.rejected.len()), (0, 1));
    assert_eq!(portmap.rejected[0].error, PortmapError::TooLong);
    let portmap = Portmap::parse(&"x".repeat(MAX_TEXT));
    assert_eq!(portmap.rejected[0].string.len(), MAX_SHOWN);
}
