//! The bundled examples: `tinyfaas serve --examples` deploys them and each can be called.

use e2e::{Call, Client, Node, Outcome, Place};

#[test]
fn every_bundled_example_is_deployed_and_answers_over_every_endpoint() {
    let node = Node::start_at(&Place::new(), &["--examples"]);
    let list = node.manage("GET", "/list", b"").text();
    let names: Vec<_> = list.lines().collect();
    let folder = e2e::folder().join("../../examples");
    let examples = std::fs::read_dir(folder).unwrap();
    let examples = examples.filter(|entry| entry.as_ref().is_ok_and(|e| e.path().is_dir()));
    assert_eq!(names.len(), examples.count(), "{list}\n{}", node.log());
    for name in names {
        for client in [Client::Curl, Client::Libcoap, Client::Grpcio] {
            let reply = client.call(&node, &Call::new(name, b"you"));
            assert_eq!(
                reply.outcome,
                Outcome::Success,
                "{name}, {client:?}: {reply:?}"
            );
            if name.starts_with("sieve") {
                let text = reply.text();
                assert!(
                    text.contains("997") && !text.contains("999"),
                    "{name}: {text}"
                );
            }
        }
    }
}
