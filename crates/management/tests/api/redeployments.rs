//! What a redeployment keeps, and settings that change without code.

use crate::node::{Node, Setup, wait_for};
use crate::pack;
use faas::Limits;
use serde_json::{Value, json};

const PATH: &str = "/v1/functions/f";

fn put(node: &Node, query: &str, text: &str) -> Value {
    let answer = node.put(&format!("{PATH}?{query}"), &pack::function(text));
    assert!(answer.status < 300, "{}", answer.text);
    answer.json()
}

fn patch(node: &Node, query: &str) -> Value {
    let answer = node.call("PATCH", &format!("{PATH}?{query}"), &[], b"");
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

const SETTINGS: &str = "threads=2&memory=128MiB&deadline=5s&var=A%3D1&var=B%3D2&network=true";

#[test]
fn a_redeployment_keeps_what_it_does_not_name_and_says_so() {
    let node = Node::start();
    let first = put(&node, SETTINGS, "1");
    assert_eq!(first["kept"], json!([]));
    let second = put(&node, "memory=64MiB&var=B%3D3&var=C%3D4", "2");
    assert_eq!(
        second["kept"],
        json!(["threads", "envs", "network", "deadline"])
    );
    assert_eq!(second["handlers"]["wanted"], 2);
    assert_eq!(second["limits"]["memory_bytes"], 64 << 20);
    assert_eq!(second["limits"]["deadline_ms"], 5000);
    assert_eq!(second["envs"], json!(["A", "B", "C"]));
    assert_eq!(second["network"], first["network"]);
    assert_eq!(node.invoke("f").unwrap(), "2");
    let third = put(&node, "reset=true&threads=3", "3");
    assert_eq!(third["kept"], json!([]));
    assert_eq!(third["handlers"]["wanted"], 3);
    assert_eq!(third["envs"], json!([]));
    let fresh = put(&Node::start(), "threads=3", "3");
    assert_eq!(third["limits"], fresh["limits"]);
    assert_eq!(third["network"], fresh["network"]);
}

#[test]
fn another_runtime_gets_its_own_defaults() {
    let node = Node::start();
    put(&node, "env=wasm&allow_host=example.org", "1");
    let python = put(&node, "env=python3", "2");
    let fresh = put(&Node::start(), "env=python3", "2");
    assert_eq!(python["handlers"]["wanted"], fresh["handlers"]["wanted"]);
    assert_eq!(python["limits"], fresh["limits"]);
    assert_eq!(python["allow_hosts"], json!([]));
}

#[test]
fn the_calls_of_the_original_send_variables_whole_and_keep_what_they_can_not_name() {
    let node = Node::start();
    put(&node, SETTINGS, "1");
    let answer = node.post("/upload", &pack::upload("f", "2"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    let shape = node.get(PATH).json();
    assert_eq!(shape["envs"], json!([]));
    assert_eq!(shape["handlers"]["wanted"], 1);
    assert_eq!(shape["limits"]["memory_bytes"], 128 << 20);
}

#[test]
fn a_setting_changes_without_code_and_outlives_a_restart() {
    let node = Node::start();
    let before = put(&node, SETTINGS, "code");
    let after = patch(&node, "memory=512MiB&unset=A&var=C%3D3");
    assert_eq!(after["limits"]["memory_bytes"], 512 << 20);
    assert_eq!(after["envs"], json!(["B", "C"]));
    assert_eq!(after["handlers"]["wanted"], 2);
    for member in ["digest", "files", "packed_bytes", "runtime"] {
        assert_eq!(before[member], after[member], "{member}");
    }
    assert_eq!(node.invoke("f").unwrap(), "code");
    let json = [("content-type", "application/json")];
    let answer = node.call(
        "PATCH",
        PATH,
        &json,
        br#"{"threads": 3, "envs": {"D": "4"}}"#,
    );
    assert_eq!(answer.status, 200, "{}", answer.text);
    node.wait_for_codes(1);
    let node = Node::try_with(Default::default(), node.kill()).unwrap();
    assert_eq!(node.invoke("f").unwrap(), "code");
    wait_for("readiness", || node.get("/readyz").status == 200);
    let shape = node.get(PATH).json();
    assert_eq!(shape["handlers"]["wanted"], 3);
    assert_eq!(shape["limits"]["memory_bytes"], 512 << 20);
    assert_eq!(shape["envs"], json!(["B", "C", "D"]));
    assert_eq!(node.call("PATCH", PATH, &[], b"").status, 200);
    assert_eq!(node.get(PATH).json()["limits"], shape["limits"]);
}

#[test]
fn a_setting_that_can_not_be_is_refused_and_nothing_changes() {
    let node = Node::start();
    let before = put(&node, SETTINGS, "code");
    for query in [
        "memory=1",
        "threads=0",
        "colour=red",
        "allow_host=example.org",
    ] {
        let answer = node.call("PATCH", &format!("{PATH}?{query}"), &[], b"");
        assert_eq!(answer.status, 400, "{query}: {}", answer.text);
    }
    let missing = node.call("PATCH", "/v1/functions/g?memory=64MiB", &[], b"");
    assert_eq!(missing.status, 404);
    let after = node.get(PATH).json();
    assert_eq!(before["limits"], after["limits"]);
    assert_eq!(before["deployed_at"], after["deployed_at"]);
    assert_eq!(node.invoke("f").unwrap(), "code");
    node.wait_for_codes(1);
}

#[test]
fn a_setting_that_does_nothing_for_its_runtime_is_refused_by_deploy_and_set() {
    let node = Node::start();
    let check = |runtime: &str, query: &str, field: &str| {
        let archive = pack::zip(&[("fn.py", "code"), ("fn.wasm", "")]);
        let path = format!("/v1/functions/{runtime}");
        let deployed = node.put(&format!("{path}?runtime={runtime}&{query}"), &archive);
        assert_eq!(deployed.status, 400, "{runtime} {query}: {}", deployed.text);
        assert_eq!(deployed.json()["field"], field, "{}", deployed.text);
        let plain = node.put(&format!("{path}?runtime={runtime}"), &archive);
        assert!(plain.status < 300, "{}", plain.text);
        let set = node.call("PATCH", &format!("{path}?{query}"), &[], b"");
        assert_eq!(set.status, 400, "{runtime} {query}: {}", set.text);
        assert_eq!(set.json()["field"], field, "{}", set.text);
    };
    for runtime in ["python3", "go", "binary", "wasm"] {
        check(runtime, "allow_scripts=true", "allow_scripts");
    }
    for runtime in ["python3", "go", "binary", "nodejs"] {
        check(runtime, "allow_host=example.org", "allow_hosts");
    }
    check("wasm", "network=true", "network");
    check("wasm", "host_network=true", "network");
    check("wasm", "host_port=1", "network");
    for limit in ["pids=9", "tmp=1MiB", "tmp_files=9", "open_files=9"] {
        let field = limit.split('=').next().unwrap();
        check("wasm", limit, field);
    }
    // What is turned off is nothing to refuse.
    let off = "allow_scripts=false&network=false";
    let answer = node.call("PATCH", &format!("/v1/functions/wasm?{off}"), &[], b"");
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[test]
fn more_memory_or_cores_than_the_machine_has_are_refused() {
    let node = Node::with(Setup {
        limits: Limits {
            handler_memory_bytes_max: 512 << 20,
            handler_cpu_millis_max: 2000,
            ..Limits::default()
        },
        ..Setup::default()
    });
    let archive = pack::zip(&[("fn.py", "code")]);
    for (query, field) in [("memory=900G", "memory"), ("tmp=513MiB", "tmp")] {
        let answer = node.put(&format!("{PATH}?runtime=python3&{query}"), &archive);
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert_eq!(answer.json()["field"], field);
        assert!(answer.text.contains("512MiB"), "{}", answer.text);
    }
    for cpu in ["2.001", "4000000"] {
        let answer = node.put(&format!("{PATH}?runtime=python3&cpu={cpu}"), &archive);
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert_eq!(answer.json()["field"], "cpu");
        let range = "between 0.01 and the 2 cores";
        assert!(answer.text.contains(range), "{}", answer.text);
    }
    let fits = "runtime=python3&memory=512MiB&cpu=2";
    let fits = node.put(&format!("{PATH}?{fits}"), &archive);
    assert_eq!(fits.status, 201, "{}", fits.text);
}

#[test]
fn which_pages_may_call_is_a_setting_like_others() {
    let node = Node::start();
    let cors = |shape: &Value| shape["cors"].as_str().unwrap().to_owned();
    assert_eq!(cors(&put(&node, "threads=1", "1")), "default");
    let named = "cors=https://App.example&cors=http%3A%2F%2Flocalhost%3A3000";
    let origins = "https://app.example,http://localhost:3000";
    assert_eq!(cors(&put(&node, named, "1")), origins);
    let kept = put(&node, "threads=1", "2");
    assert_eq!(
        (cors(&kept), &kept["kept"]),
        (origins.to_owned(), &json!(["cors"]))
    );
    // The calls of the original can't name it.
    let answer = node.post("/upload", &pack::upload("f", "2"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(cors(&node.get(PATH).json()), origins);
    for word in ["none", "function", "*"] {
        assert_eq!(cors(&patch(&node, &format!("cors={word}"))), word);
    }
    for (sent, shown) in [
        (
            json!({"cors": ["https://a.example", "https://b.example"]}),
            "https://a.example,https://b.example",
        ),
        (json!({"cors": "https://a.example"}), "https://a.example"),
        (json!({"cors": "default"}), "default"),
        (json!({"cors": ["*"]}), "*"),
    ] {
        let body = sent.to_string();
        let answer = node.call("PATCH", PATH, &[], body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(cors(&answer.json()), shown, "{sent}");
    }
    let node = Node::try_with(Default::default(), node.kill()).unwrap();
    assert_eq!(cors(&node.get(PATH).json()), "*");
    assert_eq!(cors(&put(&node, "reset=true", "2")), "default");
    let many: Vec<_> = (0..65)
        .map(|n| format!("cors=http://a{n}.example"))
        .collect();
    let many = many.join("&");
    for bad in [
        "cors=",
        "cors=null",
        "cors=a.example",
        "cors=*&cors=none",
        &many,
    ] {
        let answer = node.call("PATCH", &format!("{PATH}?{bad}"), &[], b"");
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text);
        assert_eq!(answer.json()["field"], "cors", "{bad}");
        assert!(answer.json()["fix"].is_string(), "{bad}");
    }
    assert_eq!(cors(&node.get(PATH).json()), "default");
}
