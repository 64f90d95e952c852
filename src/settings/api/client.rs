//! `[[api.client]]`: who is known by a certificate, and what they may do.

use mapsmith_core::access::{Grant, Role};
use serde::Deserialize;

use super::super::keys::section;
use super::{ApiTls, ClientAuth};

section! {
    /// A client that is known by its certificate (`api.tls.client_auth`). A token that it sends
    /// counts instead.
    #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct ApiClient {
        /// A subject alternative name of the certificate, exactly: a DNS name, an e-mail address or
        /// a URI. For Puppet the certname.
        #[unset(required)]
        pub san: String,
        /// What it may do: `viewer`, `operator`, `admin`, or `none` for its grants alone.
        #[unset(required)]
        pub role: Role,
        /// What it may do beside: `node:MASTER`, `register:PREFIX`, `commands`,
        /// `commands:NAME`.
        #[unset(says "none")]
        #[serde(default)]
        pub grants: Vec<Grant>,
    }
}

pub(super) fn problems(clients: &[ApiClient], tls: Option<&ApiTls>, problems: &mut Vec<String>) {
    if !clients.is_empty() && tls.is_none_or(|tls| tls.client_auth == ClientAuth::Off) {
        problems.push(
            "api.client: nobody is asked for a certificate; set api.tls.client_auth to request or \
                require"
                .to_owned(),
        );
    }
    for (index, client) in clients.iter().enumerate() {
        let place = format!("api.client[{index}]");
        if client.san.is_empty() || client.san.chars().any(|it| it.is_control() || it == ' ') {
            problems.push(format!("{place}.san: {:?} is not a name", client.san));
        }
        if client.san.contains('*') {
            problems.push(format!(
                "{place}.san: {:?}: there are no wildcards; name each client",
                client.san
            ));
        }
        let is_same = |other: &ApiClient| other.san.eq_ignore_ascii_case(&client.san);
        if clients[..index].iter().any(is_same) {
            problems.push(format!("{place}.san: there are two of {}", client.san));
        }
        if client.role == Role::None && client.grants.is_empty() {
            problems.push(format!("{place}.role: with none and without grants it may do nothing"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{SMALL, load};
    use super::*;

    const TLS: &str = "[api.tls]\ncert = \"c.pem\"\nkey = \"k.pem\"\n";
    const REQUIRE: &str = "client_ca = \"ca.pem\"\nclient_auth = \"require\"\n";
    const CLIENT: &str = "[[api.client]]\nsan = \"ops1.example.test\"\nrole = \"operator\"\n";

    #[test]
    fn clients_are_known_by_their_certificates() {
        let text = format!("[api]\nlisten = \"0.0.0.0:1\"\n{TLS}{REQUIRE}{CLIENT}{SMALL}");
        let api = load(&text, &[]).unwrap().api;
        assert_eq!((api.clients[0].role, api.is_open_locally()), (Role::Operator, false));
        let tls = api.tls.unwrap();
        assert!(tls.cert.is_absolute() && tls.client_ca.unwrap().is_absolute());
        assert!(load(&format!("{TLS}{SMALL}"), &[]).unwrap().api.is_open_locally());
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_key() {
        for (text, part) in [
            ("[api]\nlisten = \"0.0.0.0:1\"\n".to_owned() + TLS, "set api.token_file"),
            (TLS.to_owned() + CLIENT, "api.client: nobody is asked for a certificate"),
            (CLIENT.to_owned(), "api.client: nobody is asked for a certificate"),
            (format!("{TLS}{REQUIRE}{CLIENT}{CLIENT}"), "api.client[1].san: there are two"),
            (
                format!("{TLS}{REQUIRE}{}", CLIENT.replace("ops1", "*")),
                "api.client[0].san: \"*.example.test\": there are no wildcards",
            ),
            (
                format!("{TLS}{REQUIRE}{}", CLIENT.replace("operator", "none")),
                "api.client[0].role: with none",
            ),
            (format!("{TLS}{REQUIRE}{}", CLIENT.replace("operator", "root")), "root"),
            (format!("{TLS}{REQUIRE}{CLIENT}grants = [\"node\"]\n"), "is not a grant"),
            (format!("{TLS}client_auth = \"request\"\n"), "set api.tls.client_ca"),
            (format!("{TLS}client_crl = \"crl.pem\"\n"), "set api.tls.client_auth"),
            (format!("{TLS}handshake_timeout = \"2m\"\n"), "from 100ms to 60s"),
            ("[api.tls]\ncert = \"c.pem\"\n".to_owned(), "key"),
        ] {
            let message = load(&format!("{text}{SMALL}"), &[]).unwrap_err();
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
}
