//! The command that adds TXT records to DNS and removes them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use tokio::process::Command;

use crate::command::{CommandError, Output, run_within};
use crate::settings::Acme;

/// How much of what it prints is kept.
const OUTPUT: usize = 2000;

pub(super) struct Hook<'a> {
    settings: &'a Acme,
}

impl<'a> Hook<'a> {
    pub fn new(settings: &'a Acme) -> Self {
        Self { settings }
    }

    /// Calls it; `what` is `add` or `remove`.
    ///
    /// # Errors
    /// It can't be run, fails or takes too long, with what it printed.
    pub async fn call(&self, what: &str, name: &str, value: &str) -> Result<(), String> {
        let bound = self.settings.hook_timeout;
        let Some((program, arguments)) = self.settings.hook.split_first() else {
            return Err("acme.hook: is missing".to_owned());
        };
        let failed = |why: String| format!("acme.hook {program} {what} {name}: {why}");
        let mut command = Command::new(program.as_str());
        // What Mapsmith itself is let in with.
        command.env_remove("MAPSMITH_TOKEN");
        command.args(arguments.iter().map(|word| word.as_str())).args([what, name, value]);
        match run_within(command, bound, OUTPUT, Command::spawn).await {
            Ok(output) if output.status.success() => Ok(()),
            Ok(Output { status, stdout, stderr, .. }) => {
                let said = [stderr, stdout].map(|text| in_one_line(&text)).join(" ");
                Err(failed(format!("{status}: {}", said.trim())))
            }
            Err(CommandError::Silent { .. }) => {
                Err(failed(format!("has not ended within {bound:?}, and was killed")))
            }
            Err(CommandError::Start { cause, .. }) => Err(failed(format!("can't be run: {cause}"))),
        }
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// Why it can't.
    pub fn check(&self) -> Result<(), String> {
        let Some(program) = self.settings.hook.first() else { return Ok(()) };
        let wrong = |why: &str| Err(format!("acme.hook {program}: {why}"));
        match fs::metadata(program.as_str()) {
            Err(error) => wrong(&error.to_string()),
            Ok(file) if !file.is_file() || file.mode() & 0o111 == 0 => {
                wrong("is not a program; chmod +x it")
            }
            Ok(_) => Ok(()),
        }
    }
}

/// What it prints, for a person.
fn in_one_line(text: &str) -> String {
    let text: Vec<_> = text.split(char::is_control).map(str::trim).collect();
    text.join(" ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::settings::acme::tests::by_hook;

    #[tokio::test]
    async fn what_a_hook_that_hangs_has_started_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let script = format!("sleep 60 & echo $! >{}; wait", pid.display());
        let settings = by_hook(&["/bin/sh", "-c", &script], Duration::from_millis(500));
        let error = Hook::new(&settings).call("add", "a.test", "x").await.unwrap_err();
        assert!(error.ends_with("has not ended within 500ms, and was killed"), "{error}");
        let pid = fs::read_to_string(&pid).unwrap();
        let state = || fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        let is_gone = || state().is_ok_and(|stat| stat.contains(") Z ")) || state().is_err();
        let began = Instant::now();
        while !is_gone() {
            assert!(began.elapsed() < Duration::from_secs(10), "{pid} goes on: {:?}", state());
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_hook_that_leaves_something_running_has_done_its_work() {
        let settings = by_hook(&["/bin/sh", "-c", "sleep 60 &"], Duration::from_secs(20));
        let began = Instant::now();
        Hook::new(&settings).call("add", "a.test", "x").await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    }

    #[test]
    fn a_hook_that_can_not_be_run_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hook");
        let check = |path: &Path| {
            let path = path.display().to_string();
            Hook::new(&by_hook(&[&path], Duration::from_secs(1))).check()
        };
        assert!(check(&file).unwrap_err().contains("No such file"), "{:?}", check(&file));
        fs::write(&file, "").unwrap();
        assert!(check(&file).unwrap_err().ends_with("is not a program; chmod +x it"));
        assert_eq!(check(Path::new("/bin/sh")), Ok(()));
    }
}
