//! Map files that can't be written, or not be had at all.

use std::fs;
use std::os::unix::fs::FileTypeExt;

use super::run::{milliseconds, moves, tracer};
use super::site::{Outcome, Whole};
use crate::support::random::Random;
use crate::support::run;

/// Longer than anybody waits, in microseconds.
const FOREVER: &str = "3600000000";

fn is_told(whole: &Whole) -> bool {
    !whole.status()["map_file"]["error"].is_null()
}

/// The disk is full or read-only: nothing of what the registries say comes into force.
pub fn map_disk(
    whole: &mut Whole,
    random: &mut Random,
    full: bool,
    killed: Option<usize>,
) -> Outcome {
    let before = whole.photograph()?.without_servers();
    if full {
        whole.map_volume.fill()
    } else {
        whole.map_volume.read_only(true)
    }
    moves(whole, random);
    whole.nudge();
    let mut outcome = whole.stays(&before, "the map file can't be written", is_told);
    if let Some(instance) = killed
        && outcome.is_ok()
    {
        whole.journal.note("  HAProxy is killed meanwhile");
        whole.restart_gateway(instance, |_| ());
        outcome = whole.stays(
            &before,
            "the map file can't be written, and HAProxy is restarted",
            is_told,
        );
    }
    if outcome.is_ok() && random.chance(40) {
        whole.journal.note("  Mapsmith is killed meanwhile");
        whole.restart_mapsmith();
        outcome = whole.stays(
            &before,
            "the map file can't be written, and Mapsmith is restarted",
            is_told,
        );
    }
    if full {
        whole.map_volume.clear()
    } else {
        whole.map_volume.read_only(false)
    }
    outcome
}

/// Memory stays as it is: of a file that could not be made to last nothing may come into force. The
/// file itself may be replaced already.
pub fn map_disk_broken(
    whole: &mut Whole,
    random: &mut Random,
    call: &str,
    which: &str,
) -> Result<bool, String> {
    let before = whole.photograph_memory()?;
    let Some(tracer) = tracer(whole, call, &[], &format!("error=EIO:when={which}")) else {
        return Ok(false);
    };
    moves(whole, random);
    whole.nudge();
    whole.stays(&before, "the map file can't be made to last", is_told)?;
    // In between the registry may take it back, or say something else.
    if random.chance(50) {
        moves(whole, random);
        whole.nudge();
        milliseconds(random.below(1500) as u64);
    }
    drop(tracer);
    Ok(true)
}

/// A FIFO stands where the file was, and whoever opens it waits. Nobody may: Mapsmith tells of it,
/// or puts a file in its place.
pub fn map_file_fifo(whole: &mut Whole, random: &mut Random) -> Outcome {
    let before = whole.photograph_memory()?;
    whole.laws.hide_file(true);
    let (path, fifo) = (whole.map_path(), whole.map_path().with_extension("fifo"));
    run("mkfifo", &[fifo.to_str().expect("a path in UTF-8")]);
    fs::rename(&fifo, &path).expect("the FIFO is in place");
    let is_fifo = || fs::symlink_metadata(&path).is_ok_and(|file| file.file_type().is_fifo());
    whole.stays(&before, "the map file is a FIFO", |whole| is_told(whole) || !is_fifo())?;
    if is_fifo() {
        whole.journal.note("  told");
        moves(whole, random);
        whole.nudge();
        milliseconds(random.below(1500) as u64);
        whole.stays(&before, "the map file is a FIFO", is_told)?;
        // It may be replaced by now.
        if is_fifo() {
            fs::remove_file(&path).expect("the FIFO goes");
        }
    }
    let expected = whole.expected();
    whole.holds(&expected).map_err(|error| format!("after a FIFO: {error}"))?;
    whole.laws.hide_file(false);
    Ok(())
}

/// Every call for the file or its folder waits, as on a mount whose server is gone. Memory stays,
/// Mapsmith tells of it and answers.
pub fn map_disk_hung(whole: &mut Whole, random: &mut Random) -> Result<bool, String> {
    let before = whole.photograph_memory()?;
    let (file, folder) = (whole.map_path(), whole.map_volume.path().to_owned());
    let places = [&*file.to_string_lossy(), &*folder.to_string_lossy()];
    let Some(tracer) = tracer(whole, "%file,%desc", &places, &format!("delay_enter={FOREVER}"))
    else {
        return Ok(false);
    };
    moves(whole, random);
    whole.nudge();
    whole.stays(&before, "the map file's disk hangs", is_told)?;
    whole.journal.note("  told");
    milliseconds(random.below(1500) as u64);
    whole.stays(&before, "the map file's disk hangs", is_told)?;
    drop(tracer);
    Ok(true)
}
