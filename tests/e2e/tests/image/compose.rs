//! `compose.yaml`, with Debian's docker-compose.

use super::{Shell, deploy_echo, folder, serves_again};

#[test]
fn compose_starts_the_same_and_keeps_what_is_deployed() {
    let shell = Shell::start();
    let file = folder("E2E_REPOSITORY").join("compose.yaml");
    let compose = |words: &str| {
        let file = file.display();
        shell.run(&format!(
            "docker-compose --file {file} --project-directory . {words}"
        ))
    };
    compose("up --detach");
    shell.answers(5000);
    // To this machine only.
    assert_eq!(
        shell.run("docker port tinyfaas-mgmt 8080"),
        "127.0.0.1:5000"
    );
    deploy_echo(&shell);
    serves_again();
    compose("down");
    shell.leaves_nothing();
    compose("up --detach");
    shell.answers(5000);
    serves_again();
    compose("down --volumes");
    shell.leaves_nothing();
}
