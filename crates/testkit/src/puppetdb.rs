//! A real PuppetDB with its PostgreSQL, one for all tests: it takes half a minute to start.
//!
//! Every test sees every test's nodes, so each takes certnames of its own and asks for those alone,
//! as in `factsets[certname, producer] { certname ~ "^my-test-" }`.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::authority::Authority;
use crate::process::{Ending, Process};
use crate::{eventually, free_port, http, program, run};

/// A cold start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// PuppetDB's heap is small and its compiler quick: it starts in half the time, and a test asks it
/// little.
const JAVA_OPTIONS: [&str; 5] = [
    "-Xmx512m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-Djava.security.egd=/dev/urandom",
];

/// With the compilers and the collector that Java takes by itself, as at a site.
const DEPLOYED_JAVA_OPTIONS: [&str; 2] = ["-Xmx512m", "-Djava.security.egd=/dev/urandom"];

/// The running pair. Both end, and their folders go, when the test process has ended, however that
/// was.
pub struct PuppetDb {
    http: SocketAddr,
    tls: SocketAddr,
    directory: PathBuf,
    authority: Authority,
    java_options: &'static [&'static str],
    database_port: u16,
    /// The last producer timestamp given, in milliseconds: PuppetDB keeps the facts with the newest
    /// one.
    last_timestamp: AtomicI64,
    postgres: Mutex<Process>,
    /// None while it is stopped.
    process: Mutex<Option<Process>>,
}

impl PuppetDb {
    /// The one instance; the first caller starts it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<PuppetDb> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Plain HTTP, which needs no certificate.
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// TLS, where only the client certificate `gateway` may ask.
    pub fn tls_url(&self) -> String {
        format!("https://{}", self.tls)
    }

    /// Who signed its certificate and those of its clients.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.authority.ca()
    }

    /// The certificate of `gateway`, `stranger` or `rogue`: the first is on the allowlist, the
    /// second is not, and the third is self-signed.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.authority.certificate(name)
    }

    /// The key to [`Self::certificate`].
    pub fn key(&self, name: &str) -> PathBuf {
        self.authority.key(name)
    }

    /// A Puppet Server (the producer) sends a node's facts. Waits until they are stored, or only
    /// until they are queued.
    pub fn replace_facts(&self, certname: &str, producer: &str, wait: bool) {
        self.send_facts(certname, Some(producer), wait);
    }

    /// The same through a master whose clock differs by so much from the others'. Waits until they
    /// are stored.
    pub fn replace_facts_by_clock(&self, certname: &str, producer: &str, ahead: SignedDuration) {
        let timestamp = self.next_timestamp(ahead);
        self.command(
            "replace_facts",
            5,
            certname,
            &timestamp,
            &facts(certname, Some(producer), &timestamp),
            true,
        );
    }

    /// The same with facts of the node's own. Waits until they are stored.
    pub fn replace_facts_with(&self, certname: &str, producer: &str, values: Value) {
        self.send_facts_with(certname, producer, values, true);
    }

    /// The same. Waits until they are stored, or only until they are queued.
    pub fn send_facts_with(&self, certname: &str, producer: &str, values: Value, wait: bool) {
        let timestamp = self.next_timestamp(SignedDuration::ZERO);
        let mut facts = facts(certname, Some(producer), &timestamp);
        facts["values"] = values;
        self.command("replace_facts", 5, certname, &timestamp, &facts, wait);
    }

    /// A node's facts without a producer, as old Puppet Servers and imports leave them. Waits until
    /// they are stored.
    pub fn replace_facts_of_no_producer(&self, certname: &str) {
        self.send_facts(certname, None, true);
    }

    fn send_facts(&self, certname: &str, producer: Option<&str>, wait: bool) {
        let timestamp = self.next_timestamp(SignedDuration::ZERO);
        self.command(
            "replace_facts",
            5,
            certname,
            &timestamp,
            &facts(certname, producer, &timestamp),
            wait,
        );
    }

    /// Takes a node out of service, as `puppet node deactivate` does. Waits until it is.
    pub fn deactivate(&self, certname: &str) {
        let timestamp = self.next_timestamp(SignedDuration::ZERO);
        let node = json!({ "certname": certname, "producer_timestamp": timestamp });
        self.command("deactivate_node", 3, certname, &timestamp, &node, true);
    }

    fn command(
        &self,
        command: &str,
        version: u32,
        certname: &str,
        timestamp: &str,
        content: &Value,
        wait: bool,
    ) {
        let wait = if wait { "&secondsToWaitForCompletion=30" } else { "" };
        let path = format!(
            "/pdb/cmd/v1?command={command}&version={version}&certname={certname}\
             &producer-timestamp={timestamp}{wait}"
        );
        let headers = [("Content-Type", "application/json"), ("Accept", "application/json")];
        let body = content.to_string();
        let response =
            http::request(self.http, "POST", &path, &headers, &body).expect("PuppetDB answers");
        assert_eq!(response.status, 200, "{}", response.body);
        let timed_out = response.body.contains("\"timed_out\":true")
            || response.body.contains("\"timed_out\" : true");
        assert!(!timed_out, "PuppetDB did not carry out {command} in time: {}", response.body);
    }

    /// What PuppetDB answers to a query in its language, over plain HTTP.
    pub fn query(&self, query: &str) -> Value {
        let headers = [("Content-Type", "application/json")];
        let body = json!({ "query": query }).to_string();
        let response = http::request(self.http, "POST", "/pdb/query/v4", &headers, &body)
            .expect("PuppetDB answers");
        assert_eq!(response.status, 200, "{}", response.body);
        serde_json::from_str(&response.body).expect("PuppetDB answers in JSON")
    }

    /// Now by a clock that is so much ahead, but always later than the last one: two commands
    /// within a millisecond would tie.
    fn next_timestamp(&self, ahead: SignedDuration) -> String {
        let now = Timestamp::now().as_millisecond();
        let last = self
            .last_timestamp
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(now.max(last + 1)));
        let next = now.max(last.expect("the update always gives one") + 1);
        let next = Timestamp::from_millisecond(next).expect("a time of this age") + ahead;
        next.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
    }

    /// One of its own, for tests that take it away from others.
    pub fn start() -> Self {
        Self::start_with(&JAVA_OPTIONS)
    }

    /// One of its own, for figures: it starts slower and answers faster.
    pub fn start_as_deployed() -> Self {
        Self::start_with(&DEPLOYED_JAVA_OPTIONS)
    }

    fn start_with(java_options: &'static [&'static str]) -> Self {
        // Nobody drops a static: the supervising shells remove these.
        let directory = shared_folder("mapsmith-puppetdb-");
        let database = shared_folder("mapsmith-postgres-");
        let (http_port, tls_port, database_port) = (free_port(), free_port(), free_port());
        for folder in ["conf.d", "ssl", "var"] {
            fs::create_dir(directory.join(folder)).expect("a folder");
        }
        let authority = Authority::create(&directory.join("ssl"));
        ["puppetdb", "gateway", "stranger"].iter().for_each(|name| authority.issue(name));
        authority.self_signed("rogue");
        write_configuration(&directory, http_port, tls_port, database_port);
        let puppetdb = Self {
            http: SocketAddr::from(([127, 0, 0, 1], http_port)),
            tls: SocketAddr::from(([127, 0, 0, 1], tls_port)),
            directory,
            authority,
            java_options,
            database_port,
            last_timestamp: AtomicI64::new(0),
            postgres: Mutex::new(start_postgres(&database, database_port)),
            process: Mutex::new(None),
        };
        puppetdb.create_database();
        puppetdb.resume();
        puppetdb
    }

    /// Ends it; its database stays.
    pub fn stop(&self) {
        if let Some(mut process) = lock(&self.process).take() {
            process.kill();
        }
    }

    /// Starts it, and waits until it answers.
    pub fn resume(&self) {
        let temporary_files = format!("-Djava.io.tmpdir={}", self.directory.display());
        let configuration = self.directory.join("conf.d");
        let java = program("java");
        let mut command = vec![java.to_str().expect("a path in UTF-8")];
        command.extend(self.java_options);
        command.extend([
            &temporary_files,
            "-cp",
            "/usr/share/puppetdb/puppetdb.jar",
            "clojure.main",
        ]);
        command.extend([
            "-m",
            "puppetlabs.puppetdb.core",
            "services",
            "--bootstrap-config",
            "/etc/puppetdb/bootstrap.cfg",
        ]);
        command.extend(["--config", configuration.to_str().expect("a path in UTF-8")]);
        let ending = Ending { remove: Some(self.directory.clone()), ..Ending::default() };
        let mut puppetdb = Process::start(&command, &self.directory.join("puppetdb.log"), ending);
        eventually("PuppetDB answers", PATIENCE, || {
            assert!(puppetdb.exit_status().is_none(), "PuppetDB ended:\n{}", puppetdb.log());
            let response = http::request(self.http, "GET", "/pdb/meta/v1/version", &[], "").ok()?;
            (response.status == 200).then_some(())
        });
        *lock(&self.process) = Some(puppetdb);
    }

    /// While it is stopped: everything that it knew is gone.
    pub fn empty(&self) {
        assert!(lock(&self.process).is_none(), "PuppetDB runs");
        self.sql(&["drop database puppetdb", "drop role puppetdb"]);
        self.create_database();
    }

    fn create_database(&self) {
        eventually("PostgreSQL answers", PATIENCE, || {
            let mut postgres = lock(&self.postgres);
            assert!(postgres.exit_status().is_none(), "PostgreSQL ended:\n{}", postgres.log());
            self.psql(&["select 1"]).output().expect("psql starts").status.success().then_some(())
        });
        self.sql(&[
            "create role puppetdb login password 'puppetdb'",
            "create database puppetdb owner puppetdb encoding 'UTF8' template template0",
            r"\connect puppetdb",
            "create extension pg_trgm",
        ]);
    }

    /// The processes of PuppetDB and of PostgreSQL, whose children serve PuppetDB's connections.
    ///
    /// # Panics
    /// While PuppetDB is stopped.
    pub fn processes(&self) -> [u32; 2] {
        let puppetdb = lock(&self.process).as_ref().map(Process::id).expect("PuppetDB runs");
        [puppetdb, lock(&self.postgres).id()]
    }

    /// What psql is told, in PuppetDB's database.
    pub fn database(&self, commands: &[&str]) {
        self.sql(&[&[r"\connect puppetdb"], commands].concat());
    }

    fn sql(&self, commands: &[&str]) {
        let output = self.psql(commands).output().expect("psql starts");
        assert!(output.status.success(), "{commands:?}: {output:?}");
    }

    fn psql(&self, commands: &[&str]) -> Command {
        let mut psql = Command::new(program("psql"));
        psql.args(["-h", "127.0.0.1", "-p", &self.database_port.to_string(), "-U", "postgres"]);
        psql.args(["-qtA", "-v", "ON_ERROR_STOP=1"]);
        commands.iter().for_each(|command| {
            psql.args(["-c", command]);
        });
        psql
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn facts(certname: &str, producer: Option<&str>, timestamp: &str) -> Value {
    json!({
        "certname": certname,
        "environment": "production",
        "producer_timestamp": timestamp,
        "producer": producer,
        "values": {},
    })
}

/// A folder that another user can enter and nobody drops.
pub(crate) fn shared_folder(prefix: &str) -> PathBuf {
    let folder =
        tempfile::Builder::new().prefix(prefix).tempdir().expect("a temporary folder").keep();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("our own folder");
    folder
}

/// PostgreSQL refuses to run as root: there it runs as the user that its package made.
fn start_postgres(directory: &Path, port: u16) -> Process {
    let programs = postgres_programs();
    let (initdb, server) = (programs.join("initdb"), programs.join("postgres"));
    let (initdb, server) =
        (initdb.to_str().expect("a path in UTF-8"), server.to_str().expect("a path in UTF-8"));
    let data = directory.join("data");
    let data = data.to_str().expect("a path in UTF-8");
    // Not runuser, which stays in between and keeps the signal that ends the server to itself.
    let other_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"];
    let user: &[&str] = if run("id", &["-u"]).trim() == "0" { &other_user } else { &["env"] };
    if user[0] == "setpriv" {
        run("install", &["-d", "-o", "postgres", "-g", "postgres", "-m", "700", data]);
    }
    let create =
        ["-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-locale", "--no-sync"];
    run(user[0], &[&user[1..], &[initdb], &create].concat());
    let port = port.to_string();
    let serve =
        ["-D", data, "-p", &port, "-h", "127.0.0.1", "-k", "", "-F", "-c", "full_page_writes=off"];
    // SIGQUIT has it end its own children and give its shared memory back, which SIGKILL would not.
    let ending = Ending { signal: "QUIT", remove: Some(directory.to_owned()) };
    Process::start(&[user, &[server], &serve].concat(), &directory.join("postgres.log"), ending)
}

/// The newest PostgreSQL's folder of programs; Debian has one a version.
fn postgres_programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, folder)| folder.join("initdb").is_file())
        .max()
        .map(|(_, folder)| folder)
        .expect("PostgreSQL is not installed: run scripts/setup")
}

fn write_configuration(directory: &Path, http_port: u16, tls_port: u16, database_port: u16) {
    let folder = directory.join("conf.d");
    let write = |name: &str, text: String| {
        fs::write(folder.join(name), text).expect("a configuration file")
    };
    // The masters of `puppet::Fleet` send it what they know.
    fs::write(directory.join("allowlist"), "gateway\npuppet00\npuppet01\n").expect("the allowlist");
    let directory = directory.display();
    write(
        "config.ini",
        format!(
            "[global]\nvardir = {directory}/var\n\
             [puppetdb]\ndisable-update-checking = true\ncertificate-allowlist = \
             {directory}/allowlist\n\
             [command-processing]\nthreads = 1\n\
             [nrepl]\nenabled = false\n"
        ),
    );
    write(
        "database.ini",
        format!(
            "[database]\nsubname = //127.0.0.1:{database_port}/puppetdb\nusername = \
                puppetdb\npassword = puppetdb\n"
        ),
    );
    write(
        "jetty.ini",
        format!(
            "[jetty]\nhost = 127.0.0.1\nport = {http_port}\nssl-host = 127.0.0.1\nssl-port = \
                {tls_port}\n\
             ssl-key = {directory}/ssl/puppetdb.key\nssl-cert = \
             {directory}/ssl/puppetdb.pem\nssl-ca-cert = {directory}/ssl/ca.pem\n"
        ),
    );
    // Guards PuppetDB's metrics only, which nobody here reads.
    write(
        "auth.conf",
        "authorization: { version: 1, rules: [ { match-request: { path: \"/\", type: path }, \
            deny: \"*\", sort-order: 1, \
         name: \"nobody\" } ] }\n"
            .to_owned(),
    );
}
