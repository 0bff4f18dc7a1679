//! What a registry's words about an image mean, as a container's status passes them on.
//!
//! Words are all that there is: engines and registries agree on no codes. You will not find here: what an answer means for a pod.

/// What a registry answered to the question for an image.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// There is no such image.
    NoSuchImage,
    /// We do not get it. Some registries say this of a repository that does not exist, so as not to tell which ones do.
    Denied,
    /// Nothing: it cannot be reached, or cannot tell now.
    None,
}

/// What a registry's words about an image mean.
pub(super) fn answer(message: &str, image: &str) -> Answer {
    // The image's own name says nothing: somebody's is called `timeout`.
    let repository = image.rsplit_once(':').map_or(image, |(repository, tag)| if tag.contains('/') { image } else { repository });
    let names = |word: &&str| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let rest =
            if repository.is_empty() { None } else { word.find(repository).map(|at| (at, &word[at + repository.len()..])) };
        rest.is_some_and(|(at, rest)| (at == 0 || word[..at].ends_with('/')) && (rest.is_empty() || rest.starts_with([':', '@'])))
    };
    let message = message.split_whitespace().filter(|word| !names(word)).collect::<Vec<_>>().join(" ").to_ascii_lowercase();
    // A proxy's error page says "not found" as well; whoever cannot reach the registry has no answer from it.
    let away = [
        "timeout",
        "timed out",
        "connection refused",
        "no such host",
        "unreachable",
        "503",
        "502",
        "500 internal",
        "tls handshake",
        "tls:",
        "x509",
        "eof",
    ];
    let gone =
        ["manifest unknown", "not found", "does not exist", "no such image", "repository name not known", "invalid reference"];
    let denied =
        ["denied", "unauthorized", "authentication required", "no basic auth credentials", "forbidden", "insufficient_scope"];
    let says = |words: &[&str]| words.iter().any(|w| message.contains(w));
    match () {
        () if says(&away) => Answer::None,
        () if says(&gone) => Answer::NoSuchImage,
        () if says(&denied) => Answer::Denied,
        () => Answer::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_registries() {
        for (words, image, expected) in [
            ("manifest unknown", "i", Answer::NoSuchImage),
            (
                "pull access denied for a/b, repository does not exist or may require 'docker login': denied",
                "a/b",
                Answer::NoSuchImage,
            ),
            ("denied: requested access to the resource is denied", "a/b:1", Answer::Denied),
            ("unauthorized: authentication required", "r.example:5000/a", Answer::Denied),
            ("no basic auth credentials", "i", Answer::Denied),
            ("toomanyrequests: You have reached your pull rate limit", "i", Answer::None),
            ("net/http: TLS handshake timeout", "i", Answer::None),
            ("unexpected EOF", "i", Answer::None),
            ("", "", Answer::None),
            // An image's own name is no answer, and hides none.
            ("pull of docker.io/shop/denied:1 failed: 500 Internal Server Error", "shop/denied:1", Answer::None),
            ("manifest for shop/eof:1 not found: manifest unknown", "shop/eof:1", Answer::NoSuchImage),
            ("pull access denied for r.example:5000/timeout", "r.example:5000/timeout", Answer::Denied),
        ] {
            assert!(answer(words, image) == expected, "{words}");
        }
    }
}
