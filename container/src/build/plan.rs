//! The stages of a build as a graph: what each starts from, what it copies from, and which of them the target needs.

use super::arguments::Arguments;
use super::dockerfile::Dockerfile;
use super::expand::{Expander, Word};
use super::instruction::Instruction;
use super::source::{Fault, Pointed};

/// Something that has a file system: what a stage starts from or copies from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing at all.
    Scratch,
    /// An earlier stage, by its index.
    Stage(usize),
    /// An image of the store, by its name.
    Image(String),
}

/// Which stages are built, and from what.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What each stage starts from.
    pub bases: Vec<Base>,
    /// The stage that becomes the image.
    pub target: usize,
    /// The stages it needs, itself included, in the order of the Dockerfile.
    pub needed: Vec<usize>,
}

impl Plan {
    /// Reads the graph. `target` is a stage's name or number; the last stage when `None`.
    pub fn make(dockerfile: &Dockerfile, arguments: &mut Arguments, target: Option<&str>) -> Result<Plan, Error> {
        let point = |fault| Error::Dockerfile(dockerfile.source.point(fault));
        declare_globals(dockerfile, arguments).map_err(point)?;
        let lookup = |name: &str| arguments.global(name);
        let expander = Expander {
            escape: dockerfile.escape,
            lookup: &lookup,
        };
        let mut bases = Vec::new();
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            if let Some(platform) = &stage.platform {
                let wanted = expander.word(platform).map_err(point)?;
                if wanted != "linux/amd64" && wanted != "linux" {
                    return Err(point(platform.fault(format!(
                        "containers here run programs of this machine, linux/amd64, and not {wanted:?}"
                    ))));
                }
            }
            let name = expander.word(&stage.base).map_err(point)?;
            if name.is_empty() {
                let message = format!("{:?} is empty: the ARG before FROM has no value", stage.base.text);
                return Err(point(stage.base.fault(message)));
            }
            bases.push(match stage_named(dockerfile, index, &name) {
                Some(earlier) => Base::Stage(earlier),
                None if name == "scratch" => Base::Scratch,
                None => Base::Image(name),
            });
        }
        let target = match target {
            None => dockerfile.stages.len() - 1,
            Some(name) => find_target(dockerfile, name)?,
        };
        let mut needed = Vec::new();
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if needed.contains(&index) {
                continue;
            }
            needed.push(index);
            open.extend(stages_of(dockerfile, &bases, index).map_err(point)?);
        }
        needed.sort_unstable();
        Ok(Plan { bases, target, needed })
    }
}

/// What `--from` of a COPY in stage `index` means.
pub fn copied_from(dockerfile: &Dockerfile, index: usize, from: &Word) -> Result<Base, Fault> {
    if from.text.contains('$') {
        return Err(from.fault("--from takes no variables: give a stage a name with FROM ... AS NAME, and name that"));
    }
    if let Some(earlier) = stage_named(dockerfile, index, &from.text) {
        return Ok(Base::Stage(earlier));
    }
    if let Ok(number) = from.text.parse::<usize>() {
        return match number < index {
            true => Ok(Base::Stage(number)),
            false => Err(from.fault(format!(
                "stage {number} does not come before this one, which is stage {index}"
            ))),
        };
    }
    let later = dockerfile.stages.iter().skip(index);
    if later
        .into_iter()
        .any(|stage| stage.name.as_deref() == Some(&from.text.to_ascii_lowercase()))
    {
        return Err(from.fault(format!("the stage {:?} does not come before this one", from.text)));
    }
    Ok(Base::Image(from.text.clone()))
}

fn declare_globals(dockerfile: &Dockerfile, arguments: &mut Arguments) -> Result<(), Fault> {
    for step in &dockerfile.arguments {
        let Instruction::Arg(pairs) = &step.instruction else {
            continue;
        };
        for (name, default) in pairs {
            let lookup = |name: &str| arguments.global(name);
            let expander = Expander {
                escape: dockerfile.escape,
                lookup: &lookup,
            };
            let default = default.as_ref().map(|default| expander.word(default)).transpose()?;
            arguments.declare_global(&name.text, default);
        }
    }
    Ok(())
}

fn stage_named(dockerfile: &Dockerfile, before: usize, name: &str) -> Option<usize> {
    let name = name.to_ascii_lowercase();
    let earlier = &dockerfile.stages[..before];
    earlier.iter().position(|stage| stage.name.as_deref() == Some(&name))
}

fn find_target(dockerfile: &Dockerfile, name: &str) -> Result<usize, Error> {
    let count = dockerfile.stages.len();
    stage_named(dockerfile, count, name)
        .or_else(|| name.parse().ok().filter(|&number| number < count))
        .ok_or_else(|| {
            let names = dockerfile.stages.iter().enumerate();
            let names = names.map(|(index, stage)| stage.name.clone().unwrap_or_else(|| index.to_string()));
            Error::Target {
                name: name.to_owned(),
                stages: names.collect::<Vec<_>>().join(", "),
            }
        })
}

/// The stages that stage `index` needs directly.
fn stages_of(dockerfile: &Dockerfile, bases: &[Base], index: usize) -> Result<Vec<usize>, Fault> {
    let mut from = vec![bases[index].clone()];
    for step in &dockerfile.stages[index].steps {
        if let Instruction::Copy(copy) = &step.instruction
            && let Some(word) = &copy.from
        {
            from.push(copied_from(dockerfile, index, word)?);
        }
    }
    let stages = from.into_iter().filter_map(|base| match base {
        Base::Stage(stage) => Some(stage),
        _ => None,
    });
    Ok(stages.collect())
}

/// What is wrong with the graph.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something in the Dockerfile.
    #[error(transparent)]
    Dockerfile(Pointed),
    /// No stage to build.
    #[error("--target {name}: there is no such stage; there are {stages}")]
    Target {
        /// As it was asked for.
        name: String,
        /// What there is.
        stages: String,
    },
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;

    fn plan(text: &str, target: Option<&str>) -> Result<Plan, String> {
        let dockerfile = Dockerfile::parse(Source::new("Dockerfile", text)).map_err(|error| error.to_string())?;
        Plan::make(&dockerfile, &mut Arguments::given([]), target).map_err(|error| error.to_string())
    }

    const STAGES: &str = "ARG V=1\nFROM base:$V AS one\nFROM one AS two\nFROM scratch AS three\nCOPY --from=0 a b\nFROM three\nCOPY --from=other:1 a b\n";

    #[test]
    fn only_what_the_target_needs() -> Result<(), String> {
        let last = plan(STAGES, None)?;
        let image = Base::Image("base:1".into());
        assert_eq!(last.bases, [image, Base::Stage(0), Base::Scratch, Base::Stage(2)]);
        assert_eq!((last.target, last.needed), (3, vec![0, 2, 3]));
        assert_eq!(plan(STAGES, Some("TWO"))?.needed, [0, 1]);
        assert_eq!(plan(STAGES, Some("2"))?.needed, [0, 2]);
        let error = plan(STAGES, Some("four")).map(drop);
        assert_eq!(
            error,
            Err("--target four: there is no such stage; there are one, two, three, 3".into())
        );
        Ok(())
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, place) in [
            (
                "FROM a AS x\nCOPY --from=x a b\n",
                "Dockerfile:2:13: the stage \"x\" does not come before this one",
            ),
            (
                "FROM a\nCOPY --from=1 a b\nFROM b\n",
                "Dockerfile:2:13: stage 1 does not come before",
            ),
            ("FROM $none\n", "Dockerfile:1:6: \"$none\" is empty"),
            (
                "FROM --platform=linux/arm64 a\n",
                "Dockerfile:1:17: containers here run programs of this machine",
            ),
            (
                "FROM a\nCOPY --from=$x a b\n",
                "Dockerfile:2:13: --from takes no variables",
            ),
        ] {
            let error = plan(text, Some("0")).map(drop);
            assert!(error.as_ref().is_err_and(|error| error.starts_with(place)), "{error:?}");
        }
    }
}
