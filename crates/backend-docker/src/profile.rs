//! The system calls that builds in containers may make: [`builds::calls`] as a seccomp profile of the
//! engine's. It takes the place of the engine's own, which allows more, such as taking space on the
//! disk without writing it.

use builds::calls::{self, Call, Condition};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The oldest Docker that takes a profile whose calls have answers of their own, which `clone3` needs:
/// a program that is told anything but ENOSYS makes no threads.
const DOCKER_OLDEST: [u32; 3] = [20, 10, 10];

/// What the kernel answers where it does not have a call, and where a file system can't do a thing.
const ENOSYS: u32 = 38;
const EOPNOTSUPP: u32 = 95;

/// Whether an engine takes profiles: Docker of this version, with these security options.
pub(crate) fn is_taken(version: &str, security_options: &[String]) -> bool {
    let mut parts = version.split(|c: char| !c.is_ascii_digit());
    let mut part = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
    let version = [part(), part(), part()];
    let mut words = security_options.iter().flat_map(|option| option.split(','));
    version >= DOCKER_OLDEST && words.any(|word| word == "name=seccomp")
}

/// The profile of builds, as the engine reads it.
pub(crate) fn of_builds() -> String {
    let conditional = calls::conditions();
    let mut whole: BTreeSet<Call> = calls::allowed().collect();
    for (call, _) in &conditional {
        whole.remove(call);
    }
    for call in calls::RESERVING {
        whole.remove(call);
    }
    whole.retain(|call| call.name != IOCTL);
    let whole: Vec<&str> = whole.iter().map(|call| call.name).collect();
    let missing = calls::NOT_IMPLEMENTED.iter().map(|call| call.name);
    let missing: Vec<&str> = missing.chain(calls::UNKNOWN.iter().copied()).collect();
    let reserving = calls::RESERVING.iter().map(|call| call.name);
    let reserving: Vec<&str> = reserving.collect();
    let mut rules = vec![
        allow(&whole, &[]),
        refuse(&missing, ENOSYS, &[]),
        refuse(&reserving, EOPNOTSUPP, &[]),
    ];
    for (call, any) in &conditional {
        rules.extend(any.iter().map(|all| allow(&[call.name], all)));
    }
    let is = |request: &u32| [Condition::is(calls::REQUEST, *request)];
    let requests = calls::REQUESTS.iter();
    rules.extend(requests.map(|request| allow(&[IOCTL], &is(request))));
    let requests = calls::RESERVING_REQUESTS.iter();
    rules.extend(requests.map(|request| refuse(&[IOCTL], EOPNOTSUPP, &is(request))));
    json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}).to_string()
}

const IOCTL: &str = "ioctl";

/// Lets pass what meets all of the conditions. No two of them may be of one argument: the engine would
/// take either.
fn allow(names: &[&str], all: &[Condition]) -> Value {
    json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": arguments(all)})
}

fn refuse(names: &[&str], errno: u32, all: &[Condition]) -> Value {
    let action = "SCMP_ACT_ERRNO";
    json!({"names": names, "action": action, "errnoRet": errno, "args": arguments(all)})
}

fn arguments(all: &[Condition]) -> Vec<Value> {
    let each = all.iter().map(|condition| {
        json!({
            "index": condition.argument,
            "op": "SCMP_CMP_MASKED_EQ",
            "value": condition.mask,
            "valueTwo": condition.value,
        })
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_for_engines_that_take_them() {
        let seccomp = ["name=apparmor", "name=seccomp,profile=builtin"].map(str::to_owned);
        for (version, expected) in [
            ("20.10.24+dfsg1", true),
            ("20.10.10", true),
            ("28.0.0-rc.1", true),
            ("20.10.9", false),
            ("19.03.15", false),
            ("", false),
        ] {
            assert_eq!(is_taken(version, &seccomp), expected, "{version}");
            assert!(!is_taken(version, &["name=apparmor".to_owned()]));
        }
    }

    /// The rules of a call, and how many of them come without conditions.
    fn rules_of<'a>(profile: &'a Value, name: &str) -> (Vec<&'a Value>, usize) {
        let rules = profile["syscalls"].as_array().unwrap().iter();
        let names = |rule: &Value| rule["names"].as_array().unwrap().clone();
        let rules: Vec<_> = rules
            .filter(|rule| names(rule).iter().any(|it| it == name))
            .collect();
        let plain = rules
            .iter()
            .filter(|rule| rule["args"].as_array().unwrap().is_empty());
        let plain = plain.count();
        (rules, plain)
    }

    #[test]
    fn the_profile_allows_what_is_listed_and_refuses_the_rest() {
        let profile: Value = serde_json::from_str(&of_builds()).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        let answer = |name: &str| {
            let (rules, plain) = rules_of(&profile, name);
            assert_eq!((rules.len(), plain), (1, 1), "{name}");
            let errno = rules[0]["errnoRet"].as_u64();
            (rules[0]["action"].as_str().unwrap().to_owned(), errno)
        };
        assert_eq!(answer("openat"), ("SCMP_ACT_ALLOW".to_owned(), None));
        assert_eq!(answer("fallocate").1, Some(95));
        for name in ["clone3", "io_uring_setup", "fchmodat2"] {
            assert_eq!(answer(name).1, Some(38), "{name}");
        }
        // With a rule that comes without conditions those that have some would be none.
        for name in ["socket", "socketpair", "clone", "ioctl"] {
            let (rules, plain) = rules_of(&profile, name);
            assert!(plain == 0 && !rules.is_empty(), "{name}");
        }
        for name in ["mount", "ptrace", "bpf", "keyctl", "setxattr", "unshare"] {
            assert!(rules_of(&profile, name).0.is_empty(), "{name}");
        }
    }

    #[test]
    fn no_rule_has_two_conditions_of_one_argument() {
        let profile: Value = serde_json::from_str(&of_builds()).unwrap();
        for rule in profile["syscalls"].as_array().unwrap() {
            let arguments = rule["args"].as_array().unwrap().iter();
            let indices: Vec<_> = arguments.map(|it| it["index"].as_u64()).collect();
            let different: BTreeSet<_> = indices.iter().collect();
            assert_eq!(different.len(), indices.len(), "{rule}");
        }
    }
}
