//! What stands beside the portmap in metadata, as settings. A value that is wrong keeps its last
//! good one.

use mapsmith_core::config::values::BindAddress;
use mapsmith_core::config::{self, Native, Process};
use mapsmith_core::portmap::Port;
use mapsmith_core::portmap::metadata::{
    CertificateNames, KEYS, MetricsAcl, Reading, Syslog, Timeouts, max_servers, metrics_port,
};
use mapsmith_core::services::RejectedService;
use mapsmith_core::{ServiceForms, ServiceTexts};

use super::overlay::rejection;
use crate::settings::Haproxy;
use crate::settings::haproxy::Metrics;

/// What has HAProxy's log say which machine it is of.
const SEND_HOSTNAME: &str = "log-send-hostname";

/// The names of the certificate.
const CERTIFICATE: &str = "certificate_name";

/// What the values say.
#[derive(Debug, Clone)]
pub(super) struct Values {
    /// The most servers of a service.
    pub max_servers: u16,
    pub certificate: CertificateNames,
    acl: MetricsAcl,
    pub metrics_port: Port,
    syslog: Option<Syslog>,
    timeouts: Option<Timeouts>,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            max_servers: max_servers("").value,
            certificate: CertificateNames::default(),
            acl: MetricsAcl::default(),
            metrics_port: Port::METRICS,
            syslog: None,
            timeouts: None,
        }
    }
}

impl Values {
    /// Whether this is the key of a value.
    pub(super) fn has(key: &str) -> bool {
        KEYS.contains(&key)
    }

    /// The values in force: each in its newest form that can be used, or else the last good one.
    /// Their forms, and what is wrong.
    pub(super) fn choose(
        texts: &ServiceTexts,
        good: &ServiceForms,
    ) -> (Self, ServiceForms, Vec<RejectedService>) {
        let (mut values, mut forms, mut rejected) =
            (Self::default(), ServiceForms::new(), Vec::new());
        for (key, text) in texts.texts.iter().filter(|(key, _)| Self::has(key)) {
            let taken = match text {
                Ok(text) => values.take(key, text).map(|remarks| (text, remarks)),
                Err(why) => Err(why.clone()),
            };
            match taken {
                Ok((text, remarks)) => {
                    forms.insert(key.clone(), text.clone());
                    rejected.extend(remarks.into_iter().map(|why| rejection(key, why)));
                }
                Err(why) => {
                    let known = good.get(key).filter(|known| values.take(key, known).is_ok());
                    forms.extend(known.map(|known| (key.clone(), known.clone())));
                    let keeps_last_good = known.is_some();
                    rejected.push(RejectedService { keeps_last_good, ..rejection(key, why) });
                }
            }
        }
        // One that is gone is no order: browsers would be shown what nobody trusts.
        if let Some(known) =
            good.get(CERTIFICATE).filter(|_| !texts.texts.contains_key(CERTIFICATE))
            && values.take(CERTIFICATE, known).is_ok()
        {
            forms.insert(CERTIFICATE.to_owned(), known.clone());
        }
        (values, forms, rejected)
    }

    /// Takes a key's text. What is wrong with it where it counts all the same, as far as it is
    /// right.
    ///
    /// # Errors
    /// What is wrong with a text that does not count.
    pub(super) fn take(&mut self, key: &str, text: &str) -> Result<Vec<String>, String> {
        match key {
            "max_rs" => {
                let reading = max_servers(text);
                if let (Some(problem), true) = (&reading.problem, is_number(text)) {
                    self.max_servers = reading.value;
                    return Ok(vec![problem.clone()]);
                }
                self.max_servers = good(reading)?;
            }
            "metrics_port" => self.metrics_port = good(metrics_port(text))?,
            "syslog" => self.syslog = good(Syslog::parse(text))?,
            "timeouts" => {
                let timeouts = Timeouts::parse(text).map_err(|error| error.to_string())?;
                self.timeouts = (!text.trim().is_empty()).then_some(timeouts);
            }
            "metrics_acl" => {
                let acl = MetricsAcl::parse(text);
                let problems = some_good(acl.networks.is_empty(), &acl.problems)?;
                self.acl = acl;
                return Ok(problems);
            }
            CERTIFICATE => {
                let names = CertificateNames::parse(text);
                let problems = some_good(names.names.is_empty(), &names.problems)?;
                self.certificate = names;
                return Ok(problems);
            }
            _ => {}
        }
        Ok(Vec::new())
    }

    /// Whether somebody may read HAProxy's metrics.
    pub(super) fn has_metrics(&self) -> bool {
        !self.acl.networks.is_empty()
    }

    /// Puts them over HAProxy's settings, but for the metrics.
    pub(super) fn apply(&self, haproxy: &mut Haproxy) {
        if let Some(timeouts) = &self.timeouts {
            let mut all = haproxy.model().timeouts;
            timeouts.apply(&mut all);
            let config::Timeouts { queue, connect, client, server, .. } = all;
            let own = &mut haproxy.timeouts;
            (own.queue, own.connect, own.client, own.server) = (queue, connect, client, server);
        }
        let Some(syslog) = &self.syslog else { return };
        let mut process = Process::default();
        process.log_to_syslog(Some(syslog));
        let mut log = haproxy.model().log;
        log.extend(process.log.pop());
        haproxy.log = Some(log);
        let sends =
            |line: &Native| line.as_str().split_ascii_whitespace().next() == Some(SEND_HOSTNAME);
        if !haproxy.global.iter().any(sends) {
            haproxy.global.extend(process.global);
        }
    }

    /// HAProxy's metrics at this address.
    pub(super) fn metrics(&self, bind: BindAddress) -> Option<Metrics> {
        let config::Metrics { bind, allow } = self.acl.metrics(bind)?;
        Some(Metrics { bind, allow })
    }
}

/// A value without a problem.
///
/// # Errors
/// The problem, without what would count instead: the last good value does, where there is one.
fn good<T>(reading: Reading<T>) -> Result<T, String> {
    match reading.problem {
        None => Ok(reading.value),
        Some(problem) => {
            let what = problem.rsplit_once("; ").map_or(&*problem, |(what, _)| what);
            Err(format!("{what}; correct it"))
        }
    }
}

/// Whether it is out of bounds at most.
fn is_number(text: &str) -> bool {
    let digits = text.trim().trim_start_matches('-');
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// A list of which something is left, or that was empty from the start.
fn some_good(is_empty: bool, problems: &[String]) -> Result<Vec<String>, String> {
    match problems.first() {
        Some(first) if is_empty => Err(first.clone()),
        _ => Ok(problems.to_vec()),
    }
}
