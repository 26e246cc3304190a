//! Requests: the calls and their answers, and what is refused with which words.

use crate::node::{Node, Setup};
use crate::pack;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use faas::Limits;
use std::io::{Read, Write};
use std::net::TcpListener;

#[test]
fn the_old_calls_deploy_list_and_delete() {
    let node = Node::start();
    let answer = node.post("/upload", &pack::upload("sieve", "primes"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(
        answer.text,
        "coap://127.0.0.1:5683/sieve\nhttp://127.0.0.1:8000/sieve\n"
    );
    assert_eq!(node.invoke("sieve").unwrap(), "primes");
    node.post("/upload", &pack::upload("a/b", "2"));
    assert_eq!(node.get("/list").text, "a/b\nsieve\n");
    let logs = node.get("/logs?name=sieve").text;
    assert!(
        logs.ends_with("function=sieve handler=sieve-0 called\n"),
        "{logs}"
    );
    assert!(
        node.get("/logs")
            .text
            .contains("function=a/b handler=build starting\n")
    );
    assert_eq!(node.get("/logs?name=none").status, 404);
    assert_eq!(node.post("/delete", r#"{"name":"sieve"}"#).status, 200);
    assert_eq!(node.post("/delete", r#"{"name":"sieve"}"#).status, 404);
    assert_eq!(node.post("/wipe", "").status, 200);
    assert_eq!(node.get("/list").text, "");
    node.wait_for_codes(0);
}

#[test]
fn the_original_call_takes_a_folder_below_the_handlers_directory() {
    let node = Node::start();
    let folder = node.dir().path().join("handlers/sieve-of-erasthostenes");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("sieve.js"), "module.exports").unwrap();
    std::fs::write(folder.join("fn.py"), "2 3 5").unwrap();
    let body = r#"{"path": "sieve-of-erasthostenes", "resource": "/sieve/primes", "entry": "sieve.js", "threads": 4}"#;
    let answer = node.post("/", body);
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(
        answer
            .text
            .starts_with("coap://127.0.0.1:5683/sieve/primes\n")
    );
    assert_eq!(node.invoke("sieve/primes").unwrap(), "2 3 5");
    let shape = node.get("/v1/functions/sieve%2Fprimes").json();
    assert_eq!(shape["entry"], "sieve.js");
    assert_eq!(shape["handlers"]["ready"], 4);
    let check = |from: &str, to: &str, field: &str| {
        let answer = node.post("/", &body.replace(from, to));
        assert_eq!(answer.status, 400, "{to}: {}", answer.text);
        assert!(
            answer.text.starts_with(&format!("{field}: ")),
            "{}",
            answer.text
        );
        assert_eq!(answer.text.lines().count(), 1);
    };
    check("sieve-of-erasthostenes", "../data", "path");
    check("sieve-of-erasthostenes", "/etc", "path");
    check("sieve-of-erasthostenes", "nowhere", "path");
    check("sieve.js\"", "none.js\"", "entry");
    check("sieve.js\"", "../../data/lock\"", "entry");
    check("/sieve/primes", "/../x", "resource");
    check("\"threads\": 4", "\"threads\": 0", "threads");
    check("\"threads\": 4", "\"threads\": \"many\"", "threads");
    check("\"path\"", "\"paht\"", "path");
    node.wait_for_codes(1);
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "the cases are data, one line or two each"
)]
fn bad_old_requests_are_answered_with_a_line_that_names_the_field() {
    let node = Node::start();
    let check = |path: &str, body: &str, status: u16, words: &str| {
        let answer = node.post(path, body);
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
        assert!(
            answer.text.contains(words),
            "{words:?} is not in {:?}",
            answer.text
        );
    };
    let good = pack::upload("f", "1");
    check("/upload", "", 400, "body: it is no JSON object");
    check("/upload", "[1]", 400, "body: it is no JSON object");
    check("/upload", "{}", 400, "zip: it is missing");
    check("/upload", &good.replace("\"f\"", "\"a b\""), 400, "name: ");
    check(
        "/upload",
        &good.replace("\"f\"", "7"),
        400,
        "name: expected a JSON string",
    );
    check(
        "/upload",
        &good.replace("python3", "cobol"),
        400,
        "env: \"cobol\"",
    );
    check(
        "/upload",
        &good.replace("\"env\"", "\"e\""),
        400,
        "env: it is missing",
    );
    check("/upload", &good.replace(":1,", ":1000,"), 400, "threads: ");
    check(
        "/upload",
        &good.replace(":1,", ":[1],"),
        400,
        "threads: it is a list",
    );
    check("/upload", &good.replace("[]", "7"), 400, "envs: ");
    check(
        "/upload",
        &good.replace("[]", "[\"A\"]"),
        400,
        "envs: a variable has no \"=\"",
    );
    check(
        "/upload",
        &good.replace("[]", "[\"1A=x\"]"),
        400,
        "envs: \"1A\"",
    );
    check(
        "/upload",
        &good.replace("[]", "[\"TINYFAAS_X=x\"]"),
        400,
        "reserved",
    );
    check(
        "/upload",
        &good.replace("[]", "[\"A=1\",\"A=2\"]"),
        400,
        "twice",
    );
    check(
        "/upload",
        &good.replace("[]", "[\"A=\\u0000\"]"),
        400,
        "NUL",
    );
    check(
        "/upload",
        r#"{"name":"f","env":"go","zip":"!!"}"#,
        400,
        "zip: it is no base64",
    );
    let text = STANDARD.encode("no archive");
    let body = format!(r#"{{"name":"f","env":"go","zip":"{text}"}}"#);
    check(
        "/upload",
        &body,
        400,
        "zip: expected a zip or tar.gz archive",
    );
    check(
        "/upload",
        &pack::upload("f", "BUILD FAILS"),
        422,
        "it did not work; mend it\nline 1\nline 2",
    );
    check(
        "/upload",
        &pack::upload("f", "LOAD FAILS"),
        422,
        "it did not work; mend it\nline 1\nline 2",
    );
    check(
        "/upload",
        &pack::upload("f", "HOST FAILS"),
        503,
        "no memory is left",
    );
    check(
        "/uploadURL",
        r#"{"name":"f","env":"go"}"#,
        400,
        "url: it is missing",
    );
    let body = r#"{"name":"f","env":"go","url":"file:///etc/passwd"}"#;
    check(
        "/uploadURL",
        body,
        400,
        "url: \"file:///etc/passwd\" is no http",
    );
    check(
        "/delete",
        r#"{"name":"f"}"#,
        404,
        "no function named \"f\" is deployed",
    );
    check("/delete", r#"{"name":""}"#, 400, "name: it is missing");
    node.wait_for_codes(0);
}

#[test]
fn numbers_may_come_as_text_and_base64_in_lines() {
    let node = Node::start();
    let body = pack::upload("f", "1").replace(":1,", ":\"3\",");
    let zip = STANDARD.encode(pack::function("1"));
    let body = body.replace(&zip, &format!("{}\\n{}\\n", &zip[..40], &zip[40..]));
    let body = body.replace("[]", "{\"A\": \"x=y\"}");
    assert_eq!(node.post("/upload", &body).status, 200);
    let shape = node.get("/v1/functions/f").json();
    assert_eq!(shape["handlers"]["wanted"], 3);
    assert_eq!(shape["envs"], serde_json::json!(["A"]));
}

#[test]
fn v1_tells_everything_of_a_function() {
    let node = Node::start();
    let query = "runtime=python3&threads=2&var=A%3D1&var=B%3Dx%3Dy&memory=64MiB&cpu=0.5&deadline=500ms&queue=7&network=true&pids=9&tmp=1M";
    let answer = node.put(
        &format!("/v1/functions/a%2Fb?{query}"),
        &pack::function("SICK"),
    );
    assert_eq!(answer.status, 201, "{}", answer.text);
    let shape = node.get("/v1/functions/a%2Fb").json();
    assert_eq!(shape["name"], "a/b");
    assert_eq!(shape["state"], "degraded");
    assert_eq!(shape["envs"], serde_json::json!(["A", "B"]));
    assert_eq!(shape["network"], true);
    assert_eq!(shape["limits"]["memory_bytes"], 64 << 20);
    assert_eq!(shape["limits"]["cpu_millis"], 500);
    assert_eq!(shape["limits"]["deadline_ms"], 500);
    assert_eq!(shape["limits"]["queue"], 7);
    assert_eq!(shape["handlers"]["restarts"], 6);
    assert_eq!(shape["handlers"]["each"][0]["reason"], "exit status 1");
    assert_eq!(shape["digest"].as_str().unwrap().len(), 64);
    assert_eq!(shape["urls"][0], "coap://127.0.0.1:5683/a/b");
    node.invoke("a/b").unwrap();
    let list = node.get("/v1/functions").json();
    assert_eq!(list["functions"][0]["invocations"], 1);
    assert_eq!(
        node.put("/v1/functions/a%2Fb", &pack::function("2")).status,
        200
    );
    assert_eq!(node.get("/v1/functions/a%2Fb").json()["state"], "ready");
    assert_eq!(node.delete("/v1/functions/a%2Fb").status, 204);
    assert_eq!(node.delete("/v1/functions/a%2Fb").status, 404);
    assert_eq!(node.get("/v1/functions/a%2Fb").status, 404);
}

#[test]
fn v1_takes_multipart_bodies() {
    let node = Node::start();
    let mut body = b"--B\r\nContent-Disposition: form-data; name=\"settings\"\r\n\r\n".to_vec();
    body.extend_from_slice(br#"{"threads": 2, "envs": {"A": "1"}, "deadline": "2s"}"#);
    body.extend_from_slice(
        b"\r\n--B\r\nContent-Disposition: form-data; name=\"archive\"; filename=\"a.zip\"\r\n\r\n",
    );
    body.extend_from_slice(&pack::function("1"));
    body.extend_from_slice(b"\r\n--B--\r\n");
    let media = [("content-type", "multipart/form-data; boundary=B")];
    let answer = node.call("PUT", "/v1/functions/f", &media, &body);
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.json()["handlers"]["wanted"], 2);
    assert_eq!(answer.json()["limits"]["deadline_ms"], 2000);
    let answer = node.call("PUT", "/v1/functions/f", &media, b"--B--\r\n");
    assert_eq!(answer.json()["field"], "archive", "{}", answer.text);
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "the cases are data, one line or two each"
)]
fn bad_v1_requests_are_answered_with_problem_details() {
    let node = Node::start();
    let good = pack::function("1");
    let check = |method: &str, path: &str, body: &[u8], status: u16, field: &str| {
        let answer = node.call(method, path, &[], body);
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        assert_eq!(answer.media, "application/problem+json", "{path}");
        let problem = answer.json();
        assert_eq!(
            problem["field"].as_str().unwrap_or_default(),
            field,
            "{}",
            answer.text
        );
        assert!(problem["type"].as_str().unwrap().starts_with("urn:"));
        assert_eq!(problem["status"], status);
    };
    check("PUT", "/v1/functions/a%20b", &good, 400, "name");
    check("PUT", "/v1/functions/a%2F..%2Fb", &good, 400, "name");
    check("PUT", "/v1/functions/f?runtime=x", &good, 400, "runtime");
    check("PUT", "/v1/functions/f?threads=0", &good, 400, "threads");
    check("PUT", "/v1/functions/f?memory=1", &good, 400, "memory");
    check("PUT", "/v1/functions/f?deadline=0", &good, 400, "deadline");
    check(
        "PUT",
        "/v1/functions/f?deadline=300h",
        &good,
        400,
        "deadline",
    );
    check("PUT", "/v1/functions/f?cpu=-1", &good, 400, "cpu");
    check(
        "PUT",
        "/v1/functions/f?network=perhaps",
        &good,
        400,
        "network",
    );
    check("PUT", "/v1/functions/f?var=A", &good, 400, "var");
    check("PUT", "/v1/functions/f?thread=1", &good, 400, "thread");
    let both = pack::zip(&[("fn.py", "1"), ("fn.sh", "1")]);
    check("PUT", "/v1/functions/f", &both, 400, "runtime");
    check(
        "PUT",
        "/v1/functions/f",
        &pack::zip(&[("x", "1")]),
        400,
        "runtime",
    );
    check(
        "PUT",
        "/v1/functions/f",
        &pack::function("BUILD FAILS"),
        422,
        "",
    );
    check(
        "PUT",
        "/v1/functions/f",
        &pack::function("HOST FAILS"),
        503,
        "",
    );
    check("GET", "/v1/functions/f/logs", b"", 404, "");
    check("GET", "/v1/logs?since=soon", b"", 400, "since");
    check("GET", "/v1/nothing", b"", 404, "");
    check("GET", "/v1/functions/a/b", b"", 404, "");
    check("POST", "/list", b"", 405, "");
    check("POST", "/v1/functions/f", b"", 405, "");
    let answer = node.put("/v1/functions/f", &pack::function("LOAD FAILS"));
    assert_eq!(answer.json()["output"], "line 1\nline 2");
    node.wait_for_codes(0);
}

#[test]
fn bodies_over_the_bound_are_refused() {
    let limits = Limits {
        archive_packed_bytes_max: 1000,
        ..Limits::default()
    };
    let node = Node::with(Setup {
        limits,
        ..Setup::default()
    });
    let answer = node.put("/v1/functions/f", &vec![b'x'; 2 << 20]);
    assert_eq!(answer.status, 413, "{}", answer.text);
}

#[test]
fn upload_url_fetches_archives_within_bounds() {
    let limits = Limits {
        archive_packed_bytes_max: 100_000,
        ..Limits::default()
    };
    let node = Node::with(Setup {
        limits,
        ..Setup::default()
    });
    let zip = pack::zip(&[
        ("repo-main/fns/f/fn.py", "fetched"),
        ("repo-main/README", ""),
    ]);
    let origin = serve(move |path| match path {
        "/fn.zip" => ("200 OK\r\n".to_owned(), zip.clone()),
        "/moved" => ("302 Found\r\nLocation: /fn.zip\r\n".to_owned(), Vec::new()),
        "/loop" => ("302 Found\r\nLocation: /loop\r\n".to_owned(), Vec::new()),
        "/large" => ("200 OK\r\n".to_owned(), vec![b'x'; 200_000]),
        _ => ("404 Not Found\r\n".to_owned(), Vec::new()),
    });
    let check = |path: &str, subfolder: &str, status: u16, words: &str| {
        let body = format!(
            r#"{{"name":"f","env":"python3","threads":1,"url":"{origin}{path}","subfolder_path":"{subfolder}","envs":[]}}"#
        );
        let answer = node.post("/uploadURL", &body);
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        assert!(
            answer.text.contains(words),
            "{words:?} is not in {:?}",
            answer.text
        );
    };
    check("/fn.zip", "fns/f", 200, "http://127.0.0.1:8000/f\n");
    assert_eq!(node.invoke("f").unwrap(), "fetched");
    check("/moved", "repo-main/fns/f/", 200, "http://");
    check("/loop", "", 400, "url: more than 5 redirects");
    check(
        "/large",
        "",
        400,
        "url: the archive is larger than 100000 bytes",
    );
    check("/none", "", 400, "url: the server answered with status 404");
    check(
        "/fn.zip",
        "elsewhere",
        400,
        "url: the archive has no folder \"elsewhere\"",
    );
    check("/fn.zip", "../..", 400, "url: ");
    check("/fn.zip", "", 422, "there is no fn.py");
    node.wait_for_codes(1);
}

/// An HTTP server of few words, until the test ends.
fn serve(answer: impl Fn(&str) -> (String, Vec<u8>) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let read = stream.read(&mut head).unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let (status, body) = answer(path);
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status}Content-Length: {length}\r\nConnection: close\r\n\r\n");
            // The client may have seen enough.
            let _sent = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&body))
                .is_ok();
        }
    });
    origin
}

#[test]
fn status_and_health_tell_what_is_there() {
    let node = Node::start();
    assert_eq!(node.get("/healthz").status, 200);
    assert_eq!(node.get("/readyz").status, 200);
    node.put("/v1/functions/f", &pack::function("1"));
    crate::node::wait_for("the backend's report", || {
        !node.get("/v1/status").json()["runtimes"].is_null()
    });
    let status = node.get("/v1/status").json();
    assert_eq!(status["version"], "1.2.3");
    assert_eq!(status["backend"], "in-process");
    assert_eq!(status["runtimes"][0]["version"], "3.0");
    assert_eq!(status["isolation"][0]["is_on"], false);
    assert_eq!(status["endpoints"][0]["scheme"], "coap");
    assert_eq!(status["management"], node.addr.to_string());
    assert_eq!(status["functions"]["ready"], 1);
    let openapi = node.get("/v1/openapi.json").json();
    assert!(openapi["paths"]["/v1/functions/{name}"]["put"].is_object());
}
