//! Who may open `/dev/kvm`, and how somebody else comes to be allowed.
//!
//! Distributions give the device to a group, most to one called kvm, and whoever is in it may make VMs. Elsewhere, and in many
//! a VM without udev, it is root's alone: there no group helps. So the cure is read off the device itself.

use std::fs;
use std::os::unix::fs::MetadataExt;

const DEVICE: &str = "/dev/kvm";
/// Names of groups, a line each: `NAME:x:GID:MEMBERS` (group(5)).
const GROUPS: &str = "/etc/group";
/// A group's right to read and write.
const GROUP_MAY: u32 = 0o060;
const ROOT: u32 = 0;

/// What lets an ordinary user open the device, as the end of a sentence. Source of the second cure: Firecracker's getting-started guide.
pub fn cure() -> String {
    let device = fs::metadata(DEVICE).map(|device| (device.gid(), device.mode())).ok();
    let groups = fs::read_to_string(GROUPS).unwrap_or_default();
    sentence(device, &groups)
}

fn sentence(device: Option<(u32, u32)>, groups: &str) -> String {
    match device {
        Some((gid, mode)) if gid != ROOT && mode & GROUP_MAY == GROUP_MAY => {
            let group = name(gid, groups).unwrap_or("kvm");
            format!("add yourself to its group (`sudo usermod -aG {group} $USER`, then log in again), or run as root")
        }
        _ => format!(
            "it is root's alone here; let yourself in until the next boot (`sudo setfacl -m u:$USER:rw {DEVICE}`), or run as root"
        ),
    }
}

fn name(gid: u32, groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: &str = "root:x:0:\nvirtual:x:107:\nkvm:x:108:ada\n";

    #[test]
    fn a_group_that_may_is_named() {
        assert!(sentence(Some((107, 0o20660)), GROUPS).contains("usermod -aG virtual $USER"));
        assert!(sentence(Some((999, 0o20660)), GROUPS).contains("usermod -aG kvm $USER"));
    }

    #[test]
    fn where_no_group_may_none_is_recommended() {
        for (gid, mode) in [(0, 0o20600), (0, 0o20660), (108, 0o20600)] {
            let sentence = sentence(Some((gid, mode)), GROUPS);
            assert!(
                sentence.contains("setfacl") && !sentence.contains("usermod"),
                "{sentence}"
            );
        }
    }
}
