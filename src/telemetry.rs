//! Logs and metrics: how they are set up, and the metrics' names.
//!
//! The names are constants because three things must agree on them: what records, what `/metrics`
//! shows, and the alert rules.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;

use anyhow::Context;
use metrics_exporter_prometheus::formatting::sanitize_label_value;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

macro_rules! metrics {
    ($($kind:ident $name:ident = $metric:literal, $help:literal;)*) => {
        $(#[doc = $help] pub const $name: &str = $metric;)*
        /// Every metric.
        pub const NAMES: &[&str] = &[$($metric),*];

        fn describe() {
            $(metrics!(@$kind $name, $help);)*
        }
    };
    (@gauge $name:ident, $help:literal) => { metrics::describe_gauge!($name, $help) };
    (@counter $name:ident, $help:literal) => { metrics::describe_counter!($name, $help) };
    (@histogram $name:ident, $help:literal) => { metrics::describe_histogram!($name, $help) };
}

metrics! {
    // Of the whole program.
    gauge MAP_ENTRIES = "mapsmith_map_entries", "Entries of the desired map";
    gauge MAP_REJECTED = "mapsmith_map_rejected_entries",
        "Entries that are not in the map because a HAProxy's map refuses them";
    gauge REVISION = "mapsmith_revision", "Number of the desired revision";
    // Of the map or a server list, each counted once.
    counter GUARD_HOLDS = "mapsmith_guard_holds_total", "Changes that the guard held back";
    gauge GUARD_HELD = "mapsmith_guard_held",
        "1 while a change of the map is held back by the guard";
    counter GUARD_PARTS = "mapsmith_guard_parts_total",
        "Parts of changes of the map that were applied while the rest was held";
    gauge FLAPPING_NODES = "mapsmith_flapping_nodes",
        "Nodes that stay where they are because their master goes back and forth";
    gauge CONFLICTING_NODES = "mapsmith_conflicting_nodes",
        "Nodes that an answer names with different masters, none of them newer";
    gauge GONE_NODES = "mapsmith_gone_nodes",
        "Nodes that no source names any more and that stay in the map for a while";
    gauge PINS = "mapsmith_pins", "Nodes that an operator pinned to a master";
    gauge BLOCKED = "mapsmith_blocked_nodes", "Nodes that an operator keeps out of the map";
    gauge DRAINED_MASTERS = "mapsmith_drained_masters", "Masters that an operator drained";
    gauge MAP_FILE_FAILED = "mapsmith_map_file_failed", "1 while the map file can't be written";
    gauge HISTORY_FAILED = "mapsmith_history_failed",
        "1 while the revision in force could not be kept in the store";
    gauge HOLD_LASTING = "mapsmith_hold_lasting",
        "1 while a rollback holds the sources back";
    gauge HOLD_OVER = "mapsmith_hold_over",
        "1 while the hold of a rollback is over and what the sources say takes an approval";
    // 0 where there is none.
    gauge HOLD_END = "mapsmith_hold_end_timestamp_seconds",
        "When the hold of a rollback is over by itself, in seconds since 1970";
    gauge ROLLOUT_OPEN = "mapsmith_rollout_open",
        "1 while a rollout is on its way: a revision that some instances hold before others";
    gauge ROLLOUT_STUCK = "mapsmith_rollout_needs_person",
        "1 while a rollout waits for somebody to promote or abort it";
    gauge READ_ONLY = "mapsmith_read_only",
        "1 while another Mapsmith writes the map file, and this one changes nothing";
    // By `severity` (`act`, `look`).
    gauge ATTENTION = "mapsmith_attention_items", "What needs a person, by severity";
    // By `outcome` (`ok`, `failed`); absent without `[notify]`.
    counter NOTIFY_RUNS = "mapsmith_notify_runs_total",
        "Runs of the command that tells what needs a person, by outcome";
    gauge NOTIFY_FAILED = "mapsmith_notify_failed",
        "1 while the last run of the command that tells what needs a person has failed";
    gauge API_CONNECTIONS = "mapsmith_api_connections", "Connections of the API right now";
    counter API_CONNECTIONS_REFUSED = "mapsmith_api_connections_refused_total",
        "Connections of the API that were refused because there were too many";
    // By `status` (`401`, `403`, `429`).
    counter API_REFUSALS = "mapsmith_api_refusals_total",
        "Requests that the API refused because of who asked or how often";
    // By `command` and `outcome` (`ok`, `refused`, `failed`, `no_master`, `unknown`).
    counter COMMANDS = "mapsmith_commands_total", "Commands that were run on nodes, by outcome";
    gauge COMMANDS_RUNNING = "mapsmith_commands_running", "Commands on nodes that run right now";
    gauge API_WAITS = "mapsmith_api_waits", "Requests that wait for another map right now";
    gauge API_STREAMS = "mapsmith_api_event_streams",
        "Streams of events and of statistics that are open right now";
    // By `instance`.
    gauge STATS_SERIES = "mapsmith_stats_series",
        "Series of backends and servers that are read for those who watch";
    // By `kind` (`added`, `moved`, `removed`).
    counter MAP_CHANGES = "mapsmith_map_changes_total", "Keys changed by revisions, by kind";
    gauge GUARD_HELD_ENTRIES = "mapsmith_guard_held_entries",
        "Keys of the map that the held change would change, by kind";
    // By `kind` (`unknown`, `not_ready`).
    gauge REFERENCES_DANGLING = "mapsmith_references_dangling_entries",
        "Entries whose master is unknown to an instance, or not ready, by kind";
    // By `phase` (`away`, `returning`, `leaving`); absent where owners are not remembered.
    gauge OWNED_NODES = "mapsmith_owned_nodes",
        "Nodes whose owner is remembered because the registry names another master, by phase";
    // Of the HAProxy whose configuration is rendered; absent where there is none.
    gauge HAPROXY_CONFIG_IN_FORCE = "mapsmith_haproxy_config_in_force",
        "1 while HAProxy runs with the configuration that is declared";
    gauge HAPROXY_CONFIG_REFUSED = "mapsmith_haproxy_config_refused",
        "1 while HAProxy refuses the configuration that is declared";
    // By `state`: `starting`, `stopped` (on purpose), `in_force`, `waiting` (for servers that no
    // registry has named yet), `reload_due`, `refused`, `edited`, `failed`.
    gauge HAPROXY_CONFIG_STATE = "mapsmith_haproxy_config_state",
        "1 for the state that the configuration is in, 0 for the others";
    gauge HAPROXY_CONFIG_QUARANTINED = "mapsmith_haproxy_config_quarantined",
        "Parts of the configuration that keep their last good form";
    counter HAPROXY_CONFIG_EDITS = "mapsmith_haproxy_config_external_edits_total",
        "External edits of the rendered configuration that were found";
    counter HAPROXY_STARTS = "mapsmith_haproxy_starts_total", "Starts of a managed HAProxy";
    // 0 where the settings name no services.
    gauge SERVICES_IN_FORCE = "mapsmith_services_in_force", "Services of a registry in force";
    // By `by` (`mapsmith`, `haproxy`).
    gauge SERVICES_REJECTED = "mapsmith_services_rejected",
        "Services that are not in force as their registry has them, by who rejects them";
    gauge SERVICES_HELD = "mapsmith_services_held",
        "1 while services stay that their registry does not have any more, until that is approved";
    // By `kind` (`current`, `old`).
    gauge HAPROXY_WORKERS = "mapsmith_haproxy_workers", "HAProxy's worker processes, by kind";
    // By `reason` (`configuration`, `servers`, `requested`) and `outcome` (`loaded`, `refused`,
    // `unknown`).
    counter HAPROXY_RELOADS = "mapsmith_haproxy_reloads_total", "Reloads, by reason and outcome";

    // By `task`.
    gauge TASK_HEARTBEAT_AGE = "mapsmith_task_heartbeat_age_seconds",
        "Seconds since the task last began something or said that it waits for work";

    // By `source`: its name, or of a list of servers what the backend's `from` says. With
    // `shadow="true"` where it is compared and never applied.
    // Absent before the first.
    gauge SOURCE_ANSWER_AGE = "mapsmith_source_answer_age_seconds",
        "Seconds since the source last gave a good answer";
    // By `source` and `kind` (`full`, `delta`, `unchanged`, `failed`; `look` for lookups of single
    // nodes).
    histogram SOURCE_POLL_DURATION = "mapsmith_source_poll_duration_seconds",
        "How long polls of the source take";
    gauge SOURCE_ANSWER_BYTES = "mapsmith_source_answer_bytes",
        "Bytes of the last answer after decompression";
    gauge SOURCE_ENTRIES = "mapsmith_source_entries", "Entries of the last good answer";
    counter SOURCE_FAILURES = "mapsmith_source_poll_failures_total", "Polls that failed";
    // By `source` and `reason`.
    gauge SOURCE_REJECTED = "mapsmith_source_rejected_entries",
        "Entries of the last good answer that were rejected, by reason";

    // By `source` and `kind` (`missing`, `extra`, `elsewhere`; of servers `renamed` and `options`
    // too, by `backend` besides). Absent before the first comparison.
    gauge SHADOW_DIFFERENCES = "mapsmith_source_shadow_differences",
        "Nodes or servers that a source which is never applied has otherwise, by kind";

    // By `haproxy`, which is the instance.
    gauge INSTANCE_REVISION_WANTED = "mapsmith_instance_revision_wanted",
        "Revision that the instance should hold";
    gauge INSTANCE_REVISION_HELD = "mapsmith_instance_revision_held",
        "Revision that the instance was last seen to hold";
    gauge INSTANCE_IN_SYNC = "mapsmith_instance_in_sync",
        "1 while the instance holds the wanted revision";
    gauge INSTANCE_UP = "mapsmith_instance_up", "1 while the instance answers";
    // By `haproxy` and `strategy` (`edits`, `swap`).
    histogram APPLY_DURATION = "mapsmith_apply_duration_seconds",
        "How long changes of an instance take, by strategy";
    counter APPLY_FAILURES = "mapsmith_apply_failures_total", "Changes of an instance that failed";
    // By `haproxy` and `kind`; the map file counts as the instance `file`.
    counter DRIFT_CORRECTED = "mapsmith_drift_corrected_total",
        "What was found to differ and corrected, by kind";
    counter SERVER_STEPS = "mapsmith_server_steps_total",
        "Steps on server lists that were carried out";
    counter SERVER_REFUSALS = "mapsmith_server_refusals_total",
        "Steps on server lists that HAProxy refused";
    gauge SERVERS_IN_SYNC = "mapsmith_servers_in_sync",
        "1 while every declared backend is as it should be";
    gauge SERVERS_NEED_RELOAD = "mapsmith_servers_need_reload",
        "What of the declared backends only a reload of HAProxy can bring";
    gauge SERVERS_REMOVING = "mapsmith_servers_removing", "Servers on their way out";
    gauge SERVERS_EXTERNAL = "mapsmith_servers_external",
        "Desired servers that somebody else put into maintenance or drain";
    gauge LEARNED_ROUTES = "mapsmith_learned_routes", "Learned routes that the map does not have";
    // 0 without any.
    gauge LEARNED_OLDEST_AGE = "mapsmith_learned_oldest_age_seconds",
        "Seconds since the oldest of the learned routes was first seen";
    // Keys that are not a valid node, and rows beyond the bound.
    gauge LEARNED_REJECTED = "mapsmith_learned_rejected",
        "Rows of the stick table of learned routes that are not kept";
    // By `haproxy` and `reason` (`agreed`, `contradicted`, `overridden`).
    counter LEARNED_FORGOTTEN = "mapsmith_learned_forgotten_total",
        "Learned routes that were forgotten, by reason";
    gauge TLS_FILES_IN_SYNC = "mapsmith_tls_files_in_sync",
        "1 while every file of certificates and revocations is in memory as it should be";
    gauge TLS_FILES_NEED_RELOAD = "mapsmith_tls_files_need_reload",
        "Files of certificates and revocations that only a reload of HAProxy can bring";

    // By `file` and `kind` (`crl`, `ca`, `certificate`).
    // Absent where nothing in it has an end.
    gauge TLS_FILE_EXPIRY = "mapsmith_tls_file_expiry_timestamp_seconds",
        "When the first of what the file holds is out of date, in seconds since 1970";
    gauge TLS_FILE_LIFETIME = "mapsmith_tls_file_lifetime_seconds",
        "For how long the certificate that the file holds was issued";
    gauge TLS_FILE_FAILED = "mapsmith_tls_file_failed",
        "1 while what the file should hold can't be read, is refused or can't be written";

    // By `certificate`, of those that Mapsmith gets itself.
    counter CERTIFICATE_FAILURES = "mapsmith_certificate_renewal_failures_total",
        "Tries to get the certificate that failed";
    gauge CERTIFICATE_FAILED = "mapsmith_certificate_renewal_failed",
        "1 while the last try to get the certificate has failed";
    gauge CERTIFICATE_RENEWAL = "mapsmith_certificate_renewal_timestamp_seconds",
        "When the certificate is renewed next, in seconds since 1970";

    // By `backend`.
    // Absent before its list is known.
    gauge BACKEND_SERVERS = "mapsmith_backend_servers", "Servers that the backend should have";
    gauge BACKEND_REJECTED = "mapsmith_backend_rejected_servers",
        "Rows of the backend's server list that were rejected";
    gauge BACKEND_LEAVING = "mapsmith_backend_leaving_servers",
        "Servers that are no longer listed and stay for a while";
    gauge BACKEND_ORDERED = "mapsmith_backend_server_overrides",
        "Servers whose state or weight an operator has ordered";
    gauge BACKEND_HELD = "mapsmith_backend_held",
        "1 while a change of the backend's server list is held back by the guard";
    // By `state` (`registered`, `expired`).
    gauge MEMBERS = "mapsmith_members", "Members that are registered by name and version, by state";
    // By `kind` (`registered`, `changed`, `unregistered`, `expired`).
    counter MEMBER_CHANGES = "mapsmith_member_changes_total",
        "Changes of what members are registered, by kind";
    // By `backend`.
    gauge SWITCHING = "mapsmith_backend_switching",
        "1 while the backend is on its way to another version of its members";
    // By `backend` and `kind` (`added`, `moved`, `removed`).
    counter BACKEND_CHANGES = "mapsmith_backend_changes_total",
        "Servers changed by the backend's list, by kind";
}

/// What the map file is called among the instances: it is kept in sync like one.
pub const MAP_FILE: &str = "file";

/// Labels that say of what a series is, each with the names that there are.
pub type Parts<'a> = BTreeMap<&'a str, BTreeSet<String>>;

/// The label of what is told of a source that is compared and never applied: no page is for it.
pub const SHADOW: &str = "shadow";

/// What there are metrics of.
#[derive(Debug, Default)]
pub struct Present<'a> {
    pub parts: Parts<'a>,
    /// The sources whose metrics say that they are shadows.
    pub shadows: BTreeSet<String>,
    /// What is compared with what: a source, and the backend where it lists servers.
    pub compared: BTreeSet<(String, Option<String>)>,
}

/// A text of Prometheus's format without the series of what there is no more: once a recorder has a
/// series, it tells its last value for ever.
pub fn of_present(text: &str, present: &Present<'_>) -> String {
    let written = |names: &BTreeSet<String>| -> BTreeSet<String> {
        names.iter().map(|name| sanitize_label_value(name)).collect()
    };
    let parts = present.parts.iter().map(|(label, names)| (*label, written(names)));
    let parts: BTreeMap<&str, BTreeSet<String>> = parts.collect();
    let shadows = written(&present.shadows);
    let compared: BTreeSet<(String, Option<String>)> = present
        .compared
        .iter()
        .map(|(source, backend)| {
            (sanitize_label_value(source), backend.as_deref().map(sanitize_label_value))
        })
        .collect();
    let is_there = |line: &&str| {
        if line.starts_with('#') {
            return true;
        }
        let labels: BTreeMap<&str, &str> = labels(line).collect();
        let label = |name: &str| labels.get(name).map(|value| (*value).to_owned());
        let is_part = |(label, names): (_, &BTreeSet<String>)| match labels.get::<str>(label) {
            Some(value) => names.contains(*value),
            None => true,
        };
        let as_declared = match label("source") {
            Some(source) if line.starts_with(SHADOW_DIFFERENCES) => {
                compared.contains(&(source, label("backend")))
            }
            Some(source) => shadows.contains(&source) == labels.contains_key(SHADOW),
            None => true,
        };
        as_declared && parts.iter().all(|(label, names)| is_part((*label, names)))
    };
    text.split_inclusive('\n').filter(is_there).collect()
}

/// The labels of a series, each with its value as it is written.
fn labels(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = line.split_once('{').map_or("", |(_, rest)| rest);
    std::iter::from_fn(move || {
        let (label, value) = rest.split_once("=\"")?;
        let mut is_escaped = false;
        let end = value.find(|letter| {
            let ends = letter == '"' && !is_escaped;
            is_escaped = letter == '\\' && !is_escaped;
            ends
        })?;
        rest = &value[end + 1..];
        Some((label.trim_start_matches(','), &value[..end]))
    })
}

/// Logs to standard error: for people on a terminal, as JSON lines otherwise. `RUST_LOG` sets the
/// level, else `level` counts.
pub fn start_logging(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // A log that can't be written (a full disk, a pipe whose reader died) must not end the
    // gateway's daemon.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    if std::io::stderr().is_terminal() {
        log.with_target(false).init();
    } else {
        log.json().init();
    }
}

/// Installs the recorder and describes every metric.
pub fn start_metrics() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(
            Matcher::Suffix("_duration_seconds".to_owned()),
            &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0],
        )
        .and_then(PrometheusBuilder::install_recorder)
        .context("the metrics recorder can't be installed")?;
    describe();
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of the series that are told.
    fn told(text: &str, present: &Present<'_>) -> Vec<String> {
        let told = of_present(text, present);
        let values = told.lines().filter_map(|line| line.rsplit_once(' '));
        values.map(|(_, value)| value.to_owned()).collect()
    }

    fn names(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_there_is_no_more_is_told_no_more() {
        let text = "# TYPE age gauge\n\
            age{source=\"a\"} 1\n\
            age{source=\"b \\\"{x}\\\\\"} 2\n\
            age{source=\"gone\"} 3\n\
            took_bucket{kind=\"x\",source=\"gone\",le=\"1\"} 4\n\
            took_bucket{kind=\"gone\",source=\"a\",le=\"1\"} 5\n\
            plain 6\n";
        let parts = Parts::from([("source", names(&["a", "b \"{x}\\"]))]);
        let present = Present { parts, ..Present::default() };
        assert_eq!(told(text, &present), ["gauge", "1", "2", "5", "6"]);
    }

    #[test]
    fn whatever_a_name_holds_its_series_are_told() {
        let all = ["a\"b", "a\\b", "a\\\"b", "a\\\\b", "a\nb", "zk tag=\"a\\\"b\"", "\\", "x\\"];
        for name in all {
            let recorder = PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            metrics::with_local_recorder(&recorder, || {
                metrics::gauge!(SOURCE_ENTRIES, "source" => name).set(7.0);
            });
            let parts = Parts::from([("source", names(&[name]))]);
            let present = Present { parts, ..Present::default() };
            let text = handle.render();
            assert!(told(&text, &present).contains(&"7".to_owned()), "{name:?}: {text}");
        }
    }

    #[test]
    fn a_source_that_changed_places_with_its_shadow_is_told_as_what_it_is_now() {
        let text = "mapsmith_source_entries{source=\"new\"} 1\n\
            mapsmith_source_entries{source=\"new\",shadow=\"true\"} 2\n\
            mapsmith_source_entries{source=\"old\"} 3\n\
            mapsmith_source_entries{source=\"old\",shadow=\"true\"} 4\n\
            mapsmith_source_shadow_differences{source=\"new\",backend=\"web\",kind=\"extra\"} 5\n\
            mapsmith_source_shadow_differences{source=\"old\",backend=\"web\",kind=\"extra\"} 6\n\
            mapsmith_source_shadow_differences{source=\"old\",backend=\"api\",kind=\"extra\"} 7\n\
            mapsmith_source_shadow_differences{source=\"old\",kind=\"extra\"} 8\n";
        let present = |shadow: &str| Present {
            parts: Parts::from([("source", names(&["new", "old"]))]),
            shadows: names(&[shadow]),
            compared: BTreeSet::from([(shadow.to_owned(), Some("web".to_owned()))]),
        };
        assert_eq!(told(text, &present("new")), ["2", "3", "5"]);
        assert_eq!(told(text, &present("old")), ["1", "4", "6"]);
        let of_map =
            Present { compared: BTreeSet::from([("old".to_owned(), None)]), ..present("old") };
        assert_eq!(told(text, &of_map), ["1", "4", "8"]);
    }
}
