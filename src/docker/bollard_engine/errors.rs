//! What the daemon's refusals mean. It says much of it only in words.

use bollard::errors::Error;

use crate::docker::EngineError;

/// What a call was about, where that decides what its failure means.
#[derive(Clone, Copy, Debug)]
pub(super) enum About<'a> {
    /// A container, by id or name.
    Container(&'a str),
    /// A new container with this name, made from this image.
    Create(&'a str, &'a str),
    /// An image that should be on the host.
    Image(&'a str),
    /// An image that is being fetched.
    Pull(&'a str),
    /// The host.
    Host,
}

/// Translates what bollard says.
pub(super) fn translate(error: &Error, about: About<'_>) -> EngineError {
    match error {
        Error::DockerResponseServerError { status_code, message } => judge(*status_code, message, about),
        // Words in a stream whose status was 200 already.
        Error::DockerStreamError { error } => judge(200, error, about),
        other => EngineError::Unavailable { message: chain(other) },
    }
}

/// Decides by status and words. A status of 200 is a failure that came late, in a stream.
pub(super) fn judge(status: u16, message: &str, about: About<'_>) -> EngineError {
    let message = message.trim();
    let said = message.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let words =
        || if message.is_empty() { format!("the container engine answered with status {status}") } else { message.to_string() };
    if let About::Pull(image) = about {
        let (image, message) = (image.to_string(), words());
        return if has(&["access denied", "denied:", "unauthorized", "no basic auth credentials", "authentication required"])
            && !has(&["permission denied"])
        {
            EngineError::PullDenied { image, message }
        } else if status == 404
            || has(&["manifest unknown", "name unknown", "not found: manifest", "no matching manifest", "manifest for"])
        {
            EngineError::ImageNotFound { image, message }
        } else if status == 400 {
            EngineError::Refused { message }
        } else {
            EngineError::PullFailed { image, message }
        };
    }
    if has(&["port is already allocated", "address already in use", "port is not available"]) {
        return EngineError::PortTaken { message: words() };
    }
    match (status, about) {
        (404, About::Create(_, image)) | (404, About::Image(image)) if has(&["no such image", "not found", "unable to find"]) => {
            EngineError::ImageNotFound { image: image.into(), message: words() }
        }
        (404, About::Container(id)) if has(&["no such container", "no such exec", "no container with"]) => {
            if message.contains(id) {
                EngineError::NotFound { id: id.into() }
            } else {
                // Another one is missing: that whose network or processes this one joins.
                EngineError::Conflict { message: words() }
            }
        }
        (409, About::Create(name, _)) if has(&["already in use", "already used"]) => {
            EngineError::NameTaken { name: name.into(), holder: holder(message) }
        }
        (409, About::Image(_)) => EngineError::Refused { message: words() },
        (409, _) => EngineError::Conflict { message: words() },
        (400..500, _) => EngineError::Refused { message: words() },
        // A program that is not in the image: no later start will find it.
        _ if has(&["executable file not found", "exec format error"]) => EngineError::Refused { message: words() },
        _ => EngineError::Failed { message: words() },
    }
}

/// The id in `The container name "/x" is already in use by container "2f0c…"`. Podman writes it without quotes.
fn holder(message: &str) -> String {
    message
        .split(|c: char| !c.is_ascii_alphanumeric())
        .find(|word| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .unwrap_or_default()
        .into()
}

/// An error with its causes in one line: what it means is lost on the way otherwise (`client error (Connect)`).
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Container ids and names go into the path of a request: nothing that changes the path may be in them.
pub(super) fn check_id(id: &str) -> Result<(), EngineError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !id.is_empty() && id.chars().all(plain) && !id.starts_with('.') {
        return Ok(());
    }
    Err(EngineError::Refused { message: format!("invalid container id or name {id:?}") })
}

/// Image references go into the path of a request as well, and they may hold slashes.
pub(super) fn check_reference(reference: &str) -> Result<(), EngineError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ':' | '@');
    let parts = |part: &str| !part.is_empty() && !part.starts_with('.');
    if reference.chars().all(plain) && reference.split('/').all(parts) && !reference.starts_with('-') {
        return Ok(());
    }
    Err(EngineError::Refused { message: format!("invalid image reference {reference:?}") })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(rows: &[(u16, &str, About<'_>)], expect: Expect) {
        let row = |(status, message, about): &(u16, &str, About<'_>)| {
            let error = judge(*status, message, *about);
            let variant = format!("{error:?}").split([' ', '{']).next().unwrap_or_default().to_string();
            format!("{:?} {variant}: {error}\n", error.outlook())
        };
        expect.assert_eq(&rows.iter().map(row).collect::<String>());
    }

    #[test]
    fn containers() {
        let web = About::Container("web");
        let id = "2f0c8f6e4ac3b1d1f2b4a0bd1dd7d3b7a3ab7fe0c38cd33c4d8c3c9d6a5f4e3b";
        check(
            &[
                (404, "No such container: web", web),
                (404, "No such exec instance: web", web),
                (404, "No such container: 2f0c8f6e4ac3", web),
                (
                    409,
                    &format!(
                        "Conflict. The container name \"/web\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
                    ),
                    About::Create("web", "x"),
                ),
                (404, "No such image: x:latest", About::Create("web", "x")),
                (
                    400,
                    "invalid mount config for type \"bind\": bind source path does not exist: /nowhere",
                    About::Create("web", "x"),
                ),
                (409, "Container abc is not running", web),
                (
                    409,
                    "You cannot remove a running container abc. Stop the container before attempting removal or force remove",
                    web,
                ),
                (
                    400,
                    "OCI runtime create failed: container_linux.go:380: starting container process caused: exec: \"nope\": executable file not found in $PATH: unknown",
                    web,
                ),
                (
                    500,
                    "OCI runtime create failed: runc create failed: unable to start container process: exec: \"nope\": executable file not found in $PATH",
                    web,
                ),
                (
                    500,
                    "driver failed programming external connectivity on endpoint x: Bind for 0.0.0.0:80 failed: port is already allocated",
                    web,
                ),
                (
                    500,
                    "driver failed programming external connectivity: Error starting userland proxy: listen tcp4 0.0.0.0:80: bind: address already in use",
                    web,
                ),
                (500, "OCI runtime create failed: can't get final child's PID from pipe: EOF: unknown", web),
                (500, "", web),
                (
                    409,
                    "conflict: unable to remove repository reference \"x\" (must force) - container abc is using its referenced image",
                    About::Image("x"),
                ),
                (404, "No such image: x", About::Image("x")),
            ],
            expect![[r#"
                Permanent NotFound: no such container: web
                Permanent NotFound: no such container: web
                Transient Conflict: No such container: 2f0c8f6e4ac3
                Permanent NameTaken: the name web is taken by container 2f0c8f6e4ac3b1d1f2b4a0bd1dd7d3b7a3ab7fe0c38cd33c4d8c3c9d6a5f4e3b
                Permanent ImageNotFound: image x not found: No such image: x:latest
                Permanent Refused: invalid mount config for type "bind": bind source path does not exist: /nowhere
                Transient Conflict: Container abc is not running
                Transient Conflict: You cannot remove a running container abc. Stop the container before attempting removal or force remove
                Permanent Refused: OCI runtime create failed: container_linux.go:380: starting container process caused: exec: "nope": executable file not found in $PATH: unknown
                Permanent Refused: OCI runtime create failed: runc create failed: unable to start container process: exec: "nope": executable file not found in $PATH
                Transient PortTaken: driver failed programming external connectivity on endpoint x: Bind for 0.0.0.0:80 failed: port is already allocated
                Transient PortTaken: driver failed programming external connectivity: Error starting userland proxy: listen tcp4 0.0.0.0:80: bind: address already in use
                Transient Failed: OCI runtime create failed: can't get final child's PID from pipe: EOF: unknown
                Transient Failed: the container engine answered with status 500
                Permanent Refused: conflict: unable to remove repository reference "x" (must force) - container abc is using its referenced image
                Permanent ImageNotFound: image x not found: No such image: x
            "#]],
        );
    }

    #[test]
    fn pulls() {
        let pull = About::Pull("shop/web:2");
        check(
            &[
                (404, "manifest for shop/web:2 not found: manifest unknown: manifest unknown", pull),
                (200, "manifest unknown", pull),
                (
                    404,
                    "pull access denied for shop/web, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
                    pull,
                ),
                (500, "Get \"https://r/v2/\": unauthorized: authentication required", pull),
                (500, "Get \"https://r/v2/\": dial tcp: lookup r: no such host", pull),
                (
                    500,
                    "Get \"https://r/v2/\": net/http: request canceled while waiting for connection (Client.Timeout exceeded)",
                    pull,
                ),
                (500, "toomanyrequests: You have reached your pull rate limit", pull),
                (200, "failed to register layer: write /x: no space left on device", pull),
                (200, "filesystem layer verification failed for digest sha256:00", pull),
                (500, "no matching manifest for linux/amd64 in the manifest list entries", pull),
                (400, "invalid reference format", pull),
            ],
            expect![[r#"
                Permanent ImageNotFound: image shop/web:2 not found: manifest for shop/web:2 not found: manifest unknown: manifest unknown
                Permanent ImageNotFound: image shop/web:2 not found: manifest unknown
                Permanent PullDenied: pull of shop/web:2 denied: pull access denied for shop/web, repository does not exist or may require 'docker login': denied: requested access to the resource is denied
                Permanent PullDenied: pull of shop/web:2 denied: Get "https://r/v2/": unauthorized: authentication required
                Transient PullFailed: pull of shop/web:2 failed: Get "https://r/v2/": dial tcp: lookup r: no such host
                Transient PullFailed: pull of shop/web:2 failed: Get "https://r/v2/": net/http: request canceled while waiting for connection (Client.Timeout exceeded)
                Transient PullFailed: pull of shop/web:2 failed: toomanyrequests: You have reached your pull rate limit
                Transient PullFailed: pull of shop/web:2 failed: failed to register layer: write /x: no space left on device
                Transient PullFailed: pull of shop/web:2 failed: filesystem layer verification failed for digest sha256:00
                Permanent ImageNotFound: image shop/web:2 not found: no matching manifest for linux/amd64 in the manifest list entries
                Permanent Refused: invalid reference format
            "#]],
        );
    }

    #[test]
    fn nothing_in_a_name_changes_the_path_of_a_request() {
        for good in ["web", "2f0c8f6e", "k8s_POD_web-1_default_0b-1_0"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "../info", "a/b", "a?b", "a#b", "a b", "a%2fb", "a\nb"] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
        for good in ["nginx", "nginx:1.27", "r.example:5000/a/b_c:v-1", "a@sha256:00", "sha256:00"] {
            assert!(check_reference(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a?x", "a#x", "a b", "a%2e", "-a", "a\n"] {
            assert!(check_reference(bad).is_err(), "{bad}");
        }
    }
}
