//! The command line: arguments in, words and exit codes out.
//!
//! [`args`] says what can be asked, one file per command does it, [`print`] writes. Commands stay thin: what they show is decided in
//! `plan`, `render` and on the server.
//!
//! You will not find here: the store, Docker, or loops. To this room the server is somewhere else, even when `up` has just started it.

mod access;
mod app;
mod args;
mod bench;
mod connect;
mod exec;
mod get;
mod history;
mod hosts;
mod logs;
mod pin;
mod plan;
mod print;
mod serve;
mod sim;
mod status;
mod token;
mod validate;
mod value;
mod wait;

use std::fmt;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command, Global};
use print::Print;

/// Why a command failed, and what may help.
pub(crate) struct Failure {
    error: anyhow::Error,
    hint: Option<String>,
}

impl Failure {
    /// What may help: what the command said, or what the cause knows.
    fn hint(&self) -> Option<String> {
        self.hint.clone().or_else(|| self.error.chain().find_map(connect::hint_of))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.error)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure { error: error.into(), hint: None }
    }
}

/// A failure in words.
fn fail<T>(message: impl fmt::Display, hint: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { error: anyhow::anyhow!("{message}"), hint: Some(hint.into()) })
}

/// Adds to a failure what was attempted, and what may help.
trait Explain<T> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Failure>;
    fn hint(self, hint: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> Explain<T> for Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|e| {
            let Failure { error, hint } = e.into();
            Failure { error: error.context(what.to_string()), hint }
        })
    }
    fn hint(self, hint: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|e| Failure { hint: Some(hint.into()), ..e.into() })
    }
}

/// An exit code, or why there is none.
type Outcome = Result<u8, Failure>;

/// What every command is given.
struct Context {
    global: Global,
    print: Print,
}

/// Runs the command that the arguments ask for.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // Help and versions were asked for. For mistakes clap says 2, which to some of our readers means that there are changes.
            let diff = std::env::args().nth(1).is_some_and(|a| a == "diff");
            return ExitCode::from(if error.use_stderr() { 1 + u8::from(diff) } else { 0 });
        }
    };
    let print = Print::new(cli.global.color);
    // diff(1) keeps 1 for differences.
    let failed = if matches!(cli.command, Command::Diff(_)) { 2 } else { 1 };
    serve::log(&cli, &print);
    let cx = Context { global: cli.global, print };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(serve::threads(&cli.command)).build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(run(&cx, cli.command));
            // Whatever still reads from a terminal must not hold us up.
            runtime.shutdown_timeout(std::time::Duration::from_millis(200));
            outcome
        }
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            cx.print.error(&failure);
            ExitCode::from(failed)
        }
    }
}

async fn run(cx: &Context, command: Command) -> Outcome {
    match command {
        Command::Up(args) => serve::up(cx, args).await,
        Command::Server(args) => serve::server(cx, args).await,
        Command::Agent(args) => serve::agent(cx, args).await,
        Command::Token(args) => token::run(cx, args).await,
        Command::Kubeconfig => serve::kubeconfig(cx),
        Command::Validate(args) => validate::run(cx, &args),
        Command::Plan(args) => plan::plan(cx, args).await,
        Command::Diff(args) => plan::diff(cx, args).await,
        Command::Sync(args) => wait::sync(cx, args).await,
        Command::Wait(args) => wait::wait(cx, args).await,
        Command::Status(args) => status::run(cx, args).await,
        Command::History(args) => history::run(cx, args).await,
        Command::Rollback(args) => pin::rollback(cx, args).await,
        Command::Retry(args) => pin::retry(cx, args).await,
        Command::Hosts(args) => hosts::run(cx, args).await,
        Command::Get(args) => get::run(cx, args).await,
        Command::Logs(args) => logs::run(cx, args).await,
        Command::Exec(args) => exec::run(cx, args).await,
        Command::Sim(args) => sim::run(cx, args).await,
        Command::Bench(args) => bench::run(cx, args).await,
        Command::Version(args) => version(cx, args.client).await,
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "portolan", &mut script);
            cx.print.out(String::from_utf8_lossy(&script));
            Ok(0)
        }
    }
}

/// The version of this program, and of the server where there is one.
async fn version(cx: &Context, client_only: bool) -> Outcome {
    cx.print.line(format_args!("portolan {}", env!("CARGO_PKG_VERSION")));
    if client_only {
        return Ok(0);
    }
    let asked = async {
        let client = connect::client(cx).await?;
        Ok::<_, Failure>(client.call(http::Method::GET, "/version", &serde_json::Value::Null).await?)
    };
    // That no server is there is no failure of this question.
    match tokio::time::timeout(std::time::Duration::from_secs(3), asked).await {
        Ok(Ok(answer)) => cx.print.line(format_args!("server {}", answer["gitVersion"].as_str().unwrap_or("unknown"))),
        Ok(Err(failure)) => {
            cx.print.say(format_args!("the server's version is not known: {}", print::clean(&failure.error.to_string())))
        }
        Err(_) => cx.print.say("the server's version is not known: it did not answer within 3 s"),
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_sound() {
        Cli::command().debug_assert();
    }
}
