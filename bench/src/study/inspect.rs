//! `lab inspect`: the same program asks, from inside every contender, where it is; and the host looks at who runs.
//!
//! What the program sees is held against what a plain process sees. Where the kernel tells namespaces (/proc/self/ns),
//! the same number means the same view; where the kernel itself is another, nothing is shared with the host's programs.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::books;
use super::instances::Instances;
use super::results::{Aspect, Entry, HostProcess, Identity, Study};
use super::{Bench, Common, Error, footer, keep, once_each};
use crate::charts;
use crate::contenders::{Contender, NAMES, Request, Skipped};
use crate::interrupt::Interrupt;
use crate::memory::smaps;
use crate::race;
use crate::table::{self, Paper};
use crate::words;

/// Who is asked when nobody is named.
const DEFAULT: [&str; 6] = ["process", "container", "vm", "vm-restored", "crun", "runc"];
/// Longest an answer may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The views a program has, in a reader's words, and the namespace that gives it another.
const VIEWS: [(&str, &str); 7] = [
    ("processes", "pid"),
    ("users", "user"),
    ("mounts", "mnt"),
    ("network", "net"),
    ("host name", "uts"),
    ("IPC objects", "ipc"),
    ("cgroup root", "cgroup"),
];

/// Options of `lab inspect`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Who is asked, separated by commas. The plain process is always asked: it sees what the host is.
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_values = DEFAULT, value_parser = NAMES)]
    pub contenders: Vec<String>,
    /// Where to, and how printed.
    #[command(flatten)]
    pub common: Common,
}

/// Asks every contender.
///
/// # Errors
/// See [`Error`].
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<String, Error> {
    let mut names = once_each(&options.contenders);
    names.retain(|name| name != "process");
    names.insert(0, "process".into());
    let mut bench = Bench::set_up("inspect", &options.common, &names, 1)?;
    let mut entries = Vec::new();
    let mut host = Value::Null;
    for name in &names {
        let answer = match bench.contender(name) {
            Ok(contender) => ask(&bench, &*contender, interrupt)?,
            Err(skipped) => Err(skipped),
        };
        match answer {
            Ok((whoami, host_processes)) => {
                bench.note(&serde_json::json!({ "contender": name, "whoami": whoami }))?;
                if name == "process" {
                    host = whoami.clone();
                }
                let aspects = compare(&whoami, &host);
                entries.push(Entry::found(
                    name,
                    Identity {
                        aspects,
                        whoami,
                        host_processes,
                    },
                ));
            }
            Err(skipped) => entries.push(Entry::skipped(name, skipped)),
        }
    }
    let (study, folder) = bench.finish(entries)?;
    let chart = keep(&charts::matrix::draw(&study)?, &folder)?;
    match options.common.json {
        true => Ok(serde_json::to_string_pretty(&study)? + "\n"),
        false => Ok(text(&study, &folder, &chart)),
    }
}

type Answer = Result<(Value, Vec<HostProcess>), Skipped>;

fn ask(bench: &Bench, contender: &dyn Contender, interrupt: &Interrupt) -> Result<Answer, Error> {
    let id = format!("isolation-lab-{}-whoami", std::process::id());
    let whoami = ["whoami".to_owned()];
    let request = Request {
        id: &id,
        workload: &whoami,
        marks_fd: None,
    };
    let outcome = race::once(contender, &request, false, LIMIT, interrupt)?;
    let answer = serde_json::from_slice(&outcome.stdout)
        .ok()
        .filter(|_| outcome.reached_the_finish_line(0));
    let Some(answer) = answer else {
        return Ok(Err(Skipped {
            reason: format!("its launcher {}", outcome.complaint(LIMIT)),
            fix: contender.fix(outcome.exit_status),
        }));
    };
    let mut instances = Instances::of(contender, bench.accounting.as_ref(), false)?;
    match instances.start() {
        Ok(()) => {}
        Err(Error::NotIdle { complaint, fix, .. }) => {
            return Ok(Err(Skipped {
                reason: format!("its launcher {complaint}"),
                fix,
            }));
        }
        Err(error) => return Err(error),
    }
    instances.settle();
    let pids = instances.launchers().flat_map(smaps::with_descendants);
    let processes = pids.map(|pid| HostProcess {
        name: books::name(pid),
        threads: books::tables_and_threads(pid).map_or(1, |(_, threads)| threads),
    });
    Ok(Ok((answer, processes.collect())))
}

/// What the program sees, and whether it is what the host's programs see.
fn compare(inside: &Value, host: &Value) -> Vec<Aspect> {
    let text = |value: &Value, name: &str| value[name].as_str().map(str::to_owned);
    let own_kernel = inside["kernel_version"] != host["kernel_version"] || inside["system"] != host["system"];
    let aspect = |name: &str, inside: Option<String>, shared: Option<bool>| Aspect {
        name: name.into(),
        inside: inside.unwrap_or_else(|| "cannot ask".into()),
        shared,
    };
    let release = text(inside, "kernel_release")
        .map(|release| format!("{} {release}", text(inside, "system").unwrap_or_default()));
    let mut aspects = vec![aspect("kernel", release, Some(!own_kernel))];
    let boot = text(inside, "boot_id").map(|id| id.chars().take(8).collect());
    let same_boot = if own_kernel {
        Some(false)
    } else {
        inside["boot_id"].as_str().map(|_| inside["boot_id"] == host["boot_id"])
    };
    aspects.push(aspect("boot", boot, same_boot));
    for (name, kind) in VIEWS {
        let shared = match own_kernel {
            true => Some(false),
            false => namespace(inside, kind)
                .zip(namespace(host, kind))
                .map(|(inside, host)| inside == host),
        };
        aspects.push(aspect(name, seen(inside, kind), shared));
    }
    let cpus = inside["cpus"].as_u64().map(|cpus| cpus.to_string());
    aspects.push(aspect("processors", cpus, Some(!own_kernel)));
    let memory = inside["total_memory_bytes"].as_u64().map(words::bytes);
    aspects.push(aspect("memory", memory, Some(!own_kernel)));
    aspects
}

/// What of this view the program told, in a few words.
fn seen(inside: &Value, kind: &str) -> Option<String> {
    let count = |name: &str, what: &str| {
        let many = inside[name].as_array()?.len();
        Some(format!("{many} {what}{}", if many == 1 { "" } else { "s" }))
    };
    match kind {
        "pid" => {
            // A kernel without /proc shows none: then there is nothing to tell.
            let visible = inside["visible_processes"].as_u64().filter(|n| *n > 0);
            let visible = visible.map(|n| format!(" of {n}")).unwrap_or_default();
            Some(format!("pid {}{visible}", inside["pid"].as_u64()?))
        }
        "user" => {
            let map = inside["uid_map"].get(0).and_then(Value::as_str).unwrap_or("");
            let outside = map
                .split(' ')
                .nth(1)
                .map(|id| format!(", outside {id}"))
                .unwrap_or_default();
            Some(format!("uid {}{outside}", inside["uid"].as_u64()?))
        }
        "mnt" => count("mounts", "mount"),
        "net" => count("network_interfaces", "interface"),
        "uts" => inside["hostname"]
            .as_str()
            .filter(|name| !name.is_empty())
            .map(str::to_owned),
        "ipc" => Some(inside["ipc_objects"].as_u64()?.to_string()),
        _ => count("cgroups", "group"),
    }
}

fn namespace(whoami: &Value, kind: &str) -> Option<String> {
    let prefix = format!("{kind}:");
    let all = whoami["namespaces"].as_array()?;
    all.iter()
        .filter_map(Value::as_str)
        .find(|name| name.starts_with(&prefix))
        .map(str::to_owned)
}

fn text(study: &Study<Identity>, folder: &Path, chart: &Path) -> String {
    let paper = Paper::of_stdout();
    let found: Vec<(&str, &Identity)> = study.measured().collect();
    let mut header = vec!["sees"];
    header.extend(found.iter().map(|(name, _)| *name));
    let mut table = table::table(paper, &header, |_| false);
    for (row, aspect) in found
        .first()
        .map(|(_, first)| &first.aspects[..])
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let cells = found.iter().map(|(_, identity)| {
            let aspect = &identity.aspects[row];
            let whose = match aspect.shared {
                Some(true) => "host's",
                Some(false) => "own",
                None => "?",
            };
            format!("{whose}: {}", aspect.inside)
        });
        table.add_row(std::iter::once(aspect.name.clone()).chain(cells).collect::<Vec<_>>());
    }
    let mut out = table::lines(&table) + "\nOn the host, while it idles:\n";
    for (name, identity) in &found {
        let each = identity
            .host_processes
            .iter()
            .map(|process| format!("{} ({})", process.name, process.threads));
        let line = format!("{name}: {}", each.collect::<Vec<_>>().join(", "));
        out += &table::paragraph(&format!("{line} (name, threads)"), 2, paper);
    }
    out + "\n" + &footer(study, folder, Some(chart))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_same_number_is_the_same_view_and_another_kernel_shares_nothing() {
        let host = json!({"system": "Linux", "kernel_version": "#1", "boot_id": "aa", "pid": 70,
                          "namespaces": ["pid:[1]", "net:[2]"]});
        let mut inside = host.clone();
        inside["namespaces"] = json!(["pid:[9]", "net:[2]"]);
        let shared = |aspects: &[Aspect], name: &str| aspects.iter().find(|a| a.name == name).unwrap().shared;
        let aspects = compare(&inside, &host);
        assert_eq!(shared(&aspects, "kernel"), Some(true));
        assert_eq!(shared(&aspects, "boot"), Some(true));
        assert_eq!(shared(&aspects, "processes"), Some(false));
        assert_eq!(shared(&aspects, "network"), Some(true));
        assert_eq!(shared(&aspects, "mounts"), None);
        inside["kernel_version"] = json!("another");
        assert!(
            compare(&inside, &host)
                .iter()
                .all(|aspect| aspect.shared == Some(false))
        );
    }
}
