//! `exec`: a command in a container, with this terminal at its ends.

use std::io::IsTerminal;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use super::args::Exec;
use super::connect::client;
use super::logs::{default_container, pod};
use super::{Context, Explain, Outcome, fail};

pub(super) async fn run(cx: &Context, args: Exec) -> Outcome {
    let client = client(cx).await?;
    let namespace = args.namespace.clone().unwrap_or_else(|| client.namespace().to_owned());
    let pod = pod(&client, &namespace, &args.pod).await?;
    let container = args.container.clone().unwrap_or_else(|| default_container(cx, &pod));
    let name = pod.metadata.name.clone().unwrap_or_default();
    let tty = args.tty && std::io::stdin().is_terminal();
    if args.tty && !tty {
        cx.print.say("there is no terminal here, so -t is left out");
    }
    let params = AttachParams {
        container: Some(container),
        stdin: args.stdin,
        stdout: true,
        stderr: !tty,
        tty,
        ..AttachParams::default()
    };
    let api: Api<Pod> = Api::namespaced(client.kube().clone(), &namespace);
    let mut process = api.exec(&name, args.command.clone(), &params).await.doing(format_args!("run the command in {name}"))?;
    let _raw = if tty { Some(terminal::Raw::set()?) } else { None };

    let input = process.stdin().map(|mut to| {
        tokio::spawn(async move {
            let (mut from, mut buffer) = (tokio::io::stdin(), [0; 8192]);
            while let Ok(n @ 1..) = from.read(&mut buffer).await {
                if to.write_all(&buffer[..n]).await.is_err() {
                    break;
                }
            }
            let _ = to.shutdown().await;
        })
    });
    if tty && let Some(mut sizes) = process.terminal_size() {
        let mut changed = signal(SignalKind::window_change())?;
        tokio::spawn(async move {
            while let Some((width, height)) = terminal::size() {
                // A full channel only means that the last size is still on its way.
                if sizes.try_send(TerminalSize { width, height }).is_err_and(|e| e.is_disconnected())
                    || changed.recv().await.is_none()
                {
                    break;
                }
            }
        });
    }
    let output = process.stdout().map(|mut from| {
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut from, &mut tokio::io::stdout()).await;
            let _ = tokio::io::stdout().flush().await;
        })
    });
    let errors = process.stderr().map(|mut from| {
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut from, &mut tokio::io::stderr()).await;
        })
    });
    let status = match process.take_status() {
        Some(status) => status.await,
        None => None,
    };
    for task in [output, errors].into_iter().flatten() {
        let _ = task.await;
    }
    if let Some(input) = input {
        input.abort();
    }
    drop(_raw);
    let Some(status) = status else {
        return fail("the connection ended without saying how the command did", "is the host still there?");
    };
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.as_ref().and_then(|d| d.causes.as_ref()).into_iter().flatten();
    let code = causes.filter(|c| c.reason.as_deref() == Some("ExitCode")).find_map(|c| c.message.as_ref()?.parse::<u8>().ok());
    match code {
        Some(code) => Ok(code),
        None => fail(status.message.unwrap_or_else(|| "the command failed".to_owned()), "does the container have this program?"),
    }
}

/// The terminal that this process runs on.
mod terminal {
    use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

    /// Passes every key on, until dropped.
    pub(super) struct Raw(Termios);

    impl Raw {
        pub(super) fn set() -> std::io::Result<Raw> {
            let before = tcgetattr(std::io::stdin())?;
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
            Ok(Raw(before))
        }
    }

    impl Drop for Raw {
        fn drop(&mut self) {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
        }
    }

    /// Columns and rows.
    pub(super) fn size() -> Option<(u16, u16)> {
        tcgetwinsize(std::io::stdout()).ok().map(|s| (s.ws_col, s.ws_row))
    }
}
