//! Functions that use npm packages which were written for servers.

use e2e::{Answer, Function, Node};
use serde_json::json;
use std::path::Path;

const FORM: &str = "multipart/form-data; boundary=B";
const FORM_BODY: &str = "--B\r\ncontent-disposition: form-data; name=\"f\"; filename=\"b\"\r\n\
    content-type: application/octet-stream\r\n\r\n12345678\r\n--B\r\n\
    content-disposition: form-data; name=\"t\"\r\n\r\nhello\r\n--B--\r\n";
const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn express_4_applications_are_functions() {
    applications_are_functions("4.19.2");
}

#[test]
fn express_5_applications_are_functions() {
    applications_are_functions("5.1.0");
}

fn applications_are_functions(express: &str) {
    let node = Node::start();
    let (app, inside) = (function("app", express), function("inside", express));
    node.deploy(&app);
    node.deploy(&inside.var("PLAIN", "inside"));
    for name in ["app", "inside"] {
        answers_as_an_application(&node, name);
    }
}

fn answers_as_an_application(node: &Node, name: &str) {
    let get = |route: &str| {
        let query = format!("{name}?route={route}");
        node.call("GET", &query, &[], b"")
    };
    let post =
        |query: &str, body: &[u8]| node.call("POST", &format!("{name}?{query}"), &[JSON], body);
    let answer = post("q=1", br#"{"a":1}"#);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let path = format!("/{name}");
    let expected = json!({"got": {"a": 1}, "path": path, "q": "1"});
    assert_eq!(answer.json(), expected);
    assert_eq!(post("", b"{").status, 400);
    assert_eq!(
        cookies_of(&get("cookies")),
        ["a=b; Path=/; HttpOnly", "c=d; Path=/"]
    );
    assert!(get("file").text().starts_with("'use strict'"));
    assert_eq!(get("stream").text(), "ab");
    let redirect = get("redirect");
    assert_eq!(redirect.header("location"), Some("/elsewhere"));
    let thrown = get("throw");
    assert_eq!(thrown.status, 500);
    assert!(
        !thrown.text().contains("not for callers"),
        "{}",
        thrown.text()
    );
    let stray = get("stray");
    assert_eq!((stray.status, stray.text()), (500, "Error: stray\n".into()));
    assert_eq!(get("none").status, 404);
}

#[test]
fn middleware_reads_and_writes_what_a_plain_function_is_given() {
    let node = Node::start();
    let form = ("content-type", FORM);
    for name in ["busboy", "multer"] {
        node.deploy(&function(name, "4.19.2").var("PLAIN", name));
        let answer = node.call("POST", name, &[form], FORM_BODY.as_bytes());
        assert_eq!(answer.json(), json!({"t": "hello", "f": 8}), "{name}");
    }
    node.deploy(&function("wrapped", "4.19.2").var("PLAIN", "wrapped"));
    let headers = [("cookie", "x=1"), ("accept-encoding", "identity")];
    let answer = node.call("GET", "wrapped", &headers, b"");
    assert_eq!(answer.json(), json!({"x": "1"}));
    assert_eq!(cookies_of(&answer), ["n=11; Path=/"]);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let headers = [("cookie", "x=1"), ("accept-encoding", "gzip")];
    let answer = node.call("GET", "wrapped", &headers, b"");
    assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
}

fn function(name: &str, express: &str) -> Function {
    let dependencies = json!({
        "express": express, "busboy": "1.6.0", "multer": "1.4.5-lts.2", "cookie-parser": "1.4.6",
        "cors": "2.8.5", "compression": "1.7.4",
    });
    let manifest = json!({"name": "fn", "version": "1.0.0", "dependencies": dependencies});
    let code = Path::new(env!("CARGO_MANIFEST_DIR")).join("functions/packages");
    Function::new(name, "nodejs")
        .folder(&code)
        .file("package.json", manifest.to_string())
}

fn cookies_of(answer: &Answer) -> Vec<&str> {
    let cookies = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "set-cookie");
    cookies.map(|(_, value)| value.as_str()).collect()
}
