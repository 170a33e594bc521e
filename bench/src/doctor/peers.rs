//! Other people's runtimes to race against.

use super::{Finding, Standing};
use nix::unistd::geteuid;

use crate::cgroups;
use crate::contenders::oci::{HYBRID_FIX, find, version};

/// One finding for each peer.
pub fn examine() -> Vec<Finding> {
    ["crun", "runc"].into_iter().map(peer).collect()
}

/// Whether crun fails here for an ordinary user; see [`crate::series_namespace`].
fn refused_here() -> bool {
    !geteuid().is_root() && cgroups::mode(&cgroups::hierarchies()) == "hybrid"
}

fn peer(name: &'static str) -> Finding {
    match find(name).map(|program| (version(&program), program)) {
        Some((Some(version), program)) if name == "crun" && refused_here() => {
            let found = format!("{version} ({})", program.display());
            let meaning = "It is skipped in comparisons: crun refuses a host with both versions of cgroups mounted, and \
                           only root may take version 2 away for the race.";
            Finding::new(name, Standing::Limited, found, meaning).fix(HYBRID_FIX)
        }
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
