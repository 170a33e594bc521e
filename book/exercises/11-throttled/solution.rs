/// Which share of its periods a cgroup spent its whole processor time in and had to wait, from the text of `cpu.stat`.
/// None without a limit: then there are no periods.
pub fn throttled(cpu_stat: &str) -> Option<f64> {
    let number = |key: &str| -> Option<f64> {
        let line = cpu_stat.lines().find(|line| line.split_whitespace().next() == Some(key))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let periods = number("nr_periods").filter(|periods| *periods > 0.0)?;
    Some(number("nr_throttled")? / periods)
}
