//! Addresses of repositories, read by a strict parser of our own before anything else sees them.
//!
//! What it returns is safe by construction: no part begins with `-`, no part has control characters, quotes or white space, and no
//! credentials are hidden in it. Libraries and the ssh program are only ever given these parts.

use std::fmt;
use std::path::PathBuf;

use super::error::{FetchError, FetchErrorKind};

/// A repository's address in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// A path on this machine.
    Local(PathBuf),
    /// `https://host[:port]/path`.
    Https { host: String, port: Option<u16>, path: String },
    /// `ssh://[user@]host[:port]/path` or `user@host:path`.
    Ssh { user: Option<String>, host: String, port: Option<u16>, path: String },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = |p: &Option<u16>| p.map_or_else(String::new, |p| format!(":{p}"));
        match self {
            Address::Local(path) => write!(f, "{}", path.display()),
            Address::Https { host, port: p, path } => write!(f, "https://{host}{}{path}", port(p)),
            Address::Ssh { user, host, port: p, path } => {
                let user = user.as_ref().map_or_else(String::new, |u| format!("{u}@"));
                let slash = if path.starts_with('/') { "" } else { "/" };
                write!(f, "ssh://{user}{host}{}{slash}{path}", port(p))
            }
        }
    }
}

/// Reads an address.
pub(super) fn parse(text: &str) -> Result<Address, FetchError> {
    read(text).map_err(|(why, hint)| {
        let error = FetchError::new(FetchErrorKind::BadAddress, format!("read the repository address {text:?}"), why);
        if hint.is_empty() { error } else { error.hint(hint) }
    })
}

type Why = (&'static str, &'static str);

fn read(text: &str) -> Result<Address, Why> {
    const LONGEST: usize = 2000; // far beyond any real address, far below what would be a burden in a message
    if text.is_empty() {
        return Err(("it is empty", "give a local path, https://host/path or ssh://user@host/path"));
    }
    if text.len() > LONGEST {
        return Err(("it is longer than 2000 bytes", ""));
    }
    if text.chars().any(char::is_control) {
        return Err(("it contains control characters", ""));
    }
    if let Some(path) = text.strip_prefix("file://") {
        return local(path);
    }
    if let Some(rest) = text.strip_prefix("https://") {
        let (authority, path) = split_path(rest)?;
        if authority.contains('@') {
            return Err((
                "it contains credentials",
                "put user name and password into a Secret and name it in spec.source.secretName: an address is shown to everybody",
            ));
        }
        let (host, port) = host_and_port(authority)?;
        return Ok(Address::Https { host, port, path });
    }
    if let Some(rest) = text.strip_prefix("ssh://") {
        let (authority, path) = split_path(rest)?;
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, rest)) => (Some(user_name(user)?), rest),
            None => (None, authority),
        };
        let (host, port) = host_and_port(authority)?;
        // git's own reading: ssh://host/~user/x means a path below that user's home
        let path = if path.starts_with("/~") { path[1..].to_owned() } else { path };
        return Ok(Address::Ssh { user, host, port, path });
    }
    if text.contains("://") || text.contains("::") {
        return Err((
            "only local paths, https:// and ssh:// are opened",
            "plain http:// and git:// carry no proof of who answers",
        ));
    }
    if text.starts_with(['/', '.']) {
        return local(text);
    }
    if let Some((before, path)) = text.split_once(':') {
        let (user, host) = match before.split_once('@') {
            Some((user, host)) => (Some(user_name(user)?), host),
            None => (None, before),
        };
        let (host, port) = host_and_port(host)?;
        if port.is_some() || path.starts_with('-') {
            return Err(("it is neither a path nor an address", "write ssh://user@host:port/path"));
        }
        return Ok(Address::Ssh { user, host, port: None, path: plain_path(path)? });
    }
    Err(("it is neither a path nor an address", "a local path begins with / or ./"))
}

fn local(path: &str) -> Result<Address, Why> {
    if !path.starts_with(['/', '.']) {
        return Err(("a local path begins with / or ./", "file:// takes an absolute path: file:///srv/charts.git"));
    }
    Ok(Address::Local(path.into()))
}

fn split_path(rest: &str) -> Result<(&str, String), Why> {
    let at = rest.find('/').ok_or(("it has no path", "write https://host/path"))?;
    Ok((&rest[..at], plain_path(&rest[at..])?))
}

/// A path that means the same to a shell, an HTTP server and a person.
fn plain_path(path: &str) -> Result<String, Why> {
    if path.trim_matches('/').is_empty() {
        return Err(("it has no path", ""));
    }
    if !path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-~+%@=,:".contains(c)) {
        return Err((
            "its path has characters other than letters, digits and /._-~+%@=,:",
            "write others as %XX in https addresses",
        ));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(("its path has a `..`", ""));
    }
    if path.starts_with('-') {
        return Err(("its path begins with `-`", ""));
    }
    Ok(path.to_owned())
}

fn user_name(user: &str) -> Result<String, Why> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if user.contains(':') {
        return Err(("it contains a password", "ssh takes keys: put one into a Secret and name it in spec.source.secretName"));
    }
    if user.is_empty() || user.len() > 64 || user.starts_with('-') || !user.chars().all(fits) {
        return Err(("its user name has characters other than letters, digits and ._-, or begins with `-`", ""));
    }
    Ok(user.to_owned())
}

fn host_and_port(authority: &str) -> Result<(String, Option<u16>), Why> {
    let bad = ("its host is not a host name or address", "");
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (inside, after) = rest.split_once(']').ok_or(bad)?;
        inside.parse::<std::net::Ipv6Addr>().map_err(|_| bad)?;
        (format!("[{inside}]"), after.strip_prefix(':').or(after.is_empty().then_some("")).ok_or(bad)?)
    } else {
        let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
        let label = |l: &str| {
            !l.is_empty()
                && l.len() <= 63
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        if host.is_empty() || host.len() > 253 || !host.split('.').all(label) {
            return Err(bad);
        }
        (host.to_ascii_lowercase(), port)
    };
    if port.is_empty() {
        // `host:` with nothing behind the colon is a slip, not a default
        return if authority.ends_with(':') { Err(("its port is empty", "")) } else { Ok((host, None)) };
    }
    match port.parse::<u16>() {
        Ok(n) if n > 0 && port.chars().all(|c| c.is_ascii_digit()) => Ok((host, Some(n))),
        _ => Err(("its port is not a number from 1 to 65535", "")),
    }
}

/// Whether a revision is a name or an id that we are willing to look up. Local lookups may end in `~N` and `^N`.
pub(super) fn check_revision(revision: &str) -> Result<(), FetchError> {
    let fits = |c: char| c.is_alphanumeric() || "._-/+@#=~^".contains(c);
    let bad = revision.len() > 255
        || revision.starts_with(['-', '/', '.'])
        || revision.contains("..")
        || revision.contains("@{")
        || revision.contains("//")
        || !revision.chars().all(fits);
    if bad {
        return Err(FetchError::new(
            FetchErrorKind::NoSuchRevision,
            format!("look up the revision {revision:?}"),
            "this cannot be the name of a branch or tag, nor the id of a commit",
        ));
    }
    Ok(())
}

/// The parts of a path within a repository. `.` and slashes at the ends are forgiven, `..` is not.
pub(super) fn check_path(path: &str) -> Result<Vec<&str>, FetchError> {
    let bad = |why: &str| FetchError::new(FetchErrorKind::NoSuchPath, format!("open the path {path:?} of the repository"), why);
    if path.len() > 4096 {
        return Err(bad("it is longer than 4096 bytes"));
    }
    if path.starts_with('/') {
        return Err(bad("a path within a repository does not begin with a slash"));
    }
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return Err(bad("it contains control characters or backslashes"));
    }
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.contains(&"..") {
        return Err(bad("a `..` would lead out of the repository"));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    fn shown(text: &str) -> String {
        match parse(text) {
            Ok(Address::Local(p)) => format!("local {}", p.display()),
            Ok(Address::Https { host, port, path }) => format!("https {host} {port:?} {path}"),
            Ok(Address::Ssh { user, host, port, path }) => format!("ssh {user:?} {host} {port:?} {path}"),
            Err(e) => format!("refused: {}", e.source().unwrap()),
        }
    }

    #[test]
    fn addresses() {
        let rows = [
            "/srv/charts.git",
            "./charts",
            "file:///srv/charts",
            "file://host/srv",
            "https://example.org/a/b.git",
            "https://EXAMPLE.org:8443/a",
            "https://[::1]:8443/a",
            "ssh://git@example.org:2222/a/b.git",
            "ssh://example.org/~me/x",
            "git@example.org:a/b.git",
            "example.org:a",
        ];
        let text: Vec<String> = rows.iter().map(|r| format!("{r}\n  {}", shown(r))).collect();
        expect_test::expect![[r#"
            /srv/charts.git
              local /srv/charts.git
            ./charts
              local ./charts
            file:///srv/charts
              local /srv/charts
            file://host/srv
              refused: a local path begins with / or ./
            https://example.org/a/b.git
              https example.org None /a/b.git
            https://EXAMPLE.org:8443/a
              https example.org Some(8443) /a
            https://[::1]:8443/a
              https [::1] Some(8443) /a
            ssh://git@example.org:2222/a/b.git
              ssh Some("git") example.org Some(2222) /a/b.git
            ssh://example.org/~me/x
              ssh None example.org None ~me/x
            git@example.org:a/b.git
              ssh Some("git") example.org None a/b.git
            example.org:a
              ssh None example.org None a"#]]
        .assert_eq(&text.join("\n"));
    }

    /// Attack class B: everything here was once a way in for somebody.
    #[test]
    fn attack_b_hostile_addresses_are_refused() {
        let rows = [
            "",
            "ssh://-oProxyCommand=touch%20x/a",
            "ssh://-oProxyCommand@host/a",
            "-oProxyCommand=x:a",
            "git@-host:a",
            "host:-x",
            "-u./x",
            "https://user:token@host/a",
            "ssh://u:p@host/a",
            "https://host/a b",
            "https://host/a\r\nHost: evil",
            "https://host/a\u{1b}[0m",
            "https://host/../../etc",
            "ssh://host/a';id;'",
            "ssh://host/$(id)",
            "ssh://host/`id`",
            "https://ho st/a",
            "https:///a",
            "https://host",
            "https://host:0/a",
            "https://host:99999/a",
            "https://host:/a",
            "https://host:+1/a",
            "https://host/a?x=1",
            "https://host/a#b",
            "http://host/a",
            "git://host/a",
            "ext::sh -c id",
            "fd::17",
            "https://host%00/a",
            "https://[::1/a",
            "plain",
        ];
        for row in rows {
            assert!(shown(row).starts_with("refused"), "{row:?}: {}", shown(row));
        }
    }

    #[test]
    fn attack_a_paths_stay_inside() {
        for bad in ["..", "a/../b", "/etc", "a\\b", "a\nb", "./../x"] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
        assert_eq!(check_path("./a//b/").unwrap(), ["a", "b"]);
        assert!(check_path("").unwrap().is_empty());
    }

    #[test]
    fn revisions() {
        for good in ["HEAD", "main", "v1.2.3", "feature/x+y", "refs/heads/main", "9c1e2f7", "HEAD~2", "main^"] {
            assert!(check_revision(good).is_ok(), "{good:?}");
        }
        for bad in ["-x", "--upload-pack=x", "a..b", "a@{1}", "a b", "a\nb", ":/x", "main:path", "../x", "a*"] {
            assert!(check_revision(bad).is_err(), "{bad:?}");
        }
    }
}
