//! Amounts as people write them: `256MiB`, `500ms`, `0.5` cores.

use std::time::Duration;

/// Bytes: a number with nothing, `B`, `k`, `kB`, `KiB` and so on up to `G`. `None` where the text
/// is no such amount.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A time: a number of seconds, or with `ms`, `s`, `m`, `h` or `d`. Fractions are understood.
pub(crate) fn time(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

/// Thousandths of a core: cores such as `0.5`, or with `m` thousandths themselves.
pub(crate) fn cpu_millis(text: &str) -> Option<u32> {
    let (number, unit) = split(text)?;
    match unit {
        "m" => number.parse().ok(),
        "" => {
            let millis = Duration::try_from_secs_f64(number.parse().ok()?).ok()?;
            u32::try_from(millis.as_millis()).ok()
        }
        _ => None,
    }
}

/// Yes or no.
pub(crate) fn switch(text: &str) -> Option<bool> {
    match text {
        "true" | "1" | "yes" | "on" | "" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    (!number.is_empty()).then(|| (number, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_with_their_units() {
        let check = |text: &str, expected| assert_eq!(bytes(text), expected, "{text:?}");
        check("1024", Some(1024));
        check("256MiB", Some(256 << 20));
        check("256 M", Some(256 << 20));
        check("1GB", Some(1_000_000_000));
        check("64k", Some(64 << 10));
        check("-1", None);
        check("1.5G", None);
        check("x", None);
        check("", None);
        check("99999999999999G", None);
    }

    #[test]
    fn times_are_read_with_their_units() {
        let check = |text: &str, ms: Option<u64>| {
            assert_eq!(time(text), ms.map(Duration::from_millis), "{text:?}");
        };
        check("60", Some(60_000));
        check("60s", Some(60_000));
        check("500ms", Some(500));
        check("0.25", Some(250));
        check("2m", Some(120_000));
        check("1h", Some(3_600_000));
        check("-5s", None);
        check("soon", None);
        check("1e99", None);
        assert_eq!(cpu_millis("0.5"), Some(500));
        assert_eq!(cpu_millis("250m"), Some(250));
        assert_eq!(cpu_millis("2 cores"), None);
    }
}
