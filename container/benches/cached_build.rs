//! How long a build takes in which every step is cached: ten steps, eight of them layers, from the start of the launcher
//! to its end. `cargo bench -p container --bench cached_build [-- RUNS]`

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may panic")]

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const RUNS: usize = 100;
/// Between two runs, as in the lab's races: a tight loop hides what an idle machine costs.
const GAP: Duration = Duration::from_millis(30);

const DOCKERFILE: &str = "\
FROM scratch
COPY --chmod=755 workload /bin/workload
ENV GREETING=hello
WORKDIR /work
COPY src ./src
RUN [\"/bin/workload\", \"hello\"]
COPY src/0 src/1 /elsewhere/
WORKDIR /work/deeper
COPY src /again
CMD [\"/bin/workload\", \"hello\"]
";

fn main() {
    let runs = std::env::args()
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(RUNS);
    let directory = tempfile::tempdir().unwrap();
    let context = directory.path().join("context");
    fs::create_dir_all(context.join("src")).unwrap();
    fs::write(context.join("Dockerfile"), DOCKERFILE).unwrap();
    fs::write(context.join("workload"), guest_images::WORKLOAD).unwrap();
    for number in 0..200 {
        fs::write(context.join(format!("src/{number}")), number.to_string().repeat(2000)).unwrap();
    }
    let build = || {
        let began = Instant::now();
        let status = Command::new(env!("CARGO_BIN_EXE_container"))
            .args(["image", "build", "-t", "bench"])
            .arg(&context)
            .env("CONTAINER_STORE", directory.path().join("store"))
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success());
        began.elapsed()
    };
    let first = build();
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            std::thread::sleep(GAP);
            build()
        })
        .collect();
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!(
        "ten steps: made in {:.1} ms, cached in {:.2} ms (p50 of {runs}; min {:.2}, p90 {:.2}, p99 {:.2})",
        first.as_secs_f64() * 1e3,
        at(50),
        at(0),
        at(90),
        at(99)
    );
}
