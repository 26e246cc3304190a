//! Amounts as people write them: `256MiB`, `500ms`, `0.5` cores. The command line, the API and the
//! settings of a node all read them here, so that they mean the same everywhere.

use std::time::Duration;

/// How a size is written, for messages.
pub const BYTES_HINT: &str = "write a size such as 512KiB, 128M or 1GiB (K, M and G count in 1024, \
                              kB, MB and GB in 1000)";
/// How a time is written, for messages.
pub const TIME_HINT: &str = "write a time such as 500ms, 30s, 5m, 2h or 1d";

/// Bytes: a whole number with nothing, `B`, `K`, `KiB`, `kB` and so on up to `G`, in any case: with
/// `B` alone the factor is 1000, else 1024 (IEC 80000-13). `None` if the string is no such size.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
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

/// A time: a number of seconds, or with `ms`, `s`, `m` or `min`, `h` or `d`. Fractions are
/// understood, down to a millisecond: the rest counts as one more. `None` if the string is no such
/// time.
#[must_use]
pub fn time(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        _ => return None,
    };
    let exact = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
    let millis = exact.as_nanos().div_ceil(1_000_000);
    // What is longer than 285,000 years has no milliseconds in a floating-point number.
    let millis = u64::try_from(millis).ok()?;
    (millis < 1 << 53).then(|| Duration::from_millis(millis))
}

/// Thousandths of a core: cores such as `0.5`, or with `m` thousandths themselves.
#[must_use]
pub fn cpu_millis(text: &str) -> Option<u32> {
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
#[must_use]
pub fn switch(text: &str) -> Option<bool> {
    match text {
        "true" | "1" | "yes" | "on" | "" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A size as [`bytes()`] reads it, in the largest unit that divides it.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole = |&(shift, _): &(u32, _)| bytes > 0 && bytes.trailing_zeros() >= shift;
    match units.into_iter().find(whole) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// A time as [`time()`] reads it, in the largest unit that divides it.
#[must_use]
pub fn show_time(time: Duration) -> String {
    let millis = time.as_millis();
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
    ];
    let whole = |&(factor, _): &(u128, _)| millis > 0 && millis.is_multiple_of(factor);
    match units.into_iter().find(whole) {
        Some((factor, unit)) => format!("{}{unit}", millis / factor),
        None => format!("{millis}ms"),
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
        check("128MB", Some(128_000_000));
        check("2KB", Some(2000));
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
        check("0.5s", Some(500));
        check("1d", Some(86_400_000));
        check("0.0001", Some(1));
        check("0.3", Some(300));
        check("1.0005", Some(1001));
        check("104249991d", Some(104_249_991 * 86_400_000));
        check("104249992d", None);
        check("999999999999999", None);
        check("-5s", None);
        check("soon", None);
        check("1e99", None);
        assert_eq!(cpu_millis("0.5"), Some(500));
        assert_eq!(cpu_millis("250m"), Some(250));
        assert_eq!(cpu_millis("2 cores"), None);
    }

    #[test]
    fn what_is_shown_is_read_as_the_same() {
        for amount in [
            0,
            1,
            1023,
            1 << 10,
            3 << 20,
            1 << 30,
            (1 << 30) + 1,
            u64::MAX,
        ] {
            assert_eq!(bytes(&show_bytes(amount)), Some(amount));
        }
        for millis in [0, 1, 999, 1000, 90_000, 3_600_000, 86_400_000, 86_400_001] {
            let expected = Duration::from_millis(millis);
            assert_eq!(time(&show_time(expected)), Some(expected), "{millis}");
        }
        assert_eq!(show_bytes(256 << 20), "256MiB");
        assert_eq!(show_time(Duration::from_secs(120)), "2m");
    }
}
