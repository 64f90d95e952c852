//! Programs that are run to their end: within a time, and with what they print kept to a bound.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

/// The most bytes of each stream that are kept unless the caller says; the rest is read and
/// dropped.
const MOST_PRINTED: usize = 256 * 1024;
/// How long what a program left behind may hold its streams open after its end.
const REST: Duration = Duration::from_millis(200);

/// What a program did.
#[derive(Debug)]
pub(crate) struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    /// Whether it printed more to `stdout` than was kept.
    pub cut: bool,
}

/// Why a program did nothing that counts.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{program} can't be started: {cause}")]
    Start { program: String, cause: io::Error },
    #[error("{program} did not end within {bound:?} and was stopped")]
    Silent { program: String, bound: Duration },
}

/// Runs a program to its end, with a process group of its own, which is killed if it takes longer.
pub(crate) async fn run(
    command: Command,
    bound: Duration,
    spawn: impl FnOnce(&mut Command) -> io::Result<Child>,
) -> Result<Output, CommandError> {
    run_within(command, bound, MOST_PRINTED, spawn).await
}

/// The same, with so many bytes of each stream kept.
pub(crate) async fn run_within(
    mut command: Command,
    bound: Duration,
    printed: usize,
    spawn: impl FnOnce(&mut Command) -> io::Result<Child>,
) -> Result<Output, CommandError> {
    command.stdin(Stdio::null());
    run_to_its_end(command, Vec::new(), bound, printed, spawn).await
}

/// The same, with `input` on its standard input, which it need not read.
pub(crate) async fn run_with_input(
    mut command: Command,
    input: Vec<u8>,
    bound: Duration,
    printed: usize,
    spawn: impl FnOnce(&mut Command) -> io::Result<Child>,
) -> Result<Output, CommandError> {
    command.stdin(Stdio::piped());
    run_to_its_end(command, input, bound, printed, spawn).await
}

async fn run_to_its_end(
    mut command: Command,
    input: Vec<u8>,
    bound: Duration,
    printed: usize,
    spawn: impl FnOnce(&mut Command) -> io::Result<Child>,
) -> Result<Output, CommandError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let started = |cause| CommandError::Start { program: program.clone(), cause };
    let mut child = spawn(&mut command).map_err(started)?;
    let mut group = Group::of(&child);
    match timeout(bound, finish(&mut child, &input, printed)).await {
        Ok(output) => {
            group.0 = None;
            output.map_err(started)
        }
        Err(_) => {
            drop(group);
            let _ = child.wait().await;
            Err(CommandError::Silent { program, bound })
        }
    }
}

/// The processes of a program that has not ended. They end with whoever waits for it.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It may have ended this very moment.
        let _ = self.0.map(|group| kill_process_group(group, Signal::KILL));
    }
}

async fn finish(child: &mut Child, input: &[u8], most: usize) -> io::Result<Output> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let status = {
        let read = async {
            let (out, err) = (keep(stdout, most, &mut out), keep(stderr, most, &mut err));
            tokio::join!(give(stdin, input), out, err)
        };
        tokio::pin!(read);
        tokio::select! {
            _ = &mut read => child.wait().await?,
            status = child.wait() => {
                // Another process may hold the streams that has been started on the way.
                let _ = timeout(REST, &mut read).await;
                status?
            }
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr, cut) = (text(&out[..out.len().min(most)]), text(&err), out.len() > most);
    Ok(Output { status, stdout, stderr, cut })
}

/// Writes as much as the program takes, and closes its input.
async fn give(stream: Option<ChildStdin>, input: &[u8]) {
    if let Some(mut stream) = stream {
        // It may end without having read anything.
        let _ = stream.write_all(input).await;
    }
}

/// Reads to the end, and keeps one byte more than that. What can't be read is not there.
async fn keep(stream: Option<impl AsyncRead + Unpin>, most: usize, kept: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 8192];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let room = (most + 1).saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, bound: Duration) -> Result<Output, CommandError> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, bound, Command::spawn).await
    }

    #[tokio::test]
    async fn what_a_program_says_is_kept_with_its_exit_code() {
        let output =
            shell("echo out; echo err >&2; exit 3", Duration::from_secs(30)).await.unwrap();
        let printed = (output.stdout.as_str(), output.stderr.as_str(), output.cut);
        assert_eq!(printed, ("out\n", "err\n", false));
        assert_eq!(output.status.code(), Some(3));
    }

    #[tokio::test]
    async fn a_flood_of_words_is_cut_and_does_not_stop_the_program() {
        let output =
            shell("yes | head -c 3000000; echo end >&2", Duration::from_secs(60)).await.unwrap();
        assert_eq!((output.stdout.len(), output.cut), (MOST_PRINTED, true));
        assert_eq!(output.stderr, "end\n");
    }

    #[tokio::test]
    async fn a_program_that_never_ends_is_stopped_with_all_that_it_started() {
        let error = shell("sleep 1000 & echo $!; wait", Duration::from_millis(300)).await;
        assert!(matches!(error, Err(CommandError::Silent { .. })), "{error:?}");
    }

    #[tokio::test]
    async fn a_program_that_nobody_waits_for_any_more_is_stopped_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script =
            format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", file.display());
        let bound = Duration::from_secs(60);
        let pid = async {
            loop {
                if let Ok(pid) = std::fs::read_to_string(&file) {
                    break pid.trim().to_owned();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let pid = tokio::select! {
            ended = shell(&script, bound) => panic!("it ended: {ended:?}"),
            pid = pid => pid,
        };
        // Whoever inherits what is left of it may take a moment to bury it.
        let is_gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z "))
        };
        let wait = async {
            while !is_gone() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(bound, wait).await.expect("the program's child goes on");
    }

    #[tokio::test]
    async fn what_a_program_leaves_running_does_not_keep_its_caller() {
        let output = shell("sleep 1000 & echo $!", Duration::from_secs(60)).await.unwrap();
        let left = Pid::from_raw(output.stdout.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(left, Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn a_program_reads_its_input_or_not() {
        let bound = Duration::from_secs(60);
        let input = vec![b'x'; 1_000_000];
        for (script, printed) in [("wc -c", "1000000\n"), ("echo done", "done\n")] {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            let ran = run_with_input(command, input.clone(), bound, 100, Command::spawn).await;
            let output = ran.unwrap();
            assert_eq!((output.status.code(), output.stdout.as_str()), (Some(0), printed));
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let command = Command::new("/no/such/program");
        let error = run(command, Duration::from_secs(1), Command::spawn).await.unwrap_err();
        assert!(error.to_string().starts_with("/no/such/program can't be started: "), "{error}");
    }
}
