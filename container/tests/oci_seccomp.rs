//! The profile of config.json is the filter the program runs under.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod oci_common;

use std::io::Read;

use serde_json::json;

#[test]
fn listed_calls_are_refused_with_their_errno() {
    let mut bundle =
        bundle_or_skip!("mkdir /tmp/a 2>&1; mkdir /tmp/b 2>&1; ln -s x /tmp/c 2>&1; grep Seccomp: /proc/self/status");
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            {"names": ["symlink", "symlinkat", "no_such_call"], "action": "SCMP_ACT_ERRNO"}],
    });
    for no_new_privileges in [true, false] {
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let output = bundle.run();
        assert_eq!(output.matches("No space left on device").count(), 2, "{output}");
        assert_eq!(output.matches("Operation not permitted").count(), 1, "{output}");
        assert!(output.ends_with("Seccomp:\t2"), "{output}");
    }
}

#[test]
fn a_call_may_end_the_process() {
    let mut bundle = bundle_or_skip!("mkdir /tmp/a; echo $?");
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_KILL_PROCESS"}],
    });
    // 128 + SIGSYS.
    assert!(bundle.run().ends_with("159"));
}

#[test]
fn a_supervisor_gets_the_descriptor_and_the_state() {
    let mut bundle = bundle_or_skip!("sleep 1000");
    let path = bundle.path("supervisor");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "for the supervisor",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
    });
    bundle.start();
    let (stream, _) = listener.accept().unwrap();
    let mut packet = vec![0; 65536];
    let (length, descriptors) = container::oci::line::receive(&stream.into(), &mut packet).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&packet[..length]).unwrap();
    assert_eq!(descriptors.len(), 1);
    assert_eq!(
        (&state["fds"][0], &state["metadata"]),
        (&json!("seccompFd"), &json!("for the supervisor"))
    );
    assert_eq!(state["state"]["id"], bundle.id.as_str());
    let _ = std::fs::File::from(descriptors.into_iter().next().unwrap()).read(&mut []);
}

#[test]
fn a_profile_that_makes_no_sense_is_refused() {
    let mut bundle = bundle_or_skip!("true");
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 9, "value": 0, "op": "SCMP_CMP_EQ"}]}],
    });
    assert!(bundle.refusal().contains("argument 9"));
    assert!(bundle.is_gone());
}
