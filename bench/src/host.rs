//! Facts about the machine, read from /proc and /sys. What cannot be read is None or "unknown", never a guess.

use std::fs;
use std::path::Path;

/// The KVM backend: what virtual machines stand on here.
///
/// `vmx` (Intel), `svm` (AMD), `pvm` (no hardware beneath: guest kernels are interpreted), `unknown` (built into the
/// kernel without a trace in /sys/module) or `none` (no /dev/kvm).
pub fn kvm_backend() -> &'static str {
    if !Path::new("/dev/kvm").exists() {
        return "none";
    }
    // A backend's module is there only when it loaded; kvm_intel and kvm_amd exclude each other.
    for (module, backend) in [("kvm_pvm", "pvm"), ("kvm_intel", "vmx"), ("kvm_amd", "svm")] {
        if Path::new("/sys/module").join(module).exists() {
            return backend;
        }
    }
    "unknown"
}

/// Whether this machine itself runs under a hypervisor: the processor's hypervisor flag, which hypervisors set and
/// silicon does not (Intel SDM vol. 2A, CPUID leaf 1, ECX bit 31).
pub fn nested() -> bool {
    cpu_flags().split(' ').any(|flag| flag == "hypervisor")
}

/// Whether an emulator plays this processor, instruction by instruction, instead of silicon: then a time is true only
/// beside another time from here.
///
/// QEMU's emulator (TCG) signs itself in the leaf where hypervisors do (Linux, Documentation/virt/kvm/x86/cpuid.rst).
pub fn emulated() -> bool {
    const HYPERVISOR_LEAF: u32 = 0x4000_0000;
    const SIGNATURE: &[u8; 12] = b"TCGTCGTCGTCG";
    if !nested() {
        return false;
    }
    let leaf = std::arch::x86_64::__cpuid(HYPERVISOR_LEAF);
    [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).as_flattened() == SIGNATURE
}

/// The processor's features by the kernel's names, with spaces between.
pub fn cpu_flags() -> String {
    cpuinfo("flags").unwrap_or_default()
}

/// The processor's model name.
pub fn cpu_model() -> String {
    cpuinfo("model name").unwrap_or_else(|| "unknown".into())
}

/// Online processors this process may run on.
pub fn cpus() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64)
}

/// Memory of the machine in bytes.
pub fn memory_bytes() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    total.and_then(|kibibytes| kibibytes.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The kernel's release, as uname(2) tells it.
pub fn kernel_release() -> String {
    word("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into())
}

/// 1-, 5- and 15-minute load averages.
pub fn load() -> [f64; 3] {
    let text = word("/proc/loadavg").unwrap_or_default();
    let mut numbers = text.split(' ').filter_map(|number| number.parse().ok());
    std::array::from_fn(|_| numbers.next().unwrap_or(f64::NAN))
}

/// The first processor's frequency governor. None: the machine has no say in its frequency, as in most VMs.
pub fn governor() -> Option<String> {
    word("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
}

/// Transparent huge pages: `always`, `madvise` or `never`; `unavailable` in a kernel without.
pub fn transparent_huge_pages() -> String {
    let text = word("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    // The setting in force stands in brackets: "always [madvise] never".
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    chosen.map_or_else(|| "unavailable".into(), |(chosen, _)| chosen.into())
}

/// Whether kernel same-page merging runs. It would make equal pages of two VMs one, and falsify unique memory.
pub fn same_page_merging() -> bool {
    word("/sys/kernel/mm/ksm/run").is_some_and(|run| run == "1")
}

/// A one-line file without its newline.
pub fn word(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn cpuinfo(name: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_linux_has_is_found() {
        assert_ne!(kernel_release(), "unknown");
        assert!(memory_bytes() > 1 << 20);
        assert!(load().iter().all(|load| load.is_finite()));
    }
}
