//! `GET /metrics`: what the server has done, and how much there is, in Prometheus' text form.
//!
//! Not here: the figures of pods and hosts (`usage.rs`), and counting itself (`crate::count`).

use std::fmt::Write as _;

use axum::body::Body;
use http::Response;

use super::{Api, bytes_response};
use crate::count;

impl Api {
    /// Answers with all counts.
    pub(super) fn metrics(&self) -> Response<Body> {
        let mut text = String::new();
        for count in count::ALL {
            let (name, help) = (count.name, count.help);
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}", count.get());
        }
        let view = self.store().view();
        text.push_str("# HELP portolan_store_revision The revision of the newest write.\n# TYPE portolan_store_revision gauge\n");
        let _ = writeln!(text, "portolan_store_revision {}", view.revision());
        // Kubernetes' own name for this one.
        let name = "apiserver_storage_objects";
        let _ = writeln!(text, "# HELP {name} Objects that are stored, by kind.\n# TYPE {name} gauge");
        for kind in view.kinds() {
            let _ = writeln!(text, "{name}{{resource=\"{}\"}} {}", kind.resource(), view.len(kind));
        }
        bytes_response(200, "text/plain; version=0.0.4; charset=utf-8", text)
    }
}
