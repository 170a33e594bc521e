//! Where a result comes from: without this, a number is an anecdote.

use std::time::SystemTime;

use nix::unistd::geteuid;

use crate::launchers::sha256;
use crate::results::Provenance;
use crate::{cgroups, host, words};

/// Describes this machine and this lab, now. The caller fills in what belongs to the run: n, gap, workload, notes.
pub fn collect() -> Provenance {
    let mut provenance = Provenance {
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        cpu: host::cpu_model(),
        cpus: host::cpus(),
        memory_bytes: host::memory_bytes(),
        kernel: host::kernel_release(),
        kvm_backend: host::kvm_backend().into(),
        nested: host::nested(),
        emulated: host::emulated(),
        cgroup_mode: cgroups::mode(&cgroups::hierarchies()).into(),
        load: host::load(),
        governor: host::governor(),
        thp: host::transparent_huge_pages(),
        ksm: host::same_page_merging(),
        uid: geteuid().as_raw(),
        git_revision: option_env!("LAB_GIT_REVISION").map(str::to_owned),
        kernel_sha256: Some(sha256(guest_images::KERNEL)),
        workload_sha256: sha256(guest_images::WORKLOAD),
        // As one would type it: where this program lies is nobody else's business.
        command: std::iter::once("lab".into())
            .chain(
                std::env::args_os()
                    .skip(1)
                    .map(|word| word.to_string_lossy().into_owned()),
            )
            .collect(),
        ..Provenance::default()
    };
    if provenance.emulated {
        provenance.notes.push(words::EMULATED.into());
    }
    if provenance.kvm_backend == "pvm" {
        provenance.notes.push(
            "KVM here is kvm_pvm, without hardware virtualization: guest kernels are interpreted, guest programs are not. \
             The VM's times would be others on Intel VT-x or AMD-V."
                .into(),
        );
    }
    if cfg!(debug_assertions) {
        provenance
            .notes
            .push("The harness is a debug build; the launchers and the workload are not.".into());
    }
    provenance
}
