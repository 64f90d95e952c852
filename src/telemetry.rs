//! Logs and metrics: how they are set up, and the metrics' names.
//!
//! The names are constants because three things must agree on them: what records, what `/metrics`
//! shows, and the alert rules.

use std::io::IsTerminal;

use anyhow::Context;
use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Gauge, by `source`: seconds since the source last gave a good answer; absent before the first.
pub const SOURCE_ANSWER_AGE: &str = "mapsmith_source_answer_age_seconds";
/// Histogram, by `source` and `kind` (`full`, `delta`, `unchanged`, `failed`; `look` for
/// targeted lookups): how long polls take.
pub const SOURCE_POLL_DURATION: &str = "mapsmith_source_poll_duration_seconds";
/// Gauge, by `source`: bytes of the last answer after decompression.
pub const SOURCE_ANSWER_BYTES: &str = "mapsmith_source_answer_bytes";
/// Gauge, by `source`: entries of the last good answer.
pub const SOURCE_ENTRIES: &str = "mapsmith_source_entries";
/// Counter, by `source`: polls that failed.
pub const SOURCE_FAILURES: &str = "mapsmith_source_poll_failures_total";
/// Gauge, by `source` and `reason`: entries of the last good answer that were rejected.
pub const SOURCE_REJECTED: &str = "mapsmith_source_rejected_entries";
/// Gauge: entries of the desired map.
pub const MAP_ENTRIES: &str = "mapsmith_map_entries";
/// Gauge: entries that are not in the map because a HAProxy's map refuses them.
pub const MAP_REJECTED: &str = "mapsmith_map_rejected_entries";
/// Counter, by `kind` (`added`, `moved`, `removed`): keys changed by revisions.
pub const MAP_CHANGES: &str = "mapsmith_map_changes_total";
/// Gauge: the number of the desired revision.
pub const REVISION: &str = "mapsmith_revision";
/// Counter: changes, of the map or a server list, that the guard held back, each counted once.
pub const GUARD_HOLDS: &str = "mapsmith_guard_holds_total";
/// Gauge: 1 while a change of the map is held back.
pub const GUARD_HELD: &str = "mapsmith_guard_held";
/// Gauge: nodes that stay where they are because their master goes back and forth.
pub const FLAPPING_NODES: &str = "mapsmith_flapping_nodes";
/// Gauge: nodes that an answer names with different masters, none of them newer; each stays where
/// it is.
pub const CONFLICTING_NODES: &str = "mapsmith_conflicting_nodes";
/// Gauge: nodes that an operator pinned.
pub const PINS: &str = "mapsmith_pins";
/// Gauge: masters that an operator drained.
pub const DRAINED_MASTERS: &str = "mapsmith_drained_masters";
/// Gauge: 1 while the map file can't be written.
pub const MAP_FILE_FAILED: &str = "mapsmith_map_file_failed";
/// Gauge, by `task`: seconds since the task last began something or said that it waits for work.
pub const TASK_HEARTBEAT_AGE: &str = "mapsmith_task_heartbeat_age_seconds";
/// Gauge: 1 while another Mapsmith writes the map file, and this one changes nothing.
pub const READ_ONLY: &str = "mapsmith_read_only";
/// Gauge, by `haproxy`: the revision that the instance should hold.
pub const INSTANCE_REVISION_WANTED: &str = "mapsmith_instance_revision_wanted";
/// Gauge, by `haproxy`: the revision that the instance was last seen to hold.
pub const INSTANCE_REVISION_HELD: &str = "mapsmith_instance_revision_held";
/// Gauge, by `haproxy`: 1 while the instance is in sync with the wanted revision.
pub const INSTANCE_IN_SYNC: &str = "mapsmith_instance_in_sync";
/// Gauge, by `haproxy`: 1 while the instance answers.
pub const INSTANCE_UP: &str = "mapsmith_instance_up";
/// Histogram, by `haproxy` and `strategy` (`edits`, `swap`): how long changes take, verification
/// included.
pub const APPLY_DURATION: &str = "mapsmith_apply_duration_seconds";
/// Counter, by `haproxy`: changes that failed.
pub const APPLY_FAILURES: &str = "mapsmith_apply_failures_total";
/// Counter, by `haproxy` and `kind`: what was found to differ and corrected. The map file counts as
/// `file`.
pub const DRIFT_CORRECTED: &str = "mapsmith_drift_corrected_total";
/// Counter, by `haproxy`: steps on server lists that were carried out.
pub const SERVER_STEPS: &str = "mapsmith_server_steps_total";
/// Counter, by `haproxy`: steps on server lists that HAProxy refused.
pub const SERVER_REFUSALS: &str = "mapsmith_server_refusals_total";
/// Gauge, by `haproxy`: 1 while every declared backend is as it should be.
pub const SERVERS_IN_SYNC: &str = "mapsmith_servers_in_sync";
/// Gauge, by `haproxy`: what of the declared backends only a reload of HAProxy can bring.
pub const SERVERS_NEED_RELOAD: &str = "mapsmith_servers_need_reload";
/// Gauge, by `haproxy`: servers on their way out.
pub const SERVERS_REMOVING: &str = "mapsmith_servers_removing";
/// Gauge, by `haproxy`: desired servers that somebody else put into maintenance or drain.
pub const SERVERS_EXTERNAL: &str = "mapsmith_servers_external";
/// Gauge, by `kind` (`unknown`, `not_ready`): entries whose master is no backend or server of an
/// instance, or none that is ready.
pub const REFERENCES_DANGLING: &str = "mapsmith_references_dangling_entries";
/// Gauge, by `backend`: servers that the backend should have; absent before its list is known.
pub const BACKEND_SERVERS: &str = "mapsmith_backend_servers";
/// Gauge, by `backend`: rows of its list that are rejected.
pub const BACKEND_REJECTED: &str = "mapsmith_backend_left_out_servers";
/// Gauge, by `backend`: servers that are no longer listed and stay for a while.
pub const BACKEND_LEAVING: &str = "mapsmith_backend_leaving_servers";
/// Gauge, by `backend`: 1 while the guard holds a change of its server list back. [`GUARD_HELD`] is
/// the map's.
pub const BACKEND_HELD: &str = "mapsmith_backend_held";
/// Counter, by `backend` and `kind` (`added`, `moved`, `removed`): servers changed by its list.
pub const BACKEND_CHANGES: &str = "mapsmith_backend_changes_total";
/// Gauge, by `haproxy`: learned routes that the map does not have, as far as they are read.
pub const LEARNED_ROUTES: &str = "mapsmith_learned_routes";
/// Gauge, by `haproxy`: how long the oldest of them has been known; 0 without any.
pub const LEARNED_OLDEST_AGE: &str = "mapsmith_learned_oldest_age_seconds";
/// Gauge, by `haproxy`: rows of the stick table that are not kept: keys that are no node, and those
/// beyond the bound.
pub const LEARNED_REJECTED: &str = "mapsmith_learned_rejected";
/// Counter, by `haproxy` and `reason` (`agreed`, `contradicted`, `overridden`): learned routes
/// taken out of the stick table.
pub const LEARNED_FORGOTTEN: &str = "mapsmith_learned_forgotten_total";

/// Gauge: connections of the API right now.
pub const API_CONNECTIONS: &str = "mapsmith_api_connections";
/// Counter: connections of the API that were answered 503 because there were too many.
pub const API_CONNECTIONS_REFUSED: &str = "mapsmith_api_connections_refused_total";

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
///
/// # Errors
/// When a recorder is installed already.
pub fn start_metrics() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(
            Matcher::Suffix("_duration_seconds".to_owned()),
            &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0],
        )
        .and_then(PrometheusBuilder::install_recorder)
        .context("the metrics recorder can't be installed")?;
    describe_sources();
    describe_decisions();
    describe_instances();
    Ok(handle)
}

fn describe_sources() {
    describe_gauge!(SOURCE_ANSWER_AGE, "Seconds since the source last gave a good answer");
    describe_histogram!(SOURCE_POLL_DURATION, "How long polls of the source take");
    describe_gauge!(SOURCE_ANSWER_BYTES, "Bytes of the last answer after decompression");
    describe_gauge!(SOURCE_ENTRIES, "Entries of the last good answer");
    describe_counter!(SOURCE_FAILURES, "Polls that failed");
    describe_gauge!(
        SOURCE_REJECTED,
        "Entries of the last good answer that were rejected, by reason"
    );
}

fn describe_decisions() {
    describe_gauge!(MAP_ENTRIES, "Entries of the desired map");
    describe_gauge!(
        MAP_REJECTED,
        "Entries that are not in the map because a HAProxy's map refuses them"
    );
    describe_counter!(MAP_CHANGES, "Keys changed by revisions, by kind");
    describe_gauge!(REVISION, "Number of the desired revision");
    describe_counter!(GUARD_HOLDS, "Changes that the guard held back");
    describe_gauge!(GUARD_HELD, "1 while a change of the map is held back by the guard");
    describe_gauge!(
        FLAPPING_NODES,
        "Nodes that stay where they are because their master goes back and forth"
    );
    describe_gauge!(
        CONFLICTING_NODES,
        "Nodes that an answer names with different masters, none of them newer"
    );
    describe_gauge!(PINS, "Nodes that an operator pinned to a master");
    describe_gauge!(DRAINED_MASTERS, "Masters that an operator drained");
    describe_gauge!(MAP_FILE_FAILED, "1 while the map file can't be written");
    describe_gauge!(
        TASK_HEARTBEAT_AGE,
        "Seconds since the task last began something or said that it waits for work"
    );
    describe_gauge!(
        READ_ONLY,
        "1 while another Mapsmith writes the map file, and this one changes nothing"
    );
}

fn describe_instances() {
    describe_gauge!(INSTANCE_REVISION_WANTED, "Revision that the instance should hold");
    describe_gauge!(INSTANCE_REVISION_HELD, "Revision that the instance was last seen to hold");
    describe_gauge!(INSTANCE_IN_SYNC, "1 while the instance holds the wanted revision");
    describe_gauge!(INSTANCE_UP, "1 while the instance answers");
    describe_histogram!(APPLY_DURATION, "How long changes of an instance take, by strategy");
    describe_counter!(APPLY_FAILURES, "Changes of an instance that failed");
    describe_counter!(DRIFT_CORRECTED, "What was found to differ and corrected, by kind");
    describe_counter!(SERVER_STEPS, "Steps on server lists that were carried out");
    describe_counter!(SERVER_REFUSALS, "Steps on server lists that HAProxy refused");
    describe_gauge!(SERVERS_IN_SYNC, "1 while every declared backend is as it should be");
    describe_gauge!(
        SERVERS_NEED_RELOAD,
        "What of the declared backends only a reload of HAProxy can bring"
    );
    describe_gauge!(SERVERS_REMOVING, "Servers on their way out");
    describe_gauge!(
        SERVERS_EXTERNAL,
        "Desired servers that somebody else put into maintenance or drain"
    );
    describe_gauge!(
        REFERENCES_DANGLING,
        "Entries whose master is unknown to an instance, or not ready, by kind"
    );
    describe_gauge!(BACKEND_SERVERS, "Servers that the backend should have");
    describe_gauge!(BACKEND_REJECTED, "Rows of the backend's server list that were rejected");
    describe_gauge!(BACKEND_LEAVING, "Servers that are no longer listed and stay for a while");
    describe_gauge!(
        BACKEND_HELD,
        "1 while a change of the backend's server list is held back by the guard"
    );
    describe_counter!(BACKEND_CHANGES, "Servers changed by the backend's list, by kind");
    describe_gauge!(LEARNED_ROUTES, "Learned routes that the map does not have");
    describe_gauge!(
        LEARNED_OLDEST_AGE,
        "Seconds since the oldest of the learned routes was first seen"
    );
    describe_gauge!(
        LEARNED_REJECTED,
        "Rows of the stick table of learned routes that are not kept"
    );
    describe_counter!(LEARNED_FORGOTTEN, "Learned routes that were forgotten, by reason");
    describe_gauge!(API_CONNECTIONS, "Connections of the API right now");
    describe_counter!(
        API_CONNECTIONS_REFUSED,
        "Connections of the API that were refused because there were too many"
    );
}
