//! WebAssembly functions from their sources, over TLS, and on hosts with few addresses.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use e2e::{Function, Node, Place, folder, until};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn run(command: &mut Command) {
    let output = command.output().expect("the program is there");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}

/// The compiler's cache, so that only the first run of the tests takes long.
fn cache(name: &str) -> PathBuf {
    let cache = e2e::python().with_file_name("").join("../../cache");
    let cache = cache.join(name);
    std::fs::create_dir_all(&cache).unwrap();
    cache.canonicalize().unwrap()
}

fn compile_c(source: &Path, module: &Path) {
    run(Command::new(e2e::python())
        .args(["-m", "ziglang", "cc", "--target=wasm32-wasi", "-Os", "-s"])
        .arg("-o")
        .arg(module)
        .arg(source)
        .env("ZIG_GLOBAL_CACHE_DIR", cache("zig")));
}

fn compile_go(source: &Path, module: &Path) {
    run(Command::new(e2e::python().with_file_name("go"))
        .args(["build", "-ldflags=-s -w", "-o"])
        .arg(module)
        .arg(source)
        .env("GOOS", "wasip1")
        .env("GOARCH", "wasm")
        .env("GOCACHE", cache("go")));
}

#[test]
fn examples_in_c_and_go_are_built_from_their_sources_and_answer() {
    let node = Node::start();
    let examples = folder().join("../../examples");
    for (source, is_echo) in [
        ("echo-wasm/fn.c", true),
        ("sieve-wasm/fn.c", false),
        ("echo-wasm/go/main.go", true),
        ("sieve-wasm/go/main.go", false),
    ] {
        let module = node.place.folder().join("built.wasm");
        if source.ends_with(".c") {
            compile_c(&examples.join(source), &module);
        } else {
            compile_go(&examples.join(source), &module);
        }
        let module = std::fs::read(module).unwrap();
        node.deploy(&Function::new("built", "wasm").file("fn.wasm", module));
        for _ in 0..3 {
            let reply = node.post("built", b"a payload").expect_success().text();
            if is_echo {
                assert_eq!(reply, "a payload", "{source}");
            } else {
                assert!(reply.starts_with("2,3,5,7,11,"), "{source}: {reply}");
                assert!(reply.trim_end().ends_with(",991,997"), "{source}: {reply}");
            }
        }
    }
}

/// A server with TLS, in Python, and what clients have to trust.
struct TlsServer {
    child: Child,
    port: u16,
    certificate: PathBuf,
}

impl TlsServer {
    fn start(folder: &Path) -> Self {
        let (key, certificate) = (folder.join("key.pem"), folder.join("certificate.pem"));
        run(Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
            .args(["ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
            .args([
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost",
            ])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate));
        std::fs::write(folder.join("secret.txt"), "over TLS").unwrap();
        let code = "
import http.server, ssl, sys
server = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('certificate.pem', 'key.pem')
server.socket = context.wrap_socket(server.socket, server_side=True)
open('port.new', 'w').write(str(server.server_port))
import os; os.rename('port.new', 'port')
server.serve_forever()";
        let child = Command::new(e2e::python())
            .args(["-c", code])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let port = until("the server listens", || {
            std::fs::read_to_string(folder.join("port"))
                .ok()?
                .parse()
                .ok()
        });
        Self {
            child,
            port,
            certificate,
        }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_component_sends_over_tls_to_the_hosts_on_its_list_alone() {
    let place = Place::new();
    let server = TlsServer::start(place.folder());
    let trusted = [("SSL_CERT_FILE", server.certificate.as_os_str())];
    let node = Node::start_command(&place, place.serve(&[]).envs(trusted));
    let module = folder().join("../../crates/backend-wasm/tests/http-function/fn.wasm");
    let module = std::fs::read(module).unwrap();
    let function = Function::new("fetch", "wasm").file("fn.wasm", &module);
    let url = format!("fetch?fetch=https://localhost:{}/secret.txt", server.port);
    let host = format!("localhost:{}", server.port);
    let allowed = function.clone().set("allow_host", &host);
    node.deploy(&allowed);
    assert_eq!(node.post(&url, b"").text(), "200 over TLS");
    assert_eq!(node.describe("fetch")["allow_hosts"][0], host.as_str());
    node.deploy(&function.clone().set("allow_host", "example.org"));
    assert!(node.post(&url, b"").text().contains("HttpRequestDenied"));
    node.stop();
    // Where the host does not trust the certificate, neither does the component.
    let node = Node::start_at(&place, &[]);
    node.deploy(&allowed);
    let text = node.post(&url, b"").text();
    assert!(text.contains("TlsCertificateError"), "{text}");
}

#[test]
fn hosts_are_for_wasm_alone_and_must_be_hosts() {
    let node = Node::start();
    let python = Function::python("f", "def fn(input): return input");
    let refused = node.try_deploy(&python.clone().set("allow_host", "example.org"));
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(
        refused.text().contains("network=true"),
        "{}",
        refused.text()
    );
    let refused = node.try_deploy(&python.set("allow_host", "https://example.org/"));
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(
        refused.text().contains("*.example.org"),
        "{}",
        refused.text()
    );
}

/// A node that may take so many bytes of addresses.
fn start_within(place: &Place, bytes: u64) -> Node {
    let serve = place.serve(&[]);
    let mut bounded = Command::new("prlimit");
    bounded
        .arg(format!("--as={bytes}"))
        .arg(serve.get_program());
    bounded.args(serve.get_args()).current_dir(place.folder());
    for (name, value) in serve.get_envs() {
        match value {
            Some(value) => bounded.env(name, value),
            None => bounded.env_remove(name),
        };
    }
    bounded.stdin(Stdio::null());
    Node::start_command(place, &mut bounded)
}

fn pool_of(node: &Node) -> String {
    let status = node.manage("GET", "/v1/status", b"").expect_success();
    let status = status.json();
    let isolation = status["isolation"].as_array().unwrap();
    let mut means = isolation.iter();
    let pool = means.find(|means| means["name"] == "wasm instance pool");
    pool.expect("the status has it").to_string()
}

#[test]
fn a_host_with_few_addresses_has_a_small_pool_or_none_and_runs_functions_all_the_same() {
    let examples = folder().join("../../examples");
    let module = std::fs::read(examples.join("echo-wasm/fn.wasm")).unwrap();
    let echo = Function::new("echo", "wasm").file("fn.wasm", module);
    for (gib, words) in [(4, "100 instances at once"), (1, "off: there are too few")] {
        let place = Place::new();
        let node = start_within(&place, gib << 30);
        // The pool is made with the first function that wants it.
        node.deploy(&echo);
        let pool = pool_of(&node);
        assert!(pool.contains(words), "{gib} GiB: {pool}");
        for _ in 0..10 {
            assert_eq!(node.post("echo", b"all the same").text(), "all the same");
        }
    }
}
