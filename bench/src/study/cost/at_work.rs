//! A contender with what a lesson needs, launched like any other.

use std::collections::BTreeMap;
use std::io;
use std::process::Command;
use std::time::Duration;

use super::lessons::{Lesson, Need};
use crate::contenders::{Contender, Request, Skipped};
use crate::equipment::{Disk, Equipment, Wire};
use crate::image::Image;
use crate::interrupt::Interrupt;
use crate::launch::Outcome;
use crate::race;

/// A disk and a network, as far as the chosen lessons need them and this machine lets them be made.
pub struct Equipments {
    disk: Option<Result<Disk, Skipped>>,
    wire: Option<Result<Wire, Skipped>>,
}

impl Equipments {
    /// Makes what `lessons` need.
    pub fn make(lessons: &[&Lesson], image: &Image) -> Equipments {
        let needed = |need: Need| lessons.iter().any(|lesson| lesson.need == need);
        Equipments {
            disk: needed(Need::Disk).then(|| Disk::make(image)),
            wire: needed(Need::Net).then(Wire::make),
        }
    }

    /// What this lesson needs. None: nothing.
    ///
    /// # Errors
    /// Why it cannot be had here.
    pub fn of(&self, lesson: &Lesson) -> Result<Option<Equipment<'_>>, Skipped> {
        let (disk, wire) = (self.disk.as_ref(), self.wire.as_ref());
        Ok(match lesson.need {
            Need::Nothing => None,
            Need::Disk => disk
                .map(|disk| disk.as_ref().map(Equipment::Disk))
                .transpose()
                .map_err(Skipped::clone)?,
            Need::Net => wire
                .map(|wire| wire.as_ref().map(Equipment::Net))
                .transpose()
                .map_err(Skipped::clone)?,
        })
    }

    /// What the figures of disk and network are figures of, for a reader.
    pub fn notes(&self, ready: &[Box<dyn Contender>]) -> Vec<String> {
        let mut notes = Vec::new();
        // Each difference once, with those it is true of.
        let seen = |equipment: Equipment| {
            let mut seen: Vec<(String, Vec<&str>)> = Vec::new();
            for contender in ready {
                let text = contender.equipment(&equipment);
                match seen.iter_mut().find(|(known, _)| *known == text) {
                    _ if text.is_empty() => {}
                    Some((_, names)) => names.push(contender.name()),
                    None => seen.push((text, vec![contender.name()])),
                }
            }
            let each = seen.iter().map(|(text, names)| format!("{}: {text}", names.join(", ")));
            each.collect::<Vec<_>>().join("; ")
        };
        if let Some(Ok(disk)) = &self.disk {
            notes.push(format!(
                "disk: 4 KiB each, at scattered places of a file of 16 MiB, none twice; the file is written and made durable \
                 before every run. Reads pass the page cache of the kernel the program runs on (O_DIRECT), and a VM's disk is \
                 not in the host's; each write is followed by fsync. The host's disk is {}. {}.",
                disk.kind(),
                seen(Equipment::Disk(disk))
            ));
        }
        if let Some(Ok(wire)) = &self.wire {
            notes.push(format!(
                "net: TCP to a peer of the lab's on the host's side, one byte there and back, or 64 KiB at a time. {}. {}.",
                wire.processors(),
                seen(Equipment::Net(wire))
            ));
        }
        notes
    }
}

/// A contender and what its workload is given.
pub struct AtWork<'a> {
    contender: &'a dyn Contender,
    equipment: Option<Equipment<'a>>,
}

impl<'a> AtWork<'a> {
    /// With this equipment.
    pub fn new(contender: &'a dyn Contender, equipment: Option<Equipment<'a>>) -> AtWork<'a> {
        AtWork { contender, equipment }
    }

    /// Finds out whether the contender takes it.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check(&self) -> Result<(), Skipped> {
        let probe = Request {
            id: "",
            workload: &[],
            marks_fd: None,
        };
        // The command is of no use; whether there is one is the answer.
        match &self.equipment {
            Some(equipment) => self.contender.equipped(&probe, equipment).map(drop),
            None => Ok(()),
        }
    }

    /// Launches it once, from where its network is.
    ///
    /// # Errors
    /// See [`race::Error`].
    pub fn launch(&self, request: &Request, limit: Duration, interrupt: &Interrupt) -> Result<Outcome, race::Error> {
        self.there(|| race::once(self, request, false, limit, interrupt))?
    }

    /// Does something on its side of the network.
    ///
    /// # Errors
    /// When that cannot be reached.
    pub fn there<T>(&self, act: impl FnOnce() -> T) -> Result<T, race::Error> {
        match &self.equipment {
            Some(Equipment::Net(wire)) => {
                let done = wire.launch(self.contender.network_side(), act);
                done.map_err(|source| race::Error::Prepare {
                    contender: self.name().into(),
                    source,
                })
            }
            _ => Ok(act()),
        }
    }
}

impl Contender for AtWork<'_> {
    fn name(&self) -> &'static str {
        self.contender.name()
    }

    fn command(&self, request: &Request) -> io::Result<Command> {
        match &self.equipment {
            None => self.contender.command_at_work(request),
            Some(equipment) => self
                .contender
                .equipped(request, equipment)
                .unwrap_or_else(|skipped| Err(io::Error::other(skipped.reason))),
        }
    }

    fn clean_up(&self, id: &str) {
        match &self.equipment {
            None => self.contender.clean_up(id),
            Some(equipment) => self.contender.clean_up_equipped(id, equipment),
        }
    }

    fn details(&self) -> BTreeMap<String, String> {
        self.contender.details()
    }

    fn fix(&self, status: i32) -> String {
        self.contender.fix(status)
    }
}
