//! Other people's runtimes to race against.

use super::{Finding, Standing};
use crate::contenders::oci::{find, version};

/// One finding for each peer.
pub fn examine() -> Vec<Finding> {
    ["crun", "runc"].into_iter().map(peer).collect()
}

fn peer(name: &'static str) -> Finding {
    match find(name).map(|program| (version(&program), program)) {
        Some((Some(version), program)) => {
            let found = format!("{version} ({})", program.display());
            Finding::new(name, Standing::Good, found, "It can race as a peer.")
        }
        Some((None, program)) => {
            let found = format!("{} does not tell its version", program.display());
            Finding::new(name, Standing::Missing, found, "It is skipped in comparisons.").fix("install it anew")
        }
        None => Finding::new(
            name,
            Standing::Missing,
            "not installed",
            "It is skipped in comparisons.",
        )
        .fix(format!(
            "install the package {name}, for example: sudo apt install {name}"
        )),
    }
}
