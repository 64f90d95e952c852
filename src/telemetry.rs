//! Logs and metrics: how they are set up, and the metrics' names.
//!
//! The names are constants because three things must agree on them: what records, what `/metrics` shows, and the alert rules.

use std::io::IsTerminal;

use anyhow::Context;
use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Gauge, by `source`: seconds since the source last gave a good answer; absent before the first.
pub const SOURCE_ANSWER_AGE: &str = "mapsmith_source_answer_age_seconds";
/// Histogram, by `source` and `kind` (`full`, `delta`, `unchanged`, `failed`): how long polls take.
pub const SOURCE_POLL_DURATION: &str = "mapsmith_source_poll_duration_seconds";
/// Gauge, by `source`: bytes of the last answer after decompression.
pub const SOURCE_ANSWER_BYTES: &str = "mapsmith_source_answer_bytes";
/// Gauge, by `source`: entries of the last good answer.
pub const SOURCE_ENTRIES: &str = "mapsmith_source_entries";
/// Counter, by `source`: polls that failed.
pub const SOURCE_FAILURES: &str = "mapsmith_source_poll_failures_total";
/// Gauge, by `source` and `reason`: entries of the last good answer that were left out.
pub const SOURCE_REJECTED: &str = "mapsmith_source_rejected_entries";
/// Gauge: entries of the desired map.
pub const MAP_ENTRIES: &str = "mapsmith_map_entries";
/// Counter, by `kind` (`added`, `moved`, `removed`): keys changed by revisions.
pub const MAP_CHANGES: &str = "mapsmith_map_changes_total";
/// Gauge: the number of the desired revision.
pub const REVISION: &str = "mapsmith_revision";
/// Counter: changes that the guard held back, each counted once.
pub const GUARD_HOLDS: &str = "mapsmith_guard_holds_total";
/// Gauge: 1 while a change is held back.
pub const GUARD_HELD: &str = "mapsmith_guard_held";
/// Gauge: 1 while the map file can't be written.
pub const MAP_FILE_FAILED: &str = "mapsmith_map_file_failed";
/// Gauge, by `haproxy`: the revision that the instance should hold.
pub const INSTANCE_REVISION_WANTED: &str = "mapsmith_instance_revision_wanted";
/// Gauge, by `haproxy`: the revision that the instance was last seen to hold.
pub const INSTANCE_REVISION_HELD: &str = "mapsmith_instance_revision_held";
/// Gauge, by `haproxy`: 1 while the instance is in step with the wanted revision.
pub const INSTANCE_IN_STEP: &str = "mapsmith_instance_in_step";
/// Gauge, by `haproxy`: 1 while the instance answers.
pub const INSTANCE_UP: &str = "mapsmith_instance_up";
/// Histogram, by `haproxy` and `strategy` (`edits`, `swap`): how long changes take, verification included.
pub const APPLY_DURATION: &str = "mapsmith_apply_duration_seconds";
/// Counter, by `haproxy`: changes that failed.
pub const APPLY_FAILURES: &str = "mapsmith_apply_failures_total";
/// Counter, by `haproxy` and `kind`: what was found to differ and put right. The map file counts as `file`.
pub const DRIFT_HEALED: &str = "mapsmith_drift_healed_total";

/// Logs to standard error: for people on a terminal, as JSON lines otherwise. `RUST_LOG` sets the level, else `level` counts.
pub fn start_logging(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // A log that can't be written (a full disk, a pipe whose reader died) must not end the gateway's daemon.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
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
    describe_gauge!(SOURCE_ANSWER_AGE, "Seconds since the source last gave a good answer");
    describe_histogram!(SOURCE_POLL_DURATION, "How long polls of the source take");
    describe_gauge!(SOURCE_ANSWER_BYTES, "Bytes of the last answer after decompression");
    describe_gauge!(SOURCE_ENTRIES, "Entries of the last good answer");
    describe_counter!(SOURCE_FAILURES, "Polls that failed");
    describe_gauge!(SOURCE_REJECTED, "Entries of the last good answer that were left out, by reason");
    describe_gauge!(MAP_ENTRIES, "Entries of the desired map");
    describe_counter!(MAP_CHANGES, "Keys changed by revisions, by kind");
    describe_gauge!(REVISION, "Number of the desired revision");
    describe_counter!(GUARD_HOLDS, "Changes that the guard held back");
    describe_gauge!(GUARD_HELD, "1 while a change is held back by the guard");
    describe_gauge!(MAP_FILE_FAILED, "1 while the map file can't be written");
    describe_gauge!(INSTANCE_REVISION_WANTED, "Revision that the instance should hold");
    describe_gauge!(INSTANCE_REVISION_HELD, "Revision that the instance was last seen to hold");
    describe_gauge!(INSTANCE_IN_STEP, "1 while the instance holds the wanted revision");
    describe_gauge!(INSTANCE_UP, "1 while the instance answers");
    describe_histogram!(APPLY_DURATION, "How long changes of an instance take, by strategy");
    describe_counter!(APPLY_FAILURES, "Changes of an instance that failed");
    describe_counter!(DRIFT_HEALED, "What was found to differ and put right, by kind");
    Ok(handle)
}
