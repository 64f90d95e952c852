//! Listening sockets that Mapsmith holds for HAProxy, which inherits them as `fd@N`: while no
//! HAProxy runs, connections wait in them instead of being refused.
//!
//! A number stays that of its address as long as the HAProxy lives that was started with it, so it
//! is kept in a file. A Mapsmith that finds such a HAProxy again takes the sockets back from it, and
//! one that finds none from systemd, which keeps them too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mapsmith_core::config::values::BindAddress;
use mapsmith_core::config::{Config, ListensAt};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{AddressFamily, Shutdown, SocketType, listen, shutdown, socket};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::descriptor_store;
use crate::store::map_file::MapFileError;
use crate::store::replace::replace;

/// Numbers from here on are given to held sockets: a process has fewer files open at its start.
const FIRST: RawFd = 300;
/// Of the file with their numbers.
const MODE: u32 = 0o600;
/// Connections that may wait for HAProxy; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// One process is started at a time, so that no other one inherits the sockets with it.
static STARTING: Mutex<()> = Mutex::new(());

/// Sockets by where they listen: that is one place however its address is written.
#[derive(Debug, Default)]
pub struct Sockets(BTreeMap<ListensAt, Held>);

/// Sockets that stay open while Mapsmith begins anew with other settings. Shared.
#[derive(Debug, Clone, Default)]
pub struct Handover(Arc<Mutex<Option<(PathBuf, Sockets)>>>);

impl Handover {
    /// Keeps those of the HAProxy with this folder; none that only stand in for others.
    pub fn keep(&self, folder: &Path, sockets: Sockets) {
        let kept = sockets.are_real().then(|| (folder.to_owned(), sockets));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    }

    /// Gives up what is kept; those of this folder.
    pub fn take(&self, folder: &Path) -> Option<Sockets> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.filter(|(of, _)| of == folder).map(|(_, sockets)| sockets)
    }
}

#[derive(Debug)]
struct Held {
    /// As it was written first.
    address: BindAddress,
    /// Its descriptor is its number.
    socket: OwnedFd,
    /// It does not listen: it has the number that HAProxy's check asks for, and no more.
    is_stand_in: bool,
}

impl Held {
    fn close(&self) {
        descriptor_store::forget(self.socket.as_raw_fd());
        // One that does not listen refuses connections already.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

/// Addresses and the numbers of their sockets, by where they listen.
type Numbers = BTreeMap<ListensAt, (BindAddress, RawFd)>;

/// What could not be held.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    #[error("nobody can listen on {address} (frontend.bind): {cause}")]
    Bind { address: String, cause: io::Error },
    #[error("{path} can't be read: {cause}")]
    File { path: String, cause: io::Error },
    #[error("{0} (haproxy.folder)")]
    Write(#[from] MapFileError),
    #[error("{path} has a line that is none of \"NUMBER ADDRESS\": {line:?}")]
    Line { path: String, line: String },
}

impl Sockets {
    /// Nothing is held.
    pub const fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// Listens on these addresses, each by the number that it has in the file where it has one.
    /// Unix sockets and descriptors are left to HAProxy.
    ///
    /// # Errors
    /// The first address that can't be listened on, or a file that can't be read.
    pub fn bind<'a>(
        addresses: impl IntoIterator<Item = &'a BindAddress>,
        file: &Path,
    ) -> Result<Self, SocketsError> {
        let mut sockets = Self::default();
        sockets.listen(addresses, &numbers(file)?)?;
        Ok(sockets)
    }

    /// Listens on these addresses too, and on those in the file where that is possible: a
    /// configuration that is in place names them.
    ///
    /// # Errors
    /// The first of these addresses that can't be listened on, or a file that can't be read.
    pub fn add<'a>(
        &mut self,
        addresses: impl IntoIterator<Item = &'a BindAddress>,
        file: &Path,
    ) -> Result<(), SocketsError> {
        let numbers = numbers(file)?;
        for (address, _) in numbers.values() {
            // What HAProxy lacks it says itself.
            let _ = self.listen([address], &numbers);
        }
        self.listen(addresses, &numbers)
    }

    fn listen<'a>(
        &mut self,
        addresses: impl IntoIterator<Item = &'a BindAddress>,
        numbers: &Numbers,
    ) -> Result<(), SocketsError> {
        let taken = self.0.values().map(|held| held.socket.as_raw_fd());
        let mut next = taken
            .chain(numbers.values().map(|(_, number)| *number))
            .max()
            .map_or(FIRST, |number| number + 1);
        for address in addresses {
            let at = address.listens_at();
            let Some(wanted) = address.internet().filter(|_| !self.0.contains_key(&at)) else {
                continue;
            };
            let number = numbers.get(&at).map(|(_, number)| *number);
            let listening = || {
                if let Some(kept) = number.and_then(|number| descriptor_store::kept(number, wanted))
                {
                    return numbered(kept, number.unwrap_or(next));
                }
                let listener = TcpListener::bind(wanted)?;
                listen(&listener, BACKLOG)?;
                let socket = match number {
                    Some(number) => numbered(listener.into(), number)?,
                    None => fcntl_dupfd_cloexec(&listener, next)?,
                };
                descriptor_store::keep(socket.as_raw_fd(), &socket);
                Ok(socket)
            };
            let socket = listening()
                .map_err(|cause| SocketsError::Bind { address: address.to_string(), cause })?;
            next = next.max(socket.as_raw_fd() + 1);
            self.0.insert(at, Held { address: address.clone(), socket, is_stand_in: false });
        }
        Ok(())
    }

    /// Listens on the addresses in the file: those of the configuration that was written with it.
    ///
    /// # Errors
    /// Those of [`Self::bind`].
    pub fn of_file(file: &Path) -> Result<Self, SocketsError> {
        Self::bind(numbers(file)?.values().map(|(address, _)| address), file)
    }

    /// The sockets of a HAProxy that was found again, by the file that says which they are. Where
    /// the kernel does not give them, there is something of their numbers for HAProxy's check.
    ///
    /// # Errors
    /// A file that can't be read.
    pub fn take_back(file: &Path, process: &impl AsFd) -> Result<Self, SocketsError> {
        let mut held = BTreeMap::new();
        for (at, (address, number)) in numbers(file)? {
            let taken = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).ok();
            let kept = || descriptor_store::kept(number, address.internet()?);
            let taken = taken.or_else(kept);
            let is_stand_in = taken.is_none();
            let socket = match taken {
                Some(socket) => Ok(socket),
                None => socket(AddressFamily::INET, SocketType::STREAM, None),
            };
            let socket = socket
                .map_err(io::Error::from)
                .and_then(|socket| numbered(socket, number))
                .map_err(|cause| SocketsError::Bind { address: address.to_string(), cause })?;
            held.insert(at, Held { address, socket, is_stand_in });
        }
        Ok(Self(held))
    }

    /// Listens no more on addresses other than these: connections to them are refused from now on,
    /// also where another process has the same socket.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn release<'a>(
        &mut self,
        kept: impl IntoIterator<Item = &'a BindAddress>,
        file: &Path,
    ) -> Result<(), SocketsError> {
        let kept: BTreeSet<_> = kept.into_iter().map(BindAddress::listens_at).collect();
        if self.0.keys().all(|at| kept.contains(at)) {
            return Ok(());
        }
        self.0.retain(|at, held| {
            let is_kept = kept.contains(at);
            if !is_kept {
                held.close();
            }
            is_kept
        });
        self.save(file)
    }

    /// Gives up those that a configuration does not name by their numbers.
    pub(super) fn retain_named(&mut self, text: &str) {
        let numbers = text.split("fd@").skip(1).filter_map(|rest| {
            let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
            rest[..end].parse().ok()
        });
        let named: BTreeSet<RawFd> = numbers.collect();
        self.0.retain(|_, held| named.contains(&held.socket.as_raw_fd()));
    }

    /// Writes which they are, for [`Self::take_back`].
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn save(&self, file: &Path) -> Result<(), SocketsError> {
        let lines = self
            .0
            .values()
            .map(|Held { address, socket, .. }| format!("{} {address}\n", socket.as_raw_fd()));
        let text = lines.collect::<String>();
        // A full disk keeps nobody from a start with the same sockets.
        if fs::read_to_string(file).is_ok_and(|in_place| in_place == text) {
            return Ok(());
        }
        Ok(replace(file, text.as_bytes(), MODE)?)
    }

    /// Where HAProxy is to listen for this address: the socket that is held for it, or itself.
    pub fn place(&self, address: &BindAddress) -> BindAddress {
        let held = self.0.get(&address.listens_at());
        held.map_or_else(|| address.clone(), |held| descriptor(held.socket.as_raw_fd(), address))
    }

    /// The configuration with the sockets in place of the addresses that they listen on.
    pub fn placed(&self, config: &Config) -> Config {
        let mut placed = config.clone();
        for bind in placed.frontends.iter_mut().flat_map(|frontend| &mut frontend.binds) {
            bind.address = self.place(&bind.address);
        }
        placed
    }

    /// Whether these are the sockets of exactly these addresses, all of them listening.
    pub fn are_of<'a>(&self, addresses: impl IntoIterator<Item = &'a BindAddress>) -> bool {
        let wanted = addresses.into_iter().map(BindAddress::listens_at);
        let wanted: BTreeSet<_> =
            wanted.filter(|at| matches!(at, ListensAt::Internet(_))).collect();
        wanted.iter().eq(self.0.keys()) && self.are_real()
    }

    /// Listens on none of them any more, also where another process has them.
    pub fn close(self) {
        self.0.values().for_each(Held::close);
    }

    /// Whether all of them listen.
    pub fn are_real(&self) -> bool {
        self.0.values().all(|held| !held.is_stand_in)
    }

    /// Starts a process that inherits them.
    pub(super) fn inherited<T>(&self, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.0.is_empty() {
            return start();
        }
        let _only = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        self.set_flags(FdFlags::empty())?;
        let started = start();
        self.set_flags(FdFlags::CLOEXEC)?;
        started
    }

    fn set_flags(&self, flags: FdFlags) -> io::Result<()> {
        self.0.values().try_for_each(|held| Ok(fcntl_setfd(&held.socket, flags)?))
    }
}

/// The configuration as [`Sockets::placed`] has it, by the numbers in the file alone.
///
/// # Errors
/// A file that can't be read.
pub fn placed_by(file: &Path, config: &Config) -> Result<Config, SocketsError> {
    let numbers = numbers(file)?;
    let mut placed = config.clone();
    for bind in placed.frontends.iter_mut().flat_map(|frontend| &mut frontend.binds) {
        if let Some((_, number)) = numbers.get(&bind.address.listens_at()) {
            bind.address = descriptor(*number, &bind.address);
        }
    }
    Ok(placed)
}

/// The addresses in the file: where sockets are held.
///
/// # Errors
/// A file that can't be read.
pub(crate) fn held(file: &Path) -> Result<BTreeSet<ListensAt>, SocketsError> {
    Ok(numbers(file)?.into_keys().collect())
}

/// The listening address that is this descriptor, in place of another one.
fn descriptor(number: RawFd, address: &BindAddress) -> BindAddress {
    BindAddress::try_from(format!("fd@{number}")).unwrap_or_else(|_| address.clone())
}

/// The number of each address, by the file.
fn numbers(file: &Path) -> Result<Numbers, SocketsError> {
    let path = || file.display().to_string();
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(cause) => return Err(SocketsError::File { path: path(), cause }),
    };
    let parsed = text.lines().map(|line| {
        let (number, address) = line.split_once(' ')?;
        let address = BindAddress::try_from(address.to_owned()).ok()?;
        let number = number.parse::<RawFd>().ok().filter(|number| *number >= FIRST)?;
        Some((address.listens_at(), (address, number)))
    });
    let line = |line: &str| SocketsError::Line { path: path(), line: line.to_owned() };
    parsed.zip(text.lines()).map(|(parsed, text)| parsed.ok_or_else(|| line(text))).collect()
}

/// The socket under exactly this number.
fn numbered(socket: OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    let socket = fcntl_dupfd_cloexec(socket, number)?;
    match socket.as_raw_fd() == number {
        true => Ok(socket),
        false => Err(io::Error::other(format!("descriptor {number} is in use"))),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use super::*;

    fn address(text: &str) -> BindAddress {
        BindAddress::try_from(text.to_owned()).unwrap()
    }

    fn own_process() -> OwnedFd {
        pidfd_open(getpid(), PidfdFlags::empty()).unwrap()
    }

    #[test]
    fn a_held_socket_takes_connections_until_it_is_released() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sockets");
        let port = testkit::free_port();
        let web = address(&format!("127.0.0.1:{port}"));
        let other = address("unix@/run/x.sock");
        let mut sockets = Sockets::bind([&web, &other, &web], &file).unwrap();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
        assert!(sockets.place(&web).as_str().starts_with("fd@"), "{:?}", sockets.place(&web));
        assert_eq!(sockets.place(&other), other);
        assert!(sockets.are_of([&other, &web]) && !sockets.are_of([&other]));
        let taken = Sockets::bind([&web], &file).unwrap_err().to_string();
        assert!(taken.contains(&format!("{web} (frontend.bind)")), "{taken}");
        // As HAProxy's master has it too.
        let inherited = sockets.0[&web.listens_at()].socket.try_clone().unwrap();
        sockets.release([&other], &file).unwrap();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        drop(inherited);
    }

    #[test]
    fn a_socket_that_a_configuration_does_not_name_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let addresses: Vec<_> =
            (0..2).map(|_| address(&format!("127.0.0.1:{}", testkit::free_port()))).collect();
        let mut sockets = Sockets::bind(&addresses, &folder.path().join("sockets")).unwrap();
        let named = sockets.place(&addresses[0]).to_string();
        sockets.retain_named(&format!("    bind {named} tfo\n    bind {}\n", addresses[1]));
        assert!(sockets.are_of([&addresses[0]]));
        assert!(TcpListener::bind(addresses[1].as_str()).is_ok());
    }

    #[test]
    fn an_address_keeps_its_number_in_a_later_mapsmith() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sockets");
        let addresses: Vec<_> =
            (0..3).map(|_| address(&format!("127.0.0.1:{}", testkit::free_port()))).collect();
        let places = |sockets: &Sockets| {
            addresses.iter().map(|address| sockets.place(address)).collect::<Vec<_>>()
        };
        // Numbers that no other test has.
        fs::write(&file, format!("811 {}\n812 {}\n", addresses[0], addresses[1])).unwrap();
        let sockets = Sockets::bind(&addresses, &file).unwrap();
        let before = places(&sockets);
        assert_eq!(before[2], address("fd@813"), "a new one");
        sockets.save(&file).unwrap();
        drop(sockets);
        let again = Sockets::bind(addresses.iter().rev(), &file).unwrap();
        assert_eq!(places(&again), before);
        drop(again);
        assert_eq!(places(&Sockets::of_file(&file).unwrap()), before);
    }

    #[test]
    fn a_socket_stays_that_of_its_address_when_it_is_written_in_another_way() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sockets");
        let port = testkit::free_port();
        let (web, again) =
            (address(&format!("127.0.0.1:{port}")), address(&format!("127.0.0.1:0{port}")));
        let mut sockets = Sockets::bind([&web], &file).unwrap();
        let place = sockets.place(&web);
        assert_eq!(sockets.place(&again), place, "one socket");
        sockets.add([&again], &file).unwrap();
        sockets.release([&again], &file).unwrap();
        assert!(sockets.are_of([&again]), "{sockets:?}");
        sockets.save(&file).unwrap();
        assert!(held(&file).unwrap().contains(&again.listens_at()));
    }

    #[test]
    fn sockets_that_nobody_gives_back_have_stand_ins_that_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sockets");
        let web = address("127.0.0.1:8080");
        assert!(Sockets::take_back(&file, &own_process()).unwrap().are_of([]));
        // A number that nothing has here.
        fs::write(&file, "977 127.0.0.1:8080\n").unwrap();
        let sockets = Sockets::take_back(&file, &own_process()).unwrap();
        assert_eq!(sockets.place(&web), address("fd@977"));
        assert!(!sockets.are_of([&web]));
        for line in ["977", "12 127.0.0.1:1", "x 127.0.0.1:1", "977 nowhere"] {
            fs::write(&file, line).unwrap();
            let error = Sockets::take_back(&file, &own_process()).unwrap_err().to_string();
            assert!(error.contains(&format!("{line:?}")), "{error}");
        }
    }
}
