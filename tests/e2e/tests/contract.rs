//! What every runtime does behind every endpoint, as clients that others wrote see it.

use e2e::{Call, Client, Function, Node, Outcome, Reply, until};

/// The clients, in the order in which they call.
const CLIENTS: [Client; 5] = [
    Client::Curl,
    Client::Libcoap,
    Client::Aiocoap,
    Client::CoapCli,
    Client::Grpcio,
];

/// What every function in `functions/` says when it is told to fail.
const MESSAGE: &str = "the function says no";

#[test]
fn nodejs_keeps_the_contract_over_every_endpoint() {
    keeps_the_contract("nodejs", &[]);
}

#[test]
fn python3_keeps_the_contract_over_every_endpoint() {
    keeps_the_contract("python3", &[]);
}

#[test]
fn go_keeps_the_contract_over_every_endpoint() {
    keeps_the_contract("go", &[]);
}

#[test]
fn binary_keeps_the_contract_over_every_endpoint() {
    keeps_the_contract("binary", &[]);
}

#[test]
fn wasm_keeps_the_contract_over_every_endpoint() {
    keeps_the_contract("wasm", &[]);
}

/// Containers instead of processes; the engine is the one that `cargo xtask test` brings.
const IN_CONTAINERS: &[&str] = &["--backend", "docker"];

#[test]
fn nodejs_keeps_the_contract_in_containers() {
    keeps_the_contract("nodejs", IN_CONTAINERS);
}

#[test]
fn python3_keeps_the_contract_in_containers() {
    keeps_the_contract("python3", IN_CONTAINERS);
}

#[test]
fn go_keeps_the_contract_in_containers() {
    keeps_the_contract("go", IN_CONTAINERS);
}

#[test]
fn binary_keeps_the_contract_in_containers() {
    keeps_the_contract("binary", IN_CONTAINERS);
}

/// Deploys the runtime's function on a node that is started with these arguments, such as another
/// backend, and calls it in every way.
fn keeps_the_contract(runtime: &str, args: &[&str]) {
    let node = Node::start_at(&e2e::Place::new(), args);
    let code = e2e::folder().join("functions").join(runtime);
    let function = Function::new("contract/fn", runtime).folder(&code);
    node.deploy(&function.clone().var("GREETING", "grüß dich = 1"));
    let mut hasty = function.set("deadline", "1s");
    hasty.name = "contract/hasty".to_owned();
    node.deploy(&hasty);
    let mut broken = Vec::new();
    for client in CLIENTS {
        broken.extend(broken_promises(&node, client));
    }
    assert!(broken.is_empty(), "{runtime}: {broken:#?}");
}

/// The payloads that come back as they went.
fn echoes() -> Vec<(&'static str, Vec<u8>)> {
    let every_byte = (0..=255).collect();
    let long = "0123456789".repeat(10_000);
    vec![
        ("text", "hello, wörld".into()),
        ("256 distinct bytes", every_byte),
        ("100 kB", long.into_bytes()),
        // More than a handler's socket takes at once.
        ("1.2 MB", "grüße, ".repeat(150_000).into_bytes()),
        ("an empty payload", Vec::new()),
    ]
}

/// What a client found that is not as it must be.
fn broken_promises(node: &Node, client: Client) -> Vec<String> {
    let mut broken = Vec::new();
    let mut check = |what: &str, holds: bool, reply: &Reply| {
        if !holds {
            let text: String = reply.text().chars().take(200).collect();
            let status = &reply.status;
            broken.push(format!("{client:?}, {what}: {status} {text:?}"));
        }
    };
    let ask = |name: &str, payload: &str| client.call(node, &Call::new(name, payload.as_bytes()));
    let reply = ask("contract/fn", "is anybody there?");
    if reply.outcome != Outcome::Success {
        // Every other call would wait as long.
        return vec![format!("{client:?}: {} {:?}", reply.status, reply.text())];
    }
    for (what, payload) in echoes() {
        if client.takes(&payload) {
            let reply = client.call(node, &Call::new("contract/fn", &payload));
            let is_same = reply.outcome == Outcome::Success && reply.payload == payload;
            check(what, is_same, &reply);
        }
    }
    let reply = ask("contract/fn", "do:env GREETING");
    check("variable", reply.text() == "grüß dich = 1", &reply);
    if let Some((call, expected)) = with_header(client) {
        let reply = client.call(node, &call);
        check("header", reply.text() == expected, &reply);
    }
    let reply = ask("contract/fn", "do:fail");
    let is_told = reply.outcome == Outcome::FunctionError && reply.text().contains(MESSAGE);
    check("function error", is_told, &reply);
    check("whose fault", is_function_blamed(client, &reply), &reply);
    let reply = ask("contract/fn", "do:crash");
    check("crash", reply.outcome == Outcome::FunctionError, &reply);
    serves_again(node, client, "contract/fn");
    let reply = ask("contract/hasty", "do:sleep");
    check("deadline", reply.outcome == Outcome::Deadline, &reply);
    serves_again(node, client, "contract/hasty");
    let reply = ask("contract/nobody", "hello");
    let is_told = reply.outcome == Outcome::UnknownName;
    check("unknown name", is_told, &reply);
    broken
}

/// A call with a header that the function is to see, and what it sees.
fn with_header(client: Client) -> Option<(Call<'static>, &'static str)> {
    let call = Call::new("contract/fn", b"do:header x-test");
    match client {
        Client::Curl | Client::Grpcio => {
            let header = Some(("x-test", "seen 1"));
            Some((Call { header, ..call }, "seen 1"))
        }
        Client::Libcoap | Client::Aiocoap => {
            let call = Call {
                payload: b"do:header content-type",
                content_format: Some(50),
                ..call
            };
            Some((call, "application/json"))
        }
        Client::CoapCli => None,
    }
}

/// CoAP has no header that could tell.
fn is_function_blamed(client: Client, reply: &Reply) -> bool {
    match client {
        Client::Curl | Client::Grpcio => reply.fault.as_deref() == Some("function"),
        Client::Libcoap | Client::Aiocoap | Client::CoapCli => reply.fault.is_none(),
    }
}

/// A handler that keeps dying is restarted with growing pauses, so this may take a moment.
fn serves_again(node: &Node, client: Client, name: &str) {
    until("the function serves again", || {
        let reply = client.call(node, &Call::new(name, b"again"));
        (reply.outcome == Outcome::Success).then_some(())
    });
}
