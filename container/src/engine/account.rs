//! Who the program runs as: names become numbers by the image's own `/etc/passwd` and `/etc/group`.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::filesystem::open_inside;

/// A user, as the kernel knows one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

/// Accounts files are small; a hostile image's may not be.
const LONGEST_FILE: u64 = 1 << 20;

/// Finds `USER[:GROUP]`, each a name or a number, in the files below `root`. The error is for the user.
pub fn find(root: BorrowedFd<'_>, wanted: &str) -> Result<Account, String> {
    let read = |path: &str| {
        let mut text = String::new();
        if let Ok(fd) = open_inside(root, Path::new(path), libc::O_RDONLY | libc::O_NONBLOCK) {
            // Not there, not readable, not text: then it names nobody.
            let _ = File::from(fd).take(LONGEST_FILE).read_to_string(&mut text);
        }
        text
    };
    resolve(wanted, &read("/etc/passwd"), &read("/etc/group"))
}

fn resolve(wanted: &str, passwd: &str, group: &str) -> Result<Account, String> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    // `name:password:uid:gid:comment:home:shell`.
    let number: Option<u32> = user.parse().ok();
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| {
            fields.len() >= 6 && (fields[0] == user || (number.is_some() && fields[2].parse().ok() == number))
        });
    let mut account = match (&entry, number) {
        (Some(fields), _) => Account {
            uid: fields[2]
                .parse()
                .map_err(|_| format!("the image's /etc/passwd gives {user} no number"))?,
            gid: fields[3].parse().unwrap_or_default(),
            groups: Vec::new(),
            home: fields[5].to_owned(),
        },
        (None, Some(uid)) => Account {
            uid,
            home: "/".into(),
            ..Account::default()
        },
        (None, None) => {
            return Err(format!(
                "there is no user {user} in the image's /etc/passwd; a number needs no entry there"
            ));
        }
    };
    // `name:password:gid:member,member`.
    let groups = || {
        group
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .filter(|fields| fields.len() >= 4)
    };
    match wanted_group {
        Some(wanted) => {
            account.gid = match wanted.parse() {
                Ok(gid) => gid,
                Err(_) => groups()
                    .find(|fields| fields[0] == wanted)
                    .and_then(|fields| fields[2].parse().ok())
                    .ok_or_else(|| format!("there is no group {wanted} in the image's /etc/group"))?,
            };
        }
        None => {
            let name = entry.as_ref().map_or(user, |fields| fields[0]);
            account.groups = groups()
                .filter(|fields| fields[3].split(',').any(|member| member == name))
                .filter_map(|fields| fields[2].parse().ok())
                .collect();
        }
    }
    Ok(account)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:100::/home/ann:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\nwheel:x:10:root,ann\n";

    #[test]
    fn names_and_numbers_lead_to_the_same_account() {
        let ann = resolve("ann", PASSWD, GROUP).unwrap();
        assert_eq!((ann.uid, ann.gid, ann.groups.as_slice()), (1000, 100, &[10][..]));
        assert_eq!(resolve("1000", PASSWD, GROUP).unwrap(), ann);
        let other = resolve("1000:wheel", PASSWD, GROUP).unwrap();
        assert_eq!((other.gid, other.groups.len()), (10, 0));
        assert_eq!(resolve("", PASSWD, GROUP).unwrap().home, "/root");
        assert_eq!(resolve("77", PASSWD, GROUP).unwrap().uid, 77);
    }

    #[test]
    fn who_is_not_there_is_named() {
        assert!(resolve("bob", PASSWD, GROUP).unwrap_err().contains("no user bob"));
        assert!(
            resolve("ann:nobody", PASSWD, GROUP)
                .unwrap_err()
                .contains("no group nobody")
        );
        assert!(resolve("ann", "", "").is_err());
    }
}
