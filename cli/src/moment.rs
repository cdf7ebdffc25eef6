//! Moments and lengths of time as people write and read them.

use std::time::Duration;

use jiff::Timestamp;

/// A moment that was given as a length of time before now, or as an RFC 3339 time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// So long ago.
    Ago(Duration),
    /// Then.
    At(Timestamp),
}

// === impl Moment ===

impl Moment {
    /// Reads 90s, 15m, 1h, 2d, or 2026-01-31T12:00:00Z.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(at) = text.parse() {
            return Ok(Self::At(at));
        }
        length(text).map(Self::Ago).ok_or_else(|| {
            format!("{text:?} is no time: write 90s, 15m, 1h or 2d, or an RFC 3339 time such as 2026-01-31T12:00:00Z")
        })
    }

    /// When it is; `None` before the calendar begins.
    pub(crate) fn seen_from(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Ago(length) => now.checked_sub(length).ok(),
            Self::At(at) => Some(at),
        }
    }
}

fn length(text: &str) -> Option<Duration> {
    let (number, seconds) = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    // No sign and no blank: "+1h" is a mistake more likely than an intention.
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|_| is_number)?;
    number.checked_mul(seconds).filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// An age as kubectl prints it.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long before `now` an RFC 3339 time is; nothing for what lies ahead or is no time.
pub(crate) fn age_of(time: &str, now: Timestamp) -> Option<Duration> {
    let time: Timestamp = time.parse().ok()?;
    Duration::try_from(now.duration_since(time)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short_as_kubectl_has_them() {
        assert_eq!([5, 119, 120, 7199, 7200, 172_800].map(age), ["5s", "119s", "2m", "119m", "2h", "2d"]);
    }

    #[test]
    fn a_moment_is_a_length_ago_or_a_time() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let cases = [
            ("90s", "2026-01-31T11:58:30Z"),
            ("15m", "2026-01-31T11:45:00Z"),
            ("1h", "2026-01-31T11:00:00Z"),
            ("2d", "2026-01-29T12:00:00Z"),
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
            ("2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00Z"),
        ];
        for (text, expected) in cases {
            let moment = Moment::parse(text).unwrap().seen_from(now).unwrap();
            assert_eq!(moment.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused_with_examples() {
        for text in
            ["", "1", "h", "-1h", "+1h", "1.5h", " 1h", "1w", "0s", "99999999999999999999d", "yesterday"]
        {
            let message = Moment::parse(text).unwrap_err();
            assert!(message.contains("90s, 15m, 1h or 2d"), "{text}: {message}");
        }
        let now = "2026-01-31T12:00:00Z".parse().unwrap();
        assert_eq!(Moment::parse("99999999999d").unwrap().seen_from(now), None, "before the calendar begins");
    }

    #[test]
    fn an_age_is_that_of_what_was() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        assert_eq!(age_of("2026-01-31T11:59:00Z", now), Some(Duration::from_mins(1)));
        assert_eq!(age_of("2026-01-31T12:00:01Z", now), None);
        assert_eq!(age_of("soon", now), None);
    }
}
