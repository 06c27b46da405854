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
}
