//! KVM's own counts, which it keeps for every VM and every vCPU whether or not anybody asks.
//!
//! KVM_GET_STATS_FD gives a file that describes itself (Documentation/virt/kvm/api.rst, section 4.133): a header says
//! where the descriptors are, each descriptor has a name and says where its number is. Which counts there are depends on
//! the kernel, so nothing here knows their names beforehand.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

use kvm_bindings::{KVM_STATS_TYPE_CUMULATIVE, KVM_STATS_TYPE_MASK, KVM_STATS_UNIT_MASK, KVM_STATS_UNIT_NONE, KVMIO};
use vmm_sys_util::ioctl::ioctl;
use vmm_sys_util::ioctl_io_nr;

use super::entry::quoted;

// Of the ioctl(2) numbers kvm-ioctls has no method for (linux/kvm.h).
#[allow(missing_docs, reason = "the macro makes a function without room for a comment")]
mod numbers {
    use super::*;
    ioctl_io_nr!(KVM_GET_STATS_FD, KVMIO, 0xce);
}
use numbers::KVM_GET_STATS_FD;

/// Size of `struct kvm_stats_header`: flags, name size, number of descriptors, then where id, descriptors and data are.
const HEADER: usize = 24;
/// Size of `struct kvm_stats_desc` without the name behind it: flags, exponent and size (16 bits each), offset, bucket size.
const DESCRIPTOR: usize = 16;
/// Longest name and most descriptors we believe: today's kernel has 48 bytes and about 40.
const NAME_MAX: usize = 256;
const DESCRIPTORS_MAX: usize = 1024;

/// The counts of one VM or vCPU.
pub struct Statistics {
    file: File,
    /// Name and place in the file of every plain count.
    counts: Vec<(String, u64)>,
}

impl Statistics {
    /// Opens those of a VM or a vCPU.
    ///
    /// # Errors
    /// Before Linux 5.14 there are none; and the limit on open files may be reached.
    pub fn open(of: &impl AsRawFd) -> io::Result<Statistics> {
        // SAFETY: this ioctl takes no argument.
        let fd = unsafe { ioctl(of, KVM_GET_STATS_FD()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: KVM just made this descriptor, for us alone.
        let file = unsafe { File::from_raw_fd(fd) };
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        let name_size = (word(&header, 4) as usize).min(NAME_MAX);
        let descriptors = (word(&header, 8) as usize).min(DESCRIPTORS_MAX);
        let data = u64::from(word(&header, 20));
        let mut table = vec![0; descriptors * (DESCRIPTOR + name_size)];
        file.read_exact_at(&mut table, word(&header, 16).into())?;
        let plain = |flags: u32| {
            // Histograms and times are another kind of figure; so are levels, which go up and down.
            flags & KVM_STATS_TYPE_MASK == KVM_STATS_TYPE_CUMULATIVE
                && flags & KVM_STATS_UNIT_MASK == KVM_STATS_UNIT_NONE
        };
        let counts = table
            .chunks_exact(DESCRIPTOR + name_size)
            .filter(|descriptor| plain(word(descriptor, 0)))
            .map(|descriptor| {
                let name = &descriptor[DESCRIPTOR..];
                let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
                let name = String::from_utf8_lossy(&name[..length]).into_owned();
                (name, data + u64::from(word(descriptor, 8)))
            })
            .collect();
        Ok(Statistics { file, counts })
    }

    /// Reads every count.
    fn read(&self) -> io::Result<BTreeMap<&str, u64>> {
        let mut read = BTreeMap::new();
        for (name, at) in &self.counts {
            let mut number = [0; 8];
            self.file.read_exact_at(&mut number, *at)?;
            read.insert(name.as_str(), u64::from_le_bytes(number));
        }
        Ok(read)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// What KVM counted, zeros left out.
#[derive(Debug, Default)]
pub struct Counts {
    /// For the VM.
    pub vm: BTreeMap<String, u64>,
    /// For each vCPU.
    pub vcpus: Vec<BTreeMap<String, u64>>,
}

impl Counts {
    /// Reads them. What cannot be read is missing.
    pub fn read(vm: Option<&Statistics>, vcpus: &[Option<Statistics>]) -> Counts {
        let read = |from: Option<&Statistics>| {
            let counts = from.and_then(|statistics| statistics.read().ok()).unwrap_or_default();
            let kept = counts.into_iter().filter(|&(_, count)| count > 0);
            kept.map(|(name, count)| (name.to_owned(), count)).collect()
        };
        Counts {
            vm: read(vm),
            vcpus: vcpus.iter().map(|vcpu| read(vcpu.as_ref())).collect(),
        }
    }

    /// Of all vCPUs together; None when KVM gave no counts at all.
    pub fn sum(&self, name: &str) -> Option<u64> {
        let known = self.vcpus.iter().any(|vcpu| !vcpu.is_empty());
        known.then(|| self.vcpus.iter().filter_map(|vcpu| vcpu.get(name)).sum())
    }

    /// As the trace's last line, which also says how many exits were `left_out` of the trace, if any.
    pub fn json(&self, left_out: u64) -> String {
        let object = |counts: &BTreeMap<String, u64>| {
            let pairs: Vec<_> = counts
                .iter()
                .map(|(name, count)| format!("{}:{count}", quoted(name)))
                .collect();
            format!("{{{}}}", pairs.join(","))
        };
        let vcpus: Vec<_> = self.vcpus.iter().map(object).collect();
        let ends_here = match left_out {
            0 => String::new(),
            count => format!(
                r#""left_out":{count},"note":"the trace ends here: {count} further exits are not in it, and counted in the summary","#
            ),
        };
        format!(
            r#"{{{ends_here}"kvm":{{"vm":{},"vcpus":[{}]}}}}"#,
            object(&self.vm),
            vcpus.join(",")
        )
    }
}
