//! `quarta limits`: what transfers may take of the line, and when.

use std::str::FromStr;

use clap::Subcommand;
use quarta_daemon::{
    Role,
    cli::{Common, During, Failure, Output},
};

use crate::{
    api::model::{Limits, Period, Plan},
    throttle::timetable::{Day, TimeOfDay},
};

const PATH: &str = "/api/v1/limits";

#[derive(Debug, Subcommand)]
pub(super) enum Act {
    /// Set the ordinary limits; what is not named stays as it is
    Set {
        /// All uploads together send at most this much a second, e.g. 10MiB; 0 for no limit
        #[arg(long, value_parser = super::bytes, value_name = "BYTES")]
        upload: Option<u64>,
        /// All downloads together bring at most this much a second; 0 for no limit
        #[arg(long, value_parser = super::bytes, value_name = "BYTES")]
        download: Option<u64>,
        /// Whether transfers with machines on the same local network are limited too
        #[arg(long, value_name = "true|false")]
        limit_lan: Option<bool>,
    },
    /// Add a time of the week with limits of its own, before those that are there
    Add {
        /// On which days it begins, e.g. mon-fri or sat,sun [default: every day]
        #[arg(long, value_name = "DAYS")]
        days: Option<Days>,
        /// When it begins, by this machine's local time, e.g. 08:00
        #[arg(long, value_name = "HH:MM")]
        from: TimeOfDay,
        /// When it ends, on the next day where that is not after its beginning
        #[arg(long, value_name = "HH:MM")]
        to: TimeOfDay,
        /// The upload limit meanwhile; 0 for none, the ordinary one where left out
        #[arg(long, value_parser = super::bytes, value_name = "BYTES")]
        upload: Option<u64>,
        /// The download limit meanwhile; 0 for none, the ordinary one where left out
        #[arg(long, value_parser = super::bytes, value_name = "BYTES")]
        download: Option<u64>,
    },
    /// Remove all times with limits of their own
    Clear,
}

/// Days as they are typed: `mon-fri`, `sat,sun`, `fri-mon,wed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Days(Vec<Day>);

impl FromStr for Days {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut days = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let day = |text: &str| text.trim().parse::<Day>().map_err(|error| error.to_string());
            let (first, last) = (day(first)?, day(last)?);
            let from_first = Day::ALL.iter().cycle().skip_while(|day| **day != first).take(Day::ALL.len());
            for day in from_first {
                if !days.contains(day) {
                    days.push(*day);
                }
                if *day == last {
                    break;
                }
            }
        }
        Ok(Self(days))
    }
}

/// Shows the limits, after they were changed where that is asked for.
pub(super) async fn run(common: &Common, output: &mut Output, act: Option<Act>) -> Result<(), Failure> {
    let client = common.client(Role::Node)?;
    let mut limits: Limits = client.get(PATH).await.during("cannot show the limits")?;
    if let Some(act) = act {
        change(&mut limits.set, act);
        limits = client.put(PATH, &limits.set).await.during("cannot set the limits")?;
    }
    output.line(&limits, &text(&limits))?;
    Ok(())
}

fn change(plan: &mut Plan, act: Act) {
    let some = |rate: u64| Some(rate).filter(|rate| *rate > 0);
    match act {
        Act::Set { upload, download, limit_lan } => {
            plan.upload_bytes_per_second = upload.map_or(plan.upload_bytes_per_second, some);
            plan.download_bytes_per_second = download.map_or(plan.download_bytes_per_second, some);
            plan.limit_lan = limit_lan.unwrap_or(plan.limit_lan);
        }
        Act::Add { days, from, to, upload, download } => {
            let days = days.map(|days| days.0).unwrap_or_default();
            let (upload_bytes_per_second, download_bytes_per_second) = (upload, download);
            plan.timetable
                .insert(0, Period { days, from, to, upload_bytes_per_second, download_bytes_per_second });
        }
        Act::Clear => plan.timetable.clear(),
    }
}

fn text(limits: &Limits) -> String {
    let rate = |rate: Option<u64>| match rate {
        None | Some(0) => "no limit".to_owned(),
        Some(rate) => format!("{}/s", bytesize::ByteSize(rate)),
    };
    let (set, now) = (&limits.set, &limits.now);
    let mut lines = vec![
        format!(
            "now        upload {}, download {}",
            rate(now.upload_bytes_per_second),
            rate(now.download_bytes_per_second)
        ),
        format!(
            "otherwise  upload {}, download {}",
            rate(set.upload_bytes_per_second),
            rate(set.download_bytes_per_second)
        ),
    ];
    for period in &set.timetable {
        let days: Vec<&str> = period.days.iter().map(|day| day.as_str()).collect();
        let days = if days.is_empty() { "every day".to_owned() } else { days.join(",") };
        let special =
            |special: Option<u64>| special.map_or("as otherwise".to_owned(), |special| rate(Some(special)));
        lines.push(format!(
            "{days} {} to {}: upload {}, download {}",
            period.from,
            period.to,
            special(period.upload_bytes_per_second),
            special(period.download_bytes_per_second)
        ));
    }
    let lan = if set.limit_lan { "limited too" } else { "not limited" };
    lines.push(format!("machines on the same local network are {lan}"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_typed_as_ranges_and_lists_also_over_the_weekend() {
        let days = |text: &str| text.parse::<Days>().map(|days| days.0);
        assert_eq!(days("mon-fri").unwrap(), Day::ALL[..5]);
        assert_eq!(days("sat,SUN").unwrap(), Day::ALL[5..]);
        assert_eq!(days("sun-mon,mon").unwrap(), [Day::Sun, Day::Mon]);
        for text in ["", "mon-", "weekend", "mon-fri-sun"] {
            assert!(days(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_not_named_stays_and_an_exception_goes_before_the_rule() {
        let mut plan = Plan { upload_bytes_per_second: Some(1 << 20), ..Plan::default() };
        change(&mut plan, Act::Set { upload: None, download: Some(2 << 20), limit_lan: Some(true) });
        let (from, to) = ("08:00".parse().unwrap(), "18:00".parse().unwrap());
        let add = |download| Act::Add { days: None, from, to, upload: None, download: Some(download) };
        change(&mut plan, add(1 << 20));
        change(&mut plan, add(0));
        assert_eq!(plan.upload_bytes_per_second, Some(1 << 20));
        assert_eq!((plan.download_bytes_per_second, plan.limit_lan), (Some(2 << 20), true));
        assert_eq!(plan.timetable[0].download_bytes_per_second, Some(0));
        let text = text(&Limits { now: crate::api::model::Rates::default(), set: plan.clone() });
        assert!(text.contains("every day 08:00 to 18:00: upload as otherwise, download no limit"), "{text}");
        change(&mut plan, Act::Set { upload: Some(0), download: None, limit_lan: None });
        change(&mut plan, Act::Clear);
        assert_eq!((plan.upload_bytes_per_second, plan.timetable.len()), (None, 0));
    }
}
