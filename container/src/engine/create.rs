//! Making a container: taking its name, writing down what was asked for.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::filesystem::LAYERS;
use super::place::Place;
use super::record::{Settings, Source, State};
use super::{Container, Error, copy, naming, write_json};
use crate::volume::Volumes;

/// Makes a container of `settings`, whose id and creation time are filled in here, and its name if it has none.
///
/// Its directory is prepared under another name and appears as a whole, so that nobody meets half a container. The name
/// is a symbolic link, which only one of two commands can make.
pub fn create(place: &Place, mut settings: Settings) -> Result<Container, Error> {
    if !settings.name.is_empty() && !naming::is_valid(&settings.name) {
        return Err(Error::BadName(settings.name));
    }
    settings.id = naming::id().map_err(Error::io("read", Path::new("/dev/urandom")))?;
    settings.created = super::logs::now();
    let id = settings.id.clone();
    if settings.hostname.is_empty() {
        settings.hostname = naming::short(&id).to_owned();
    }

    let (new, _lock) = begin(place, &id)?;
    let prepared = prepare(place, &new, &mut settings);
    let named = prepared.and_then(|()| take_name(place, &mut settings, &new));
    if let Err(error) = named {
        let volumes = Volumes::new(place.volumes());
        for name in anonymous_volumes(&settings) {
            let _ = volumes.remove(name, |_| None);
        }
        let _ = fs::remove_dir_all(&new);
        return Err(error);
    }
    Ok(Container {
        place: place.clone(),
        settings,
    })
}

/// Makes the directory in which a container is prepared, and takes its lock: what nobody holds was left by a crash. Under
/// the lock on names, so that one without a lock file was left by a crash too ([`super::settle::settle_all`]).
fn begin(place: &Place, id: &str) -> Result<(PathBuf, Flock<File>), Error> {
    let _names = lock_names(place)?;
    let new = place.containers().join(format!("{id}.new"));
    fs::create_dir(&new).map_err(Error::io("create", &new))?;
    let lock_path = new.join("lock");
    let lock = File::create(&lock_path).map_err(Error::io("create", &lock_path))?;
    let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| Error::Io {
        action: "lock",
        path: lock_path,
        errno,
    })?;
    Ok((new, lock))
}

fn prepare(place: &Place, new: &Path, settings: &mut Settings) -> Result<(), Error> {
    for name in ["upper", "work", "root", "bundle", LAYERS] {
        let path = new.join(name);
        fs::create_dir(&path).map_err(Error::io("create", &path))?;
    }
    let skeleton = new.join(SKELETON);
    if make_skeleton(&skeleton, &settings.layers)? {
        settings.layers.insert(0, place.container(&settings.id).join(SKELETON));
    }
    for (number, layer) in settings.layers.iter().enumerate() {
        let link = new.join(LAYERS).join(number.to_string());
        symlink(layer, &link).map_err(Error::io("create", &link))?;
    }
    // The upper directory's own owner and mode are those of the container's /.
    copy_looks(&settings.layers, Path::new(""), &new.join("upper"))?;
    let volumes = Volumes::new(place.volumes());
    for mount in &mut settings.mounts {
        if let Source::Volume { name, anonymous } = &mut mount.source {
            if name.is_empty() {
                *name = naming::id().map_err(Error::io("read", Path::new("/dev/urandom")))?[..32].to_owned();
            }
            volumes.create(name, *anonymous)?;
        }
    }
    write_json(&new.join("state.json"), &State::default())
}

/// A layer of the container's own, on top of its image's.
const SKELETON: &str = "skeleton";

/// Makes a layer of the places where something is mounted in every container, as far as the image lacks them; says whether
/// there are any. In the upper directory they would look like changes of the container's.
fn make_skeleton(skeleton: &Path, layers: &[PathBuf]) -> Result<bool, Error> {
    const DIRECTORIES: [&str; 3] = ["dev", "proc", "sys"];
    const FILES: [&str; 3] = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];
    let is_missing = |path: &&str| copy::lookup(layers, Path::new(path)).is_none();
    let directories: Vec<&str> = DIRECTORIES.into_iter().filter(is_missing).collect();
    let files: Vec<&str> = FILES.into_iter().filter(is_missing).collect();
    if directories.is_empty() && files.is_empty() {
        return Ok(false);
    }
    let make = |path: &Path| fs::create_dir(path).map_err(Error::io("create", path));
    make(skeleton)?;
    // A directory in several layers looks as in the topmost.
    copy_looks(layers, Path::new(""), skeleton)?;
    for name in directories {
        make(&skeleton.join(name))?;
    }
    if !files.is_empty() {
        make(&skeleton.join("etc"))?;
        copy_looks(layers, Path::new("etc"), &skeleton.join("etc"))?;
    }
    for name in files {
        let path = skeleton.join(name);
        fs::write(&path, "").map_err(Error::io("create", &path))?;
    }
    Ok(true)
}

/// Gives `to` the owner and permissions the image's `path` has; root's and 755 where it has none.
fn copy_looks(layers: &[PathBuf], path: &Path, to: &Path) -> Result<(), Error> {
    let found = match path.as_os_str().is_empty() {
        true => layers.first().and_then(|layer| fs::symlink_metadata(layer).ok()),
        false => copy::lookup(layers, path),
    };
    let mode = found.as_ref().map_or(0o755, |found| found.mode() & 0o7777);
    if let Some(found) = found
        && nix::unistd::geteuid().is_root()
    {
        chown(to, Some(found.uid()), Some(found.gid())).map_err(Error::io("give away", to))?;
    }
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).map_err(Error::io("set the permissions of", to))
}

/// Takes the name and lets the container appear, under the lock on names.
fn take_name(place: &Place, settings: &mut Settings, new: &Path) -> Result<(), Error> {
    let _names = lock_names(place)?;
    let asked_for = !settings.name.is_empty();
    let mut attempt = 0;
    loop {
        if !asked_for {
            settings.name = naming::generated(&settings.id, attempt);
        }
        match owner(place, &settings.name) {
            None => break,
            Some(id) if asked_for => {
                return Err(Error::NameTaken {
                    name: settings.name.clone(),
                    id: naming::short(&id).to_owned(),
                });
            }
            Some(_) => attempt += 1,
        }
    }
    // Before the container is there: an image that is in use must never look unused.
    super::images::keep(place, settings)?;
    write_json(&new.join("settings.json"), &*settings)?;
    let link = place.names().join(&settings.name);
    // A link whose container is gone was left by a crash.
    let _ = fs::remove_file(&link);
    symlink(&settings.id, &link).map_err(Error::io("take the name", &link))?;
    let directory = place.container(&settings.id);
    fs::rename(new, &directory).map_err(Error::io("create", &directory))
}

/// The volumes nobody named.
pub(super) fn anonymous_volumes(settings: &Settings) -> impl Iterator<Item = &str> {
    settings.mounts.iter().filter_map(|mount| match &mount.source {
        Source::Volume { name, anonymous: true } if !name.is_empty() => Some(name.as_str()),
        _ => None,
    })
}

/// Who has a name.
fn owner(place: &Place, name: &str) -> Option<String> {
    let id = fs::read_link(place.names().join(name)).ok()?;
    let id = id.to_str()?.to_owned();
    place.container(&id).exists().then_some(id)
}

/// Names change under this lock only, and containers begin under it.
pub(super) fn lock_names(place: &Place) -> Result<Flock<File>, Error> {
    let path = place.lock();
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(Error::io("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::Io {
        action: "lock",
        path,
        errno,
    })
}
