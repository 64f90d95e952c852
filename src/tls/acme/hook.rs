//! The command that adds TXT records to DNS and removes them.

use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncReadExt, copy, sink};
use tokio::process::Command;
use tokio::time::timeout;

use crate::settings::Acme;

/// How much of what it prints is kept.
const OUTPUT: u64 = 2000;

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
        let child = Command::new(program.as_str())
            .args(arguments.iter().map(|word| word.as_str()))
            .args([what, name, value])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = child.map_err(|error| failed(format!("can't be run: {error}")))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ended = timeout(bound, async {
            tokio::join!(child.wait(), beginning(stdout), beginning(stderr))
        });
        let Ok((status, stdout, stderr)) = ended.await else {
            return Err(failed(format!("has not ended within {bound:?}, and was killed")));
        };
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                let said = format!("{stderr} {stdout}");
                Err(failed(format!("{status}: {}", said.trim())))
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// The first part of what it prints, in one line; the rest is read, so that it can go on.
async fn beginning(output: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut output) = output else { return String::new() };
    let mut kept = Vec::new();
    // What can't be read is not said.
    let _ = (&mut output).take(OUTPUT).read_to_end(&mut kept).await;
    let _ = copy(&mut output, &mut sink()).await;
    let text = String::from_utf8_lossy(&kept);
    let text: Vec<_> = text.split(char::is_control).map(str::trim).collect();
    text.join(" ").trim().to_owned()
}
