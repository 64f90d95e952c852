//! The options that HAProxy takes for a server added at runtime, by version.

use std::collections::BTreeMap;

use haproxy_runtime::Refusal;
use mapsmith_core::server::ServerOptions;

use super::{DYNAMIC, NOBODY, add, every_version};
use crate::support::haproxy::{Gateway, installed};

/// Every option that Mapsmith passes on, with arguments that make sense, but for those that need
/// files: `ca-file`, `crl-file`.
const OPTIONS: &str = "\
    addr 127.0.0.1|agent-addr 127.0.0.1|agent-inter 2s|agent-port 9|agent-send hello|allow-0rtt|\
    alpn h2|check|check-alpn h2|check-pool-conn-name x|check-proto h2|check-reuse-pool|\
    check-send-proxy|check-sni example.test|check-via-socks4|ciphers ALL|\
    ciphersuites TLS_AES_128_GCM_SHA256|client-sigalgs RSA+SHA256|cookie x|crt /nowhere|\
    curves X25519|downinter 2s|error-limit 3|fall 3|fastinter 1s|force-tlsv10|force-tlsv11|\
    force-tlsv12|force-tlsv13|guid abc|hash-key addr|id 77|idle-ping 1s|init-state up|inter 2s|\
    maxconn 10|maxqueue 5|minconn 3|no-check-sni-auto|no-renegotiate|no-send-proxy|\
    no-send-proxy-v2|no-sni-auto|no-ssl-reuse|no-tfo|no-tls-tickets|no-tlsv10|no-tlsv11|\
    no-tlsv12|no-tlsv13|observe layer4|on-error fastinter|on-marked-down shutdown-sessions|\
    on-marked-up shutdown-backup-sessions|pool-conn-name str(x)|pool-low-conn 2|\
    pool-max-conn 100|pool-purge-delay 5s|port 99|proto h2|proxy-v2-options ssl|renegotiate|\
    rise 2|send-proxy|send-proxy-v2|send-proxy-v2-ssl|send-proxy-v2-ssl-cn|sigalgs RSA+SHA256|\
    slowstart 5s|sni str(x)|source 127.0.0.1|source 0.0.0.0 usesrc clientip|ssl-max-ver TLSv1.3|\
    ssl-min-ver TLSv1.2|strict-maxconn|tfo|tls-tickets|track c/s1|verify none|verifyhost x|ws h1|\
    healthcheck h";

#[test]
fn haproxy_takes_the_options_that_mapsmith_passes_on_from_the_version_it_says() {
    let sections =
        "backend b\n    balance roundrobin\nbackend c\n    server s1 127.0.0.1:1 check inter 1h\n";
    for binary in installed() {
        println!("HAProxy {:?}", binary.version);
        let health =
            if binary.version >= (3, 4) { "healthcheck h\n    type httpchk\n" } else { "" };
        let gateway = Gateway::plan(binary).more(sections).more(health).start();
        let mut wrong = BTreeMap::new();
        for (number, option) in OPTIONS.split('|').enumerate() {
            let parsed = ServerOptions::parse(&[option.to_owned()])
                .unwrap_or_else(|error| panic!("{error}"));
            let reply = gateway.command(&format!("add server b/n{number} {NOBODY} {option}"));
            let taken = reply == "New server registered.\n\n";
            if taken != (binary.version >= parsed.oldest_version().0) {
                wrong.insert(option, reply);
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        let both = gateway.command(&format!(
            "add server b/tls {NOBODY} ssl verify none check check-ssl agent-check agent-port 5"
        ));
        assert_eq!(both, "New server registered.\n\n");
    }
}

#[test]
fn haproxy_refuses_at_runtime_what_mapsmith_refuses() {
    every_version(DYNAMIC, |scene| {
        for option in [
            "init-addr none",
            "log-proto octet-count",
            "max-reuse 5",
            "namespace x",
            "no-agent-check",
            "no-check",
            "no-ssl",
            "non-stick",
            "redir http://x",
            "resolve-net 10.0.0.0/8",
            "resolve-opts allow-dup-ip",
            "resolve-prefer ipv4",
            "resolvers x",
            "socks4 127.0.0.1:1",
            "ssl-reuse",
            "stick",
            "tcp-ut 5s",
        ] {
            assert!(ServerOptions::parse(&[option.to_owned()]).is_err(), "{option}");
            let reply = scene.gateway.command(&format!("add server b/n1 {NOBODY} {option}"));
            assert!(
                reply.contains("option is not accepted for dynamic server"),
                "{option}: {reply}"
            );
        }
        // One that Mapsmith passes on and 2.6 does not take is told apart from other refusals.
        let cookie = scene.one(add("b", "n1", &["cookie x"]));
        assert!(if scene.version() >= (3, 0) {
            cookie.is_ok()
        } else {
            matches!(cookie, Err(Refusal::OptionNotTaken { .. }))
        });
    });
}
