//! Tests of the whole room: local repositories, https and ssh from servers on the loopback interface.

use std::error::Error as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::*;
use crate::object::source::Entry;

/// Commits files to a branch and returns the id. Modes are git's: 0o100644, 0o120000 (link), 0o160000 (submodule).
fn commit(repo: &git2::Repository, branch: &str, message: &str, files: &[(&str, i32, &[u8])]) -> git2::Oid {
    let mut index = git2::Index::new().unwrap();
    let tree = {
        for (path, mode, content) in files {
            let id = if *mode == 0o160000 { git2::Oid::from_str(&"1".repeat(40)).unwrap() } else { repo.blob(content).unwrap() };
            let entry = git2::IndexEntry {
                ctime: git2::IndexTime::new(0, 0),
                mtime: git2::IndexTime::new(0, 0),
                dev: 0,
                ino: 0,
                mode: *mode as u32,
                uid: 0,
                gid: 0,
                file_size: 0,
                id,
                flags: 0,
                flags_extended: 0,
                path: path.as_bytes().to_vec(),
            };
            index.add(&entry).unwrap();
        }
        repo.find_tree(index.write_tree_to(repo).unwrap()).unwrap()
    };
    let who = git2::Signature::new("Ada \u{1b}[31mL", "ada@example.org", &git2::Time::new(1_700_000_000, 0)).unwrap();
    let name = format!("refs/heads/{branch}");
    let parent = repo.find_reference(&name).ok().map(|r| r.peel_to_commit().unwrap());
    let parents: Vec<&git2::Commit<'_>> = parent.iter().collect();
    repo.commit(Some(&name), &who, &who, message, &tree, &parents).unwrap()
}

fn bare(dir: &Path) -> git2::Repository {
    transport::prepare();
    let mut options = git2::RepositoryInitOptions::new();
    options.bare(true).mkpath(true).initial_head("main").external_template(false);
    git2::Repository::init_opts(dir, &options).unwrap()
}

fn request(repository: &str, revision: &str, path: &str) -> Request {
    Request { repository: repository.into(), revision: revision.into(), path: path.into(), credentials: None }
}

fn listed(tree: &Tree) -> String {
    let line = |(path, entry): (&String, &Entry)| match entry {
        Entry::File { content, .. } => format!("{path}: {}", String::from_utf8_lossy(content).trim()),
        other => format!("{path}: {other:?}"),
    };
    tree.entries.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn said(error: &FetchError) -> String {
    format!("{:?}: {error}: {}", error.kind, error.source().unwrap())
}

#[test]
fn a_local_repository_is_read_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let repo = bare(&dir.path().join("a.git"));
    let mirrors = Mirrors::open(&dir.path().join("mirrors")).unwrap();
    let url = dir.path().join("a.git").display().to_string();
    let empty = mirrors.fetch(&request(&url, "", "")).unwrap_err();
    assert_eq!(empty.kind, FetchErrorKind::NoSuchRevision, "{}", said(&empty));

    let big = vec![b'x'; (1 << 20) + 1];
    let first = commit(
        &repo,
        "main",
        "First\n\nPortolan-Retry: shop\nSigned-off-by: A <a@b>\n",
        &[
            ("apps/web.yaml", 0o100644, b"a: 1"),
            ("apps/deep/x.json", 0o100755, b"{}"),
            ("apps/notes.md", 0o100644, b"no"),
            ("apps/.hidden/y.yaml", 0o100644, b"no"),
            ("apps/big.yml", 0o100644, &big),
            ("apps/link.yaml", 0o120000, b"/etc/passwd"),
            ("apps/sub", 0o160000, b""),
            ("root.yaml", 0o100644, b"root"),
        ],
    );
    let got = mirrors.fetch(&request(&url, "main", "apps")).unwrap();
    assert_eq!((got.commit.as_str(), got.subject.as_str()), (first.to_string().as_str(), "First"));
    assert_eq!(got.author, "Ada  [31mL <ada@example.org>");
    assert_eq!(got.trailer("portolan-retry").collect::<Vec<_>>(), ["shop"]);
    expect_test::expect![[r#"
        big.yml: TooLarge(1048577)
        deep/x.json: {}
        link.yaml: Symlink("/etc/passwd")
        sub: Submodule
        web.yaml: a: 1"#]]
    .assert_eq(&listed(&got.tree));
    assert_eq!(listed(&mirrors.fetch(&request(&url, "main", "apps/web.yaml")).unwrap().tree), "web.yaml: a: 1");

    // A second commit shares the unchanged content, byte for byte in the same memory.
    let second = commit(&repo, "main", "Second", &[("apps/web.yaml", 0o100644, b"a: 1"), ("apps/new.yaml", 0o100644, b"b: 2")]);
    let again = mirrors.fetch(&request(&url, "", "apps")).unwrap();
    assert_eq!(again.commit, second.to_string());
    let place = |t: &Tree| match &t.entries["web.yaml"] {
        Entry::File { content, .. } => content.as_ptr(),
        _ => unreachable!(),
    };
    assert_eq!(place(&got.tree), place(&again.tree));

    repo.tag_lightweight("v1", repo.find_commit(first).unwrap().as_object(), false).unwrap();
    let who = git2::Signature::now("a", "b").unwrap();
    repo.tag("v2", repo.find_commit(second).unwrap().as_object(), &who, "annotated", false).unwrap();
    for (revision, id) in [
        ("v1", first),
        ("v2", second),
        (&first.to_string()[..8], first),
        ("HEAD~1", first),
        ("main^", first),
        ("refs/heads/main", second),
    ] {
        assert_eq!(mirrors.fetch(&request(&url, revision, "")).unwrap().commit, id.to_string(), "{revision}");
    }
    let rows = [("nope", ""), ("main", "nope"), ("main", "apps/link.yaml/x"), ("main", "../x"), ("main~7", ""), ("deadbeef", "")];
    let text: Vec<String> = rows
        .iter()
        .map(|(r, p)| said(&mirrors.fetch(&request(&url, r, p)).unwrap_err()).replace(&second.to_string()[..7], "SECOND"))
        .collect();
    expect_test::expect![[r#"
        NoSuchRevision: look up the revision "nope": there is no such branch, tag or commit
        NoSuchPath: read nope at SECOND: the commit has no "nope"
        NoSuchPath: read apps/link.yaml/x at SECOND: the commit has no "apps/link.yaml"
        NoSuchPath: open the path "../x" of the repository: a `..` would lead out of the repository
        NoSuchRevision: look up the revision "main~7": it has not so many ancestors here; a shallow clone has few
        NoSuchRevision: look up the revision "deadbeef": there is no such branch, tag or commit"#]]
    .assert_eq(&text.join("\n"));
    let nowhere = mirrors.fetch(&request(&format!("{url}.nope"), "", "")).unwrap_err();
    assert_eq!(nowhere.kind, FetchErrorKind::NoSuchRepository);
}

#[test]
fn a_commit_read_from_the_one_before_is_as_if_it_had_been_read_afresh() {
    let dir = tempfile::tempdir().unwrap();
    let repo = bare(&dir.path().join("a.git"));
    let url = dir.path().join("a.git").display().to_string();
    let mirrors = Mirrors::open(&dir.path().join("mirrors")).unwrap();
    // Directories beside files whose names sort between them and what is in them, and the same path as a directory and as a file.
    let many: Vec<String> = (0..30).map(|n| format!("many/{n}.yaml")).collect();
    let moved: Vec<String> = (0..30).map(|n| format!("moved/{n}.yaml")).collect();
    let all = |names: &[String]| names.iter().map(|name| format!("{name}=m")).collect::<Vec<_>>().join(" ");
    let commits = [
        "a/x.yaml=1 a/y/z.yaml=1 a-b/x.yaml=1 a.yaml=1 a/notes.md=1".to_owned(),
        "a/x.yaml=2 a/y/z.yaml=1 a-b/x.yaml=1 a.yaml=1 a/notes.md=1".to_owned(),
        "a/x.yaml=2 a/y/z.yaml=1 a-b/w.yaml=1 a/notes.md=1".to_owned(),
        "a/x.yaml=2 a/y/z.yaml=1 a-b/x.yaml=1 a.yaml=2".to_owned(),
        "a/x.yaml=2 a/y/z.yaml=1 a/y/w/q.yaml=1 a-b/x.yaml=1 a.yaml=2 b/z.yaml=1".to_owned(),
        "a/y/w/q.yaml=1 a-b=1 b/z.yaml=1".to_owned(),
        "a/y/w=1 b/z.yaml=1 a-b/y/w/q.yaml=1".to_owned(),
        format!("b/z.yaml=1 {}", all(&many)),
        format!("b/z.yaml=1 {}", all(&moved)),
        format!("b/z.yaml=1 {} b/w.yaml=m", all(&moved)),
    ];
    for (n, files) in commits.iter().enumerate() {
        let files: Vec<(&str, i32, &[u8])> = files
            .split(' ')
            .filter_map(|file| file.split_once('='))
            .map(|(path, content)| (path, 0o100644, content.as_bytes()))
            .collect();
        let id = commit(&repo, "main", "Next", &files);
        for path in ["", "b"] {
            let Ok(read) = mirrors.fetch(&request(&url, "main", path)) else {
                assert!(path == "b" && n < 4, "{n}: {path:?}");
                continue;
            };
            let afresh = Mirrors::open(&dir.path().join("mirrors")).unwrap().fetch(&request(&url, "main", path)).unwrap();
            assert_eq!((read.tree, read.commit), (afresh.tree, id.to_string()), "{n}: {path:?}");
        }
    }
}

#[test]
fn a_watcher_wakes_soon_after_a_push() {
    let dir = tempfile::tempdir().unwrap();
    let repo = bare(dir.path());
    commit(&repo, "main", "one", &[("a.yaml", 0o100644, b"a")]);
    let (send, receive) = channel();
    let watcher = watch_local(dir.path(), move || send.send(()).unwrap()).unwrap();
    assert!(receive.recv_timeout(Duration::from_millis(100)).is_err(), "woken without a reason");
    commit(&repo, "main", "two", &[("a.yaml", 0o100644, b"b")]);
    receive.recv_timeout(Duration::from_secs(2)).expect("woken by a commit");
    // What else the commit wrote may wake once more.
    while receive.recv_timeout(Duration::from_millis(300)).is_ok() {}
    commit(&repo, "feature/new", "three", &[("a.yaml", 0o100644, b"c")]);
    receive.recv_timeout(Duration::from_secs(2)).expect("woken by a branch in a new directory");
    drop(watcher);
    assert!(watch_local(&dir.path().join("nope"), || {}).is_err());
}

#[test]
fn attack_a_a_plain_directory_is_read_without_following_links() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir_all(at("sub/.git")).unwrap();
    std::fs::write(at("sub/a.yaml"), "a").unwrap();
    std::fs::write(at("sub/.git/b.yaml"), "b").unwrap();
    std::fs::write(at("notes.txt"), "c").unwrap();
    std::os::unix::fs::symlink("/etc", at("etc")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at("p.yaml")).unwrap();
    expect_test::expect![[r#"
        etc: Symlink("/etc")
        p.yaml: Symlink("/etc/passwd")
        sub/a.yaml: a"#]]
    .assert_eq(&listed(&read_dir(dir.path()).unwrap()));
    assert_eq!(listed(&read_dir(&at("sub/a.yaml")).unwrap()), "a.yaml: a");
    assert!(read_dir(&at("nope")).is_err());
}

/// Git over https as a real server speaks it: `git http-backend` behind TLS. `/redirect/…` redirects elsewhere, `/private/…` wants a
/// password. Returns the port and the certificate.
fn https_server(root: &Path) -> (u16, String) {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let pem = own.cert.pem();
    let key = rustls_pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let root = root.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (config, root) = (config.clone(), root.clone());
            std::thread::spawn(move || {
                let session = rustls::ServerConnection::new(config).unwrap();
                let mut stream = BufReader::new(rustls::StreamOwned::new(session, stream.unwrap()));
                while let Some(()) = serve(&mut stream, &root) {}
            });
        }
    });
    (port, pem)
}

fn serve<S: Read + Write>(stream: &mut BufReader<S>, root: &Path) -> Option<()> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let mut first = head[0].split(' ');
    let (method, target) = (first.next()?, first.next()?);
    let header = |name: &str| {
        head.iter().find_map(|l| l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.to_owned()))
    };
    let mut body = vec![0; header("content-length").map_or(0, |l| l.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let stream = stream.get_mut();
    if let Some(rest) = target.strip_prefix("/redirect/") {
        write!(stream, "HTTP/1.1 302 Found\r\nlocation: /{rest}\r\ncontent-length: 0\r\n\r\n").ok()?;
        return Some(());
    }
    if target.starts_with("/away/") {
        write!(stream, "HTTP/1.1 302 Found\r\nlocation: https://127.0.0.1:1{target}\r\ncontent-length: 0\r\n\r\n").ok()?;
        return Some(());
    }
    if target.starts_with("/broken/") {
        write!(stream, "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").ok()?;
        return Some(());
    }
    if target.starts_with("/private/") && header("authorization").as_deref() != Some("Basic Z2l0OnRva2Vu") {
        write!(stream, "HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n").ok()?;
        return Some(());
    }
    let mut git = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", path.replace("/private/", "/"))
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", method)
        .env("CONTENT_TYPE", header("content-type").unwrap_or_default())
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = git.stdin.take().unwrap().write_all(&body);
    let out = git.wait_with_output().unwrap().stdout;
    let split = out.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(0);
    let headers = String::from_utf8_lossy(&out[..split]).into_owned();
    let status = headers.lines().find_map(|l| l.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let payload = out.get(split + 4..).unwrap_or_default();
    write!(stream, "HTTP/1.1 {status}\r\n{headers}\r\ncontent-length: {}\r\n\r\n", payload.len()).ok()?;
    stream.write_all(payload).ok()?;
    Some(())
}

#[test]
fn https_fetches_only_what_is_new_and_keeps_its_manners() {
    let dir = tempfile::tempdir().unwrap();
    let repo = bare(&dir.path().join("served/a.git"));
    let first = commit(&repo, "main", "one", &[("a.yaml", 0o100644, b"a: 1")]);
    commit(&repo, "main", "two", &[("a.yaml", 0o100644, b"a: 2"), ("b.yaml", 0o100644, b"b")]);
    let (port, ca) = https_server(&dir.path().join("served"));
    let mirrors = Mirrors::open(&dir.path().join("mirrors")).unwrap();
    let ask = |path: &str, revision: &str, password: &str| {
        let mut request = request(&format!("https://localhost:{port}/{path}"), revision, "");
        request.credentials = Some(Credentials { ca: ca.clone(), password: password.into(), ..Default::default() });
        mirrors.fetch(&request)
    };
    let got = ask("a.git", "main", "").unwrap_or_else(|e| panic!("{}", said(&e)));
    assert_eq!(listed(&got.tree), "a.yaml: a: 2\nb.yaml: b");
    // What is new, several times over, in the same mirror.
    for n in 0..3 {
        let content = format!("a: {n}");
        let id = commit(&repo, "main", "more", &[("a.yaml", 0o100644, content.as_bytes()), ("b.yaml", 0o100644, b"b")]);
        let got = ask("a.git", "", "").unwrap_or_else(|e| panic!("{}", said(&e)));
        assert_eq!((got.commit, listed(&got.tree)), (id.to_string(), format!("a.yaml: {content}\nb.yaml: b")));
    }
    // A commit by its id, long and short, and a branch that was rewritten.
    assert_eq!(ask("a.git", &first.to_string(), "").unwrap_or_else(|e| panic!("{}", said(&e))).commit, first.to_string());
    let short = Mirrors::open(&dir.path().join("others")).unwrap();
    let mut by_short = request(&format!("https://localhost:{port}/a.git"), &first.to_string()[..9], "");
    by_short.credentials = Some(Credentials { ca: ca.clone(), ..Default::default() });
    assert_eq!(short.fetch(&by_short).unwrap_or_else(|e| panic!("{}", said(&e))).commit, first.to_string());
    repo.reference("refs/heads/main", first, true, "rewritten").unwrap();
    assert_eq!(ask("a.git", "main", "").unwrap().commit, first.to_string());
    assert_eq!(ask("redirect/a.git", "main", "").unwrap_or_else(|e| panic!("{}", said(&e))).commit, first.to_string());
    assert_eq!(ask("private/a.git", "main", "token").unwrap_or_else(|e| panic!("{}", said(&e))).commit, first.to_string());
    // A mirror that was damaged is fetched afresh.
    for entry in std::fs::read_dir(dir.path().join("mirrors")).unwrap() {
        let _ = std::fs::remove_dir_all(entry.unwrap().path().join("objects"));
    }
    assert_eq!(ask("a.git", "main", "").unwrap_or_else(|e| panic!("{}", said(&e))).commit, first.to_string());

    let untrusted = mirrors.fetch(&request(&format!("https://localhost:{port}/a.git"), "", "")).unwrap_err();
    assert_eq!(untrusted.kind, FetchErrorKind::Denied, "{}", said(&untrusted));
    let rows = [
        ("a.git", "nope", ""),
        ("none.git", "", ""),
        ("private/a.git", "", ""),
        ("private/a.git", "", "wrong"),
        ("away/a.git", "", "token"),
        ("broken/a", "", ""),
    ];
    let text: Vec<String> =
        rows.iter().map(|(p, r, w)| said(&ask(p, r, w).unwrap_err()).replace(&port.to_string(), "PORT")).collect();
    expect_test::expect![[r#"
        NoSuchRevision: fetch from https://localhost:PORT/a.git: "nope": there is no such branch, tag or commit
        NoSuchRepository: fetch from https://localhost:PORT/none.git: there is no such repository (HTTP 404)
        Denied: fetch from https://localhost:PORT/private/a.git: it asks for credentials (HTTP 401)
        Denied: fetch from https://localhost:PORT/private/a.git: the credentials were refused (HTTP 401)
        Unreachable: fetch from https://localhost:PORT/away/a.git: it redirects to https://127.0.0.1:1/away/a.git; give that address if you trust it
        Unreachable: fetch from https://localhost:PORT/broken/a: the server answered HTTP 500"#]].assert_eq(&text.join("\n"));
    let gone = mirrors.fetch(&request("https://localhost:1/a.git", "", "")).unwrap_err();
    assert_eq!(gone.kind, FetchErrorKind::Unreachable, "{}", said(&gone));
}

#[test]
fn ssh_fetches_with_a_key_and_knows_its_host() {
    let Some(sshd) = ["/usr/sbin/sshd"].into_iter().find(|p| Path::new(p).exists()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let repo = bare(&at("a.git"));
    let id = commit(&repo, "main", "one", &[("a.yaml", 0o100644, b"a: 1")]);
    for key in ["host", "user", "stranger"] {
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(at(key)).status().unwrap();
        assert!(made.success());
    }
    let read = |name: &str| std::fs::read_to_string(at(name)).unwrap();
    std::fs::write(at("authorized"), read("user.pub")).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nPasswordAuthentication no\nUsePAM no\n",
        at("host").display(),
        at("authorized").display()
    );
    std::fs::write(at("sshd_config"), config).unwrap();
    let _ = std::fs::create_dir_all("/run/sshd");
    let mut server = Command::new(sshd).args(["-D", "-e", "-f"]).arg(at("sshd_config")).stderr(Stdio::null()).spawn().unwrap();
    for _ in 0..100 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let known = format!("[127.0.0.1]:{port} {}", read("host.pub"));
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let mirrors = Mirrors::open(&at("mirrors")).unwrap();
    let ask = |path: &str, key: &str, known: &str| {
        let mut request = request(&format!("ssh://{}@127.0.0.1:{port}{path}", user.trim()), "main", "");
        request.credentials = Some(Credentials { ssh_private_key: read(key), known_hosts: known.into(), ..Default::default() });
        mirrors.fetch(&request)
    };
    let path = at("a.git").display().to_string();
    let good = ask(&path, "user", &known).map(|f| f.commit);
    let next = commit(&repo, "main", "two", &[("a.yaml", 0o100644, b"a: 2")]);
    let again = ask(&path, "user", &known).map(|f| f.commit);
    let stranger = ask(&path, "stranger", &known).map(|f| f.commit);
    let unknown = ask(&path, "user", "other ssh-ed25519 AAAA").map(|f| f.commit);
    let missing = ask("/nowhere", "user", &known).map(|f| f.commit);
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(good.unwrap_or_else(|e| panic!("{}", said(&e))), id.to_string());
    assert_eq!(again.unwrap_or_else(|e| panic!("{}", said(&e))), next.to_string());
    let kinds = [stranger, unknown, missing].map(|r| r.unwrap_err()).map(|e| (e.kind, said(&e)));
    assert_eq!(kinds[0].0, FetchErrorKind::Denied, "{}", kinds[0].1);
    assert_eq!(kinds[1].0, FetchErrorKind::Denied, "{}", kinds[1].1);
    assert_eq!(kinds[2].0, FetchErrorKind::NoSuchRepository, "{}", kinds[2].1);
    assert_eq!(std::fs::read_dir(at("mirrors/keys")).unwrap().count(), 0, "keys are left behind");
}
