//! Option values that several commands read alike.

use std::path::{Path, PathBuf};

use container::engine::Error;
use container::engine::record::{Mount, Seccomp, Source, Users};

/// `[SOURCE:]DIR[:ro|rw]`.
pub fn volume(text: &str) -> Result<Mount, String> {
    let mut parts: Vec<&str> = text.split(':').collect();
    let read_only = match parts.last() {
        Some(&"ro") if parts.len() > 1 => parts.pop().is_some(),
        Some(&"rw") if parts.len() > 1 => parts.pop().is_none(),
        _ => false,
    };
    let (source, target) = match parts[..] {
        [target] => ("", target),
        [source, target] => (source, target),
        _ => return Err("must be [SOURCE:]DIR[:ro]".into()),
    };
    if !target.starts_with('/') || target == "/" {
        return Err(format!(
            "{target:?} must be an absolute path in the container, other than its root"
        ));
    }
    let source = match source {
        "" if parts.len() == 1 => Source::Volume {
            name: String::new(),
            anonymous: true,
        },
        path if path.starts_with('/') || path.starts_with('.') => {
            Source::Host(std::path::absolute(path).map_err(|error| error.to_string())?)
        }
        name => Source::Volume {
            name: name.to_owned(),
            anonymous: false,
        },
    };
    Ok(Mount {
        source,
        target: target.to_owned(),
        read_only,
    })
}

/// A volume nobody names, at `target`.
pub fn anonymous_volume(target: &str) -> Mount {
    Mount {
        source: Source::Volume {
            name: String::new(),
            anonymous: true,
        },
        target: target.to_owned(),
        read_only: false,
    }
}

/// `DIR[:OPTIONS]`.
pub fn tmpfs(text: &str) -> Result<(String, String), String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    match target.starts_with('/') {
        true => Ok((target.to_owned(), options.to_owned())),
        false => Err("must be an absolute path in the container".into()),
    }
}

/// `private` or `host`; nothing leaves it to what can be had.
pub fn users(text: &str) -> Result<Users, String> {
    match text {
        "" => Ok(Users::Auto),
        "private" => Ok(Users::Private),
        "host" => Ok(Users::Host),
        _ => Err("must be private or host".into()),
    }
}

/// Numbers of processors and ranges of them: `0-2,4`. Whether there are such processors the kernel knows.
pub fn processors(text: &str) -> Result<String, String> {
    let is_number = |part: &str| part.parse::<u32>().is_ok();
    let is_part = |part: &str| match part.split_once('-') {
        Some((first, last)) => is_number(first) && is_number(last),
        None => is_number(part),
    };
    match text.split(',').all(is_part) {
        true => Ok(text.to_owned()),
        false => Err("must be numbers of processors, as in 0-2,4".into()),
    }
}

/// `DEVICE:RATE`; rates may end in K, M and G, powers of 1024.
pub fn rate(text: &str) -> Result<(PathBuf, u64), String> {
    let (device, rate) = text.rsplit_once(':').ok_or("must be DEVICE:RATE, as in /dev/sda:1M")?;
    let rate = parse_size::Config::new().with_binary().parse_size(rate);
    Ok((PathBuf::from(device), rate.map_err(|error| error.to_string())?))
}

/// `NAME=SOFT[:HARD]`, as setrlimit(2) names them, in small letters and without `RLIMIT_`.
pub fn ulimit(text: &str) -> Result<(String, u64, u64), String> {
    const NAMES: [&str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let (name, limits) = text
        .split_once('=')
        .ok_or("must be NAME=SOFT[:HARD], as in nofile=1024:2048")?;
    if !NAMES.contains(&name) {
        return Err(format!("{name:?} is no limit; there are {}", NAMES.join(", ")));
    }
    let number = |text: &str| match text {
        "unlimited" | "-1" => Ok(u64::MAX),
        text => text.parse().map_err(|_| format!("{text:?} is no number")),
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (number(soft)?, number(hard)?);
    match soft <= hard {
        true => Ok((name.to_owned(), soft, hard)),
        false => Err("the soft limit is above the hard one".into()),
    }
}

/// The values of `--security-opt`: the filter, and whether privileges may be gained.
pub fn security(options: &[String]) -> Result<(Seccomp, bool), Error> {
    let (mut seccomp, mut may_gain) = (Seccomp::Default, false);
    for option in options {
        let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (name, value) {
            ("seccomp", "unconfined") => seccomp = Seccomp::Unconfined,
            ("seccomp", path) if !path.is_empty() => {
                let path = Path::new(path);
                let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
                let profile = serde_json::from_str(&text).map_err(|error| Error::Garbled {
                    path: path.to_owned(),
                    reason: error.to_string(),
                })?;
                seccomp = Seccomp::Profile(profile);
            }
            ("no-new-privileges", "" | "true") => may_gain = false,
            ("no-new-privileges", "false") => may_gain = true,
            _ => {
                return Err(Error::Refused(format!(
                    "{option:?} is no security option; there are seccomp=FILE, seccomp=unconfined and no-new-privileges[=false]"
                )));
            }
        }
    }
    Ok((seccomp, may_gain))
}

/// Sets variables; a name alone takes its value from this process's environment, or is left out where that has none.
pub fn set_variables<'a>(environment: &mut Vec<String>, variables: impl Iterator<Item = &'a str>) {
    for variable in variables {
        let (name, value) = match variable.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (variable, std::env::var(variable).ok()),
        };
        let Some(value) = value else { continue };
        environment.retain(|known| known.split_once('=').is_none_or(|(known, _)| known != name));
        environment.push(format!("{name}={value}"));
    }
}

/// The lines of an environment file that are variables: not those that are empty or start with `#`.
pub fn env_file_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_told_from_directories() {
        let host = volume("/srv/data:/data:ro").unwrap();
        assert_eq!((host.source, host.read_only), (Source::Host("/srv/data".into()), true));
        let named = volume("cache:/var/cache").unwrap();
        assert!(matches!(named.source, Source::Volume { name, anonymous: false } if name == "cache"));
        assert!(matches!(
            volume("/data").unwrap().source,
            Source::Volume { anonymous: true, .. }
        ));
        for bad in ["a:b", "a:/", "a:/b:c:d", "/a:relative"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_and_rates_have_units() {
        assert_eq!(ulimit("nofile=10:20"), Ok(("nofile".into(), 10, 20)));
        assert_eq!(ulimit("core=unlimited"), Ok(("core".into(), u64::MAX, u64::MAX)));
        assert!(ulimit("nofile=20:10").is_err() && ulimit("files=1").is_err());
        assert_eq!(processors("0-2,4"), Ok("0-2,4".into()));
        assert!(processors("").is_err() && processors("all").is_err() && processors("0-").is_err());
        assert_eq!(rate("/dev/vda:1M"), Ok(("/dev/vda".into(), 1 << 20)));
    }

    #[test]
    fn a_later_variable_replaces_an_earlier_one() {
        let mut environment = vec!["A=1".to_owned(), "B=2".to_owned()];
        let file = "# comment\nA=3\n\n C=4\n";
        set_variables(&mut environment, env_file_lines(file).chain(["NOT_SET_ANYWHERE_ELSE"]));
        assert_eq!(environment, ["B=2", "A=3", "C=4"]);
    }
}
