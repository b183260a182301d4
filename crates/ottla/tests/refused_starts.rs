//! What a node says that cannot start, or cannot start yet, and that nothing is lost by it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

#[path = "support/mod.rs"]
mod support;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Command,
    time::Duration,
};

use support::{
    DevNode, free_port,
    server_node::{ServerNode, broker_properties, controller_properties, loopback, ottla, properties},
};

/// A refusal takes no longer, however busy the machine is.
const AT_ONCE: Duration = Duration::from_secs(60);
/// What takes an election, or a second complaint.
const A_WHILE: Duration = Duration::from_secs(60);

/// Runs the command to its end, which must be a refusal; what it said.
fn refused(dir: &Path, what: &str, command: Command) -> String {
    let mut node = ServerNode::spawn(command, dir.join("refused.log"));
    let (status, said) = node.expect_end(AT_ONCE, what);
    assert_eq!(status.code(), Some(1), "{what}: {said}");
    assert!(!said.contains("panicked"), "{what}: {said}");
    let last = said.lines().last().unwrap_or_default();
    println!("{what} | {last}");
    assert!(last.starts_with("ottla: "), "{what}: {said}");
    last.to_owned()
}

/// `ottla server` on these properties.
fn server(dir: &Path, entries: &[(&str, String)]) -> Command {
    let config = dir.join("node.properties");
    fs::write(&config, properties(entries)).unwrap();
    let mut command = ottla(&["server", "--config"]);
    command.arg(config);
    command
}

fn with<'a>(mut entries: Vec<(&'a str, String)>, key: &'a str, value: &str) -> Vec<(&'a str, String)> {
    entries.retain(|(name, _)| *name != key);
    entries.push((key, value.to_owned()));
    entries
}

#[test]
fn keys_and_values_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let sound = || broker_properties(7, free_port(), "101@127.0.0.1:9", &dir.path().join("logs"));
    for (key, value, says) in [
        ("num.partition", "3", &["num.partition", "num.partitions"][..]),
        ("log.retention.hour", "3", &["log.retention.hours"]),
        (
            "advertized.listeners",
            "PLAINTEXT://h:1",
            &["advertised.listeners"],
        ),
        ("frobnicate", "1", &["frobnicate", "unknown"]),
        ("num.partitions", "many", &["num.partitions", "many"]),
        ("num.partitions", "0", &["num.partitions", "at least 1"]),
        ("num.partitions", "99999999999999999999", &["num.partitions"]),
        (
            "auto.create.topics.enable",
            "yes",
            &["auto.create.topics.enable", "true or false"],
        ),
        ("process.roles", "brokr", &["process.roles", "brokr"]),
        ("process.roles", "", &["process.roles"]),
        ("node.id", "-1", &["node.id"]),
        ("listeners", "9092", &["listeners", "NAME://host:port"]),
        ("listeners", "PLAINTEXT://:99999", &["listeners", "99999"]),
        (
            "controller.quorum.voters",
            "101",
            &["controller.quorum.voters", "id@host:port"],
        ),
        ("log.dirs", "", &["log.dirs"]),
        (
            "log.cleaner.dedupe.buffer.size",
            "0",
            &["log.cleaner.dedupe.buffer.size", "at least 1048577"],
        ),
        (
            "log.cleaner.threads",
            "128",
            &[
                "log.cleaner.threads=128",
                "log.cleaner.dedupe.buffer.size",
                "1 MiB",
            ],
        ),
        (
            "listener.security.protocol.map",
            "PLAINTEXT:SASL_SSL",
            &["listener.security.protocol.map", "SASL_SSL"],
        ),
    ] {
        let command = server(dir.path(), &with(sound(), key, value));
        let said = refused(dir.path(), &format!("{key}={value}"), command);
        for word in says {
            assert!(said.contains(word), "{key}={value}: {said} lacks {word}");
        }
    }
    // The same from the command line and the environment.
    let mut command = server(dir.path(), &sound());
    command.args(["--set", "num.partition=3"]);
    let said = refused(dir.path(), "--set num.partition=3", command);
    assert!(said.contains("num.partitions"), "{said}");
    let mut command = server(dir.path(), &sound());
    command.env("OTTLA_NUM_PARTITION", "3");
    let said = refused(dir.path(), "OTTLA_NUM_PARTITION=3", command);
    assert!(said.contains("num.partitions"), "{said}");
    let mut command = server(dir.path(), &sound());
    command.args(["--set", "num.partitions"]);
    let said = refused(dir.path(), "--set num.partitions", command);
    assert!(said.contains("key=value"), "{said}");
    let missing = dir.path().join("nowhere.properties").display().to_string();
    let said = refused(
        dir.path(),
        "no such file",
        ottla(&["server", "--config", &missing]),
    );
    assert!(said.contains(&missing), "{said}");
    assert!(!dir.path().join("logs").exists(), "nothing was made");
}

#[test]
fn a_port_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data").display().to_string();
    let port = free_port();
    for (what, taken) in [
        ("client port", port),
        ("internal port", port + 10_000),
        ("controller port", port + 10_100),
    ] {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, taken)).unwrap();
        let command = ottla(&["dev", "--data", &data, "--port", &port.to_string()]);
        let said = refused(dir.path(), &format!("{what} in use"), command);
        assert!(
            said.contains(&taken.to_string()) && said.contains("in use"),
            "{said}"
        );
        drop(holder);
    }
    // The directory that was formatted on the way is as good as new.
    let command = ottla(&["dev", "--data", &data, "--port", &port.to_string()]);
    let mut node = ServerNode::spawn(command, dir.path().join("dev.log"));
    node.expect_ready(loopback(port), A_WHILE);
    // A second one on the same data, at other ports.
    let command = ottla(&["dev", "--data", &data, "--port", &free_port().to_string()]);
    let said = refused(dir.path(), "data in use", command);
    assert!(said.contains("in use by another process"), "{said}");
    node.expect_ready(loopback(port), AT_ONCE);
}

fn format(dir: &Path, cluster: &str, entries: &[(&str, String)]) -> Command {
    let config = dir.join("format.properties");
    fs::write(&config, properties(entries)).unwrap();
    let mut command = ottla(&["format", "--cluster-id", cluster, "--config"]);
    command.arg(config);
    command
}

fn formatted(dir: &Path, cluster: &str, entries: &[(&str, String)]) {
    let done = format(dir, cluster, entries).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[test]
fn directories_of_others() {
    let node = DevNode::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let (logs, port) = (dir.path().join("logs"), free_port());
    let voters = format!("1@127.0.0.1:{}", node.address().port() + 10_100);
    let as_node = |id| broker_properties(id, port, &voters, &logs);

    formatted(dir.path(), "another-cluster", &as_node(7));
    let before = fs::read(logs.join("meta.properties")).unwrap();

    let said = refused(
        dir.path(),
        "a directory of node 7",
        server(dir.path(), &as_node(8)),
    );
    assert!(
        said.contains("node 7") && said.contains(&*logs.to_string_lossy()),
        "{said}"
    );
    let said = refused(
        dir.path(),
        "a directory of another cluster",
        server(dir.path(), &as_node(7)),
    );
    assert!(said.contains("another-cluster"), "{said}");
    let said = refused(
        dir.path(),
        "formatted again for a third cluster",
        format(dir.path(), "third", &as_node(7)),
    );
    assert!(said.contains("another-cluster"), "{said}");
    assert_eq!(
        fs::read(logs.join("meta.properties")).unwrap(),
        before,
        "nothing was written"
    );

    let stuff = dir.path().join("stuff");
    fs::create_dir(&stuff).unwrap();
    fs::write(stuff.join("thesis.txt"), "irreplaceable").unwrap();
    let said = refused(
        dir.path(),
        "a directory with something else in it",
        server(
            dir.path(),
            &with(as_node(7), "log.dirs", &stuff.display().to_string()),
        ),
    );
    assert!(said.contains("thesis.txt"), "{said}");
    let mut names: Vec<_> = fs::read_dir(&stuff)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, [".lock", "thesis.txt"], "nothing was written but the lock");

    fs::write(logs.join("meta.properties"), "version=99\nnode.id=7\n").unwrap();
    let said = refused(dir.path(), "a newer format", server(dir.path(), &as_node(7)));
    assert!(said.contains("99"), "{said}");
    fs::write(logs.join("meta.properties"), [0xff, 0x00, 0x13]).unwrap();
    let said = refused(
        dir.path(),
        "damaged meta.properties",
        server(dir.path(), &as_node(7)),
    );
    assert!(said.contains("meta.properties"), "{said}");
    assert!(
        node.http_get("/readyz")
            .is_some_and(|answer| answer.starts_with("HTTP/1.1 200")),
        "the cluster goes on"
    );
}

#[test]
fn a_controller_that_was_never_formatted() {
    let dir = tempfile::tempdir().unwrap();
    let (logs, port) = (dir.path().join("logs"), free_port());
    let entries = controller_properties(101, port, &format!("101@127.0.0.1:{port}"), &logs);
    for made in [false, true] {
        if made {
            fs::create_dir_all(&logs).unwrap();
        }
        let what = if made {
            "an empty directory"
        } else {
            "no directory"
        };
        let said = refused(
            dir.path(),
            &format!("a controller with {what}"),
            server(dir.path(), &entries),
        );
        assert!(said.contains("ottla format"), "{said}");
        assert!(!logs.join("meta.properties").exists(), "it formatted itself");
    }
}

/// Root may write everywhere: below a file and in /proc there is no directory for anybody.
#[test]
fn directories_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    for path in [file.join("logs"), file.clone(), "/proc/ottla/logs".into()] {
        let entries = broker_properties(7, free_port(), "101@127.0.0.1:9", &path);
        let name = path.display().to_string();
        let said = refused(
            dir.path(),
            &format!("log.dirs={name}"),
            server(dir.path(), &entries),
        );
        assert!(said.contains(&name), "{said}");
        let data = ottla(&["dev", "--data", &name, "--port", &free_port().to_string()]);
        let said = refused(dir.path(), &format!("dev --data {name}"), data);
        assert!(said.contains(&name), "{said}");
        let config = dir.path().join("format.properties");
        fs::write(&config, properties(&entries)).unwrap();
        let mut command = ottla(&["format", "--cluster-id", "c", "--config"]);
        command.arg(config);
        let said = refused(dir.path(), &format!("format {name}"), command);
        assert!(said.contains(&name), "{said}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "not a directory");
}

/// A quorum that is not there is waited for, and complained about every few seconds.
#[test]
fn a_quorum_that_cannot_be_reached() {
    let dir = tempfile::tempdir().unwrap();
    let ports = [free_port(), free_port(), free_port()];
    let voters = format!("101@127.0.0.1:{},102@127.0.0.1:{}", ports[0], ports[1]);
    let controller = |id: i32, port: u16| {
        let logs = dir.path().join(format!("controller-{id}"));
        controller_properties(id, port, &voters, &logs)
    };
    let broker = broker_properties(1, ports[2], &voters, &dir.path().join("broker"));
    let mut broker = ServerNode::start(dir.path(), "broker", &broker);
    for (id, port) in [(101, ports[0]), (102, ports[1])] {
        formatted(dir.path(), "late", &controller(id, port));
    }
    let mut first = ServerNode::start(dir.path(), "101", &controller(101, ports[0]));

    let complains = "no session with the controllers";
    broker.expect_log(A_WHILE, "the broker complains again and again", |log| {
        log.matches(complains).count() >= 2
    });
    let waits = "no quorum of controllers";
    first.expect_log(A_WHILE, "the controller complains again and again", |log| {
        log.matches(waits).count() >= 2
    });
    for (log, what) in [(broker.log(), complains), (first.log(), waits)] {
        let line = log.lines().find(|line| line.contains(what)).unwrap_or_default();
        println!("a quorum that cannot be reached | {line}");
    }
    // It has not given up.
    let _second = ServerNode::start(dir.path(), "102", &controller(102, ports[1]));
    broker.expect_ready(loopback(ports[2]), A_WHILE);
    println!("the second of two controllers starts | the broker is ready");
}

/// What the command line says of topics that cannot be.
#[test]
fn topics_that_cannot_be() {
    let node = DevNode::shared();
    let dir = tempfile::tempdir().unwrap();
    let server = node.address().to_string();
    for (name, more, says) in [
        ("fine", &["--replication-factor", "3"][..], &["3", "1"][..]),
        ("a/b", &[], &["a/b"]),
        ("..", &[], &[".."]),
        ("fine", &["--partitions", "0"], &["partitions"]),
        (
            "fine",
            &["--config", "retension.ms=1"],
            &["retension.ms", "retention.ms"],
        ),
    ] {
        let mut command = ottla(&["topics", "create", name, "--bootstrap-server", &server]);
        command.args(more);
        let said = refused(
            dir.path(),
            &format!("topics create {name} {}", more.join(" ")),
            command,
        );
        for word in says {
            assert!(said.contains(word), "{said} lacks {word}");
        }
    }
}
