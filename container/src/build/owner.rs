//! Who owns what: `--chown` and USER name users of the image, not of the host.
//!
//! So names are looked up in the image's own /etc/passwd and /etc/group; the host's accounts mean nothing there.

use std::io::{BufRead, BufReader};
use std::path::Path;

use nix::fcntl::OFlag;
use thiserror::Error;

use super::tree::Tree;

/// A user and a group, as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Which rule gives a group to a user named without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alone {
    /// A number is its own group too: `--chown=1000` is 1000:1000.
    SameNumber,
    /// The group of the account, 0 if there is none: `USER 1000`.
    Account,
}

impl Owner {
    /// Reads `user[:group]`, each a number or a name of the image whose root `root` is.
    pub fn resolve(text: &str, root: &Tree, alone: Alone) -> Result<Owner, Error> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let number = user.parse::<u32>().ok();
        let account = match (number, alone, group) {
            (Some(_), Alone::SameNumber, _) | (Some(_), _, Some(_)) => None,
            _ => lookup(root, "etc/passwd", |fields| {
                let matches = match number {
                    Some(number) => fields.get(2).is_some_and(|uid| *uid == number.to_string()),
                    None => fields.first() == Some(&user),
                };
                matches.then(|| (parse(fields.get(2)), parse(fields.get(3))))
            }),
        };
        let uid = match (number, account) {
            (Some(number), _) => number,
            (None, Some((Some(uid), _))) => uid,
            (None, _) if user == "root" => 0,
            (None, _) => return Err(Error::unknown("user", user, "/etc/passwd")),
        };
        let gid = match group {
            Some(group) => match group.parse::<u32>() {
                Ok(gid) => gid,
                Err(_) => lookup(root, "etc/group", |fields| {
                    (fields.first() == Some(&group)).then(|| parse(fields.get(2)))?
                })
                .or((group == "root").then_some(0))
                .ok_or_else(|| Error::unknown("group", group, "/etc/group"))?,
            },
            None => match (number, alone) {
                (Some(number), Alone::SameNumber) => number,
                _ => account.and_then(|(_, gid)| gid).unwrap_or(0),
            },
        };
        Ok(Owner { uid, gid })
    }
}

/// The further groups of `user[:group]`: those of the image's that list him, where no group is named.
pub fn groups(root: &Tree, user: &str) -> Vec<u32> {
    if user.contains(':') {
        return Vec::new();
    }
    let name = lookup(root, "etc/passwd", |fields| {
        let matches = fields.first() == Some(&user) || fields.get(2) == Some(&user);
        matches.then(|| fields.first().map(|name| (*name).to_owned()))?
    });
    let name = name.unwrap_or_else(|| user.to_owned());
    let mut groups = Vec::new();
    lookup(root, "etc/group", |fields| {
        if fields
            .get(3)
            .is_some_and(|members| members.split(',').any(|member| member == name))
        {
            groups.extend(parse(fields.get(2)));
        }
        None::<()>
    });
    groups
}

/// The home directory of a user in the image, as login(1) would have it.
pub fn home(root: &Tree, uid: u32) -> String {
    let home = lookup(root, "etc/passwd", |fields| {
        (fields.get(2) == Some(&uid.to_string().as_str())).then(|| fields.get(5).map(|home| (*home).to_owned()))?
    });
    home.unwrap_or_else(|| if uid == 0 { "/root".into() } else { "/".into() })
}

/// The first line of a colon-separated file for which `found` has an answer.
fn lookup<T>(root: &Tree, file: &str, mut found: impl FnMut(&[&str]) -> Option<T>) -> Option<T> {
    let file = root.open_file(Path::new(file), OFlag::O_RDONLY).ok()?;
    for line in BufReader::new(file).lines() {
        let line = line.ok()?;
        let fields: Vec<&str> = line.split(':').collect();
        if let Some(value) = found(&fields) {
            return Some(value);
        }
    }
    None
}

fn parse(field: Option<&&str>) -> Option<u32> {
    field?.parse().ok()
}

/// A name that the image does not know.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the image has no {kind} {name:?} in its {file}: add it in a RUN before, or use a number")]
pub struct Error {
    kind: &'static str,
    name: String,
    file: &'static str,
}

impl Error {
    fn unknown(kind: &'static str, name: &str, file: &'static str) -> Error {
        Error {
            kind,
            name: name.to_owned(),
            file,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tree::Links;
    use super::*;

    #[test]
    fn names_and_numbers() {
        let make = || -> std::io::Result<tempfile::TempDir> {
            let image = tempfile::tempdir()?;
            fs::create_dir(image.path().join("etc"))?;
            fs::write(
                image.path().join("etc/passwd"),
                "root:x:0:0::/:/bin/sh\nada:x:1000:100::/:/bin/sh\n",
            )?;
            fs::write(image.path().join("etc/group"), "staff:x:50:ada\n")?;
            Ok(image)
        };
        let image = make().unwrap_or_else(|error| panic!("{error}"));
        let root = Tree::open("the image", image.path(), Links::Rooted).unwrap_or_else(|error| panic!("{error}"));
        let owner = |uid, gid| Ok(Owner { uid, gid });
        for (text, alone, expected) in [
            ("ada", Alone::SameNumber, owner(1000, 100)),
            ("ada:staff", Alone::SameNumber, owner(1000, 50)),
            ("1000", Alone::SameNumber, owner(1000, 1000)),
            ("1000", Alone::Account, owner(1000, 100)),
            ("7", Alone::Account, owner(7, 0)),
            ("7:8", Alone::Account, owner(7, 8)),
            ("root:root", Alone::SameNumber, owner(0, 0)),
            (
                "bob",
                Alone::SameNumber,
                Err(Error::unknown("user", "bob", "/etc/passwd")),
            ),
            (
                "0:bobs",
                Alone::SameNumber,
                Err(Error::unknown("group", "bobs", "/etc/group")),
            ),
        ] {
            assert_eq!(Owner::resolve(text, &root, alone), expected, "{text}");
        }
        assert_eq!((groups(&root, "ada"), groups(&root, "1000")), (vec![50], vec![50]));
        assert!(groups(&root, "ada:staff").is_empty() && groups(&root, "7").is_empty());
    }
}
