//! Instructions that change no file: what they leave in the image's configuration.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

#[path = "common/builds.rs"]
mod builds;

use builds::Workshop;
use serde_json::json;

#[test]
fn every_instruction_ends_up_in_the_configuration() {
    let workshop = Workshop::new(
        "FROM scratch\n\
         MAINTAINER Ada <ada@example.org>\n\
         ENV A=1 B=\"two words\"\n\
         ENV A=$A$A C=${D:-${B}}\n\
         LABEL one=1 \"two three\"='$A' four=$A\n\
         EXPOSE 80 53/udp 8000-8001/tcp\n\
         VOLUME /data /x\n\
         VOLUME [\"/json one\", \"rel\"]\n\
         WORKDIR /\n\
         USER 7:8\n\
         STOPSIGNAL SIGQUIT\n\
         SHELL [\"/bin/bash\", \"-c\"]\n\
         ENTRYPOINT exec $program\n\
         CMD [\"a\", \"b c\"]\n\
         HEALTHCHECK --interval=5s --retries=2 CMD test -e /x\n\
         ONBUILD COPY . /src\n",
    );
    workshop.build(&[]);
    let image = workshop.image();
    assert_eq!(image.layers().len(), 0);
    assert_eq!(image.config_json["author"], "Ada <ada@example.org>");
    assert_eq!(
        (&image.config_json["architecture"], &image.config_json["os"]),
        (&json!("amd64"), &json!("linux"))
    );
    let config = json!({
        "User": "7:8",
        "Env": ["A=11", "B=two words", "C=two words"],
        "Labels": { "one": "1", "two three": "$A", "four": "11" },
        "ExposedPorts": { "80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {} },
        "Volumes": { "/data": {}, "/x": {}, "/json one": {}, "/rel": {} },
        "WorkingDir": "/",
        "StopSignal": "SIGQUIT",
        "Shell": ["/bin/bash", "-c"],
        "Entrypoint": ["/bin/bash", "-c", "exec $program"],
        "Cmd": ["a", "b c"],
        "Healthcheck": { "Test": ["CMD-SHELL", "test -e /x"], "Interval": 5_000_000_000u64, "Retries": 2 },
        "OnBuild": ["COPY . /src"],
    });
    assert_eq!(workshop.config(), config);
    let history = image.config_json["history"].as_array().unwrap();
    assert_eq!(history.len(), 15);
    assert_eq!(history[1]["created_by"], "ENV A=1 B=\"two words\"");
    assert!(history.iter().all(|step| step["empty_layer"] == true));
}

#[test]
fn a_new_program_drops_the_old_ones_arguments() {
    let workshop = Workshop::new("FROM scratch\nENTRYPOINT [\"old\"]\nCMD [\"x\"]\n");
    workshop.build(&["-t", "base"]);
    workshop.file("Dockerfile", "FROM base\nENTRYPOINT [\"new\"]\n");
    workshop.build(&[]);
    assert_eq!(workshop.config(), json!({ "Entrypoint": ["new"] }));
    workshop.file("Dockerfile", "FROM base\nCMD y\nENTRYPOINT [\"new\"]\n");
    workshop.build(&[]);
    assert_eq!(
        workshop.config(),
        json!({ "Entrypoint": ["new"], "Cmd": ["/bin/sh", "-c", "y"] })
    );
}

#[test]
fn instructions_for_others_are_carried_out_by_them_once() {
    root_or_skip!();
    let workshop = Workshop::new("FROM scratch\nONBUILD COPY file /copied\nONBUILD ENV SEEN=$WHO\nENV WHO=base\n");
    workshop.file("file", "text");
    workshop.build(&["-t", "base"]);
    assert!(workshop.files().is_empty());
    workshop.file("Dockerfile", "FROM base\nENV X=$SEEN\n");
    let progress = workshop.build(&["-t", "child"]);
    assert!(progress.contains("[2/4] COPY file /copied"), "{progress}");
    assert_eq!(workshop.text("copied"), "text");
    assert_eq!(workshop.config()["Env"], json!(["WHO=base", "SEEN=base", "X=base"]));
    assert_eq!(workshop.config().get("OnBuild"), None);
    std::fs::remove_file(workshop.context().join("file")).unwrap();
    let (_, message) = workshop.fail(&[]);
    assert!(
        message.contains("ONBUILD of base:2:6: \"file\" is not in the context"),
        "{message}"
    );
}

#[test]
fn values_that_make_no_sense_are_refused_at_their_place() {
    for (line, place, words) in [
        ("EXPOSE 80/http", "2:8", "\"80/http\" is no port"),
        ("EXPOSE 70000", "2:8", "\"70000\" is no port"),
        ("STOPSIGNAL SIGNOTHING", "2:12", "\"SIGNOTHING\" is no signal"),
        ("USER $NOBODY", "2:6", "\"$NOBODY\" is empty"),
        ("ENV A=\"${B:?say B}\"", "2:8", "variable B: say B"),
        ("ENV A=\"x", "2:7", "this quote is never closed"),
        ("LABEL a", "2:7", "LABEL needs a value: a=VALUE"),
    ] {
        let workshop = Workshop::new(&format!("FROM scratch\n{line}\n"));
        let (status, message) = workshop.fail(&[]);
        assert_eq!(status, 125);
        assert!(
            message.contains(&format!("container: Dockerfile:{place}: {words}")),
            "{line}: {message}"
        );
    }
    let workshop = Workshop::new("FROM scratch\nCMD ['sh']\n");
    assert!(
        workshop
            .build(&[])
            .contains("warning: Dockerfile:2:5: this looks like a JSON array and is none")
    );
}

#[test]
fn what_a_build_leaves_for_programs() {
    let workshop = Workshop::new("FROM scratch\nARG USED\nENV A=1\n");
    let file = workshop.beside("id");
    let output = workshop
        .command(&[
            "--json",
            "--iidfile",
            file.to_str().unwrap(),
            "--build-arg",
            "USELESS=1",
        ])
        .output()
        .unwrap();
    let account: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let id = workshop.image().id.to_string();
    assert_eq!(account["id"], id.as_str());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), id);
    assert_eq!(account["name"], "test:latest");
    assert_eq!(account["steps"][2]["text"], "ENV A=1");
    assert_eq!(account["steps"][2]["outcome"], "configuration");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("warning: no ARG asks for --build-arg USELESS"), "{said}");
    assert!(!said.contains('\x1b'), "no colours for a pipe: {said}");
    let output = workshop.command(&["-q"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), id);
    assert!(output.stderr.is_empty());
    // From standard input, for a context without a Dockerfile of its own.
    let mut command = workshop.command(&["-q", "-f", "-"]);
    command.stdin(std::fs::File::open(workshop.context().join("Dockerfile")).unwrap());
    assert_eq!(String::from_utf8(command.output().unwrap().stdout).unwrap().trim(), id);
    let (_, message) = workshop.fail(&["-f", "/no/such/file"]);
    assert!(message.contains("cannot read /no/such/file"), "{message}");
}
