//! `container stats`, `container top`.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::{Args, FromArgMatches};
use container::engine::place::Place;
use container::engine::statistics::{self, Statistics};
use container::engine::{Container, Error, naming};

use super::table::Columns;
use super::{Family, finish};

/// `container stats`.
pub const STATS: Family = Family {
    name: "stats",
    arguments: StatsArguments::augment_args,
    main: |matches, _| finish(StatsArguments::from_arg_matches(matches)?.run()),
};

/// `container top`.
pub const TOP: Family = Family {
    name: "top",
    arguments: TopArguments::augment_args,
    main: |matches, _| finish(TopArguments::from_arg_matches(matches)?.run()),
};

/// Between two looks: long enough for a processor share that means something.
const INTERVAL: Duration = Duration::from_secs(1);

/// Moves the cursor to the top left and clears what is below it (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[J";

#[derive(Args)]
struct StatsArguments {
    /// Look once and end
    #[arg(long)]
    no_stream: bool,
    /// As JSON, one object a line
    #[arg(long)]
    json: bool,
    /// The containers, by name or id [default: all that run]
    #[arg(value_name = "CONTAINER")]
    names: Vec<String>,
}

impl StatsArguments {
    fn run(self) -> Result<u8, Error> {
        let place = Place::configured()?;
        let chosen = || -> Result<Vec<Container>, Error> {
            match self.names.is_empty() {
                true => Container::all(&place),
                false => self.names.iter().map(|name| Container::find(&place, name)).collect(),
            }
        };
        for container in chosen()? {
            if !self.names.is_empty() {
                container.init()?;
            }
        }
        loop {
            let before = look(&chosen()?);
            std::thread::sleep(INTERVAL);
            let after = look(&chosen()?);
            if !self.no_stream && !self.json && std::io::stdout().is_terminal() {
                print!("{CLEAR}");
            }
            self.show(&before, &after);
            if std::io::stdout().flush().is_err() || self.no_stream || (!self.names.is_empty() && after.is_empty()) {
                return Ok(0);
            }
        }
    }

    fn show(&self, before: &[Look], after: &[Look]) {
        let mut table = Columns::new([
            "CONTAINER ID",
            "NAME",
            "CPU",
            "MEMORY",
            "LIMIT",
            "PIDS",
            "BLOCK IN/OUT",
            "NET IN/OUT",
        ]);
        for (container, now, at) in after {
            let then = before.iter().find(|(other, ..)| other.id() == container.id());
            let percent = then.and_then(|(_, then, when)| statistics::cpu_percent((then, *when), (now, *at)));
            if self.json {
                let line = serde_json::json!({
                    "Id": container.id(), "Name": container.settings.name, "CpuPercent": percent, "Statistics": now,
                });
                table.line(&line.to_string());
                continue;
            }
            let pair = |one: Option<u64>, other: Option<u64>| format!("{} / {}", bytes(one), bytes(other));
            table.row([
                naming::short(container.id()).to_owned(),
                container.settings.name.clone(),
                percent.map_or("-".into(), |percent| format!("{percent:.1}%")),
                bytes(now.memory_bytes),
                bytes(now.memory_limit_bytes),
                now.pids.map_or("-".into(), |pids| pids.to_string()),
                pair(now.block_read_bytes, now.block_written_bytes),
                pair(now.network_received_bytes, now.network_sent_bytes),
            ]);
        }
        table.print(!self.json);
    }
}

type Look = (Container, Statistics, Instant);

/// Those that ended meanwhile are left out.
fn look(containers: &[Container]) -> Vec<Look> {
    let one = |container: &Container| Some((container.clone(), statistics::look(container).ok()?, Instant::now()));
    containers.iter().filter_map(one).collect()
}

/// In the largest unit that leaves a number of at least 1; powers of 1024.
fn bytes(count: Option<u64>) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let Some(count) = count else { return "-".into() };
    let mut scaled = count as f64;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ => format!("{scaled:.1} {}", UNITS[unit]),
    }
}

#[derive(Args)]
struct TopArguments {
    /// The container, by name or id
    #[arg(value_name = "CONTAINER")]
    name: String,
}

impl TopArguments {
    fn run(self) -> Result<u8, Error> {
        let container = Container::find(&Place::configured()?, &self.name)?;
        let mut table = Columns::new(["PID", "INSIDE", "UID", "TIME", "COMMAND"]);
        for row in statistics::processes(&container)? {
            table.row([
                row.pid.to_string(),
                row.inside.to_string(),
                row.uid.to_string(),
                format!("{}:{:02}", row.seconds / 60, row.seconds % 60),
                row.command,
            ]);
        }
        table.print(true);
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_have_units_people_read() {
        assert_eq!(bytes(None), "-");
        assert_eq!(bytes(Some(1023)), "1023 B");
        assert_eq!(bytes(Some(1536)), "1.5 KiB");
        assert_eq!(bytes(Some(3 << 30)), "3.0 GiB");
    }
}
