//! Tries to get out of the sandbox, each way with a control: the same code succeeds outside, so
//! that its failure inside proves the wall.

mod attacks;
mod builds;
mod host;
mod limits;
mod network;
mod outlive;

use anyhow::{Result, ensure};
use attacks::Attack;
use host::{Node, outside};
use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = backend_process::launcher_main() {
        return code;
    }
    if let Some(ended) = outlive::node_main() {
        return ended.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let attacks = attacks::all().map(|attack| trial(attack.name, || attempt(attack)));
    let limits = limits::ALL.iter().map(|(name, test)| trial(name, test));
    let networks = network::ALL.iter().map(|(name, test)| trial(name, test));
    let builds = builds::ALL.iter().map(|(name, test)| trial(name, test));
    let mut arguments = Arguments::from_args();
    // Tests of what a function can use up take no part of the machine from each other.
    arguments.test_threads.get_or_insert(1);
    libtest_mimic::run(
        &arguments,
        attacks
            .chain(limits)
            .chain(networks)
            .chain(builds)
            .collect(),
    )
    .exit_code()
}

fn trial(name: &'static str, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        test().map_err(|error| Failed::from(format!("{error:?}")))
    })
}

/// The attack succeeds outside and is refused inside.
fn attempt(attack: &Attack) -> Result<()> {
    let node = Node::start()?;
    let code = node.aim(attack.code);
    let control = outside(&code)?;
    ensure!(
        control.starts_with(attack.outside),
        "the control outside said {control:?}, not {:?}: the test would prove nothing",
        attack.outside
    );
    let answer = node.call(&code)?;
    ensure!(
        attack.inside.iter().any(|refusal| answer.contains(refusal)),
        "inside, the function got {answer:?}, expected one of {:?}",
        attack.inside
    );
    Ok(())
}
