//! How many tests passed and failed, read from what the test runners print.

/// Tests that passed and failed. One that was skipped for a missing part counts as failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Reads nextest's line `Summary [ 1.0s] 5 tests run: 4 passed (1 slow), 1 failed, 2 skipped`.
pub(crate) fn nextest(text: &str) -> Option<Count> {
    let plain = without_colors(text);
    let line = plain
        .lines()
        .rev()
        .find(|line| line.trim_start().starts_with("Summary ["))?;
    let (_, outcome) = line.split_once(" run: ")?;
    let mut count = Count::default();
    for part in outcome.split(", ") {
        let mut words = part.split_whitespace();
        let number = words.next()?.parse::<u64>().ok()?;
        match words.next()? {
            "passed" => count.passed += number,
            "skipped" => {}
            // failed, timed out, exec failed: a nextest that adds a word is counted against us.
            _ => count.failed += number,
        }
    }
    Some(count)
}

/// Adds up the lines `test result: ok. 4 passed; 1 failed; …` of `cargo test`.
pub(crate) fn cargo_test(text: &str) -> Option<Count> {
    let mut count = None;
    for line in text.lines() {
        let Some((_, outcome)) = line.split_once("test result: ") else {
            continue;
        };
        let (_, numbers) = outcome.split_once(". ")?;
        for part in numbers.split("; ") {
            let count = count.get_or_insert_with(Count::default);
            match part.split_once(' ') {
                Some((number, "passed")) => count.passed += number.parse::<u64>().ok()?,
                Some((number, "failed")) => count.failed += number.parse::<u64>().ok()?,
                Some(_) | None => {}
            }
        }
    }
    count
}

/// Reads the last lines of Python's unittest: `Ran 5 tests in 0.1s`, `FAILED (failures=1, …)`.
pub(crate) fn unittest(text: &str) -> Option<Count> {
    let ran = text.lines().rev().find_map(|line| {
        let rest = line.strip_prefix("Ran ")?;
        rest.split(' ').next()?.parse::<u64>().ok()
    })?;
    let verdict = text
        .lines()
        .rev()
        .find(|line| line.starts_with("OK") || line.starts_with("FAILED"))?;
    let parts = verdict
        .split_once('(')
        .map_or("", |(_, parts)| parts.trim_end_matches(')'));
    let numbers = parts
        .split(", ")
        .filter_map(|part| part.split_once('=')?.1.parse::<u64>().ok());
    let failed = numbers.sum();
    Some(Count {
        passed: ran.saturating_sub(failed),
        failed,
    })
}

fn without_colors(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // An escape sequence ends with a letter.
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(passed: u64, failed: u64) -> Option<Count> {
        Some(Count { passed, failed })
    }

    #[test]
    fn the_summary_of_nextest_is_counted() {
        let check = |text: &str, expected| assert_eq!(nextest(text), expected, "{text}");
        check(
            "x\n     Summary [   1.1s] 5 tests run: 5 passed, 0 skipped\n",
            count(5, 0),
        );
        check(
            "Summary [ 1s] 9 tests run: 5 passed (1 slow), 3 failed, 1 timed out, 2 skipped",
            count(5, 4),
        );
        check(
            "\u{1b}[32;1m     Summary\u{1b}[0m [ 0.0s] \u{1b}[1m1\u{1b}[0m test run: \u{1b}[1m1\u{1b}[0m passed, 0 skipped",
            count(1, 0),
        );
        check("error: could not compile", None);
    }

    #[test]
    fn the_results_of_cargo_test_are_added_up() {
        let text = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n\
                    test result: FAILED. 1 passed; 2 failed; 0 ignored";
        assert_eq!(cargo_test(text), count(4, 2));
        assert_eq!(cargo_test("nothing ran"), None);
    }

    #[test]
    fn a_skipped_python_test_counts_as_failed() {
        let check = |text: &str, expected| assert_eq!(unittest(text), expected, "{text}");
        check("Ran 7 tests in 0.1s\n\nOK\n", count(7, 0));
        check("Ran 7 tests in 0.1s\n\nOK (skipped=2)\n", count(5, 2));
        check(
            "Ran 7 tests in 0.1s\n\nFAILED (failures=1, errors=2)\n",
            count(4, 3),
        );
        check("ImportError", None);
    }
}
