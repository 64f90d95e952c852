//! The texts are HAProxy's own.

use proptest::prelude::*;

use super::*;

const HEAD: &str =
    "#<PID>          <type>          <reloads>       <uptime>        <version>      \n";

/// 2.6.12 after a good, a failed and a good reload, with a connection open.
const LISTED_2_6: &str = "\
17397           master          3 [failed: 0]   0d00h00m07s     2.6.12-1+deb12u4
# workers
18128           worker          0               0d00h00m01s     2.6.12-1+deb12u4
# old workers
17653           worker          2               0d00h00m05s     2.6.12-1+deb12u4
# programs

";

/// 3.4.7 after a failed reload: the worker that serves is listed among the old ones.
const LISTED_3_4: &str = "\
21312           master          2 [failed: 1]   0d00h00m03s     3.4.7-1        
# workers
# old workers
21585           worker          1               1d02h03m04s     3.4.7-1        

";

const SUCCESS_3_0: &str = "Success=1\n--\n[NOTICE]   (18482) : New worker (19039) forked\n\
    [NOTICE]   (18482) : Loading success.\n\n";

const FAILURE_3_2: &str = "Success=0\n--\n\
    [ALERT]    (20444) : config : parsing [/tmp/h.cfg:11] : unknown keyword 'nonsense' in \
    'frontend' section\n\
    [WARNING]  (19901) : Failed to load worker (20444) exited with code 1 (Exit)\n\n";

fn worker(pid: u32, reloads: u32, uptime_seconds: u64, version: &str) -> Worker {
    Worker { pid, reloads, uptime_seconds, version: version.to_owned() }
}

#[test]
fn the_master_its_worker_and_the_old_ones_are_told_apart() {
    let version = "2.6.12-1+deb12u4";
    assert_eq!(
        processes(format!("{HEAD}{LISTED_2_6}").as_bytes()),
        Ok(Processes {
            master: Master { pid: 17397, reloads: 3, failed: 0, version: version.to_owned() },
            workers: vec![worker(18128, 0, 1, version)],
            old_workers: vec![worker(17653, 2, 5, version)],
        })
    );
}

#[test]
fn after_a_failed_reload_the_worker_that_serves_may_be_an_old_one() {
    let listed = processes(format!("{HEAD}{LISTED_3_4}").as_bytes()).unwrap();
    assert_eq!((listed.master.reloads, listed.master.failed), (2, 1));
    assert_eq!(listed.workers, []);
    assert_eq!(listed.all_workers().map(|worker| worker.pid).collect::<Vec<_>>(), [21585]);
    assert_eq!(listed.old_workers[0].uptime_seconds, 93784);
}

#[test]
fn programs_are_no_workers() {
    let text = LISTED_2_6.replace(
        "# programs\n",
        "# programs\n17999           api             0               0d00h00m01s     -\n",
    );
    let listed = processes(format!("{HEAD}{text}").as_bytes()).unwrap();
    assert_eq!(listed.all_workers().count(), 2);
}

#[test]
fn a_listing_that_is_none_or_has_a_strange_row_is_an_error() {
    for (from, to) in [
        ("[failed: 0]", ""),
        ("17397  ", "many  "),
        ("master", "maestro"),
        ("worker          0", "worker          x"),
        ("18128           worker", "18128           walker"),
        ("0d00h00m01s", "long"),
    ] {
        let text = LISTED_2_6.replacen(from, to, 1);
        let error = processes(format!("{HEAD}{text}").as_bytes()).unwrap_err();
        assert!(matches!(error, ReplyError::Unreadable { .. }), "{from}: {error:?}");
    }
    assert_eq!(processes(b""), Err(ReplyError::Nothing));
    assert!(matches!(processes(b"Unknown command\n\n"), Err(ReplyError::Refused(_))));
    assert!(processes(format!("{HEAD}\n").as_bytes()).is_err(), "there is no master");
}

#[test]
fn a_reload_is_known_by_its_first_line_and_explained_by_the_rest() {
    let log = "[NOTICE]   (18482) : New worker (19039) forked\n[NOTICE]   (18482) : Loading \
        success.";
    assert_eq!(reload_reply(SUCCESS_3_0.as_bytes()), Ok(ReloadReply::Loaded(log.to_owned())));
    match reload_reply(FAILURE_3_2.as_bytes()) {
        Ok(ReloadReply::Refused(log)) => assert!(log.contains("unknown keyword 'nonsense'")),
        other => panic!("{other:?}"),
    }
    let busy = b"Success=0\n--\nAnother reload is still in progress.\n\n";
    assert_eq!(reload_reply(busy), Ok(ReloadReply::Busy));
    assert_eq!(reload_reply(b""), Ok(ReloadReply::Silence), "2.6 says nothing");
    for strange in ["Success=1", "Success=2\n", "Permission denied\n", "Unknown command\n\n"] {
        assert!(reload_reply(strange.as_bytes()).is_err(), "{strange:?}");
    }
}

#[test]
fn a_worker_tells_its_connections_and_whether_it_ends() {
    let answer = "Name: HAProxy\nVersion: 3.0.11\nPid: 18717\nCurrConns: 3\nCumConns: 9\n\
        Stopping: 1\n\n";
    assert_eq!(
        worker_info(answer.as_bytes()),
        Ok(WorkerInfo { pid: 18717, connections: 3, stopping: true })
    );
    let gone = b"Can't find the target PID matching the prefix '@!99999'\n";
    assert_eq!(
        worker_info(gone),
        Err(ReplyError::Refused(
            "Can't find the target PID matching the prefix '@!99999'".to_owned()
        ))
    );
    assert!(worker_info(b"Name: HAProxy\nPid: 1\n\n").is_err());
}

#[test]
fn workers_are_named_as_the_master_reads_them() {
    assert_eq!([Target::Current, Target::Pid(7)].map(|target| target.to_string()), ["@1", "@!7"]);
}

proptest! {
    #[test]
    fn a_listing_cut_at_any_byte_is_an_error(
        text in prop_oneof![Just(LISTED_2_6), Just(LISTED_3_4)],
        cut: prop::sample::Index,
    ) {
        let whole = format!("{HEAD}{text}");
        prop_assert!(processes(&whole.as_bytes()[..cut.index(whole.len())]).is_err());
    }

    #[test]
    fn a_cut_reply_is_never_the_other_outcome(cut in 0..SUCCESS_3_0.len()) {
        prop_assert!(!matches!(
            reload_reply(&SUCCESS_3_0.as_bytes()[..cut]),
            Ok(ReloadReply::Refused(_))
        ));
    }

    #[test]
    fn no_bytes_make_the_parsers_panic(
        answer in proptest::collection::vec(any::<u8>(), 0..200),
        rows in "([0-9]{1,12}|master|worker|#|[ \n\\[\\]]|failed:|[0-9dhms]{1,9}){0,40}",
    ) {
        let _ = processes(&answer);
        let _ = processes(format!("{HEAD}{rows}\n\n").as_bytes());
        let _ = reload_reply(&answer);
        let _ = worker_info(&answer);
    }
}
