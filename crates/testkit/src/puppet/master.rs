//! A Puppet Server from the package, in a folder of its own, plain on loopback.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::process::{Ending, Process};
use crate::{eventually, http, program};

/// A cold start on a busy machine: ten minutes were seen beside four builds, half a minute alone.
const PATIENCE: Duration = Duration::from_secs(900);

/// Where the package has its configuration.
const PACKAGED: &str = "/etc/puppet/puppetserver";

/// Debian's own, with a small heap and a quick compiler.
const JAVA_OPTIONS: [&str; 12] = [
    "-Xms256m",
    "-Xmx768m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-Djruby.logger.class=com.puppetlabs.jruby_utils.jruby.Slf4jLogger",
    "-Djruby.lib=/usr/share/jruby/lib",
    "-Djava.security.egd=/dev/urandom",
    "--add-opens",
    "java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-opens",
    "java.base/java.io=ALL-UNNAMED",
];

/// To the process's own log: the packaged file writes below /var/log.
const LOGBACK: &str = r#"<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d %-5p [%c{2}] %m%n</pattern></encoder>
  </appender>
  <logger name="org.eclipse.jetty" level="WARN"/>
  <root level="info"><appender-ref ref="OUT"/></root>
</configuration>
"#;

/// What it compiles: who did it, and files for an agent that says where (`FACTER_target`).
///
/// Of the file's two sources the first is missing everywhere.
const MANIFEST: &str = r"node default {
  notify { 'compiled by {name}': }
  if $facts['target'] {
    file { $facts['target']:
      source => ['puppet:///modules/site/missing', 'puppet:///modules/site/there'],
    }
  }
  if $facts['folder'] {
    file { $facts['folder']: ensure => directory, recurse => true,
      source => 'puppet:///modules/site/many', }
  }
}
";

/// How many files [`MANIFEST`] has in its folder: a run that takes them all asks as often.
const FILES: usize = 150;

/// A Puppet Server; it ends, and its folder goes, when the test process has ended.
pub struct Master {
    name: &'static str,
    folder: PathBuf,
    plain: SocketAddr,
    process: Mutex<Option<Process>>,
}

impl Master {
    /// Writes its configuration into a folder that has its certificate (`conf/ssl`) already.
    pub(super) fn prepare(
        name: &'static str,
        folder: &Path,
        port: u16,
        ca_port: u16,
        puppetdb: &str,
    ) -> Self {
        let plain = SocketAddr::from(([127, 0, 0, 1], port));
        let master = Self { name, folder: folder.to_owned(), plain, process: Mutex::new(None) };
        master.write_puppet(ca_port, puppetdb);
        master.write_server();
        master.write_code();
        master
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where it keeps everything it has.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where it listens, without TLS, and believes whatever headers say.
    pub fn plain(&self) -> SocketAddr {
        self.plain
    }

    /// Starts it, and waits for nothing.
    pub(super) fn launch(&self) {
        let (java, jar) = (program("java"), "/usr/share/puppetserver/puppetserver.jar");
        let services = if self.has_ca() { "services.d" } else { "services-without-ca.d" };
        let file = |name: &str| self.folder.join(name).to_str().expect("UTF-8").to_owned();
        let (conf, services, temporary) = (
            file("server/conf.d"),
            file(&format!("server/{services}")),
            format!("-Djava.io.tmpdir={}", file("tmp")),
        );
        // Relative to this folder it finds what belongs to the package.
        let mut command = vec!["env", "-C", "/usr/share/puppetserver"];
        command.push(java.to_str().expect("a path in UTF-8"));
        command.extend(JAVA_OPTIONS);
        command.extend([&temporary, "-jar", jar, "--config", &conf]);
        command.extend(["--bootstrap-config", &services]);
        let ending = Ending { remove: Some(self.folder.clone()), ..Ending::default() };
        *self.process() =
            Some(Process::start(&command, &self.folder.join("puppetserver.log"), ending));
    }

    /// Waits until it serves.
    pub(super) fn wait(&self) {
        eventually(&format!("{} serves", self.name), PATIENCE, || {
            let mut process = self.process();
            let process = process.as_mut().expect("it was started");
            assert!(process.exit_status().is_none(), "{} ended:\n{}", self.name, process.log());
            let answer = http::request(self.plain, "GET", "/status/v1/simple", &[], "").ok()?;
            (answer.status == 200 && answer.body == "running").then_some(())
        });
    }

    /// Ends it with SIGKILL; whatever it works on is lost.
    pub fn kill(&self) {
        if let Some(mut process) = self.process().take() {
            process.kill();
        }
    }

    /// Starts it again after [`Self::kill`], and waits until it serves.
    pub fn restart(&self) {
        self.launch();
        self.wait();
    }

    /// All that it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("puppetserver.log")).unwrap_or_default()
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ca(&self) -> bool {
        self.folder.join("ca").is_dir()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    fn write_puppet(&self, ca_port: u16, puppetdb: &str) {
        let (name, folder) = (self.name, self.folder.display());
        self.write(
            "conf/puppet.conf",
            &format!(
                "[main]\ncertname = {name}\nserver = 127.0.0.1\nca_server = 127.0.0.1\n\
                 serverport = {ca_port}\nca_port = {ca_port}\nkeylength = 2048\n\
                 confdir = {folder}/conf\nssldir = {folder}/conf/ssl\nvardir = {folder}/var\n\
                 rundir = {folder}/run\nlogdir = {folder}/log\ncodedir = {folder}/code\n\
                 [server]\ncadir = {folder}/ca\nautosign = {folder}/conf/autosign.conf\n\
                 storeconfigs = true\nstoreconfigs_backend = puppetdb\nreports = puppetdb\n\
                 environment_timeout = unlimited\n"
            ),
        );
        self.write("conf/autosign.conf", "*.auto\n");
        self.write(
            "conf/puppetdb.conf",
            &format!("[main]\nserver_urls = {puppetdb}\nsoft_write_failure = true\n"),
        );
        self.write(
            "conf/routes.yaml",
            "---\nserver:\n  facts:\n    terminus: puppetdb\n    cache: yaml\n",
        );
    }

    /// The packaged configuration, with folders of its own, on loopback, and with the node that
    /// headers name: what docs/gateway.md has an operator change.
    fn write_server(&self) {
        let packaged = |name: &str| {
            let path = format!("{PACKAGED}/{name}");
            fs::read_to_string(&path).unwrap_or_else(|error| {
                panic!("{path}: {error} (run scripts/setup; the group `puppet` may read it)")
            })
        };
        let folder = self.folder.display();
        let mut server: String = packaged("conf.d/puppetserver.conf")
            .lines()
            .filter(|line| !line.trim_start().starts_with("server-"))
            .map(|line| format!("{line}\n"))
            .collect();
        server += &format!(
            "jruby-puppet: {{\n max-active-instances: 2\n server-conf-dir: {folder}/conf\n \
             server-code-dir: {folder}/code\n server-var-dir: {folder}/var\n \
             server-run-dir: {folder}/run\n server-log-dir: {folder}/log\n}}\n"
        );
        self.write("server/conf.d/puppetserver.conf", &server);
        let auth = packaged("conf.d/auth.conf");
        let version = "    version: 1\n";
        assert!(auth.contains(version), "auth.conf is not as it was: {auth}");
        let auth = auth.replace(version, &format!("{version}    allow-header-cert-info: true\n"));
        self.write("server/conf.d/auth.conf", &auth);
        for name in ["web-routes.conf", "metrics.conf"] {
            self.write(&format!("server/conf.d/{name}"), &packaged(&format!("conf.d/{name}")));
        }
        self.write(
            "server/conf.d/ca.conf",
            "certificate-authority: { allow-subject-alt-names: true }\n",
        );
        let logging = format!("global: {{ logging-config: {folder}/server/logback.xml }}\n");
        self.write("server/conf.d/global.conf", &logging);
        self.write("server/logback.xml", LOGBACK);
        let port = self.plain.port();
        self.write(
            "server/conf.d/webserver.conf",
            &format!("webserver: {{ host: 127.0.0.1, port: {port} }}\n"),
        );
        let ca = packaged("services.d/ca.cfg");
        let line =
            |service: &str| format!("puppetlabs.services.ca.{service}-service/{service}-service\n");
        let (on, off) = (line("certificate-authority"), line("certificate-authority-disabled"));
        assert!(ca.contains(&format!("\n{on}")) && ca.contains(&format!("#{off}")), "{ca}");
        let without = ca.replace(&format!("\n{on}"), "\n").replace(&format!("#{off}"), &off);
        for (folder, ca) in [("services.d", ca), ("services-without-ca.d", without)] {
            let bootstrap = packaged("services.d/bootstrap.cfg");
            self.write(&format!("server/{folder}/bootstrap.cfg"), &bootstrap);
            self.write(&format!("server/{folder}/ca.cfg"), &ca);
        }
    }

    fn write_code(&self) {
        let environment = "code/environments/production";
        self.write(
            &format!("{environment}/manifests/site.pp"),
            &MANIFEST.replace("{name}", self.name),
        );
        let files = format!("{environment}/modules/site/files");
        self.write(&format!("{files}/there"), "a file\n");
        for number in 0..FILES {
            self.write(&format!("{files}/many/{number}"), &format!("file {number}\n"));
        }
        for folder in ["var", "run", "log", "tmp"] {
            fs::create_dir_all(self.folder.join(folder)).expect("a folder");
        }
    }
}
