//! What functions and builds have of the management service, where that is a container.

use super::{RUN, Shell};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::{Function, agent, request_with};
use serde_json::json;

/// What the management service answers to whoever calls its published port at the machine's addresses.
const ASKS: &str = "
import urllib.error, urllib.request
routes = [line.split() for line in open('/proc/net/route')]
way = [line[2] for line in routes if line[1] == '00000000']
near = ['.'.join(str(byte) for byte in reversed(bytes.fromhex(it))) for it in way]
def ask(addr):
    try:
        return urllib.request.urlopen('http://%s:5000/list' % addr, timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return 0
answers = [ask(addr) for addr in near + ['172.17.0.1']]
";

#[test]
fn builds_and_functions_with_network_have_no_use_of_the_management_service() {
    let shell = Shell::start();
    shell.run(RUN);
    shell.answers(5000);
    let list = |more: &str| {
        let code = "curl --silent --output /dev/null --write-out '%{http_code}'";
        shell.run(&format!("{code} {more} http://localhost:5000/list"))
    };
    let v1 = |path: &str, token: &str, zip: &[u8]| {
        let url = format!("http://localhost:5000/v1/functions/{path}");
        let header = [("Authorization", token)];
        request_with(&agent(), "PUT", &url, &header, zip).unwrap()
    };
    // The control: from a network with a way out the port is reached, and is open.
    shell.run("docker network create --subnet 10.97.1.0/24 asks-control");
    let control = format!(
        "docker run --rm --network asks-control python:3-alpine python3 -c \"{ASKS}
print(answers)\""
    );
    let reached = shell.try_run(&control);
    shell.run("docker network rm asks-control");
    assert_eq!(reached.as_deref(), Ok("[200, 200]"));

    let setup = format!(
        "{ASKS}
open('asked.py', 'w').write('answers = %r' % answers)
from setuptools import setup
setup(name='asked', version='1', py_modules=['asked'])
"
    );
    let built = Function::python(
        "built",
        "import asked\ndef fn(input): return repr(asked.answers)\n",
    )
    .file("requirements.txt", "./asked\n")
    .file("asked/setup.py", setup);
    let body = json!({ "name": "built", "env": "python3", "threads": 1, "zip": STANDARD.encode(built.zip()) });
    let url = "http://localhost:5000/upload";
    let deployed = request_with(&agent(), "POST", url, &[], body.to_string().as_bytes());
    drop(deployed.unwrap().expect_success());
    let said = shell.run("curl --silent --fail http://localhost:8000/built");
    assert_eq!(said, "[503, 503]");
    assert_eq!(list(""), "200", "it is over");

    let asks = format!(
        "{ASKS}\ndef fn(input): return repr([ask(addr) for addr in near + ['172.17.0.1']])\n"
    );
    let asks = Function::python("asks", &asks).zip();
    let path = "asks?runtime=python3&network=true";
    assert_eq!(v1(path, "Bearer guessed", &asks).status, 401);
    shell.run("docker cp tinyfaas-mgmt:/var/lib/tinyfaas/token token");
    let token = format!("Bearer {}", shell.run("cat token && rm token"));
    drop(v1(path, &token, &asks).expect_success());
    let said = shell.run("curl --silent --fail http://localhost:8000/asks");
    assert_eq!(said, "[401, 401]");
    assert_eq!(list(""), "401");
    assert_eq!(list(&format!("-H 'Authorization: {token}'")), "200");
    shell.run("docker stop tinyfaas-mgmt");
    shell.leaves_nothing();
}
