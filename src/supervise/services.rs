//! Services that HAProxy refuses: a registry's fault in one of them must not keep everything else
//! from changing. Whoever put them over the settings goes on without what is refused.

use std::collections::{BTreeMap, BTreeSet};

use mapsmith_core::config::status::Quarantined;
use mapsmith_core::config::values::BindAddress;
use mapsmith_core::config::{Config, Frontend};
use mapsmith_core::render::verdict::{Level, Remark};

use super::check::Verdict;
use crate::settings::portmap::{CHALLENGES, METRICS, REDIRECT};

/// The services among these whose lines HAProxy refuses, with its words. None where anything else
/// is wrong, which going on without them would not mend.
pub(super) fn refused(
    config: &Config,
    services: &BTreeSet<String>,
    verdict: &Verdict,
) -> Vec<Quarantined> {
    let mut refused: BTreeMap<&str, Vec<Remark>> = BTreeMap::new();
    let mut of_servers: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for remark in verdict.remarks.iter().filter(|remark| remark.level == Level::Alert) {
        let name = match &remark.setting {
            Some(setting) => owner(config, setting),
            None => named(config, services, &remark.sections),
        };
        let server = remark.setting.as_deref().and_then(server);
        match (name.filter(|name| services.contains(*name)), server) {
            (Some(name), server) => {
                of_servers.entry(name).or_default().extend(server);
                refused.entry(name).or_default().push(remark.clone());
            }
            // Servers of others have a quarantine of their own.
            (None, Some(_)) => {}
            (None, None) => return Vec::new(),
        }
    }
    let is_of_one_server = |name: &str, remarks: &[Remark]| {
        let all = config.backends.iter().find(|backend| backend.name.as_str() == name);
        let servers = all.map_or(0, |backend| backend.servers.len());
        let only_servers =
            remarks.iter().all(|remark| remark.setting.as_deref().and_then(server).is_some());
        only_servers && of_servers.get(name).is_some_and(|refused| refused.len() < servers)
    };
    refused.retain(|name, remarks| !is_of_one_server(name, remarks));
    let quarantined = |(name, remarks): (&str, _)| Quarantined { object: object(name), remarks };
    refused.into_iter().map(quarantined).map(in_service_words).collect()
}

/// What HAProxy says of a service, with the keys of the service in place of the settings that were
/// made of them.
pub(super) fn in_service_words(Quarantined { object, remarks }: Quarantined) -> Quarantined {
    let of_portmap = object.strip_prefix("service be").is_some_and(is_number)
        || name_of(&object).is_some_and(|name| {
            [REDIRECT, CHALLENGES].contains(&name) || name.starts_with("haproxy.")
        });
    let in_its_words = |remark| match of_portmap {
        true => Remark { line: None, setting: None, ..remark },
        false => in_its_words(remark),
    };
    Quarantined { object, remarks: remarks.into_iter().map(in_its_words).collect() }
}

/// Of a portmap's backend what stands behind `be`: its port, or its place.
fn is_number(rest: &str) -> bool {
    rest.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit())
}

/// With the key of the service in place of the setting that was made of it, which no file has.
fn in_its_words(remark: Remark) -> Remark {
    let setting = remark.setting.unwrap_or_default();
    let keys = [
        ("].bind", "port: "),
        ("].servers", "server_options: "),
        ("].natives", "listen_options: "),
        ("].check", "listen_options: "),
    ];
    let key = keys.iter().find(|(part, _)| setting.contains(part)).map_or("", |(_, key)| key);
    Remark { line: None, setting: None, text: format!("{key}{}", remark.text), ..remark }
}

/// The services that listen on an address which nobody can listen on, and why.
pub(super) fn listening(
    config: &Config,
    services: &BTreeSet<String>,
    cause: impl Fn(&BindAddress) -> Option<String>,
) -> Vec<Quarantined> {
    let frontends = config.frontends.iter().enumerate().filter_map(|(index, frontend)| {
        let addresses = frontend.binds.iter().map(|bind| &bind.address).collect();
        Some((of_frontend(frontend)?, format!("frontend[{index}].bind[0]"), addresses))
    });
    let metrics = config.process.metrics.iter();
    let metrics = metrics.map(|it| (METRICS, format!("{METRICS}.bind"), vec![&it.bind]));
    let challenges = config.process.challenges.iter().filter_map(|it| it.bind.as_ref());
    let challenges = challenges.map(|bind| (CHALLENGES, CHALLENGES.to_owned(), vec![bind]));
    let listening = frontends.chain(metrics).chain(challenges);
    let listening = listening.filter(|(name, ..)| services.contains(*name));
    let refused = listening.filter_map(|(name, setting, addresses): (_, _, Vec<_>)| {
        let alert = |text| Remark::alert(Some(setting.clone()), text);
        let remarks: Vec<_> = addresses.into_iter().filter_map(&cause).map(alert).collect();
        (!remarks.is_empty()).then(|| Quarantined { object: object(name), remarks })
    });
    refused.collect()
}

/// The service that a frontend is of. One without a backend is itself what metadata declares.
fn of_frontend(frontend: &Frontend) -> Option<&str> {
    let name = frontend.name.as_str();
    match &frontend.default_backend {
        Some(backend) => Some(backend.as_str()).filter(|backend| is_of(name, backend)),
        None => Some(name),
    }
}

/// The name of a quarantined service.
pub(crate) fn service_of(quarantined: &Quarantined) -> Option<&str> {
    name_of(&quarantined.object)
}

fn name_of(object: &str) -> Option<&str> {
    object.strip_prefix("service ")
}

/// How a service is called that is quarantined.
pub(crate) fn object(name: &str) -> String {
    format!("service {name}")
}

/// The backend of the frontend or backend that a setting is of.
fn owner<'a>(config: &'a Config, setting: &'a str) -> Option<&'a str> {
    if setting.starts_with("haproxy.log[") {
        return setting.find(']').map(|end| &setting[..=end]);
    }
    if setting.strip_prefix(METRICS).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
        return Some(METRICS);
    }
    if setting == CHALLENGES {
        return Some(CHALLENGES);
    }
    let (section, rest) = setting.split_once('[')?;
    let index: usize = rest.split_once(']')?.0.parse().ok()?;
    match section {
        "backend" => Some(config.backends.get(index)?.name.as_str()),
        "frontend" => of_frontend(config.frontends.get(index)?),
        _ => None,
    }
}

/// Whether a frontend of this name is a service's whose backend has that name: `NAME-listen`, or of
/// a portmap `fe-443` and `be-443`.
fn is_of(frontend: &str, backend: &str) -> bool {
    let of_portmap = frontend.strip_prefix("fe").zip(backend.strip_prefix("be"));
    frontend.strip_prefix(backend) == Some("-listen")
        || of_portmap.is_some_and(|(one, other)| one == other)
}

/// The server that a setting is of.
fn server(setting: &str) -> Option<String> {
    let (_, name) = setting.split_once("].servers ")?;
    Some(name.trim_matches('"').to_owned())
}

/// The service that sections are of which a text without a line names.
fn named<'a>(
    config: &'a Config,
    services: &BTreeSet<String>,
    sections: &[String],
) -> Option<&'a str> {
    let is_named = |name: &str| sections.iter().any(|section| section == name);
    let backends = config.backends.iter().map(|backend| backend.name.as_str());
    let mut own = backends.filter(|name| services.contains(*name));
    let front = |name: &str| match name.strip_prefix("be") {
        Some(rest) if is_named(&format!("fe{rest}")) => true,
        _ => is_named(&format!("{name}-listen")),
    };
    own.find(|name| is_named(name) || front(name))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mapsmith_core::DesiredServers;
    use mapsmith_core::render::mask::Mask;
    use mapsmith_core::render::render;
    use mapsmith_core::render::verdict::remarks;

    use super::*;
    use crate::settings::Settings;

    const TWO: &str = r#"
        [haproxy]
        managed = true
        [[frontend]]
        name = "own"
        bind = ["127.0.0.1:1"]
        default_backend = "own-back"
        [[backend]]
        name = "own-back"
        servers = []
        [[frontend]]
        name = "web-listen"
        bind = ["127.0.0.1:2"]
        default_backend = "web"
        [[backend]]
        name = "web"
        servers = []
    "#;

    /// As HAProxy says it, of a line of this setting if any.
    fn said(config: &Config, setting: Option<&str>, text: &str) -> Remark {
        let printed = format!("[ALERT]    (7) : config : {text}");
        let rendered = render(config);
        let mask = Mask::of([rendered.text()]);
        let remark = remarks(&printed, "/haproxy.cfg", &rendered, &mask).remove(0);
        Remark { setting: setting.map(str::to_owned), ..remark }
    }

    fn refused_of(alerts: &[(Option<&str>, &str)]) -> Vec<String> {
        let settings = Settings::of_text(Path::new("/a.toml"), TWO, []).unwrap();
        let config = settings.haproxy_config(&DesiredServers::default()).unwrap();
        let remarks = alerts.iter().map(|(setting, text)| said(&config, *setting, text)).collect();
        let verdict = Verdict { valid: false, remarks, printed: String::new() };
        let services = BTreeSet::from(["web".to_owned()]);
        let refused = refused(&config, &services, &verdict);
        refused.iter().map(|one| one.object.clone()).collect()
    }

    #[test]
    fn a_service_is_refused_by_its_lines_in_both_sections_and_by_its_name() {
        for alert in [
            (Some("frontend[1].natives[0]"), "unknown keyword"),
            (Some("frontend[1].bind[0]"), "is taken"),
            (Some("backend[1].natives[2]"), "unknown keyword"),
            (None, "proxy 'web-listen': unable to find required backend"),
        ] {
            assert_eq!(refused_of(&[alert]), ["service web"], "{alert:?}");
        }
    }

    #[test]
    fn a_service_is_refused_by_its_name_whatever_words_are_hidden() {
        let hidden = "natives = [\"http-request set-header X-Auth-Scheme shop\", \
            \"http-request set-header X-Token-Present listen\"]\n        servers = []";
        let text = TWO.replace("\"web", "\"shop").replacen("servers = []", hidden, 1);
        let settings = Settings::of_text(Path::new("/a.toml"), &text, []).unwrap();
        let config = settings.haproxy_config(&DesiredServers::default()).unwrap();
        let services = BTreeSet::from(["shop".to_owned()]);
        for (text, shown) in [
            ("proxy 'shop-listen': no backend", "proxy 'shop-listen': no backend"),
            ("backend 'shop' has no server", "backend '***' has no server"),
        ] {
            let remarks = vec![said(&config, None, text)];
            assert_eq!(remarks[0].text, shown);
            let verdict = Verdict { valid: false, remarks, printed: String::new() };
            let refused = refused(&config, &services, &verdict);
            assert_eq!(refused.len(), 1, "{text}: {refused:?}");
            assert_eq!(refused[0].object, "service shop");
        }
    }

    #[test]
    fn a_service_of_a_portmap_is_refused_by_its_lines_and_told_without_settings() {
        let text = TWO.replace("\"web-listen\"", "\"fe-80\"").replace("\"web\"", "\"be-80\"");
        let settings = Settings::of_text(Path::new("/a.toml"), &text, []).unwrap();
        let config = settings.haproxy_config(&DesiredServers::default()).unwrap();
        for (setting, said) in [
            (Some("frontend[1].bind[0]"), "is taken"),
            (Some("backend[1].servers \"a\""), "unable to load CA file"),
            (None, "proxy 'fe-80': unable to find required backend"),
        ] {
            let remark = super::tests::said(&config, setting, said);
            let verdict = Verdict { valid: false, remarks: vec![remark], printed: String::new() };
            let refused = refused(&config, &BTreeSet::from(["be-80".to_owned()]), &verdict);
            let [one] = &refused[..] else { panic!("{setting:?}: {refused:?}") };
            assert_eq!((&*one.object, &*one.remarks[0].text), ("service be-80", said));
        }
    }

    #[test]
    fn what_metadata_has_listen_beside_services_is_refused_and_the_settings_own_is_not() {
        let text = TWO
            .replace(
                "[[frontend]]\n        name = \"web-listen\"",
                "[[frontend]]\n        name = \"fe-redirect\"",
            )
            .replace("managed = true", "managed = true\nmetrics = { bind = \"127.0.0.1:3\" }");
        let settings = Settings::of_text(Path::new("/a.toml"), &text, []).unwrap();
        let mut config = settings.haproxy_config(&DesiredServers::default()).unwrap();
        config.frontends[1].default_backend = None;
        let alert = |setting: &str| Remark::alert(Some(setting.to_owned()), "is taken".to_owned());
        let services = BTreeSet::from([METRICS.to_owned(), REDIRECT.to_owned()]);
        let objects = |refused: Vec<Quarantined>| -> Vec<String> {
            refused.into_iter().map(|one| one.object).collect()
        };
        let remarks = vec![alert("frontend[1].bind[0]"), alert("haproxy.metrics.bind")];
        let verdict = Verdict { valid: false, remarks, printed: String::new() };
        let all = ["service fe-redirect", "service haproxy.metrics"];
        assert_eq!(objects(refused(&config, &services, &verdict)), all);
        assert!(refused(&config, &BTreeSet::new(), &verdict).is_empty());
        let cause = |address: &BindAddress| Some(format!("{address} is taken"));
        assert_eq!(objects(listening(&config, &services, cause)), all);
        assert!(listening(&config, &BTreeSet::new(), cause).is_empty());
    }

    #[test]
    fn nothing_is_where_something_of_the_settings_is_wrong_too() {
        let own = (Some("frontend[1].natives[0]"), "unknown keyword");
        for other in [
            (Some("frontend[0].bind[0]"), "is taken"),
            (Some("backend[0].natives[0]"), "unknown keyword"),
            (Some("haproxy.global[0]"), "unknown keyword"),
            (None, "out of memory"),
        ] {
            assert!(refused_of(&[own, other]).is_empty(), "{other:?}");
        }
    }
}
