//! The rungs of both ladders: each is what stands below it and one thing more.
//!
//! The container's ladder runs the same workload on every rung. The VM's cannot: there is nothing to run it before the last
//! rung, so each of the others ends, with its line of output, where the thing it adds is done.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use protocol::phase::Phase;

use crate::contenders::{self, Contender, Request, Setup};
use crate::image::PROGRAM;

/// The ladders, by the name of what stands at their top.
pub const SIDES: [&str; 2] = ["container", "vm"];

/// Keys of [`Contender::details`] by which a rung is known in a summary.
pub const SIDE: &str = "ladder";
/// What the rung adds to the one below.
pub const ADDS: &str = "adds";

/// One rung.
pub struct Rung {
    name: &'static str,
    side: &'static str,
    adds: &'static str,
    program: PathBuf,
    /// What precedes the workload's own arguments.
    arguments: Vec<OsString>,
    runs_the_workload: bool,
}

/// Namespaces in the order of the ladder: the user namespace first, for it is what lets an ordinary user make the others.
/// With each: the rung's name, and what it adds.
const NAMESPACES: [(&str, &str, &str); 7] = [
    ("user", "container +user", "user namespace, ids mapped"),
    ("uts", "container +uts", "uts namespace"),
    ("ipc", "container +ipc", "ipc namespace"),
    ("cgroup", "container +cgroup", "cgroup namespace"),
    ("pid", "container +pid", "pid namespace"),
    ("mount", "container +mount", "mount namespace"),
    ("net", "container +net", "net namespace, loopback up"),
];

/// The marks at which the VM's rungs end.
const MARKS: [(Phase, &str, &str); 7] = [
    (Phase::ProcessStart, "vm launcher", "the launcher, vmm"),
    (Phase::VmCreated, "vm +machine", "an empty virtual machine"),
    (Phase::MemoryMapped, "vm +memory", "memory"),
    (Phase::KernelLoaded, "vm +image", "kernel and files in it"),
    (Phase::VcpuReady, "vm +vcpu", "a vCPU"),
    (Phase::GuestKernelEntry, "vm +kernel", "the guest kernel's first steps"),
    (Phase::UserModeEntry, "vm +user", "the guest kernel, up to user mode"),
];

/// A limit no workload of the lab reaches: the rung is for what having limits costs.
const TASKS: &str = "4096";

/// Every rung of both ladders, from the floor up; the floor, a plain process, belongs to both.
pub fn all(setup: &Setup) -> Vec<Box<dyn Contender>> {
    let mut rungs = vec![Rung {
        name: "process",
        side: "both",
        adds: "fork, exec, the program itself",
        program: setup.image.program(),
        arguments: Vec::new(),
        runs_the_workload: true,
    }];
    rungs.extend(container(setup));
    rungs.extend(vm(setup));
    rungs
        .into_iter()
        .map(|rung| Box::new(rung) as Box<dyn Contender>)
        .collect()
}

fn container(setup: &Setup) -> Vec<Rung> {
    let rung = |name, adds, arguments: Vec<OsString>| Rung {
        name,
        side: SIDES[0],
        adds,
        program: setup.launchers.container.clone(),
        arguments,
        runs_the_workload: true,
    };
    let on_host = setup.image.program().into_os_string();
    let rootfs = setup.image.rootfs().into_os_string();
    let bare = |new: &str| vec!["peel".into(), "--new".into(), new.into(), "--".into(), on_host.clone()];
    let run = |more: &[&str]| -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["run".into(), "--rootfs".into(), rootfs.clone()];
        words.extend(more.iter().map(OsString::from));
        words.extend(["--", PROGRAM].map(OsString::from));
        words
    };
    let mut rungs = vec![rung("container launcher", "the launcher, container", bare(""))];
    let mut new = Vec::new();
    for (namespace, name, adds) in NAMESPACES {
        new.push(namespace);
        rungs.push(rung(name, adds, bare(&new.join(","))));
    }
    let all = new.join(",");
    let mut with_root: Vec<OsString> = vec![
        "peel".into(),
        "--new".into(),
        all.into(),
        "--rootfs".into(),
        rootfs.clone(),
    ];
    with_root.extend(["--", PROGRAM].map(OsString::from));
    rungs.push(rung("container +root", "a root file system, /proc, /dev", with_root));
    rungs.push(rung("container", "privileges dropped, process 1", run(&[])));
    rungs.push(rung(
        "container +limits",
        "cgroup with a limit",
        run(&["--pids", TASKS]),
    ));
    rungs
}

fn vm(setup: &Setup) -> Vec<Rung> {
    let run = |until: Option<Phase>| -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["run".into(), "--initrd".into(), setup.image.initrd().into()];
        words.extend(
            until
                .iter()
                .flat_map(|mark| ["--until", mark.name()].map(OsString::from)),
        );
        words.extend(["--", PROGRAM].map(OsString::from));
        words
    };
    let rung = |name, adds, until: Option<Phase>| Rung {
        name,
        side: SIDES[1],
        adds,
        program: setup.launchers.vmm.clone(),
        arguments: run(until),
        runs_the_workload: until.is_none(),
    };
    let mut rungs: Vec<Rung> = MARKS
        .into_iter()
        .map(|(mark, name, adds)| rung(name, adds, Some(mark)))
        .collect();
    rungs.push(rung("vm", "the workload", None));
    rungs
}

impl Contender for Rung {
    fn name(&self) -> &'static str {
        self.name
    }

    fn command(&self, request: &Request) -> io::Result<Command> {
        let mut command = contenders::command(&self.program);
        command.args(&self.arguments).args(request.workload);
        Ok(command)
    }

    fn runs_the_workload(&self) -> bool {
        self.runs_the_workload
    }

    fn details(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(SIDE.into(), self.side.into()), (ADDS.into(), self.adds.into())])
    }

    fn fix(&self, _status: i32) -> String {
        "the message says what was refused; `lab doctor` tests each thing a container or a VM needs".into()
    }
}
