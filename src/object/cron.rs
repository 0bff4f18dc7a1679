//! When a cron job is due: the five fields of a schedule, read as the library reads them that Kubernetes uses.
//!
//! Only the text and its meaning. Which time a schedule comes to next in which time zone is decided where there is a clock.

/// The times that a schedule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At the minutes that all five fields name.
    At(Times),
    /// Again and again after this many seconds.
    Every(u64),
}

/// Five fields, each a set of numbers as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// 0 to 59.
    pub minutes: u64,
    /// 0 to 23.
    pub hours: u64,
    /// Days of the month, 1 to 31.
    pub days: u64,
    /// 1 to 12.
    pub months: u64,
    /// Days of the week, 0 (Sunday) to 6.
    pub weekdays: u64,
    /// Whether the days of the month were left open. If neither these nor those of the week were, either is enough.
    pub any_day: bool,
    /// Whether the days of the week were left open.
    pub any_weekday: bool,
}

/// What a field's numbers are.
struct Bounds {
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { least: 0, most: 59, names: &[] };
const HOURS: Bounds = Bounds { least: 0, most: 23, names: &[] };
const DAYS: Bounds = Bounds { least: 1, most: 31, names: &[] };
const MONTHS: Bounds =
    Bounds { least: 1, most: 12, names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"] };
const WEEKDAYS: Bounds = Bounds { least: 0, most: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// Words for schedules.
const DESCRIPTORS: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl Schedule {
    /// Reads a schedule. An error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        if text.is_empty() {
            return Err("empty spec string".to_owned());
        }
        if let Some(rest) = text.strip_prefix("@every ") {
            return every(rest).map(Schedule::Every).ok_or_else(|| format!("failed to parse duration {text}: invalid duration"));
        }
        if text.starts_with('@') {
            let (_, fields) =
                DESCRIPTORS.iter().find(|(word, _)| *word == text).ok_or_else(|| format!("unrecognized descriptor: {text}"))?;
            return Schedule::parse(fields);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        };
        let open =
            |field: &str| field.split(',').any(|part| matches!(part.split('/').next(), Some("*" | "?")) && !part.contains('/'));
        Ok(Schedule::At(Times {
            minutes: field(minutes, &MINUTES)?,
            hours: field(hours, &HOURS)?,
            days: field(days, &DAYS)?,
            months: field(months, &MONTHS)?,
            weekdays: field(weekdays, &WEEKDAYS)?,
            any_day: open(days),
            any_weekday: open(weekdays),
        }))
    }
}

/// One field: `1-5,10-59/15`.
fn field(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let mut bits = 0;
    for part in text.split(',').filter(|part| !part.is_empty()) {
        bits |= range(part, bounds)?;
    }
    Ok(bits)
}

fn range(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let (span, step) = match text.split_once('/') {
        None => (text, None),
        Some((_, step)) if step.contains('/') => return Err(format!("too many slashes: {text}")),
        Some((span, step)) => (span, Some(number(step)?)),
    };
    let (first, last) = match span.split_once('-') {
        _ if matches!(span, "*" | "?") => (bounds.least, bounds.most),
        None => {
            let one = named(span, bounds)?;
            // `5/15` is "from 5 on".
            (one, if step.is_some() { bounds.most } else { one })
        }
        Some((_, last)) if last.contains('-') => return Err(format!("too many hyphens: {text}")),
        Some((first, last)) => (named(first, bounds)?, named(last, bounds)?),
    };
    if first < bounds.least {
        return Err(format!("beginning of range ({first}) below minimum ({}): {text}", bounds.least));
    }
    if last > bounds.most {
        return Err(format!("end of range ({last}) above maximum ({}): {text}", bounds.most));
    }
    if first > last {
        return Err(format!("beginning of range ({first}) beyond end of range ({last}): {text}"));
    }
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok((first..=last).step_by(step as usize).fold(0, |bits, n| bits | 1 << n))
}

fn named(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    match bounds.names.iter().position(|name| *name == lower) {
        Some(place) => Ok(place as u32 + bounds.least),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    if text.starts_with('-') {
        return Err(format!("negative number ({text}) not allowed: {text}"));
    }
    text.parse().map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
}

/// A duration of Go, in whole seconds, at least one: `1h30m`.
fn every(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut milliseconds = 0.0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let scale = match unit {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1000.0,
            "ms" => 1.0,
            "us" | "µs" => 0.001,
            "ns" => 0.000_001,
            _ => return None,
        };
        milliseconds += amount.parse::<f64>().ok()? * scale;
        rest = after;
    }
    // Beyond what Go's durations can hold there is no schedule either.
    (milliseconds < 9.2e12).then(|| (milliseconds / 1000.0).max(1.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(numbers: &[u32]) -> u64 {
        numbers.iter().fold(0, |bits, n| bits | 1 << n)
    }

    #[test]
    fn fields() {
        let rows: &[(&str, &Bounds, &[u32])] = &[
            ("5", &MINUTES, &[5]),
            ("*/15", &MINUTES, &[0, 15, 30, 45]),
            ("1-5", &HOURS, &[1, 2, 3, 4, 5]),
            ("1,3-5/2", &HOURS, &[1, 3, 5]),
            ("20/2", &HOURS, &[20, 22]),
            ("jan,DEC", &MONTHS, &[1, 12]),
            ("mon-fri", &WEEKDAYS, &[1, 2, 3, 4, 5]),
            ("?", &WEEKDAYS, &[0, 1, 2, 3, 4, 5, 6]),
        ];
        for (text, bounds, wanted) in rows {
            assert_eq!(field(text, bounds), Ok(bits(wanted)), "{text}");
        }
    }

    #[test]
    fn schedules() {
        let Ok(Schedule::At(times)) = Schedule::parse("*/5 * * * 1") else { panic!() };
        assert!(times.any_day && !times.any_weekday && times.weekdays == 2 && times.hours == (1 << 24) - 1);
        assert_eq!(Schedule::parse("@weekly"), Schedule::parse("0 0 * * 0"));
        assert_eq!(Schedule::parse("@every 1h30m"), Ok(Schedule::Every(5400)));
        assert_eq!(Schedule::parse("@every 10ms"), Ok(Schedule::Every(1)));
    }

    #[test]
    fn refused() {
        let rows = [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every soon", "failed to parse duration @every soon: invalid duration"),
            ("", "empty spec string"),
            (
                "99999999999999 * * * *",
                "failed to parse int from 99999999999999: strconv.Atoi: parsing \"99999999999999\": invalid syntax",
            ),
        ];
        for (text, wanted) in rows {
            assert_eq!(Schedule::parse(text).unwrap_err(), wanted, "{text}");
        }
    }
}
