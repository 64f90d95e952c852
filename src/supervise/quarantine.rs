//! Servers that HAProxy refuses: a registry's fault in one list must not keep everything else from
//! changing. Such a backend keeps its last good servers in the file, and is shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use mapsmith_core::config::status::Quarantined;
use mapsmith_core::desired::config::DesiredConfig;
use mapsmith_core::render::verdict::{Level, Remark};

use super::check::Verdict;

/// The desired configuration with the last good servers of those backends whose new ones HAProxy
/// refuses, and which these are. Where none are known, since Mapsmith has started or has other
/// settings, it is without the refused ones. None where anything else is wrong, or nothing is left.
pub(super) fn substitute(
    desired: &DesiredConfig,
    last_good: Option<&DesiredConfig>,
    verdict: &Verdict,
) -> Option<(Arc<DesiredConfig>, Vec<Quarantined>)> {
    let mut config = desired.config.clone();
    let mut quarantined = Vec::new();
    for (index, refused) in refused_servers(verdict)? {
        let backend = config.backends.get_mut(index)?;
        let mut known = last_good.into_iter().flat_map(|good| &good.config.backends);
        match known.find(|good| good.name == backend.name) {
            Some(good) if good.servers == backend.servers => return None,
            Some(good) => backend.servers.clone_from(&good.servers),
            None => {
                backend.servers.retain(|server| !refused.iter().any(|one| one.0 == server.name));
                if backend.servers.is_empty() {
                    return None;
                }
            }
        }
        let remarks = refused.into_iter().map(|(_, remark)| remark).collect();
        quarantined.push(Quarantined { object: format!("backend {}", backend.name), remarks });
    }
    let instead = DesiredConfig { config, unknown: desired.unknown.clone() };
    (!quarantined.is_empty()).then(|| (Arc::new(instead), quarantined))
}

/// The needs of other backends than these: no reload brings what is not in the file.
pub(super) fn without_quarantined(needs: &[String], quarantined: &[Quarantined]) -> Vec<String> {
    let is_of = |need: &str, one: &Quarantined| {
        let named = one.object.strip_prefix("backend ").and_then(|name| need.strip_prefix(name));
        named.is_some_and(|rest| rest.starts_with(['/', ':']))
    };
    let other = |need: &&String| !quarantined.iter().any(|one| is_of(need, one));
    needs.iter().filter(other).cloned().collect()
}

/// The alerts, each with the server that it is about, by the place of their backend; none where one
/// is about something else.
fn refused_servers(verdict: &Verdict) -> Option<BTreeMap<usize, Vec<(String, Remark)>>> {
    let mut refused: BTreeMap<usize, Vec<_>> = BTreeMap::new();
    for remark in verdict.remarks.iter().filter(|remark| remark.level == Level::Alert) {
        match &remark.setting {
            Some(setting) => {
                let place = setting.strip_prefix("backend[")?;
                let (index, rest) = place.split_once(']')?;
                let name = rest.strip_prefix(".servers ")?.trim_matches('"').to_owned();
                refused.entry(index.parse().ok()?).or_default().push((name, remark.clone()));
            }
            // The last lines only say that there were others.
            None if remark.text.contains("found in configuration") => {}
            None => return None,
        }
    }
    Some(refused)
}

#[cfg(test)]
mod tests {
    use mapsmith_core::config::values::Name;
    use mapsmith_core::config::{Backend, Config, Mode};
    use mapsmith_core::server::{Server, ServerAddress, ServerOptions};

    use super::*;

    fn server(name: &str) -> Server {
        Server {
            name: name.to_owned(),
            address: ServerAddress { ip: [127, 0, 0, 1].into(), port: 80 },
            weight: None,
            backup: false,
            options: ServerOptions::default(),
        }
    }

    /// Each backend with its server.
    fn desired(servers: &[(&str, &str)]) -> DesiredConfig {
        let backend = |(name, only): &(&str, &str)| Backend {
            name: Name::try_from((*name).to_owned()).unwrap(),
            mode: Mode::Http,
            balance: None,
            check: None,
            host: None,
            cookie: None,
            retries: None,
            redispatch: false,
            retry_on: Vec::new(),
            http_reuse: None,
            maxqueue: None,
            queue_timeout: None,
            errors: Vec::new(),
            server_options: Vec::new(),
            servers: vec![server(only)],
            disabled: Default::default(),
            natives: Vec::new(),
        };
        let config =
            Config { backends: servers.iter().map(backend).collect(), ..Config::default() };
        DesiredConfig { config, unknown: Vec::new() }
    }

    fn alert(setting: Option<&str>, text: &str) -> Remark {
        let setting = setting.map(str::to_owned);
        Remark::alert(setting, text.to_owned())
    }

    fn verdict(remarks: Vec<Remark>) -> Verdict {
        Verdict { valid: false, remarks, printed: String::new() }
    }

    fn servers(config: &DesiredConfig) -> Vec<&str> {
        let servers = config.config.backends.iter().flat_map(|backend| &backend.servers);
        servers.map(|server| server.name.as_str()).collect()
    }

    #[test]
    fn a_backend_keeps_its_last_good_servers_and_the_others_get_their_new_ones() {
        let good = desired(&[("a", "a1"), ("b", "b1")]);
        let wanted = desired(&[("a", "a2"), ("b", "b2")]);
        let refusal = verdict(vec![
            alert(Some("backend[1].servers \"b2\""), "unable to stat SSL certificate"),
            alert(None, "Fatal errors found in configuration."),
        ]);
        let (substitute, quarantined) = substitute(&wanted, Some(&good), &refusal).unwrap();
        assert_eq!(servers(&substitute), ["a2", "b1"]);
        assert_eq!(quarantined[0].object, "backend b");
        assert_eq!(quarantined[0].remarks.len(), 1);
    }

    #[test]
    fn a_server_that_is_refused_from_the_start_is_left_out() {
        let mut wanted = desired(&[("a", "a1"), ("b", "b1")]);
        wanted.config.backends[1].servers.push(server("b2"));
        let refusal = verdict(vec![alert(Some("backend[1].servers \"b2\""), "refused")]);
        let (instead, quarantined) = substitute(&wanted, None, &refusal).unwrap();
        assert_eq!(servers(&instead), ["a1", "b1"]);
        assert_eq!(quarantined.len(), 1);
    }

    #[test]
    fn what_a_quarantined_backend_needs_a_reload_for_is_no_reason_for_one() {
        let quarantined = Quarantined { object: "backend b".to_owned(), remarks: Vec::new() };
        let needs = ["b/b2: refused", "b: absent", "bb/b2: refused", "a/a1: refused"];
        let needs = needs.map(str::to_owned);
        assert_eq!(without_quarantined(&needs, &[quarantined]), needs[2..]);
        assert_eq!(without_quarantined(&needs, &[]), needs);
    }

    #[test]
    fn nothing_is_quarantined_where_something_else_is_wrong_or_nothing_good_is_known() {
        let good = desired(&[("a", "a1")]);
        let wanted = desired(&[("a", "a2")]);
        let of_server = || alert(Some("backend[0].servers \"a2\""), "refused");
        for other in [alert(Some("frontend[0]"), "refused"), alert(None, "unable to bind")] {
            let refusal = verdict(vec![of_server(), other]);
            assert!(substitute(&wanted, Some(&good), &refusal).is_none());
        }
        assert!(substitute(&wanted, None, &verdict(vec![of_server()])).is_none());
        assert!(substitute(&good, Some(&good), &verdict(vec![of_server()])).is_none());
    }
}
