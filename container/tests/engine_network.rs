//! Networks, names, and published ports of named containers, in a network namespace of the test's own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use common::{message, text, until};

/// What a client hears at a port of the test's own network namespace.
fn hear(lab: &common::engine::Lab, address: &str) -> String {
    let connect = || {
        let mut stream = TcpStream::connect(address).ok()?;
        let mut said = String::new();
        stream.read_to_string(&mut said).ok()?;
        Some(said).filter(|said| !said.is_empty())
    };
    until(&format!("an answer at {address}"), || lab.in_network(connect))
}

fn interfaces(lab: &common::engine::Lab) -> String {
    lab.in_network(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap())
}

#[test]
fn containers_on_the_bridge_find_each_other_by_name() {
    let lab = lab_or_skip!().with_network();
    lab.start(
        "db",
        &["--network", "bridge"],
        "while true; do echo from-db | nc -l -p 5432; done",
    );
    lab.start("web", &["--network", "bridge", "--hostname", "front"], "sleep 1000");
    let ask = || {
        let output = lab.run(["exec", "web", "nc", "-w", "2", "db", "5432"]);
        (output.stdout == b"from-db\n").then_some(())
    };
    until("the other container's answer", ask);
    let hosts = lab.text(["exec", "db", "cat", "/etc/hosts"]);
    assert!(hosts.contains("front web"), "{hosts}");
    let inspected = lab.inspect("web")["NetworkSettings"].clone();
    assert_eq!(inspected["Addresses"][0], "10.213.77.3");
    assert!(
        hosts.contains("10.213.77.3") && hosts.contains("fd6c:6162::3"),
        "{hosts}"
    );
    assert!(text(&lab.run(["exec", "web", "ip", "route"])).contains("default via 10.213.77.1 dev eth0"));
    // The host reaches them, and they the host.
    assert_eq!(hear(&lab, "10.213.77.2:5432"), "from-db\n");
    assert!(interfaces(&lab).contains("lab0"));

    // Who leaves is forgotten, and his address is free again.
    lab.text(["rm", "-f", "db"]);
    assert!(!lab.text(["exec", "web", "cat", "/etc/hosts"]).contains("db"));
    lab.start("next", &["--network", "bridge"], "sleep 1000");
    assert_eq!(lab.inspect("next")["NetworkSettings"]["Addresses"][0], "10.213.77.2");
    lab.text(["rm", "-f", "web", "next"]);
    assert!(
        !interfaces(&lab).contains("lab0"),
        "the last container takes the bridge along"
    );
    lab.assert_empty();
}

#[test]
fn the_way_out_is_there_or_its_absence_is_said() {
    let lab = lab_or_skip!().with_network();
    let forwarding = || lab.in_network(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap());
    assert_eq!(forwarding(), "0\n");
    let output = lab.run([
        "run",
        "-d",
        "--name",
        "out",
        "--network",
        "bridge",
        "busybox",
        "sleep",
        "1000",
    ]);
    text(&output);
    match lab.inspect("out")["NetworkSettings"]["NoWayOut"].as_str() {
        // With nft or iptables the kernel passes packets on; the rule goes with the bridge.
        None => assert_eq!(forwarding(), "1\n"),
        Some(reason) => {
            assert!(reason.contains("nft") && reason.contains("iptables"), "{reason}");
            assert!(
                String::from_utf8_lossy(&output.stderr).contains("nothing beyond"),
                "{output:?}"
            );
        }
    }
    lab.text(["rm", "-f", "out"]);
    assert_eq!(forwarding(), "0\n");
    // Without the tools it is said, and the container runs all the same.
    let mut command = lab.command([
        "run",
        "-d",
        "--name",
        "in",
        "--network",
        "bridge",
        "busybox",
        "sleep",
        "1000",
    ]);
    let output = command.env("PATH", "/nowhere").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("nft is not installed; iptables is not installed"),
        "{said}"
    );
}

#[test]
fn published_ports_are_reached_by_both_families_whatever_the_network() {
    let lab = lab_or_skip!().with_network();
    let serve = "while true; do echo hello | nc -l -p 80; done";
    lab.start("bridged", &["--network", "bridge", "-p", "8080:80"], serve);
    lab.start("alone", &["-p", "127.0.0.1:8081:80"], serve);
    for address in ["127.0.0.1:8080", "[::1]:8080", "127.0.0.1:8081"] {
        assert_eq!(hear(&lab, address), "hello\n", "{address}");
    }
    assert!(lab.in_network(|| TcpStream::connect("[::1]:8081").is_err()));
    let taken = message(
        &lab.run(["run", "--name", "late", "-p", "8080:80", "busybox", "true"]),
        125,
    );
    assert!(
        taken.contains("EADDRINUSE") && taken.contains("choose another one"),
        "{taken}"
    );
    // It ends with its container, and so does its hold on the port.
    lab.text(["rm", "-f", "bridged", "alone"]);
    assert!(lab.in_network(|| TcpStream::connect("127.0.0.1:8080").is_err()));
    let refused = message(
        &lab.run(["run", "--rm", "--network", "host", "-p", "8080:80", "busybox", "true"]),
        125,
    );
    assert!(refused.contains("the host's already"), "{refused}");
    lab.assert_empty();
}

#[test]
fn a_megabyte_each_way_arrives_whole() {
    let lab = lab_or_skip!().with_network();
    lab.start("echo", &["-p", "9000:9"], "while true; do nc -l -p 9 -e cat; done");
    let sent: Vec<u8> = (0..1 << 20).map(|number: u32| (number % 251) as u8).collect();
    let exchange = || {
        let mut stream = TcpStream::connect("127.0.0.1:9000").ok()?;
        let mut back = stream.try_clone().ok()?;
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                stream
                    .write_all(&sent)
                    .and_then(|()| stream.shutdown(std::net::Shutdown::Write))
            });
            let mut got = Vec::new();
            back.read_to_end(&mut got).ok()?;
            writer.join().unwrap().ok()?;
            Some(got).filter(|got| !got.is_empty())
        })
    };
    let got = until("the echo", || lab.in_network(exchange));
    assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
}

#[test]
fn datagrams_are_passed_on_and_answered() {
    let lab = lab_or_skip!().with_network();
    lab.start("dgram", &["-p", "9001:9/udp"], "sleep 1000");
    // A server of the test's own in the container's network namespace: busybox has none for datagrams.
    let pid = lab.state_of("dgram", "Pid").as_i64().unwrap();
    let server = std::thread::spawn(move || {
        let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&namespace);
        // SAFETY: takes numbers only, and changes this thread alone.
        let entered = unsafe { libc::setns(fd, libc::CLONE_NEWNET) };
        assert_eq!(entered, 0);
        let socket = UdpSocket::bind("127.0.0.1:9").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut buffer = [0; 100];
        for _ in 0..2 {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&buffer[..length], from).unwrap();
        }
    });
    lab.in_network(|| {
        for (own, to) in [("127.0.0.1:0", "127.0.0.1:9001"), ("[::1]:0", "[::1]:9001")] {
            let socket = UdpSocket::bind(own).unwrap();
            socket.connect(to).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let mut buffer = [0; 100];
            // The server may not be there yet, and datagrams are not repeated by anybody else.
            let length = until("an answer", || {
                socket.send(b"ping").unwrap();
                socket.recv(&mut buffer).ok()
            });
            assert_eq!(&buffer[..length], b"ping");
        }
    });
    server.join().unwrap();
}

#[test]
fn a_container_can_share_anothers_network_or_the_hosts() {
    let lab = lab_or_skip!().with_network();
    lab.start("owner", &[], "while true; do echo shared | nc -l -p 80; done");
    let said = until("the owner's port", || {
        let output = lab.shell(&["--network", "container:owner"], "nc -w 1 127.0.0.1 80");
        Some(String::from_utf8_lossy(&output.stdout).into_owned()).filter(|said| !said.is_empty())
    });
    assert_eq!(said, "shared\n");
    let link = |options: &[&str]| text(&lab.shell(options, "readlink /proc/self/ns/net"));
    let host = lab.in_network(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap());
    assert_eq!(link(&["--network", "host"]), host.to_str().unwrap());
    assert_ne!(link(&[]), host.to_str().unwrap());
    let output = lab.shell(&["--network", "container:nobody"], "true");
    assert!(message(&output, 125).contains("no container nobody"));
    assert!(!lab.shell(&["--network", "lab0"], "true").status.success());
}

#[test]
fn iptables_lets_out_where_there_is_no_nft() {
    let lab = lab_or_skip!().with_network();
    let iptables = ["/usr/sbin/iptables", "/sbin/iptables"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists());
    let Some(iptables) = iptables else {
        skip!("needs iptables (Debian: apt install iptables)");
    };
    let tools = lab.path().join("tools");
    std::fs::create_dir(&tools).unwrap();
    std::os::unix::fs::symlink(iptables, tools.join("iptables")).unwrap();
    let rules = || {
        let list = || {
            std::process::Command::new(iptables)
                .args(["-t", "nat", "-S", "POSTROUTING"])
                .output()
        };
        text(&lab.in_network(|| list().unwrap()))
    };
    let forwarding = || lab.in_network(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap());
    let alone = |arguments: &[&'static str]| {
        let output = lab
            .command(arguments.iter().copied())
            .env("PATH", &tools)
            .output()
            .unwrap();
        text(&output)
    };
    alone(&[
        "run",
        "-d",
        "--name",
        "out",
        "--network",
        "bridge",
        "busybox",
        "sleep",
        "1000",
    ]);
    let rule = rules();
    assert!(rule.contains("MASQUERADE") && rule.contains("! -o lab0"), "{rule}");
    assert_eq!(forwarding(), "1\n");
    alone(&["rm", "-f", "out"]);
    assert!(!rules().contains("MASQUERADE"), "{}", rules());
    assert_eq!(forwarding(), "0\n");
    lab.assert_empty();
}
