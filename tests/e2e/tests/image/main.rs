//! The set-up of the original: the management service in a container, the reverse proxy in another,
//! each handler in one of its own, and the commands that its users type, word for word.
#![expect(
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by it, and shows why"
)]

mod asks;
mod compose;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::{Engine, Function, agent, request_with, until};
use serde_json::json;
use std::net::UdpSocket;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const BUILD: &str = "docker build -t tinyfaas-mgmt .";
const RUN: &str = "docker run -v /var/run/docker.sock:/var/run/docker.sock -p 5000:8080 \
                   --name tinyfaas-mgmt -d tinyfaas-mgmt tinyfaas-mgmt";
const DEPLOY: &str = r#"curl http://localhost:5000 --data '{"path": "sieve-of-erasthostenes", "resource": "/sieve/primes", "entry": "sieve.js", "threads": 4}' -v"#;
const CALL: &str = "coap-client -m get coap://localhost:5683/sieve/primes";
const RUN_ON_7000: &str = "docker run -v /var/run/docker.sock:/var/run/docker.sock -p 8080:8080 \
                           --name tinyfaas-mgmt -d tinyfaas-mgmt tinyfaas-mgmt 7000";

/// Everything of ours together, idle, without functions.
const RESIDENT_BYTES_MAX: u64 = 25_000_000;
const IMAGE_BYTES_MAX: u64 = 40_000_000;

/// How soon everything must serve again.
const RECOVERY: Duration = Duration::from_secs(20);

/// A shell whose engine is the tests', with what it started there.
struct Shell {
    folder: PathBuf,
    /// Where an engine of its own is.
    host: Option<String>,
    /// Has `coap-client` by that name: Debian calls it by its variant.
    programs: TempDir,
}

impl Shell {
    /// In the folder that has the Dockerfile, with the image built.
    fn start() -> Self {
        let shell = Self::at(&folder("E2E_IMAGE"));
        shell.sweep();
        shell.run(BUILD);
        shell
    }

    fn at(folder: &Path) -> Self {
        let programs = tempfile::tempdir().unwrap();
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .map(|path| path.join("coap-client-notls"))
            .find(|path| path.is_file());
        symlink(found.unwrap(), programs.path().join("coap-client")).unwrap();
        Self {
            folder: folder.to_owned(),
            host: None,
            programs,
        }
    }

    /// What a command line prints, both outputs.
    fn try_run(&self, line: &str) -> Result<String, String> {
        let mut path = self.programs.path().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(line).current_dir(&self.folder);
        if let Some(host) = &self.host {
            shell.env("DOCKER_HOST", host);
        }
        // The older way of building, which every engine has.
        let shell = shell.env("PATH", path).env("DOCKER_BUILDKIT", "0");
        let output = shell.stdin(Stdio::null()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        if output.status.success() {
            Ok(text)
        } else {
            Err(text)
        }
    }

    fn run(&self, line: &str) -> String {
        let done = self.try_run(line);
        done.unwrap_or_else(|said| panic!("{line}: {said}"))
    }

    fn answers(&self, port: u16) {
        until("the management service answers", || {
            let line = format!("curl --silent --fail http://localhost:{port}/readyz");
            let is_running = self.run("docker ps --quiet --filter name=^/tinyfaas-mgmt$");
            let said = || self.run("docker logs tinyfaas-mgmt");
            assert!(!is_running.is_empty(), "it ended: {}", said());
            self.try_run(&line).ok()
        });
    }

    /// The containers that carry our label and have this in their name.
    fn ours(&self, name: &str) -> Vec<String> {
        let line = "docker ps --all --filter label=tinyFaaS --format '{{.ID}} {{.Names}}'";
        let found = self.run(line);
        let found = found.lines().filter_map(|line| line.split_once(' '));
        let found = found.filter(|(_, its_name)| its_name.contains(name));
        found.map(|(id, _)| id.to_owned()).collect()
    }

    fn networks(&self) -> Vec<String> {
        let line = "docker network ls --filter label=tinyFaaS --format '{{.Name}}'";
        self.run(line).lines().map(str::to_owned).collect()
    }

    fn leaves_nothing(&self) {
        assert_eq!(self.ours(""), [""; 0]);
        assert_eq!(self.networks(), [""; 0]);
    }

    /// Removes what a test before this one left, where it failed.
    fn sweep(&self) {
        drop(self.try_run("docker rm --force --volumes tinyfaas-mgmt"));
        for container in self.ours("tinyfaas-mgmt") {
            drop(self.try_run(&format!("docker rm --force {container}")));
        }
        let line = "docker network ls --quiet --filter label=tinyFaaS=tinyfaas-mgmt";
        for network in self.run(line).lines() {
            drop(self.try_run(&format!("docker network rm {network}")));
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if thread::panicking() {
            for name in ["tinyfaas-mgmt", "tinyfaas-mgmt-rproxy"] {
                let said = self.try_run(&format!("docker logs --tail 40 {name}"));
                eprintln!("{name}: {}", said.unwrap_or_else(|error| error));
            }
        }
        self.sweep();
    }
}

fn folder(variable: &str) -> PathBuf {
    let folder = std::env::var_os(variable).map(PathBuf::from);
    folder.unwrap_or_else(|| panic!("{variable} is not set; run the tests with: cargo xtask test"))
}

fn primes(max: u32) -> Vec<u32> {
    let is_prime = |n: &u32| (2..*n).all(|divisor| !n.is_multiple_of(divisor));
    (2..=max).filter(is_prime).collect()
}

fn numbers(text: &str) -> Vec<u32> {
    let words = text.split(|c: char| !c.is_ascii_digit());
    words.filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn the_commands_of_the_original_run_word_for_word() {
    let shell = Shell::start();
    let size = shell.run("docker image inspect --format '{{.Size}}' tinyfaas-mgmt");
    assert!(size.parse::<u64>().unwrap() < IMAGE_BYTES_MAX, "{size}");
    shell.run(RUN);
    shell.answers(5000);
    let resident = resident(&shell);
    println!("resident: {resident} bytes in both containers");
    assert!(resident < RESIDENT_BYTES_MAX, "{resident}");
    let said = shell.run("docker logs tinyfaas-mgmt");
    assert!(said.contains("can run code here"), "{said}");
    let begin = Instant::now();
    let deployed = shell.run(DEPLOY);
    println!("4 handlers of the sieve: {:?}", begin.elapsed());
    assert!(deployed.contains("/sieve/primes"), "{deployed}");
    assert_eq!(shell.ours("sieve").len(), 4);
    let printed = shell.run(CALL);
    assert_eq!(numbers(&printed), primes(1000), "{printed}");
    for url in ["http://localhost:8000", "http://127.0.0.1:8000"] {
        let printed = shell.run(&format!("curl --silent --fail {url}/sieve/primes"));
        assert_eq!(numbers(&printed), primes(1000), "{printed}");
    }
    until("calls are counted", || {
        let metrics = shell.run("curl --silent --fail http://localhost:5000/metrics");
        let line = "function_invocations_total{function=\"sieve/primes\"} 3";
        metrics.contains(line).then_some(())
    });
    shell.run("docker stop tinyfaas-mgmt");
    shell.leaves_nothing();
    // It comes back with what it had.
    shell.run("docker start tinyfaas-mgmt");
    shell.answers(5000);
    let printed = shell.run(CALL);
    assert_eq!(numbers(&printed), primes(1000), "{printed}");
    shell.run("docker stop tinyfaas-mgmt");
    shell.run("docker rm tinyfaas-mgmt");

    shell.run(RUN_ON_7000);
    shell.answers(8080);
    shell.run(&DEPLOY.replace(":5000", ":8080"));
    let printed = shell.run(&CALL.replace(":5683", ":7000"));
    assert_eq!(numbers(&printed), primes(1000), "{printed}");
    shell.run("docker stop tinyfaas-mgmt");
    shell.leaves_nothing();
}

/// What all processes of both containers have in memory.
fn resident(shell: &Shell) -> u64 {
    let of = |container: &str| {
        let line = format!("docker inspect --format '{{{{.State.Pid}}}}' {container}");
        let pid = shell.run(&line);
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() * 1024
    };
    of("tinyfaas-mgmt") + of("tinyfaas-mgmt-rproxy")
}

/// A set-up with a function that echoes, and a client that calls it all the time.
struct Called {
    stop: Arc<AtomicBool>,
    client: Option<thread::JoinHandle<Vec<(Instant, bool)>>>,
}

impl Called {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let client = thread::spawn(move || {
            let mut calls = Vec::new();
            while !until.load(Ordering::Relaxed) {
                // New connections: the ones to a proxy that was killed say nothing of the next.
                calls.push((Instant::now(), is_echoed()));
                thread::park_timeout(Duration::from_millis(2));
            }
            calls
        });
        Self {
            stop,
            client: Some(client),
        }
    }

    /// When calls were made since `begin`, and whether they were answered.
    fn end(mut self, begin: Instant) -> Vec<bool> {
        self.stop.store(true, Ordering::Relaxed);
        let calls = self.client.take().unwrap().join().unwrap();
        let since = calls.into_iter().filter(|(at, _)| *at >= begin);
        since.map(|(_, is_answered)| is_answered).collect()
    }
}

fn is_echoed() -> bool {
    let url = "http://localhost:8000/echo";
    let answer = request_with(&agent(), "POST", url, &[], b"x");
    answer.is_ok_and(|answer| answer.status == 200 && answer.body == b"x")
}

fn upload_of_echo() -> String {
    let echo = Function::python("echo", "def fn(input): return input\n");
    let zip = STANDARD.encode(echo.zip());
    json!({ "name": "echo", "env": "python3", "threads": 2, "zip": zip }).to_string()
}

fn deploy_echo(shell: &Shell) {
    let url = "http://localhost:5000/upload";
    let answer = request_with(&agent(), "POST", url, &[], upload_of_echo().as_bytes());
    let answer = answer.unwrap().expect_success();
    assert!(answer.text().contains(":8000/echo"), "{}", answer.text());
    assert_eq!(shell.ours("-echo-").len(), 2);
}

/// Waits until many calls in a row are answered.
fn serves_again() {
    let begin = Instant::now();
    let mut in_a_row = 0;
    while in_a_row < 50 {
        in_a_row = if is_echoed() { in_a_row + 1 } else { 0 };
        assert!(begin.elapsed() < RECOVERY, "it does not serve again");
        if in_a_row == 0 {
            thread::park_timeout(Duration::from_millis(20));
        }
    }
}

#[test]
fn what_is_killed_in_the_images_set_up_comes_back_and_loses_only_what_it_had() {
    let shell = Shell::start();
    shell.run(RUN);
    shell.answers(5000);
    deploy_echo(&shell);
    let handlers = shell.ours("-echo-");

    // A handler: at most the call that it had.
    let (called, begin) = (Called::start(), Instant::now());
    shell.run(&format!("docker kill {}", handlers[0]));
    until("the handler is replaced", || {
        let now = shell.ours("-echo-");
        (now.len() == 2 && !now.contains(&handlers[0])).then_some(())
    });
    // As many calls of the other client beside these, however slow the machine is.
    serves_again();
    let calls = called.end(begin);
    let failed = calls.iter().filter(|is_answered| !**is_answered).count();
    assert!(
        failed <= 1 && calls.len() > 20,
        "{failed} of {}",
        calls.len()
    );

    // The management service: none at all, also when it is back.
    let (called, begin) = (Called::start(), Instant::now());
    shell.run("docker kill tinyfaas-mgmt");
    serves_again();
    shell.run("docker start tinyfaas-mgmt");
    shell.answers(5000);
    let before = handlers;
    until("the handlers of the run before are gone", || {
        let now = shell.ours("-echo-");
        let is_new = now.iter().all(|id| !before.contains(id));
        (is_new && now.len() == 2).then_some(())
    });
    let calls = called.end(begin);
    let failed = calls.iter().filter(|is_answered| !**is_answered).count();
    assert!(
        failed == 0 && calls.len() > 100,
        "{failed} of {}",
        calls.len()
    );

    // The reverse proxy: what comes while there is none.
    let (called, begin) = (Called::start(), Instant::now());
    shell.run("docker kill tinyfaas-mgmt-rproxy");
    serves_again();
    println!("the reverse proxy was back after {:?}", begin.elapsed());
    called.end(begin);
    assert_eq!(shell.ours("-echo-").len(), 2);
    assert_eq!(shell.ours("rproxy").len(), 1);

    // Everything of ours at once.
    let all = [shell.ours(""), vec!["tinyfaas-mgmt".to_owned()]].concat();
    shell.run(&format!("docker kill {}", all.join(" ")));
    shell.run("docker start tinyfaas-mgmt");
    shell.answers(5000);
    serves_again();
    assert_eq!(shell.ours("-echo-").len(), 2);
    let networks = shell.networks();
    assert_eq!(networks.len(), 3, "{networks:?}");
    shell.run("docker stop tinyfaas-mgmt");
    shell.leaves_nothing();
}

#[test]
fn a_start_that_is_broken_off_leaves_nothing_of_the_run_before() {
    let shell = Shell::start();
    shell.run(RUN);
    shell.answers(5000);
    deploy_echo(&shell);
    shell.run("docker kill tinyfaas-mgmt");
    assert!(shell.ours("").len() >= 3, "the control: what a kill leaves");
    shell.run("docker start tinyfaas-mgmt");
    shell.run("docker stop tinyfaas-mgmt");
    shell.leaves_nothing();
    // What is deployed is kept.
    shell.run("docker start tinyfaas-mgmt");
    shell.answers(5000);
    serves_again();
    shell.run("docker stop tinyfaas-mgmt");
    shell.leaves_nothing();
}

/// Tells whoever is named in its input, by way of the machine's address on its network, what it was
/// called with, once it has worked for a while.
const TELLS: &str = "
import ipaddress, socket, time
own = socket.gethostbyname(socket.gethostname())
machine = str(ipaddress.ip_network(own + '/23', strict=False)[1])
def fn(input):
    time.sleep(0.1)
    port = int(input.split()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as teller:
        teller.sendto(input.encode(), (machine, port))
";

#[test]
fn docker_stop_loses_no_call_that_was_accepted() {
    let shell = Shell::start();
    shell.run(RUN);
    shell.answers(5000);
    let zip = STANDARD.encode(Function::python("tells", TELLS).zip());
    let body = json!({ "name": "tells", "env": "python3", "threads": 2, "zip": zip }).to_string();
    let url = "http://localhost:5000/upload";
    let deployed = request_with(&agent(), "POST", url, &[], body.as_bytes());
    drop(deployed.unwrap().expect_success());
    let told = UdpSocket::bind("0.0.0.0:0").unwrap();
    told.set_nonblocking(true).unwrap();
    let port = told.local_addr().unwrap().port();
    let (is_stopped, accepted) = (AtomicBool::new(false), AtomicU32::new(0));
    let call = |number: u32| {
        let body = format!("{port} {number}");
        let (url, header) = ("http://localhost:8000/tells", [("X-tinyFaaS-Async", "yes")]);
        let answer = request_with(&agent(), "POST", url, &header, body.as_bytes());
        let is_accepted = answer.is_ok_and(|answer| answer.status == 202);
        accepted.fetch_add(u32::from(is_accepted), Ordering::SeqCst);
    };
    // More than two handlers have done when it stops.
    (0..20).for_each(call);
    assert_eq!(accepted.load(Ordering::SeqCst), 20, "the control");
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 20.. {
                if is_stopped.load(Ordering::SeqCst) {
                    return;
                }
                call(number);
                thread::park_timeout(Duration::from_millis(50));
            }
        });
        shell.run("docker stop tinyfaas-mgmt");
        is_stopped.store(true, Ordering::SeqCst);
    });
    let mut buffer = [0; 64];
    let done = std::iter::from_fn(|| told.recv(&mut buffer).ok()).count();
    assert_eq!(done, accepted.load(Ordering::SeqCst) as usize);
    shell.leaves_nothing();
}

/// A call where an engine is. Addresses of the machine, but not of its loopback, go on without the
/// engine.
fn call(engine: &Engine, path: &str, body: &str) -> Option<String> {
    let mut curl = engine.command("curl");
    curl.args([
        "--silent",
        "--fail",
        "--max-time",
        "5",
        "--data-binary",
        body,
    ]);
    let output = curl.arg(format!("http://172.17.0.1:{path}")).output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

#[test]
fn the_images_set_up_comes_back_with_its_engine() {
    let mut engine = Engine::start_apart();
    let mut shell = Shell::start();
    for image in ["tinyfaas-mgmt", "python:3-alpine"] {
        engine.bring(image);
    }
    shell.host = Some(engine.host());
    shell.run(&RUN.replace(" -d ", " -d --restart always "));
    let body = upload_of_echo();
    until("the function is deployed", || {
        call(&engine, "5000/upload", &body)
    });
    assert_eq!(call(&engine, "8000/echo", "x").as_deref(), Some("x"));
    let before = shell.ours("-echo-");
    engine.kill();
    for _ in 0..20 {
        assert_eq!(call(&engine, "8000/echo", "x").as_deref(), Some("x"));
    }
    engine.restart();
    until("everything serves again", || {
        let is_echoed = call(&engine, "8000/echo", "x").as_deref() == Some("x");
        let now = shell.ours("-echo-");
        let is_new = now.len() == 2 && now.iter().all(|id| !before.contains(id));
        (is_echoed && is_new).then_some(())
    });
    assert_eq!(shell.networks().len(), 3);
    shell.run("docker stop tinyfaas-mgmt");
    shell.leaves_nothing();
}

#[test]
fn the_image_says_what_is_wrong_with_its_start() {
    let shell = Shell::start();
    let refused = |line: &str, expected: &str| {
        let said = shell.try_run(line).unwrap_err();
        assert!(said.contains(expected), "{line}: {said}");
    };
    let run = "docker run --rm -v /var/run/docker.sock:/var/run/docker.sock --name tinyfaas-mgmt \
               tinyfaas-mgmt";
    refused(
        &format!("{run} other-name"),
        "no container called other-name",
    );
    refused(
        "docker run --rm --name tinyfaas-mgmt tinyfaas-mgmt tinyfaas-mgmt",
        "-v /var/run/docker.sock:/var/run/docker.sock",
    );
    refused(
        &format!(
            "{} tinyfaas-mgmt",
            run.replace("--rm", "--rm --network host")
        ),
        "without --network host",
    );
    let taken = std::net::UdpSocket::bind("0.0.0.0:7001").unwrap();
    refused(&format!("{run} tinyfaas-mgmt 7001"), "choose another port");
    shell.leaves_nothing();
    drop(taken);
    let taken = std::net::TcpListener::bind("0.0.0.0:8000").unwrap();
    refused(&format!("{run} tinyfaas-mgmt"), "-e TINYFAAS_HTTP=PORT");
    shell.leaves_nothing();
    let elsewhere = run.replace("--rm", "--rm -d -e TINYFAAS_HTTP=off -p 5000:8080");
    shell.run(&format!("{elsewhere} tinyfaas-mgmt"));
    shell.answers(5000);
    shell.run("docker stop tinyfaas-mgmt");
    shell.leaves_nothing();
    drop(taken);
    let help = shell.run("docker run --rm tinyfaas-mgmt --help");
    assert!(help.contains("/var/run/docker.sock"), "{help}");
}

#[test]
#[ignore = "takes minutes: the whole program is built in a container"]
fn the_whole_dockerfile_builds() {
    let shell = Shell::at(&folder("E2E_REPOSITORY"));
    shell.sweep();
    shell.run(BUILD);
    shell.run(RUN);
    shell.answers(5000);
    shell.run(DEPLOY);
    let printed = shell.run(CALL);
    assert_eq!(numbers(&printed), primes(1000), "{printed}");
    shell.run("docker stop tinyfaas-mgmt");
    shell.leaves_nothing();
}
