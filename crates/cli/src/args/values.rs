//! Numbers within their ranges.

/// A number of things: 1 or more.
pub(super) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("expected a whole number of at least 1".into()),
    }
}

/// A temperature: 0 or more.
pub(super) fn temperature(text: &str) -> Result<f32, String> {
    number(text, "a number of at least 0", |x| x >= 0.0)
}

/// A share of the probability.
pub(super) fn share(text: &str) -> Result<f32, String> {
    number(text, "a number above 0 and up to 1", |x| {
        x > 0.0 && x <= 1.0
    })
}

/// A factor.
pub(super) fn positive(text: &str) -> Result<f32, String> {
    number(text, "a number above 0", |x| x > 0.0)
}

/// A size in bytes: `5GB`, `800 MB`, `1.5T`, `31GiB`, `4096`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    const UNITS: [&str; 5] = ["", "K", "M", "G", "T"];
    let wrong = || "expected a size such as 5GB, 800MB, 31GiB or 1.5T".to_owned();
    let upper = text.trim().to_ascii_uppercase();
    let digits = upper.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &upper[digits.len()..];
    let (unit, step) = match unit.strip_suffix("IB") {
        Some(unit) if !unit.is_empty() => (unit, 1024.0_f64),
        _ => (unit.strip_suffix('B').unwrap_or(unit), 1000.0),
    };
    let power = UNITS
        .iter()
        .position(|name| *name == unit)
        .ok_or_else(wrong)?;
    let number: f64 = digits.trim().parse().map_err(|_| wrong())?;
    let bytes = number * step.powi(power as i32);
    if (1.0..1e18).contains(&bytes) {
        Ok(bytes as u64)
    } else {
        Err(wrong())
    }
}

fn number(text: &str, expected: &str, holds: impl Fn(f32) -> bool) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number.is_finite() && holds(number) => Ok(number),
        _ => Err(format!("expected {expected}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_kept() {
        assert_eq!(count("3"), Ok(3));
        assert!(
            ["0", "-1", "1.5", ""]
                .into_iter()
                .all(|text| count(text).is_err())
        );
        assert_eq!(temperature("0"), Ok(0.0));
        assert!(
            ["-0.1", "NaN", "inf"]
                .into_iter()
                .all(|text| temperature(text).is_err())
        );
        assert_eq!(share("1"), Ok(1.0));
        assert!(["0", "1.01"].into_iter().all(|text| share(text).is_err()));
        assert!(positive("0").is_err());
    }

    #[test]
    fn sizes_have_units() {
        let cases = [
            ("4096", 4096),
            ("5GB", 5_000_000_000),
            ("800 mb", 800_000_000),
            ("1.5T", 1_500_000_000_000),
            ("20kB", 20_000),
            ("31GiB", 33_285_996_544),
            ("1.5 kib", 1536),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "", "GB", "-1", "0", "5iB", "5GBB", "5XB", "1e30", "NaN", "inf",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
