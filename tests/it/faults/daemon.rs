//! The Mapsmith of a run: its settings, its clock, and what it may have open.

use std::fs;
use std::path::{Path, PathBuf};

use super::registry::Registries;
use super::schedule::{Polling, Routing, Site};
use crate::support::admin_proxy::AdminProxy;
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::pool;

/// What a service may have open at a time, where nobody says otherwise.
pub const MOST_FILES: usize = 1024;

/// libfaketime, where it is installed.
fn fake_time() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|folder| folder.path());
    let mut files = folders.map(|folder| folder.join("faketime/libfaketime.so.1"));
    files.find(|file| file.is_file())
}

/// The settings of a Mapsmith whose sources read documents of this name, with their number behind
/// it.
pub fn settings(
    site: &Site,
    map: &Path,
    registries: &Registries,
    documents: &str,
    proxies: &[AdminProxy],
    store: &Path,
) -> String {
    let poll = match site.polling {
        Polling::EverySecond => "1s",
        Polling::Cron => "* * * * * *",
        Polling::OnRequest => "1h",
    };
    let mut text = format!(
        "[schedule]\npoll = \"{poll}\"\njitter = \"0s\"\nverify = \"1s\"\nobserve \
            = \"100ms\"\nservers = \"200ms\"\n\
         [damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"0s\"\nmax_removed = \"100%\"\n\
         [guard]\nsmall = 4\nwindow = \"0s\"\n[map]\npath = {map:?}\n"
    );
    let source = |name: &str| {
        let url = registries.url(name);
        format!(
            "[[source]]\nname = {name:?}\ntype = \"http_json\"\nurl = {url:?}\ntimeout = \"2s\"\n"
        )
    };
    (0..site.sources).for_each(|number| text += &source(&format!("{documents}{number}")));
    if site.servers {
        let backend = pool::BACKEND;
        text += &source("servers");
        text += &format!(
            "[[backend]]\nname = {backend:?}\nfrom = \"servers\"\nmanage = \"all\"\ndrain \
                = \"2s\"\n"
        );
    }
    if site.pins {
        text += &format!("[store]\npath = {:?}\n", store.join("mapsmith.db"));
    }
    if site.routing == Routing::Redispatch {
        text += "[learned]\ntable = \"puppet\"\n";
    }
    for (number, proxy) in proxies.iter().enumerate() {
        let runtime = proxy.address();
        text += &format!(
            "[[instance]]\nname = \"edge{number}\"\nruntime = {runtime:?}\ntimeout \
                = \"2s\"\nmax_payload = 1024\n"
        );
    }
    text
}

/// Starts it, and names the file that steps its clock.
pub fn start(mut config: Config) -> (Mapsmith, Option<PathBuf>) {
    let mut clock = None;
    if let Some(library) = fake_time() {
        let file = config.directory().join("clock");
        fs::write(&file, "+0\n").expect("the clock's file");
        // The file's text is read at each look, and only the time of day steps: no machine's
        // monotonic clock does.
        config = config
            .variable("LD_PRELOAD", &library.display().to_string())
            .variable("FAKETIME_TIMESTAMP_FILE", &file.display().to_string())
            .variable("FAKETIME_NO_CACHE", "1")
            .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        clock = Some(file);
    }
    (config.open_files(MOST_FILES, MOST_FILES).start(), clock)
}

/// libfaketime's shared memory stays behind where its process is killed, and would keep a later one
/// of the same number from starting.
pub fn forget_fake_time(process: u32) {
    for name in [format!("faketime_shm_{process}"), format!("sem.faketime_sem_{process}")] {
        // Where nothing was left there is nothing to do.
        let _ = fs::remove_file(Path::new("/dev/shm").join(name));
    }
}
