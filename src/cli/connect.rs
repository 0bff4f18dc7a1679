//! Where the server is: from flags, the environment, or the data directory of a server on this machine.

use std::error::Error;
use std::path::{Path, PathBuf};

use super::{Context, Explain, Failure, fail};
use crate::client::{self, Client};
use crate::git::FetchError;

/// Where the server on this machine keeps its data.
pub(super) fn data_dir(cx: &Context) -> PathBuf {
    cx.global.data_dir.clone().unwrap_or_else(|| default_dir("portolan"))
}

/// `/var/lib/NAME` for root, below the user's own directories for others.
pub(super) fn default_dir(name: &str) -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let shared = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    match std::fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m)) {
        Ok(0) => Path::new("/var/lib").join(name),
        _ => shared.unwrap_or_else(|| home.join(".local/share")).join(name),
    }
}

/// A connection to the server.
pub(super) async fn client(cx: &Context) -> Result<Client, Failure> {
    let (text, place) = config(cx)?;
    Client::from_kubeconfig_text(&text).await.doing(format_args!("connect as {place} says"))
}

/// The kubeconfig that says where the server is, and where it was found.
pub(super) fn config(cx: &Context) -> Result<(String, String), Failure> {
    if let Some(path) = &cx.global.kubeconfig {
        return from_file(path);
    }
    if let Some(dir) = &cx.global.data_dir {
        return from_data_dir(dir).hint("is this the data directory of a server that has run?");
    }
    if let Some(path) = std::env::var_os("KUBECONFIG").filter(|p| !p.is_empty()) {
        return match std::env::split_paths(&path).find(|p| p.exists()) {
            Some(path) => from_file(&path),
            None => fail(
                format!("$KUBECONFIG names {}, which is not there", Path::new(&path).display()),
                "unset it, or give --kubeconfig",
            ),
        };
    }
    from_data_dir(&default_dir("portolan"))
        .hint("no server is known: start one with `portolan up`, or say where it is with --kubeconfig, --data-dir or $KUBECONFIG")
}

fn from_file(path: &Path) -> Result<(String, String), Failure> {
    let text = std::fs::read_to_string(path).doing(format_args!("read the kubeconfig {}", path.display()))?;
    Ok((text, path.display().to_string()))
}

fn from_data_dir(dir: &Path) -> Result<(String, String), Failure> {
    let text = crate::server::admin_kubeconfig(dir).doing(format_args!("find the server's kubeconfig in {}", dir.display()))?;
    Ok((text, dir.display().to_string()))
}

/// What may help, as far as the cause of an error knows.
pub(super) fn hint_of(cause: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = cause.downcast_ref::<FetchError>() {
        return error.hint.clone();
    }
    match cause.downcast_ref::<client::Error>()? {
        client::Error::Unreachable(_) => {
            Some("does the server run, and can it be reached from here? `portolan up` starts one".to_owned())
        }
        client::Error::Status { code: 401, .. } => Some(
            "the kubeconfig may be of an older server; `portolan kubeconfig` on the server's machine prints a new one".to_owned(),
        ),
        client::Error::Status { code: 403, .. } => Some("these credentials do not allow this".to_owned()),
        _ => None,
    }
}
