//! One service designation each.

use super::super::piece;
use super::*;

/// Type, listen port, name, port, then the health check's path, port, rise and fall.
type Fields<'a> =
    (&'a str, u16, &'a str, Option<u16>, Option<&'a str>, Option<u16>, Option<u16>, Option<u16>);

fn fields(service: &Service) -> Fields<'_> {
    (
        service.service_type.as_str(),
        service.listen_port.get(),
        service.backend_name.as_str(),
        service.backend_port.map(Port::get),
        service.check_path.as_ref().map(CheckPath::as_str),
        service.check_port.map(Port::get),
        service.rise.map(Into::into),
        service.fall.map(Into::into),
    )
}

/// What is wrong with a piece, and the column.
fn refusal(piece: &str) -> (usize, String) {
    let fault = piece::parse(piece).expect_err(piece);
    (piece[..fault.at].chars().count() + 1, fault.error.to_string())
}

const SERVICES: [(&str, Fields<'static>); 23] = [
    (
        "http://80:web.example.com:8080",
        ("http", 80, "web.example.com", Some(8080), None, None, None, None),
    ),
    (
        "https+insecure://443:backend.example.com:8443",
        ("https+insecure", 443, "backend.example.com", Some(8443), None, None, None, None),
    ),
    (
        "https-http://443:api.example.com:8443",
        ("https-http", 443, "api.example.com", Some(8443), None, None, None, None),
    ),
    (
        "tcp-proxy-v2://3306:db.backend.com:3306",
        ("tcp-proxy-v2", 3306, "db.backend.com", Some(3306), None, None, None, None),
    ),
    (
        "tcp://636:my-backend.svc.my-login.us-west-1.cns.example.com",
        (
            "tcp",
            636,
            "my-backend.svc.my-login.us-west-1.cns.example.com",
            None,
            None,
            None,
            None,
            None,
        ),
    ),
    (
        "tcp://3306:db.example.com:3306{check:/ping,port:9000,rise:2,fall:3}",
        ("tcp", 3306, "db.example.com", Some(3306), Some("/ping"), Some(9000), Some(2), Some(3)),
    ),
    (
        "TcP://22:ssh.service.com:2222",
        ("tcp", 22, "ssh.service.com", Some(2222), None, None, None, None),
    ),
    (
        "HttP://80:web.service.com:8080",
        ("http", 80, "web.service.com", Some(8080), None, None, None, None),
    ),
    ("HTTPS-HTTP://443:a.b:1", ("https-http", 443, "a.b", Some(1), None, None, None, None)),
    ("TCP-Proxy-V2://1:a.b:1", ("tcp-proxy-v2", 1, "a.b", Some(1), None, None, None, None)),
    (
        "tCp://25:MaIl.svc.6d9cb2ba-039c-46f4-94dc-a9fcc34ebb52.us-1.cns.mnx.io",
        (
            "tcp",
            25,
            "MaIl.svc.6d9cb2ba-039c-46f4-94dc-a9fcc34ebb52.us-1.cns.mnx.io",
            None,
            None,
            None,
            None,
            None,
        ),
    ),
    ("http://80:10.0.0.1:8080", ("http", 80, "10.0.0.1", Some(8080), None, None, None, None)),
    (
        "http://80:under_score.example.com:80",
        ("http", 80, "under_score.example.com", Some(80), None, None, None, None),
    ),
    (
        "http://80:_http._tcp.web.example.com",
        ("http", 80, "_http._tcp.web.example.com", None, None, None, None, None),
    ),
    ("http://80:a.b:80{port:65534}", ("http", 80, "a.b", Some(80), None, Some(65534), None, None)),
    ("http://80:a.b:80{rise:2}", ("http", 80, "a.b", Some(80), None, None, Some(2), None)),
    ("http://80:a.b:80{fall:1}", ("http", 80, "a.b", Some(80), None, None, None, Some(1))),
    (
        "http://80:a.b:80{check:/a?x=1&y=2}",
        ("http", 80, "a.b", Some(80), Some("/a?x=1&y=2"), None, None, None),
    ),
    ("http://80:a.b{check:/a}", ("http", 80, "a.b", None, Some("/a"), None, None, None)),
    (
        "https-http://443:web.svc.ACCOUNT.DC.cns.PROVIDER.zone:8080{check:/healthz,rise:3,fall:2}",
        (
            "https-http",
            443,
            "web.svc.ACCOUNT.DC.cns.PROVIDER.zone",
            Some(8080),
            Some("/healthz"),
            None,
            Some(3),
            Some(2),
        ),
    ),
    (
        "http://80:app.example.com:8080{check:/health,port:8081,rise:5,fall:2}",
        ("http", 80, "app.example.com", Some(8080), Some("/health"), Some(8081), Some(5), Some(2)),
    ),
    // White space around keys and values, and keys in any order.
    (
        "https://443:a.b.{ fall : 3 ,\n rise: 2 }",
        ("https", 443, "a.b.", None, None, None, Some(2), Some(3)),
    ),
    (
        "tcp://1:a.b:65534{check:/%7Ea}",
        ("tcp", 1, "a.b", Some(65534), Some("/%7Ea"), None, None, None),
    ),
];

#[test]
fn a_designation_is_the_service_that_moirai_read() {
    for (text, expected) in SERVICES {
        let (service, at) = piece::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
        assert_eq!(fields(&service), expected, "{text}");
        assert!(text[at..].starts_with(&service.listen_port.to_string()), "{text}: {at}");
    }
}

/// A piece, the column at which it is wrong, and what is said in small letters.
const REFUSED: [(&str, usize, &str); 58] = [
    ("httpss://443:a.b:443", 1, "unsupported protocol: httpss"),
    ("udp://53:a.b:53", 1, "unsupported protocol: udp"),
    ("://80:a.b:80", 1, "unsupported protocol: "),
    ("http:/80:a.b:80", 1, "missing '://'"),
    ("http//80:a.b:80", 1, "missing '://'"),
    ("80:a.b:80", 1, "missing '://'"),
    ("", 1, "missing '://'"),
    ("http://80", 8, "expecting at least <listen port>:<backend name>"),
    ("http://65535:a.b:80", 8, "listen port out of valid range (1-65534): 65535"),
    ("http://99999:a.b", 8, "invalid listen port: 99999"),
    ("http://+80:a.b:+8080", 8, "invalid listen port: +80"),
    ("http://080:a.b:080", 8, "invalid listen port: 080"),
    ("http://8 0:a.b:80", 8, "invalid listen port: 8 0"),
    ("http://80:a.b:65535", 15, "backend port out of valid range (1-65534): 65535"),
    ("http://80:a.b:65536", 15, "invalid backend port: 65536"),
    ("http://80:a.b:", 15, "invalid backend port: "),
    ("http://80:a.b:abc", 15, "invalid backend port: abc"),
    ("http://80:a.b:8080:9090", 15, "invalid backend port: 8080:9090"),
    ("http://80:[2001:db8::1]:8080", 11, "an ipv6 address"),
    ("http://80:a.b./path:80", 15, "invalid character '/' in the backend name"),
    ("http://80:a.b:80{check}", 18, "invalid health check parameter format: check"),
    ("http://80:a.b:80{check:}", 24, "health check endpoint cannot be empty"),
    ("http://80:a.b:80{check: }", 25, "health check endpoint cannot be empty"),
    ("http://80:a.b:80{check:/a,}", 27, "invalid health check parameter format: "),
    ("http://80:a.b:80{,check:/a}", 18, "invalid health check parameter format: "),
    (
        "http://80:a.b:80{check:/health,unknown:value}",
        32,
        "unknown health check parameter: unknown",
    ),
    ("http://80:a.b:80{port:65535}", 23, "health check port out of valid range (1-65534): 65535"),
    ("http://80:a.b:80{port:abc}", 23, "invalid health check port: abc"),
    ("http://80:a.b:80{rise:0}", 23, "invalid rise value: 0"),
    ("http://80:a.b:80{rise:-1}", 23, "invalid rise value: -1"),
    ("http://80:a.b:80{rise:abc}", 23, "invalid rise value: abc"),
    ("http://80:a.b:80{check:/a,check:/b}", 27, "parameter check is given twice"),
    ("http://80:a.b:80{rise:1,rise:9}", 25, "parameter rise is given twice"),
    ("http://80:a.b:80{check:/a", 17, "unclosed brace"),
    ("http://80:a.b:80{{check:/a}}", 18, "a brace within braces"),
    ("http://80:a.b:80{check:/a}junk", 27, "text after the closing brace: junk"),
    ("http://80{check:/a}", 8, "expecting at least <listen port>:<backend name>"),
    ("http://80:a.b:80}", 15, "invalid backend port: 80}"),
    ("http://80:", 11, "empty backend name"),
    ("http://80::80", 11, "empty backend name"),
    ("http://80:8080", 11, "its last part is a number"),
    ("http://80:1.2.3.256:80", 11, "its last part is a number"),
    ("http://80:a..b:80", 11, "1 to 63 characters between dots"),
    ("http://80:.a:80", 11, "1 to 63 characters"),
    ("http://80:10.0.0.1", 11, "an address has no srv records: write its port, like 10.0.0.1:8080"),
    ("http://80:bücher.test:80", 12, "invalid character 'ü'"),
    ("http://80:a\u{a0}b:80", 12, "invalid character"),
    ("http://80:a\nglobal:80", 12, "invalid character '\\n'"),
    ("http://80:a.b:80{}", 18, "invalid health check parameter format: ;"),
    ("http://80:a.b:80{Check:/a}", 18, "unknown health check parameter: check"),
    ("http://80:a.b:80{check:healthz}", 24, "a path begins with '/'"),
    ("http://80:a.b:80{check:/a b}", 26, "invalid character ' '"),
    ("http://80:a.b:80{check:/${HOME}}", 26, "a brace within braces"),
    ("http://80:a.b:80{check:/$HOME}", 25, "invalid character '$'"),
    ("http://80:a.b:80{check:/%zz}", 25, "invalid character '%'"),
    ("http://80:a.b:80{check:/'}", 25, "invalid character '\\''"),
    ("http://80:a.b:80{check:/a\nserver x}", 26, "invalid character '\\n'"),
    ("http://80:a.b:80{fall:65536}", 23, "invalid fall value: 65536"),
];

#[test]
fn what_moirai_refuses_is_refused_with_its_column_and_what_to_write() {
    for (text, column, words) in REFUSED {
        let (at, error) = refusal(text);
        assert!(error.to_lowercase().contains(words), "{text}: {error}");
        assert_eq!(at, column, "{text}: {error}");
    }
}
