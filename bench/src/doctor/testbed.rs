//! The computer with hardware virtualization that any machine can emulate.

use super::{Finding, Standing};
use crate::testbed::{Error, find_machine};

pub(super) fn examine() -> Finding {
    let name = "testbed";
    match find_machine(None, None) {
        Ok((qemu, kernel)) => Finding::new(
            name,
            Standing::Good,
            format!("{} boots {}", qemu.display(), kernel.image.display()),
            "`lab testbed COMMAND` runs it with AMD-V and cgroup v2, on an emulated processor.",
        ),
        Err(Error::Missing { what, fix }) => Finding::new(
            name,
            Standing::Missing,
            format!("lacks {what}"),
            "`lab testbed` cannot show here what this machine does not have.",
        )
        .fix(fix),
        Err(error) => Finding::new(name, Standing::Missing, error.to_string(), "`lab testbed` cannot run."),
    }
}
