//! Virtual hardware: is there KVM, may we use it, what does it stand on?

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;

use vmm::permission;
use vmm::probe::{Probe, probe};

use super::{Finding, Standing};
use crate::host;
use crate::words::{duration, significant};

/// The only version of the KVM interface there has been since Linux 2.6.22; a program must refuse any other
/// (Documentation/virt/kvm/api.rst, KVM_GET_API_VERSION).
const API_VERSION: i32 = 12;

/// A guest kernel this many times slower than its programs is not run by the processor.
const INTERPRETED: f64 = 10.0;

mod request {
    // KVMIO, number 0 (include/uapi/linux/kvm.h). KVM refuses it with EINVAL unless its unused argument is 0, so that
    // must be passed.
    nix::ioctl_write_int_bad!(kvm_get_api_version, nix::request_code_none!(0xAE, 0x00));
}

/// Everything about KVM.
pub fn examine() -> Vec<Finding> {
    let mut findings = vec![device(), backend()];
    if findings[0].standing != Standing::Missing {
        findings.extend(micro_guest());
    }
    findings.push(nesting());
    findings
}

/// Runs guests of a few bytes and tells how they fared.
fn micro_guest() -> Vec<Finding> {
    let probe = match probe() {
        Ok(probe) => probe,
        Err(error) => {
            let meaning = "A guest of a few bytes did not run; `vm` will not either.";
            return vec![
                Finding::new("micro-guest", Standing::Missing, error.to_string(), meaning)
                    .fix("the message names what KVM refused; a newer host kernel may help"),
            ];
        }
    };
    vec![syscall(&probe), speed(&probe), exit(&probe)]
}

fn syscall(probe: &Probe) -> Finding {
    let name = "syscall in a guest";
    if probe.syscall_reaches_cpl0 {
        let meaning = "Guest programs call their kernel as on any processor: any kernel can serve them.";
        return Finding::new(name, Standing::Good, "arrives in kernel mode", meaning);
    }
    Finding::new(
        name,
        Standing::Limited,
        "does not arrive in kernel mode",
        "The lab kernel knows how to take the call from the page fault it becomes; a stock Linux guest boots here and \
         then fails at its first program.",
    )
    .fix("run on VT-x or AMD-V")
}

fn speed(probe: &Probe) -> Finding {
    let name = "guest kernel speed";
    let (kernel, user) = (probe.cpl0_instructions_per_second, probe.cpl3_instructions_per_second);
    let million = |speed: f64| significant(speed / 1e6, 2);
    let found = format!(
        "{} million instructions a second in kernel mode, {} in user mode",
        million(kernel),
        million(user)
    );
    if user < kernel * INTERPRETED {
        return Finding::new(
            name,
            Standing::Good,
            found,
            "The processor runs the guest's kernel as it runs its programs.",
        );
    }
    let meaning = "The guest's kernel is interpreted: each of its instructions counts in the VM's start-up time.";
    Finding::new(name, Standing::Limited, found, meaning).fix("run on VT-x or AMD-V")
}

fn exit(probe: &Probe) -> Finding {
    Finding::new(
        "cost of an exit",
        Standing::Good,
        duration(probe.exit_ns),
        "Each time the guest needs the VMM, it waits this long.",
    )
}

fn device() -> Finding {
    let name = "/dev/kvm";
    let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let device = match opened {
        Ok(device) => device,
        Err(error) => {
            let finding = Finding::new(
                name,
                Standing::Missing,
                error.to_string(),
                "`vm` is skipped in comparisons.",
            );
            return finding.fix(match error.kind() {
                ErrorKind::PermissionDenied => permission::cure(),
                ErrorKind::NotFound if has_virtualization_flag() => {
                    "sudo modprobe kvm_intel, or sudo modprobe kvm_amd".into()
                }
                _ => {
                    "switch virtualization (VT-x, AMD-V) on in the firmware; inside a VM, nested virtualization in its \
                      host"
                        .into()
                }
            });
        }
    };
    // SAFETY: the descriptor is open; the request takes a plain number and writes no memory.
    match unsafe { request::kvm_get_api_version(device.as_raw_fd(), 0) } {
        Ok(API_VERSION) => Finding::new(
            name,
            Standing::Good,
            format!("opened, API {API_VERSION}"),
            "`vm` can race.",
        ),
        Ok(other) => Finding::new(
            name,
            Standing::Missing,
            format!("opened, API {other}"),
            format!("Programs are to refuse any KVM but API {API_VERSION}, and ours does."),
        ),
        Err(errno) => Finding::new(
            name,
            Standing::Missing,
            format!("opened, but it does not answer as KVM does: {errno}"),
            "`vm` is skipped in comparisons.",
        )
        .fix("make sure /dev/kvm is the device 10:232"),
    }
}

fn backend() -> Finding {
    let name = "KVM backend";
    let backend = host::kvm_backend();
    match backend {
        "vmx" | "svm" => Finding::new(
            name,
            Standing::Good,
            backend,
            "Guests, kernel and programs alike, run on the processor itself.",
        ),
        "pvm" => Finding::new(
            name,
            Standing::Limited,
            "pvm (module kvm_pvm)",
            "There is no VT-x or AMD-V beneath: guest programs run on the processor, guest kernels are interpreted, \
             instruction by instruction. Figures of `vm` name the backend, for they would be others on hardware.",
        )
        .fix("run on bare metal, or in a VM with nested virtualization"),
        "none" => Finding::new(name, Standing::Missing, "none", "There is no KVM."),
        _ => Finding::new(
            name,
            Standing::Limited,
            "not visible in /sys/module",
            "KVM is built into the kernel; results cannot say what it stands on.",
        ),
    }
}

fn nesting() -> Finding {
    let name = "hypervisor beneath";
    if host::nested() {
        Finding::new(
            name,
            Standing::Limited,
            "yes: this machine is a VM itself",
            "Every exit of a guest may cost a detour through the hypervisor beneath; compare inside one run only.",
        )
    } else {
        Finding::new(name, Standing::Good, "none", "Times are those of this machine alone.")
    }
}

fn has_virtualization_flag() -> bool {
    host::cpu_flags().split(' ').any(|flag| flag == "vmx" || flag == "svm")
}
