//! The options of servers that follow from what is said of their backend.
//!
//! A server that is added at runtime takes nothing from a `default-server` line, so these stand on
//! each server.

use std::time::Duration;

use mapsmith_core::config::HttpReuse;
use mapsmith_core::config::values::time;
use mapsmith_core::desired::servers::names_its_master;
use mapsmith_core::server::{ServerOptions, is_valid_name};

use super::Backend;
use super::rendered::{Check, Tls};

/// The longest time that HAProxy can count.
const MAX_TIME: Duration = Duration::from_millis(i32::MAX as u64);

impl Backend {
    /// The options of servers that bring none, with their placeholders.
    pub fn all_options(&self) -> Vec<String> {
        let mut options = self.options.clone();
        options.extend(ServerOptions::missing(&self.options, &self.usual_options()));
        options
    }

    /// What each server has unless its own options say otherwise.
    pub fn usual_options(&self) -> Vec<String> {
        let mut options: Vec<String> = self.check.iter().flat_map(Check::options).collect();
        if let Some(tls) = &self.tls {
            options.extend(tls.options());
            let checks = |option: &String| option == "check";
            if options.iter().chain(&self.options).any(checks) {
                options.push("check-ssl".to_owned());
            }
        }
        if self.send_proxy == Some(true) {
            options.push("send-proxy-v2".to_owned());
        }
        options.extend(self.maxconn.map(|most| format!("maxconn {most}")));
        options
    }
}

impl Check {
    fn options(&self) -> Vec<String> {
        let number = |key: &str, number: Option<u16>| Some(format!("{key} {}", number?));
        let interval = self.interval.map(|interval| format!("inter {}", time(interval)));
        let given = [
            Some("check".to_owned()),
            interval,
            number("rise", self.rise),
            number("fall", self.fall),
            number("port", self.port),
        ];
        given.into_iter().flatten().collect()
    }
}

impl Tls {
    fn options(&self) -> Vec<String> {
        let mut options = vec!["ssl".to_owned()];
        let is_verified = self.verify.unwrap_or(true);
        options.push(format!("verify {}", if is_verified { "required" } else { "none" }));
        let files = [("ca-file", &self.ca), ("crl-file", &self.crl), ("crt", &self.cert)];
        options.extend(
            files
                .into_iter()
                .filter_map(|(option, file)| file.as_ref().map(|file| format!("{option} {file}"))),
        );
        if let Some(name) = self.sni.as_ref().or(self.verify_host.as_ref()) {
            options.extend([format!("sni str({name})"), format!("check-sni {name}")]);
        }
        if let Some(name) = self.verify_host.as_ref().or(self.sni.as_ref()).filter(|_| is_verified)
        {
            options.push(format!("verifyhost {name}"));
        }
        options
    }

    pub(super) fn problems(&self, has_masters: bool, mut problem: impl FnMut(String)) {
        if self.verify.unwrap_or(true) {
            if self.ca.is_none() {
                problem("tls: give ca, or verify = false to accept any certificate".to_owned());
            }
            if self.verify_host.is_none() && self.sni.is_none() {
                problem(
                    "tls: give verify_host, or verify = false to accept any certificate".to_owned(),
                );
            }
        }
        for (key, name) in [("verify_host", &self.verify_host), ("sni", &self.sni)] {
            let Some(name) = name else { continue };
            let filled = ["{server}", "{producer}", "{master}"]
                .iter()
                .fold(name.clone(), |name, placeholder| name.replace(placeholder, "x"));
            if !is_valid_name(&filled) {
                problem(format!("tls.{key}: {name:?} is not a host name"));
            }
            if names_its_master(name) && !has_masters {
                problem(format!("tls.{key}: {{producer}} and {{master}} need `masters`"));
            }
        }
    }
}

impl Backend {
    pub(super) fn option_problems(&self, mut problem: impl FnMut(String)) {
        if let Some(check) = &self.check {
            check.problems(&mut problem);
            if check.interval.is_some_and(|interval| interval.is_zero() || interval > MAX_TIME) {
                problem("check.interval: must be more than 0 and at most 24 days".to_owned());
            }
        }
        if let Some(tls) = &self.tls {
            tls.problems(self.masters.is_some(), &mut problem);
        }
        let shares = matches!(self.http_reuse, Some(HttpReuse::Aggressive | HttpReuse::Always));
        if self.send_proxy == Some(true) && shares {
            problem(
                "http_reuse: with send_proxy a connection belongs to one client: never or safe"
                    .to_owned(),
            );
        }
        if self.maxconn.is_some_and(|most| i32::try_from(most).is_err()) {
            problem("maxconn: is too large".to_owned());
        }
    }
}
