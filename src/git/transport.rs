//! How libgit2 reaches other machines: two transports of our own, registered once per process.
//!
//! libgit2 never sees an address or a credential. It is given `portolan-https://7` or `portolan-ssh://7`, and number 7 is looked up in a
//! table of connections that were prepared from a strictly parsed address. So nothing that libgit2, its configuration or its URL parser
//! believes about addresses matters.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream, Transport};
use parking_lot::Mutex;

use super::Credentials;
use super::address::Address;
use super::error::{FetchError, FetchErrorKind};
use super::{https, ssh};

/// No fetch takes longer than this: a hostile or hanging server must not hold a thread for ever. Two minutes carry 512 MiB over a slow line.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);
/// No fetch receives more than this, packs and lists of refs together, in bytes.
pub(super) const MOST_BYTES: u64 = 512 << 20;

/// One conversation with one remote repository: where to, with what, and within which limits.
pub(super) struct Connection {
    pub(super) address: Address,
    pub(super) credentials: Credentials,
    pub(super) scratch: std::path::PathBuf,
    pub(super) started: Instant,
    received: Mutex<u64>,
    failure: Mutex<Option<FetchError>>,
}

impl Connection {
    pub(super) fn new(address: Address, credentials: Credentials, scratch: std::path::PathBuf) -> Arc<Self> {
        let (received, failure) = (Mutex::new(0), Mutex::new(None));
        Arc::new(Connection { address, credentials, scratch, started: Instant::now(), received, failure })
    }

    /// The time that is left.
    pub(super) fn left(&self) -> Duration {
        DEADLINE.saturating_sub(self.started.elapsed())
    }

    /// Counts what was received, and says when it is too much or too late.
    pub(super) fn count(&self, bytes: usize) -> io::Result<()> {
        let mut received = self.received.lock();
        *received += bytes as u64;
        if *received > MOST_BYTES {
            let text = format!("it sent more than {} MiB", MOST_BYTES >> 20);
            return Err(self.fail_io(FetchErrorKind::TooLarge, text));
        }
        if self.left().is_zero() {
            return Err(self.fail_io(FetchErrorKind::Unreachable, format!("it did not finish within {} s", DEADLINE.as_secs())));
        }
        Ok(())
    }

    /// Remembers the true reason, because libgit2 only carries a string. The first reason stays.
    pub(super) fn fail(&self, error: FetchError) -> git2::Error {
        let text = error.sentence();
        self.failure.lock().get_or_insert(error);
        git2::Error::new(git2::ErrorCode::GenericError, git2::ErrorClass::Net, text)
    }

    pub(super) fn fail_io(&self, kind: FetchErrorKind, cause: impl std::fmt::Display) -> io::Error {
        io::Error::other(self.fail(self.error(kind, cause)).message().to_owned())
    }

    pub(super) fn error(&self, kind: FetchErrorKind, cause: impl std::fmt::Display) -> FetchError {
        FetchError::new(kind, format!("fetch from {}", self.address), cause)
    }

    /// The reason that was remembered, or else what libgit2 said.
    pub(super) fn reason(&self, said: &git2::Error) -> FetchError {
        use git2::ErrorClass::{Filesystem, Odb, Os, Reference, Repository, Zlib};
        // What fails on our own disk is mended by fetching afresh; everything else is the other side or the way there.
        let ours = matches!(said.class(), Os | Odb | Repository | Reference | Filesystem | Zlib);
        let kind = if ours { FetchErrorKind::Local } else { FetchErrorKind::Unreachable };
        self.failure.lock().take().unwrap_or_else(|| self.error(kind, said.message()))
    }
}

static TABLE: Mutex<(u64, BTreeMap<u64, Arc<Connection>>)> = Mutex::new((0, BTreeMap::new()));

/// A place in the table, given back when dropped.
pub(super) struct Ticket {
    number: u64,
    /// What to give to libgit2 as the remote's address.
    pub(super) url: String,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        TABLE.lock().1.remove(&self.number);
    }
}

/// Puts a connection into the table.
pub(super) fn ticket(connection: &Arc<Connection>) -> Ticket {
    let mut table = TABLE.lock();
    table.0 += 1;
    let number = table.0;
    table.1.insert(number, connection.clone());
    let scheme = if matches!(connection.address, Address::Https { .. }) { "portolan-https" } else { "portolan-ssh" };
    Ticket { number, url: format!("{scheme}://{number}") }
}

struct Https(Arc<Connection>);

impl SmartSubtransport for Https {
    fn action(&self, _: &str, service: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        match service {
            Service::UploadPackLs => Ok(Box::new(https::list(&self.0)?)),
            Service::UploadPack => Ok(Box::new(https::exchange(&self.0))),
            _ => Err(git2::Error::from_str("nothing is ever pushed")),
        }
    }
    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

struct Ssh(Arc<Connection>);

impl SmartSubtransport for Ssh {
    fn action(&self, _: &str, service: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        match service {
            Service::UploadPackLs => Ok(Box::new(ssh::open(&self.0)?)),
            _ => Err(git2::Error::from_str("nothing is ever pushed")),
        }
    }
    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

/// Prepares libgit2 for this process. Called before anything else touches it.
pub(super) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let factory = |secure_shell: bool| {
            move |remote: &git2::Remote<'_>| {
                let url = remote.url()?;
                let number = url.rsplit('/').next().and_then(|n| n.parse::<u64>().ok());
                let connection = number.and_then(|n| TABLE.lock().1.get(&n).cloned());
                let connection = connection.ok_or_else(|| git2::Error::from_str("no such connection"))?;
                if secure_shell {
                    Transport::smart(remote, false, Ssh(connection))
                } else {
                    Transport::smart(remote, true, Https(connection))
                }
            }
        };
        register(factory(false), factory(true)).expect("libgit2 has room for two transports");
        // Objects are read once and kept by us; a second copy in libgit2 would only cost memory.
        git2::opts::enable_caching(false);
    });
}

/// The crate's only unsafe code. libgit2 keeps these settings in globals without a lock, so they must not run beside another call that
/// reads them. This is the first use of libgit2 in the process and runs once, under `Once`; every other use comes through `prepare`.
#[allow(unsafe_code)]
fn register<F, G>(https: F, ssh: G) -> Result<(), git2::Error>
where
    F: Fn(&git2::Remote<'_>) -> Result<Transport, git2::Error> + Send + Sync + 'static,
    G: Fn(&git2::Remote<'_>) -> Result<Transport, git2::Error> + Send + Sync + 'static,
{
    use git2::ConfigLevel;
    // SAFETY: see above; the closures are 'static, Send and Sync, as libgit2 calls them from any thread.
    unsafe {
        git2::transport::register("portolan-https", https)?;
        git2::transport::register("portolan-ssh", ssh)?;
        // No configuration of the machine or the user may redirect an address (url.*.insteadOf) or change how a repository is read.
        for level in [ConfigLevel::System, ConfigLevel::Global, ConfigLevel::XDG, ConfigLevel::ProgramData] {
            git2::opts::set_search_path(level, "")?;
        }
        // A server that runs as root reads repositories of other users. What that check guards against, running what a foreign
        // configuration names, is nothing that we do: no hooks, no filters, no work tree.
        git2::opts::set_verify_owner_validation(false)?;
    }
    Ok(())
}
