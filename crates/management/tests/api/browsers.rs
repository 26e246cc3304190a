//! Who may call: tokens, and pages of other sites.

use crate::node::{Node, Setup};
use crate::pack;

#[test]
fn every_call_but_health_needs_the_token_where_there_is_one() {
    let open = Node::with(Setup {
        token: Some("secret".to_owned()),
        ..Setup::default()
    });
    assert_eq!(open.get("/list").status, 200);
    for path in [
        "/list",
        "/logs",
        "/v1/functions",
        "/v1/status",
        "/nothing",
        "/",
    ] {
        let sent = [("authorization", "Bearer wrong")];
        let url = format!("http://{}{path}", open.addr);
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .new_agent();
        let answer = agent.get(&url).header(sent[0].0, sent[0].1).call().unwrap();
        assert_eq!(answer.status(), 401, "{path}");
        let answer = agent.get(&url).call().unwrap();
        assert_eq!(answer.status(), 401, "{path}");
        let challenge = answer.headers().get("www-authenticate").unwrap();
        assert!(challenge.to_str().unwrap().starts_with("Bearer"));
    }
    for path in ["/healthz", "/readyz"] {
        let url = format!("http://{}{path}", open.addr);
        assert_eq!(ureq::get(&url).call().unwrap().status(), 200, "{path}");
    }
}

#[test]
fn pages_of_other_sites_can_not_deploy() {
    let node = Node::start();
    let host = node.addr.to_string();
    let own = format!("http://{host}");
    let body = pack::upload("f", "1");
    let check = |headers: &[(&str, &str)], status: u16| {
        let answer = node.call("POST", "/upload", headers, body.as_bytes());
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text);
    };
    check(&[("origin", "https://evil.example")], 403);
    check(&[("origin", "null")], 403);
    check(&[("host", "rebound.evil.example:8080")], 403);
    check(
        &[("host", "evil.example"), ("origin", "http://evil.example")],
        403,
    );
    assert_eq!(node.get("/list").text, "");
    check(&[("origin", &own)], 200);
    check(&[("host", "localhost:8080")], 200);
    check(&[("host", "tinyfaas-mgmt:8080")], 200);
    check(&[("host", "[::1]:8080")], 200);
}
