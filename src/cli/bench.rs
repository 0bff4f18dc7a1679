//! `bench`: figures of this system on this machine.

use super::args::Bench;
use super::{Context, Explain, Failure, Outcome, fail, get};
use crate::bench::{self, FleetSize, Host, Options, ScheduleScope, Subject};

pub(super) async fn run(cx: &Context, args: Bench) -> Outcome {
    super::serve::many_files();
    let only = args.only.iter().map(|w| subject(w)).collect::<Result<Vec<_>, _>>()?;
    let hosts = args.hosts.iter().map(|h| host(h)).collect::<Result<Vec<_>, _>>()?;
    let size = |hosts: usize, pods: usize| {
        let deployments = args.deployments.unwrap_or(pods.div_ceil(100)).max(1);
        FleetSize { hosts, pods, deployments }
    };
    let fleet = args.fleet_hosts.iter().flat_map(|hosts| match args.pods.is_empty() {
        true => vec![size(*hosts, hosts * 50)],
        false => args.pods.iter().map(|pods| size(*hosts, *pods)).collect(),
    });
    let fleet = fleet.collect();
    let shapes = args.shapes.iter().map(|w| shape(w)).collect::<Result<Vec<_>, _>>()?;
    let through = |what: &str| args.through.as_deref().is_none_or(|only| only == what);
    let schedule = ScheduleScope { shapes, nodes: args.nodes, planner: through("planner"), server: through("api") };
    let runs = args.runs.max(1);
    let manifests = args.manifests;
    let options =
        Options { hosts, listen: args.listen, runs, image: args.image, logs: args.logs, only, fleet, manifests, schedule };
    let print = cx.print.clone();
    let report = bench::run(&options, &|text| print.say(text)).await.doing("measure")?;
    match args.output.as_str() {
        "json" => cx.print.out(get::data(&serde_json::to_value(&report)?, "json")?),
        _ => cx.print.out(report),
    }
    Ok(0)
}

fn subject(word: &str) -> Result<Subject, Failure> {
    match Subject::of_word(word) {
        Some(subject) => Ok(subject),
        None => {
            fail(format!("there is no benchmark {word:?}"), format!("there are {}", Subject::ALL.map(Subject::word).join(", ")))
        }
    }
}

fn shape(word: &str) -> Result<String, Failure> {
    match ScheduleScope::names().find(|name| name.eq_ignore_ascii_case(word)) {
        Some(name) => Ok(name.to_owned()),
        None => {
            let all: Vec<_> = ScheduleScope::names().collect();
            fail(format!("there is no shape {word:?}"), format!("there are {}", all.join(", ")))
        }
    }
}

/// `NAME=SOCKET[@NETNS]`.
fn host(text: &str) -> Result<Host, Failure> {
    let Some((name, rest)) = text.split_once('=') else {
        return fail(format!("{text:?} does not say where Docker is"), "--host NAME=SOCKET[@NETNS]");
    };
    let (socket, netns) = rest.split_once('@').map_or((rest, None), |(s, n)| (s, Some(n.into())));
    Ok(Host { name: name.to_owned(), socket: socket.into(), netns })
}
