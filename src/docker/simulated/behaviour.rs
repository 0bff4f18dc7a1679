//! What a simulated container does, read from the name of its image and from its environment. The table is in the module above.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// What a container does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Behaviour {
    /// How the registry treats the image.
    pub registry: Registry,
    /// How long the pull takes; `None` for the machine's usual time.
    pub pull: Option<SignedDuration>,
    /// Whether the program does not exist.
    pub norun: bool,
    /// When it answers, counted from its start; `None` never.
    pub answers_after: Option<SignedDuration>,
    /// When it stops answering, counted from its start.
    pub answers_until: Option<SignedDuration>,
    /// When and how it ends by itself, counted from its start.
    pub ends: Option<(SignedDuration, End)>,
    /// How long it takes to stop after SIGTERM; `None` never.
    pub stops_in: Option<SignedDuration>,
    /// How often it writes a line.
    pub chatters: Option<SignedDuration>,
    /// The environment variable without which it ends with code 1 at once.
    pub needs: Option<String>,
}

/// How a container ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// By itself, with this code.
    Code(i64),
    /// Killed by the kernel for want of memory.
    OutOfMemory,
    /// Killed by a signal that nobody can catch.
    Killed,
}

/// How a registry treats an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Registry {
    /// Gives it out.
    #[default]
    Has,
    /// Does not have it.
    Missing,
    /// Does not let us have it.
    Denied,
    /// Fails.
    Broken,
    /// Never answers.
    Hangs,
}

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour {
            registry: Registry::Has,
            pull: None,
            norun: false,
            answers_after: Some(SignedDuration::ZERO),
            answers_until: None,
            ends: None,
            stops_in: Some(SignedDuration::ZERO),
            chatters: None,
            needs: None,
        }
    }
}

/// When and how a command ends that is known to.
fn ends(words: &[&str]) -> Option<(SignedDuration, End)> {
    match words {
        ["true" | "echo", ..] => Some((SignedDuration::ZERO, End::Code(0))),
        ["false", ..] => Some((SignedDuration::ZERO, End::Code(1))),
        ["exit", code] => Some((SignedDuration::ZERO, End::Code(code.parse().ok()?))),
        ["sleep", time] => Some((SignedDuration::from_secs(time.trim_end_matches('s').parse().ok()?), End::Code(0))),
        _ => None,
    }
}

impl Behaviour {
    /// Reads an image's name.
    pub fn of_image(reference: &str) -> Behaviour {
        let mut behaviour = Behaviour::default();
        let name = reference.split_once('@').map_or(reference, |(name, _)| name);
        // A colon before the last slash belongs to the registry's port.
        let after = name.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match name[after..].find(':') {
            Some(colon) => (&name[..after + colon], &name[after + colon + 1..]),
            None => (name, ""),
        };
        let mut parts = path.rsplit('/');
        let word = parts.next().unwrap_or_default();
        if parts.next() == Some("sim") {
            behaviour.say(word, &tag.split('-').collect::<Vec<_>>());
        }
        behaviour
    }

    /// Adds what the command says, if it is one of the few that are known to end: `true`, `false`, `echo`, `exit N`, `sleep N`, and
    /// `sh -c` with just one of these. What the image or `SIM` say about the end goes before.
    pub fn with_command<'a>(mut self, words: impl Iterator<Item = &'a str>) -> Behaviour {
        let words: Vec<&str> = words.collect();
        let ends = match words[..] {
            ["sh" | "/bin/sh", "-c", script] if !script.contains([';', '&', '|', '\n']) => {
                ends(&script.split_whitespace().collect::<Vec<_>>())
            }
            _ => ends(&words),
        };
        self.ends = self.ends.or(ends);
        self
    }

    /// Adds what the environment says in `SIM`.
    pub fn with_env<'a>(mut self, env: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Behaviour {
        if let Some((_, words)) = env.clone().find(|(name, _)| *name == "SIM") {
            for word in words.split_whitespace() {
                let (word, parameters) = word.split_once('=').unwrap_or((word, ""));
                self.say(word, &parameters.split('-').collect::<Vec<_>>());
            }
        }
        if let Some(needs) = &self.needs
            && !env.clone().any(|(name, value)| name == needs && !value.is_empty())
        {
            self.ends = Some((SignedDuration::ZERO, End::Code(1)));
        }
        self
    }

    /// Applies one word of the table. Unknown words mean nothing, so that every image name is valid.
    fn say(&mut self, word: &str, parameters: &[&str]) {
        let time = |at: usize, otherwise: i64| {
            parameters.get(at).and_then(|text| parse_duration(text)).unwrap_or(SignedDuration::from_secs(otherwise))
        };
        match word {
            "slow" => self.answers_after = Some(time(0, 30)),
            "unready" => self.answers_after = None,
            "sick" => self.answers_until = Some(time(0, 60)),
            "crash" => {
                let code = parameters.first().and_then(|text| text.parse().ok()).unwrap_or(1);
                self.ends = Some((time(1, 1), End::Code(code)));
            }
            "job" => self.ends = Some((time(0, 1), End::Code(0))),
            "oom" => self.ends = Some((time(0, 1), End::OutOfMemory)),
            "deaf" => self.stops_in = None,
            "lazy" => self.stops_in = Some(time(0, 5)),
            "chatty" => self.chatters = Some(time(0, 1).max(SignedDuration::from_millis(1))),
            "norun" => self.norun = true,
            "large" => self.pull = Some(time(0, 20)),
            "missing" => self.registry = Registry::Missing,
            "denied" => self.registry = Registry::Denied,
            "broken" => self.registry = Registry::Broken,
            "hang" => self.registry = Registry::Hangs,
            "needs" => self.needs = parameters.first().map(|name| (*name).to_string()),
            _ => {}
        }
    }
}

/// Reads `300ms`, `30s`, `5m` or `2h`.
fn parse_duration(text: &str) -> Option<SignedDuration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: i64 = text[..digits].parse().ok()?;
    let milliseconds = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(SignedDuration::from_millis(number.checked_mul(milliseconds)?))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// What differs from the default, in a few words.
    fn check(image: &str, env: &[(&str, &str)], expect: Expect) {
        let b = Behaviour::of_image(image).with_env(env.iter().copied());
        let d = Behaviour::default();
        let mut words = Vec::new();
        if b.registry != d.registry {
            words.push(format!("registry {:?}", b.registry));
        }
        if let Some(pull) = b.pull {
            words.push(format!("pull {pull:#}"));
        }
        if b.norun {
            words.push("norun".into());
        }
        if b.answers_after != d.answers_after {
            words.push(b.answers_after.map_or("never answers".into(), |t| format!("answers after {t:#}")));
        }
        if let Some(until) = b.answers_until {
            words.push(format!("answers until {until:#}"));
        }
        if let Some((after, end)) = b.ends {
            words.push(format!("ends {end:?} after {after:#}"));
        }
        if b.stops_in != d.stops_in {
            words.push(b.stops_in.map_or("never stops".into(), |t| format!("stops in {t:#}")));
        }
        if let Some(every) = b.chatters {
            words.push(format!("chatters every {every:#}"));
        }
        expect.assert_eq(&words.join(", "));
    }

    #[test]
    fn images() {
        check("nginx:1.27", &[], expect![[""]]);
        check("slow:30s", &[], expect![[""]]);
        check("sim/web:v1", &[], expect![[""]]);
        check("sim/slow:30s", &[], expect![["answers after 30s"]]);
        check("registry.local:5000/sim/slow:30s-v2", &[], expect![["answers after 30s"]]);
        check("sim/slow", &[], expect![["answers after 30s"]]);
        check("sim/unready:v1", &[], expect![["never answers"]]);
        check("sim/sick:2m", &[], expect![["answers until 2m"]]);
        check("sim/crash:3", &[], expect![["ends Code(3) after 1s"]]);
        check("sim/crash:3-5s-v2", &[], expect![["ends Code(3) after 5s"]]);
        check("sim/crash:v2", &[], expect![["ends Code(1) after 1s"]]);
        check("sim/job:10s@sha256:00", &[], expect![["ends Code(0) after 10s"]]);
        check("sim/oom:300ms", &[], expect![["ends OutOfMemory after 300ms"]]);
        check("sim/deaf:v1", &[], expect![["never stops"]]);
        check("sim/lazy:2s", &[], expect![["stops in 2s"]]);
        check("sim/chatty", &[], expect![["chatters every 1s"]]);
        check("sim/norun:1", &[], expect![["norun"]]);
        check("sim/large:1m", &[], expect![["pull 1m"]]);
        check("sim/missing:1", &[], expect![["registry Missing"]]);
        check("sim/denied:1", &[], expect![["registry Denied"]]);
        check("sim/broken:1", &[], expect![["registry Broken"]]);
        check("sim/hang:1", &[], expect![["registry Hangs"]]);
    }

    /// The module's table and the reference page say the same.
    #[test]
    fn the_reference_page_is_complete() {
        let rows = |text: &str| {
            let text = text.to_string();
            let rows =
                text.lines().map(|line| line.trim_start_matches("//! ").to_string()).filter(|line| line.starts_with("| `sim/"));
            rows.collect::<Vec<_>>()
        };
        let page = rows(include_str!("../../../docs/reference/simulated-engine.md"));
        assert_eq!(page, rows(include_str!("mod.rs")));
        assert_eq!(page.len(), 16);
    }

    #[test]
    fn environment() {
        check("nginx", &[("SIM", "slow=5s deaf")], expect![["answers after 5s, never stops"]]);
        check("sim/slow:30s", &[("SIM", "crash=2-1m")], expect![["answers after 30s, ends Code(2) after 1m"]]);
        let commanded = |words: &[&str]| Behaviour::default().with_command(words.iter().copied()).ends;
        assert_eq!(commanded(&["sh", "-c", "echo hello > /file"]), Some((SignedDuration::ZERO, End::Code(0))));
        assert_eq!(commanded(&["sleep", "5"]), Some((SignedDuration::from_secs(5), End::Code(0))));
        assert_eq!(commanded(&["sh", "-c", "echo hello; serve"]), None);
        assert_eq!(commanded(&["serve"]), None);
        check("nginx", &[("SIM", "needs=GREETING")], expect![["ends Code(1) after 0s"]]);
        check("nginx", &[("SIM", "needs=GREETING"), ("GREETING", "hi")], expect![[""]]);
    }
}
