//! Logs, exec and attach of a simulated host.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::sync::mpsc;

use super::engine::Inner;
use crate::docker::{AttachSpec, Channel, Chunk, EngineError, ExecSpec, Flow, LogEntry, LogOptions, Session};

/// How much a command's input may be ahead of its reader, in bytes; the same as a pipe.
const PIPE: usize = 64 * 1024;

/// What a container wrote.
pub(super) fn logs(inner: &Arc<Inner>, id: String, options: LogOptions) -> Flow<LogEntry> {
    // Nobody tells a change that was told before the subscription; so subscribe, then look.
    let mut changed = inner.changed.subscribe();
    let wanted = {
        let options = options.clone();
        move |entry: &LogEntry| {
            let channel = if entry.channel == Channel::Stderr { options.stderr } else { options.stdout };
            channel && options.since.is_none_or(|since| entry.at.is_some_and(|at| at >= since))
        }
    };
    let (mut first, mut position, alive) = inner.lines_from(&id, 0);
    first.retain(&wanted);
    if let Some(tail) = options.tail {
        first.drain(..first.len().saturating_sub(tail as usize));
    }
    let (sender, receiver) = mpsc::channel(16);
    let inner = Arc::downgrade(inner);
    tokio::spawn(async move {
        let mut alive = alive;
        let mut entries = first;
        loop {
            for entry in entries {
                if sender.send(Ok(entry)).await.is_err() {
                    return;
                }
            }
            if !options.follow || !alive {
                return;
            }
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
            changed.borrow_and_update();
            let Some(inner) = inner.upgrade() else { return };
            (entries, position, alive) = inner.peek_lines(&id, position);
            entries.retain(&wanted);
        }
    });
    flow(receiver)
}

/// Runs a command. `sh` with an input and without `-c` is a shell that reads commands line by line.
pub(super) fn exec(inner: &Arc<Inner>, id: String, spec: ExecSpec) -> Session {
    let session = inner.new_session();
    let (input, stdin) = tokio::io::duplex(PIPE);
    let (sender, receiver) = mpsc::channel(16);
    let name = session.clone();
    let inner = Arc::clone(inner);
    tokio::spawn(async move {
        let program = spec.command.first().map(|program| program.rsplit('/').next().unwrap_or_default());
        let code = match program {
            Some("sh" | "bash" | "ash") if spec.stdin && spec.command.len() == 1 => {
                shell(&inner, &id, &spec, stdin, &sender).await
            }
            Some("pause") if spec.command.get(1).is_some_and(|word| word == "connect") => {
                connect(&inner, &id, stdin, &sender).await
            }
            Some("cat") if spec.stdin && spec.command.len() == 1 => copy(stdin, &sender).await,
            _ => command(&inner, &id, &spec.command, &sender).await,
        };
        inner.end_session(&name, code);
    });
    Session { id: session, output: flow(receiver), input: Box::pin(input) }
}

/// Connects to a container: its log from now on. Its input goes nowhere.
pub(super) fn attach(inner: &Arc<Inner>, id: String, spec: &AttachSpec) -> Session {
    let options = LogOptions { follow: true, tail: Some(0), stdout: spec.stdout, stderr: spec.stderr, ..LogOptions::default() };
    let output =
        logs(inner, id.clone(), options).map(|entry| entry.map(|entry| Chunk { channel: entry.channel, bytes: entry.bytes }));
    Session { id, output: output.boxed(), input: Box::pin(tokio::io::sink()) }
}

type Sender = mpsc::Sender<Result<Chunk, EngineError>>;

async fn say(sender: &Sender, bytes: Bytes) -> bool {
    bytes.is_empty() || sender.send(Ok(Chunk { channel: Channel::Stdout, bytes })).await.is_ok()
}

async fn command(inner: &Inner, id: &str, command: &[String], sender: &Sender) -> i64 {
    let (takes, ran) = inner.with(|machine, _| machine.command(id, command, b""));
    tokio::time::sleep(takes.try_into().unwrap_or_default()).await;
    say(sender, ran.output).await;
    ran.exit_code.unwrap_or(0)
}

async fn copy(mut stdin: tokio::io::DuplexStream, sender: &Sender) -> i64 {
    let mut buffer = vec![0; 8 * 1024];
    while let Ok(read @ 1..) = stdin.read(&mut buffer).await {
        if !say(sender, Bytes::copy_from_slice(&buffer[..read])).await {
            return 141;
        }
    }
    0
}

/// What the sandbox's program does when it is to connect to a port: whatever answers in this network echoes.
async fn connect(inner: &Inner, sandbox: &str, mut stdin: tokio::io::DuplexStream, sender: &Sender) -> i64 {
    let words = |text: &'static [u8]| Ok(Chunk { channel: Channel::Stderr, bytes: Bytes::from_static(text) });
    if !inner.with(|machine, _| machine.answers_within(sandbox)) {
        let _ = sender.send(words(b"0111")).await; // ECONNREFUSED
        return 1;
    }
    let _ = sender.send(words(b"+")).await;
    while let Ok(length @ 1..) = stdin.read_u16().await {
        let mut bytes = vec![0; usize::from(length)];
        if stdin.read_exact(&mut bytes).await.is_err() || !say(sender, bytes.into()).await {
            return 137;
        }
    }
    0
}

async fn shell(inner: &Inner, id: &str, spec: &ExecSpec, stdin: tokio::io::DuplexStream, sender: &Sender) -> i64 {
    let mut lines = BufReader::new(stdin).split(b'\n');
    let mut last = 0;
    loop {
        if spec.tty && !say(sender, Bytes::from_static(b"$ ")).await {
            return 129;
        }
        let Ok(Some(line)) = lines.next_segment().await else { return last };
        let line = String::from_utf8_lossy(&line);
        let words: Vec<String> = line.split_whitespace().map(Into::into).collect();
        match words.first().map(String::as_str) {
            None => {}
            Some("exit") => return words.get(1).and_then(|code| code.parse().ok()).unwrap_or(last),
            Some(_) => last = command(inner, id, &words, sender).await,
        }
    }
}

fn flow<T: Send + 'static>(receiver: mpsc::Receiver<Result<T, EngineError>>) -> Flow<T> {
    futures_util::stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|item| (item, receiver)) })
        .boxed()
}
