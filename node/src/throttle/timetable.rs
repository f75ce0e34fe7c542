//! Which limits hold when: two ordinary ones, and a weekly timetable that goes before them.
//!
//! Times are this machine's local ones, as people speak of office hours: when clocks change, a period follows them. A
//! period that ends at or before the time it begins at goes on to the next day and belongs to the day it begins on. Of
//! several that cover a moment the first counts, so that an exception stands above the rule.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Minutes of a day.
const DAY_MINUTES: u16 = 24 * 60;
/// Periods of a timetable, at most: four for each day, which is more than anybody overlooks.
pub const PERIODS_MAX: usize = 28;
/// The lowest limit, in bytes a second: below it a chunk takes so long that the other side takes the line for dead.
pub const RATE_MIN: u64 = 32 * 1024;
/// The highest limit, in bytes a second: what every reader of JSON and every description of an API can count to.
pub const RATE_MAX: u64 = i64::MAX.unsigned_abs();
/// What a request has to be fed with, in bytes a second: a usual chunk in a second. Of slower ones receivers lose
/// patience.
pub const RATE_PER_REQUEST: u64 = 256 * 1024;

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Day {
    /// All, from Monday on.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// As in `mon`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        }
    }

    const fn before(self) -> Self {
        Self::ALL[(self as usize + 6) % 7]
    }
}

/// A text that is no part of a timetable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimetableError {
    /// Not a day.
    #[error("`{0}` is no day: days are mon, tue, wed, thu, fri, sat, sun")]
    Day(String),
    /// Not a time.
    #[error("`{0}` is no time of day: times are written as 08:00, up to 24:00")]
    Time(String),
    /// More than [`PERIODS_MAX`].
    #[error("a timetable has {PERIODS_MAX} periods at most")]
    TooLong,
    /// Below [`RATE_MIN`] and not 0.
    #[error(
        "a limit of {0} bytes a second is too low for a transfer to go on: use {RATE_MIN} or more, or 0 for none"
    )]
    TooLow(u64),
    /// Above [`RATE_MAX`].
    #[error("a limit of {0} bytes a second is more than can be counted: use 0 for none")]
    TooHigh(u64),
}

impl FromStr for Day {
    type Err = TimetableError;

    fn from_str(text: &str) -> Result<Self, TimetableError> {
        let is_it = |day: &Self| day.as_str().eq_ignore_ascii_case(text);
        Self::ALL.into_iter().find(is_it).ok_or_else(|| TimetableError::Day(text.to_owned()))
    }
}

/// A time of day, from `00:00` to `24:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "08:00", pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$")]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    /// Minutes since midnight; none beyond 1440.
    pub const fn new(minutes: u16) -> Option<Self> {
        if minutes <= DAY_MINUTES { Some(Self(minutes)) } else { None }
    }
}

impl FromStr for TimeOfDay {
    type Err = TimetableError;

    fn from_str(text: &str) -> Result<Self, TimetableError> {
        let parse = || {
            let (hours, minutes) = text.split_once(':')?;
            let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            let (hours, minutes) = (digits(hours).then_some(hours)?, digits(minutes).then_some(minutes)?);
            let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
            (minutes < 60).then_some(hours * 60 + minutes).and_then(Self::new)
        };
        parse().ok_or_else(|| TimetableError::Time(text.to_owned()))
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = TimetableError;

    fn try_from(text: String) -> Result<Self, TimetableError> {
        text.parse()
    }
}

impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> Self {
        time.to_string()
    }
}

/// A time of the week with limits of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Period {
    /// On which days it begins; on every day where none is named.
    #[serde(default)]
    pub days: Vec<Day>,
    /// When it begins.
    pub from: TimeOfDay,
    /// When it ends, on the next day where that is not after `from`.
    pub to: TimeOfDay,
    /// What all uploads together may send, in bytes a second: 0 for no limit, the ordinary limit where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_bytes_per_second: Option<u64>,
    /// What all downloads together may bring, in bytes a second: 0 for no limit, the ordinary limit where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_bytes_per_second: Option<u64>,
}

/// A minute of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The day.
    pub day: Day,
    /// Minutes since its midnight, below 1440.
    pub minute: u16,
}

impl Period {
    fn covers(&self, moment: Moment) -> bool {
        let (from, to) = (self.from.0, self.to.0);
        let begins_on = |day: Day| self.days.is_empty() || self.days.contains(&day);
        if from < to {
            return begins_on(moment.day) && (from..to).contains(&moment.minute);
        }
        let today = begins_on(moment.day) && moment.minute >= from;
        today || (begins_on(moment.day.before()) && moment.minute < to)
    }
}

/// The limits that hold at one moment, in bytes a second; none where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rates {
    /// What all uploads together may send.
    pub upload_bytes_per_second: Option<u64>,
    /// What all downloads together may bring.
    pub download_bytes_per_second: Option<u64>,
}

/// Everything that is set about limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What all uploads together may send, in bytes a second; no limit where left out, null or 0.
    #[serde(default)]
    pub upload_bytes_per_second: Option<u64>,
    /// What all downloads together may bring, in bytes a second; no limit where left out, null or 0.
    #[serde(default)]
    pub download_bytes_per_second: Option<u64>,
    /// Whether transfers with machines on the same local network are limited too.
    #[serde(default)]
    pub limit_lan: bool,
    /// Times with limits of their own, at most 28; where several cover a moment the first counts.
    #[serde(default)]
    pub timetable: Vec<Period>,
}

impl Plan {
    /// The limits at a moment.
    pub fn at(&self, moment: Moment) -> Rates {
        let period = self.timetable.iter().find(|period| period.covers(moment));
        let rate =
            |special: Option<u64>, ordinary: Option<u64>| special.or(ordinary).filter(|rate| *rate > 0);
        let upload = period.and_then(|period| period.upload_bytes_per_second);
        let download = period.and_then(|period| period.download_bytes_per_second);
        Rates {
            upload_bytes_per_second: rate(upload, self.upload_bytes_per_second),
            download_bytes_per_second: rate(download, self.download_bytes_per_second),
        }
    }

    /// Whether it can be kept.
    ///
    /// # Errors
    /// [`TimetableError::TooLong`], [`TimetableError::TooLow`], [`TimetableError::TooHigh`].
    pub fn check(&self) -> Result<(), TimetableError> {
        if self.timetable.len() > PERIODS_MAX {
            return Err(TimetableError::TooLong);
        }
        let ordinary = [self.upload_bytes_per_second, self.download_bytes_per_second];
        let special = |period: &Period| [period.upload_bytes_per_second, period.download_bytes_per_second];
        let mut rates = ordinary.into_iter().chain(self.timetable.iter().flat_map(special)).flatten();
        rates.try_for_each(|rate| match rate {
            1..RATE_MIN => Err(TimetableError::TooLow(rate)),
            0..=RATE_MAX => Ok(()),
            _ => Err(TimetableError::TooHigh(rate)),
        })
    }
}

/// How many requests can be served at once at a rate so that each gets on, of `all` at most and 1 at least.
pub fn fed_at_once(rate: Option<u64>, all: u32) -> u32 {
    let fed = rate.map_or(all, |rate| u32::try_from(rate / RATE_PER_REQUEST).unwrap_or(u32::MAX));
    fed.min(all).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn period(days: &[Day], from: &str, to: &str, upload: u64) -> Period {
        Period {
            days: days.to_vec(),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            upload_bytes_per_second: Some(upload),
            download_bytes_per_second: None,
        }
    }

    fn upload(plan: &Plan, day: Day, time: &str) -> Option<u64> {
        let minute = time.parse::<TimeOfDay>().unwrap().0;
        plan.at(Moment { day, minute }).upload_bytes_per_second
    }

    const WORK: [Day; 5] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri];

    #[test]
    fn office_hours_hold_from_their_first_minute_to_before_their_last() {
        let timetable = vec![period(&WORK, "08:00", "18:00", 1 << 20)];
        let plan = Plan { upload_bytes_per_second: Some(5 << 20), timetable, ..Plan::default() };
        for (day, time, rate) in [
            (Day::Mon, "07:59", 5 << 20),
            (Day::Mon, "08:00", 1 << 20),
            (Day::Fri, "17:59", 1 << 20),
            (Day::Fri, "18:00", 5 << 20),
            (Day::Sat, "12:00", 5 << 20),
        ] {
            assert_eq!(upload(&plan, day, time), Some(rate), "{} {time}", day.as_str());
        }
    }

    #[test]
    fn a_night_belongs_to_the_day_it_begins_on_also_from_sunday_to_monday() {
        let plan =
            Plan { timetable: vec![period(&[Day::Sun], "22:00", "06:00", 1 << 20)], ..Plan::default() };
        for (day, time, holds) in [
            (Day::Sun, "05:00", false),
            (Day::Sun, "22:00", true),
            (Day::Mon, "05:59", true),
            (Day::Mon, "06:00", false),
            (Day::Mon, "22:00", false),
        ] {
            assert_eq!(upload(&plan, day, time).is_some(), holds, "{} {time}", day.as_str());
        }
    }

    #[test]
    fn the_first_period_counts_nothing_said_is_as_otherwise_and_0_is_no_limit() {
        let timetable =
            vec![period(&[Day::Wed], "12:00", "13:00", 0), period(&[], "00:00", "00:00", 1 << 20)];
        let download = Some(3 << 20);
        let plan = Plan { download_bytes_per_second: download, timetable, ..Plan::default() };
        assert_eq!(upload(&plan, Day::Wed, "12:30"), None);
        assert_eq!(upload(&plan, Day::Wed, "13:00"), Some(1 << 20));
        assert_eq!(plan.at(Moment { day: Day::Wed, minute: 750 }).download_bytes_per_second, download);
        assert_eq!(
            Plan { upload_bytes_per_second: Some(0), ..Plan::default() }
                .at(Moment { day: Day::Mon, minute: 0 }),
            Rates::default()
        );
    }

    #[test]
    fn times_and_days_that_are_none_are_refused() {
        for text in ["8:00", "24:01", "12:60", "12", "-1:00", "+1:00", "", "99:99"] {
            assert!(text.parse::<TimeOfDay>().is_err(), "{text}");
        }
        assert_eq!("24:00".parse::<TimeOfDay>().unwrap().to_string(), "24:00");
        assert!("monday".parse::<Day>().is_err());
        let long =
            Plan { timetable: vec![period(&[], "00:00", "24:00", 0); PERIODS_MAX + 1], ..Plan::default() };
        assert_eq!(long.check(), Err(TimetableError::TooLong));
        let low = Plan { timetable: vec![period(&[], "00:00", "24:00", 7)], ..Plan::default() };
        assert_eq!(low.check(), Err(TimetableError::TooLow(7)));
        let limited = |rate| Plan { download_bytes_per_second: Some(rate), ..Plan::default() }.check();
        assert_eq!([0, RATE_MIN, RATE_MAX].map(limited), [Ok(()), Ok(()), Ok(())]);
        assert_eq!(limited(RATE_MAX + 1), Err(TimetableError::TooHigh(RATE_MAX + 1)));
    }

    #[test]
    fn as_many_requests_are_served_as_the_limit_feeds() {
        assert_eq!(fed_at_once(None, 16), 16);
        assert_eq!(fed_at_once(Some(1 << 20), 16), 4);
        assert_eq!(fed_at_once(Some(RATE_MIN), 16), 1);
        assert_eq!(fed_at_once(Some(u64::MAX), 16), 16);
    }

    proptest! {
        #[test]
        fn a_period_covers_as_many_minutes_of_the_week_as_it_lasts_on_each_of_its_days(
            days in prop::collection::vec(0usize..7, 0..7), from in 0u16..1440, to in 0u16..=1440,
        ) {
            let mut days: Vec<Day> = days.into_iter().map(|day| Day::ALL[day]).collect();
            days.dedup();
            let (from, to) = (TimeOfDay(from), TimeOfDay(to));
            let mut period = period(&days, "00:00", "00:00", 1 << 20);
            (period.from, period.to) = (from, to);
            let minutes = || Day::ALL.into_iter().flat_map(|day| (0..1440).map(move |minute| Moment { day, minute }));
            let covered = minutes().filter(|moment| period.covers(*moment)).count();
            let lasts = if from < to { to.0 - from.0 } else { 1440 - from.0 + to.0 };
            let different = Day::ALL.iter().filter(|day| days.is_empty() || days.contains(day)).count();
            prop_assert_eq!(covered, different * usize::from(lasts));
        }
    }
}
