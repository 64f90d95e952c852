//! Keeps a managed HAProxy running: found again at the start, started again when it dies, and left
//! alone where it was stopped on purpose.

use std::fs;
use std::time::Duration;

use mapsmith_core::config::values::BindAddress;
use tokio::time::{Instant, sleep, sleep_until};

use super::process::{Launch, ProcessError};
use super::running::{LastWords, Running};
use super::sockets::{Sockets, SocketsError};
use crate::backoff::Backoff;

/// The pauses before it is started again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// One that ran for so long has started well: its death is a first one.
const RAN_WELL: Duration = Duration::from_secs(60);
/// How often it is looked for where it was stopped on purpose.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What became of the process.
#[derive(Debug)]
pub enum Event {
    /// One that ran already was found.
    Found,
    Started,
    /// It did not start; it is tried again after the pause.
    NotStarted {
        why: ProcessError,
        pause: Duration,
    },
    /// It ended though nobody stopped it, with its last words.
    Died {
        said: LastWords,
    },
    /// It was stopped on purpose, and stays so until somebody starts it.
    Stopped,
    /// It was ended in order to be started again.
    Restarting,
}

/// A HAProxy that is kept running.
#[derive(Debug)]
pub struct Keeper {
    launch: Launch,
    running: Option<Running>,
    /// Those of a HAProxy that has ended.
    sockets: Option<Sockets>,
    backoff: Backoff,
    since: Instant,
    next: Instant,
}

impl Keeper {
    /// Nothing is looked for yet.
    pub fn new(launch: Launch) -> Self {
        let (backoff, now) = (Backoff::new(FIRST_PAUSE, LONGEST_PAUSE), Instant::now());
        Self { launch, running: None, sockets: None, backoff, since: now, next: now }
    }

    /// Goes on with these sockets.
    pub fn with_sockets(self, sockets: Option<Sockets>) -> Self {
        Self { sockets, ..self }
    }

    /// The sockets that are held, for who goes on with them.
    pub fn into_sockets(self) -> Option<Sockets> {
        self.running.map(Running::into_sockets).or(self.sockets)
    }

    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    pub fn running(&self) -> Option<&Running> {
        self.running.as_ref()
    }

    pub fn running_mut(&mut self) -> Option<&mut Running> {
        self.running.as_mut()
    }

    /// How long a HAProxy that has ended is left alone before it is started again.
    pub fn pause(&self) -> Option<Duration> {
        let left = self.next.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// The next start waits for no pause: it is of something else than what did not start.
    pub fn start_now(&mut self) {
        self.next = Instant::now();
    }

    /// Has these addresses listened on for HAProxy, where none runs yet, beside those that the
    /// configuration in place names by their numbers. One that runs keeps what it was started with.
    ///
    /// # Errors
    /// An address that can't be listened on, or a HAProxy that runs and does not answer.
    pub async fn hold<'a>(
        &mut self,
        addresses: impl IntoIterator<Item = &'a BindAddress>,
    ) -> Result<(), ProcessError> {
        if !self.find().await? {
            let held = self.sockets.get_or_insert_default();
            held.add(addresses, &self.launch.folder.sockets())?;
        }
        Ok(())
    }

    /// Those that are held: of the HAProxy that runs, or for the next one.
    pub fn sockets(&self) -> Option<&Sockets> {
        self.running.as_ref().map(Running::sockets).or(self.sockets.as_ref())
    }

    /// Has no other addresses than these listened on any more. Called once a configuration is in
    /// force that names no other.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn release<'a>(
        &mut self,
        addresses: impl IntoIterator<Item = &'a BindAddress>,
    ) -> Result<(), SocketsError> {
        let file = self.launch.folder.sockets();
        match &mut self.running {
            Some(running) => running.sockets_mut().release(addresses, &file),
            None => Ok(()),
        }
    }

    /// Looks for a HAProxy that runs already.
    ///
    /// # Errors
    /// It runs and does not answer.
    pub async fn find(&mut self) -> Result<bool, ProcessError> {
        if self.running.is_none()
            && let Some(running) = self.launch.find_with(&mut self.sockets).await?
        {
            self.has(running);
        }
        Ok(self.running.is_some())
    }

    /// Does what is next, and says what it was: waits for the end of the process that runs, or
    /// finds or starts one. Cancel-safe: a start that is not waited for is found by the next call.
    pub async fn next(&mut self) -> Event {
        if let Some(running) = &self.running {
            running.ended().await;
        }
        if let Some(running) = self.running.take() {
            return self.ended(running);
        }
        if self.launch.is_stopped() {
            loop {
                match self.find().await {
                    Ok(true) => return Event::Found,
                    Ok(false) if !self.launch.is_stopped() => break,
                    _ => sleep(LOOK_EVERY).await,
                }
            }
        }
        sleep_until(self.next).await;
        match self.find().await {
            Ok(true) => return Event::Found,
            Ok(false) => {}
            Err(why) => return self.not_started(why),
        }
        match self.start().await {
            Ok(()) => Event::Started,
            Err(why) => self.not_started(why),
        }
    }

    async fn start(&mut self) -> Result<(), ProcessError> {
        let mut sockets = match self.sockets.take() {
            Some(sockets) => sockets,
            None => Sockets::of_file(&self.launch.folder.sockets())?,
        };
        // What it does not name it may listen on by itself.
        let text = fs::read_to_string(self.launch.folder.configuration()).unwrap_or_default();
        sockets.retain_named(&text);
        match self.launch.start(&mut sockets).await {
            Ok(running) => {
                self.has(running);
                Ok(())
            }
            Err(error) => {
                self.sockets = Some(sockets);
                Err(error)
            }
        }
    }

    fn has(&mut self, running: Running) {
        self.running = Some(running);
        self.since = Instant::now();
    }

    fn ended(&mut self, running: Running) -> Event {
        let said = running.said();
        if self.launch.is_stopped() {
            return Event::Stopped;
        }
        // Connections wait in them. Stand-ins hold nothing, and are opened by the next start.
        self.sockets = Some(running.into_sockets()).filter(Sockets::are_real);
        if self.launch.was_restarted() {
            self.next = Instant::now();
            return Event::Restarting;
        }
        if self.since.elapsed() > RAN_WELL {
            self.backoff.reset();
        }
        self.next = Instant::now() + self.backoff.pause();
        Event::Died { said }
    }

    fn not_started(&mut self, why: ProcessError) -> Event {
        let pause = self.backoff.pause();
        self.next = Instant::now() + pause;
        Event::NotStarted { why, pause }
    }
}
