//! The engine's own client, to look at what the program under test did there.

use std::process::Command;

/// How a node is started whose handlers are containers.
pub const CONTAINERS: &[&str] = &["--backend", "docker"];

/// What the engine's own client prints.
///
/// # Panics
/// If it fails.
pub fn docker(words: &[&str]) -> String {
    output("docker", words)
}

/// What a program prints.
///
/// # Panics
/// If it is not there, or fails.
pub fn output(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output();
    let output = output.expect("the program is there");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The ids of what the engine has that is ours and has this in its name: of its containers (`container`)
/// or networks (`network`).
#[must_use]
pub fn ours(what: &str, name: &str) -> Vec<String> {
    let (list, has_all) = match what {
        "container" => (&["ps", "--all"][..], "{{.ID}} {{.Names}}"),
        _ => (&["network", "ls"][..], "{{.ID}} {{.Name}}"),
    };
    let filters = ["--filter", "label=tinyFaaS", "--format", has_all];
    let found = docker(&[list, &filters].concat());
    let found = found.lines().filter(|line| line.contains(name));
    let ids = found.filter_map(|line| line.split(' ').next());
    ids.map(str::to_owned).collect()
}
