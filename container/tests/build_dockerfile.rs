//! Reading Dockerfiles: what instructions become, and how mistakes are shown.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use container::build::dockerfile::Dockerfile;
use container::build::instruction::{Command, Instruction, Origin};
use container::build::source::Source;

fn parse(text: &str) -> Dockerfile {
    Dockerfile::parse(Source::new("Dockerfile", text)).unwrap_or_else(|error| panic!("{error}"))
}

fn error(text: &str) -> String {
    Dockerfile::parse(Source::new("Dockerfile", text))
        .map(drop)
        .unwrap_err()
        .to_string()
}

/// The instructions of the only stage.
fn steps(text: &str) -> Vec<Instruction> {
    let mut dockerfile = parse(text);
    assert_eq!(dockerfile.stages.len(), 1);
    dockerfile
        .stages
        .remove(0)
        .steps
        .into_iter()
        .map(|step| step.instruction)
        .collect()
}

fn shell(instruction: &Instruction) -> &str {
    match instruction {
        Instruction::Run(run) => match &run.command {
            Command::Shell(text) => text,
            exec => panic!("{exec}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn commands_keep_what_is_the_shells() {
    let steps = steps(
        "FROM a\nRUN one \\\n # comment\n\n  && two\\\nthree $x \"q\"\nRUN [\"a\", \"b \\\"c\\\"\"]\nrun lower\n",
    );
    assert_eq!(shell(&steps[0]), "one   && twothree $x \"q\"");
    let Instruction::Run(run) = &steps[1] else { panic!() };
    assert_eq!(run.command, Command::Exec(vec!["a".into(), "b \"c\"".into()]));
    assert_eq!(shell(&steps[2]), "lower");
}

#[test]
fn here_documents_reach_their_instruction() {
    let text = "FROM a\nRUN <<EOF\none\ntwo\nEOF\nRUN cat <<A >x && cat <<-B\n$a\nA\n\tb\n\tB\nCOPY <<f.txt <<'g' /d/\nF\nf.txt\n$G\ng\nRUN last\n";
    let steps = steps(text);
    assert_eq!(shell(&steps[0]), "one\ntwo\n");
    assert_eq!(shell(&steps[1]), "cat <<A >x && cat <<-B\n$a\nA\n\tb\n\tB");
    let Instruction::Copy(copy) = &steps[2] else { panic!() };
    let names: Vec<_> = copy
        .sources
        .iter()
        .map(|origin| match origin {
            Origin::Here(here) => (here.name.as_str(), here.body.as_str(), here.expand),
            Origin::Path(path) => panic!("{path:?}"),
        })
        .collect();
    assert_eq!(names, [("f.txt", "F\n", true), ("g", "$G\n", false)]);
    assert_eq!(shell(&steps[3]), "last");
}

#[test]
fn pairs_in_both_ways() {
    let steps = steps("FROM a\nENV a=1 b=\"2 3\" \\\n  c=4\nENV old the whole rest\nLABEL \"x.y\"='z'\n");
    let Instruction::Env(pairs) = &steps[0] else { panic!() };
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| (name.text.as_str(), value.text.as_str()))
        .collect();
    assert_eq!(pairs, [("a", "1"), ("b", "\"2 3\""), ("c", "4")]);
    let Instruction::Env(pairs) = &steps[1] else { panic!() };
    assert_eq!(pairs[0].1.text, "the whole rest");
    let Instruction::Label(pairs) = &steps[2] else { panic!() };
    assert_eq!((pairs[0].0.text.as_str(), pairs[0].1.text.as_str()), ("\"x.y\"", "'z'"));
}

#[test]
fn stages_and_arguments_before_them() {
    let dockerfile = parse(
        "ARG v=1\nFROM a:$v AS Build\nRUN x\nFROM --platform=linux/amd64 build\nCOPY --from=build --chown=u:g --chmod=755 --link a b c/\n",
    );
    assert_eq!(dockerfile.arguments.len(), 1);
    assert_eq!(dockerfile.stages[0].name.as_deref(), Some("build"));
    assert_eq!(dockerfile.stages[0].base.text, "a:$v");
    let Instruction::Copy(copy) = &dockerfile.stages[1].steps[0].instruction else {
        panic!()
    };
    assert_eq!(copy.sources.len(), 2);
    assert_eq!(copy.from.as_ref().map(|from| from.text.as_str()), Some("build"));
}

#[test]
fn health_checks_have_times() {
    let steps =
        steps("FROM a\nHEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD curl -f x\nHEALTHCHECK NONE\n");
    let Instruction::Healthcheck(Some(check)) = &steps[0] else {
        panic!()
    };
    assert_eq!(check.interval.map(|time| time.as_secs()), Some(90));
    assert_eq!(check.timeout.map(|time| time.as_millis()), Some(500));
    assert_eq!(check.retries, Some(3));
    assert_eq!(check.command, Command::Shell("curl -f x".into()));
    assert_eq!(steps[1], Instruction::Healthcheck(None));
}

#[test]
fn an_array_with_single_quotes_is_warned_about() {
    let dockerfile = parse("FROM a\nCMD ['sh']\n");
    assert_eq!(dockerfile.warnings.len(), 1);
    assert_eq!(dockerfile.warnings[0].place, "Dockerfile:2:5");
}

#[test]
fn mistakes_are_shown_at_their_place() {
    for (text, expected) in [
        (
            "FROM a\nRUNN x\n",
            "Dockerfile:2:1: unknown instruction 'RUNN'\n  2 | RUNN x\n    | ^^^^",
        ),
        (
            "FROM a\nRUN\n",
            "Dockerfile:2:1: RUN needs a command\n  2 | RUN\n    | ^^^",
        ),
        (
            "FROM a\nCOPY --chwon=1 a b\n",
            "Dockerfile:2:6: COPY has no --chwon here; it has --from, --chown, --chmod, --link\n  2 | COPY --chwon=1 a b\n    |      ^^^^^^^^^",
        ),
        (
            "FROM a\nRUN --mount=type=cache,target=/x y\n",
            "Dockerfile:2:5: RUN has no --mount here; it has --network\n  2 | RUN --mount=type=cache,target=/x y\n    |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^",
        ),
        (
            "FROM a\nENV a=1 \\\n    b\n",
            "Dockerfile:3:5: \"b\" has no '=': ENV takes NAME=VALUE, with quotes around a value that has spaces\n  3 |     b\n    |     ^",
        ),
        (
            "FROM a AS x\nFROM b AS X\n",
            "Dockerfile:2:11: another stage has this name\n  2 | FROM b AS X\n    |           ^",
        ),
        (
            "FROM a AS 1x\n",
            "Dockerfile:1:11: a stage's name begins with a letter and has letters, digits, '-', '_' and '.' only\n  1 | FROM a AS 1x\n    |           ^^",
        ),
        ("RUN x\n", "Dockerfile:1:1: expected FROM\n  1 | RUN x\n    | ^^^"),
        (
            "FROM a\nCOPY a\n",
            "Dockerfile:2:1: COPY instruction requires at least two arguments\n  2 | COPY a\n    | ^^^^",
        ),
        (
            "FROM a\nRUN cat <<E\nx\n",
            "Dockerfile:2:9: this here-document never ends: no line after it is \"E\" and nothing else\n  2 | RUN cat <<E\n    |         ^^^",
        ),
        (
            "FROM a\nHEALTHCHECK --interval=5 CMD x\n",
            "Dockerfile:2:24: not a time such as 30s, 1m30s or 500ms\n  2 | HEALTHCHECK --interval=5 CMD x\n    |                        ^",
        ),
        (
            "FROM a\nSHELL sh\n",
            "Dockerfile:2:7: expected JSON array\n  2 | SHELL sh\n    |       ^^",
        ),
        (
            "FROM a\nONBUILD ONBUILD RUN x\n",
            "Dockerfile:2:9: ONBUILD ONBUILD is not allowed\n  2 | ONBUILD ONBUILD RUN x\n    |         ^^^^^^^",
        ),
        (
            "# nothing\n",
            "Dockerfile:1:1: there is no FROM: a Dockerfile says first what it starts from (FROM scratch for nothing)\n  1 | # nothing\n    | ^",
        ),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn the_escape_directive_leaves_backslashes_alone() {
    let steps = steps("# escape=`\nFROM a\nRUN dir c:\\`\n  x\nENV a=b\\c\n");
    assert_eq!(shell(&steps[0]), "dir c:\\  x");
    let Instruction::Env(pairs) = &steps[1] else { panic!() };
    assert_eq!(pairs[0].1.text, "b\\c");
}
