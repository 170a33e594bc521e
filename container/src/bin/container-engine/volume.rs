//! `container volume create | ls | inspect | rm | prune`.

use clap::{Args, FromArgMatches, Subcommand};
use container::engine::place::Place;
use container::engine::{Error, settle};
use container::say;
use container::volume::Volumes;

use super::table::Columns;
use super::{Family, each, finish};

/// `container volume`.
pub const VOLUME: Family = Family {
    name: "volume",
    arguments: |command| VolumeCommand::augment_subcommands(command).subcommand_required(true),
    main: |matches, _| finish(VolumeCommand::from_arg_matches(matches)?.run()),
};

#[derive(Subcommand)]
enum VolumeCommand {
    /// Make volumes, unless they are there
    Create(Names),
    /// List volumes
    Ls {
        /// Names only
        #[arg(short, long)]
        quiet: bool,
    },
    /// Show volumes as JSON
    Inspect(Names),
    /// Remove volumes, with what is in them
    Rm(Names),
    /// Remove every volume that no container mounts
    Prune {
        /// Also those that were given a name
        #[arg(short, long)]
        all: bool,
    },
}

#[derive(Args)]
struct Names {
    /// The volumes
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl VolumeCommand {
    fn run(self) -> Result<u8, Error> {
        let place = Place::configured()?;
        let volumes = Volumes::new(place.volumes());
        let user = |name: &str| settle::user_of_volume(&place, name, "");
        match self {
            VolumeCommand::Create(Names { names }) => each(&names, |name| {
                say!("{}", volumes.create(name, false)?.name);
                Ok(())
            }),
            VolumeCommand::Ls { quiet } => {
                let mut table = Columns::new(["NAME", "KIND", "USED BY"]);
                for volume in volumes.all()? {
                    match quiet {
                        true => table.line(&volume.name),
                        false => table.row([
                            volume.name.clone(),
                            if volume.anonymous { "anonymous" } else { "named" }.into(),
                            user(&volume.name).unwrap_or_else(|| "-".into()),
                        ]),
                    }
                }
                table.print(!quiet);
                Ok(0)
            }
            VolumeCommand::Inspect(Names { names }) => {
                let mut all = Vec::new();
                let status = each(&names, |name| {
                    let volume = volumes.find(name)?;
                    all.push(serde_json::json!({
                        "Name": volume.name,
                        "CreatedAt": volume.created,
                        "Anonymous": volume.anonymous,
                        "Mountpoint": volumes.data(name),
                        "UsedBy": user(name),
                    }));
                    Ok(())
                })?;
                say!("{}", serde_json::to_string_pretty(&all).unwrap_or_default());
                Ok(status)
            }
            VolumeCommand::Rm(Names { names }) => each(&names, |name| {
                volumes.remove(name, user)?;
                say!("{name}");
                Ok(())
            }),
            VolumeCommand::Prune { all } => {
                for volume in volumes.all()?.into_iter().filter(|volume| all || volume.anonymous) {
                    match volumes.remove(&volume.name, user) {
                        Ok(()) => say!("{}", volume.name),
                        Err(container::volume::Error::InUse { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(0)
            }
        }
    }
}
