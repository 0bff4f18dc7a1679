//! `kubectl proxy`: the API without TLS or credentials on a port of this machine, with kubectls new and old.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Cluster, old_kubectl};

/// A proxy that runs until it is dropped.
struct Proxy {
    child: Child,
    address: String,
}

impl Proxy {
    fn start(cluster: &Cluster, kubectl: &Path) -> Proxy {
        let mut child = cluster.command(kubectl, &["proxy", "--port=0"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("Starting to serve on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Proxy { child, address }
    }
    /// A connection on which a request was sent.
    fn send(&self, line: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = format!(
            "{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        stream
    }
    /// The status line of an answer, and its body.
    fn ask(&self, line: &str, body: &str) -> (String, String) {
        let mut answer = String::new();
        self.send(line, body).read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_api_through_a_proxy() {
    let cluster = Cluster::start("127.0.0.1", &[]);
    let kubectls = [Some(PathBuf::from("kubectl")), old_kubectl("kubectl_proxy::the_api_through_a_proxy")];
    for (n, kubectl) in kubectls.into_iter().flatten().enumerate() {
        let proxy = Proxy::start(&cluster, &kubectl);
        let config_maps = "/api/v1/namespaces/default/configmaps";
        let name = format!("made-{n}");

        // A watch that is open while the others ask.
        let watch =
            proxy.send(&format!("GET {config_maps}?watch=true&timeoutSeconds=20&fieldSelector=metadata.name%3D{name}"), "");
        let (status, body) =
            proxy.ask(&format!("POST {config_maps}"), &format!(r#"{{"metadata":{{"name":"{name}"}},"data":{{"a":"b"}}}}"#));
        assert!(status.contains("201"), "{kubectl:?} {status} {body}");
        let seen = BufReader::new(watch).lines().map(Result::unwrap).find(|line| line.starts_with('{')).unwrap();
        let event: Value = serde_json::from_str(&seen).unwrap();
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&"ADDED".into(), &name.as_str().into()));

        let (status, body) = proxy.ask(&format!("GET {config_maps}/{name}"), "");
        assert!(status.contains("200") && body.contains("\"a\":\"b\""), "{kubectl:?} {status} {body}");
        let (status, body) = proxy.ask("GET /apis/apps/v1/namespaces/default/deployments/none", "");
        assert!(
            status.contains("404") && body.contains("deployments.apps \\\"none\\\" not found"),
            "{kubectl:?} {status} {body}"
        );
        assert_eq!(proxy.ask("GET /healthz", "").1, "ok");
        // What acts in a container does not go through it.
        let (status, _) = proxy.ask("POST /api/v1/namespaces/default/pods/p/exec?command=ls", "");
        assert!(status.contains("403"), "{kubectl:?} {status}");
        let (status, body) = proxy.ask(&format!("DELETE {config_maps}/{name}"), "");
        assert!(status.contains("200"), "{kubectl:?} {status} {body}");
    }
}
