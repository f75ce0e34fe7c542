//! Waiting for something to become true, with a deadline and never by a bare sleep.

use std::fmt;
use std::time::{Duration, Instant};

/// How often a condition is looked at: well below the bounds that are measured, well above what a look costs.
pub const LOOK: Duration = Duration::from_millis(20);

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look<T> {
    /// The condition holds, with what it brought.
    Holds(T),
    /// Not yet, and what is missing.
    NotYet(String),
}

/// A condition that did not come to hold in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not within {:.1} s: {missing}", waited.as_secs_f64())]
pub struct Late {
    /// How long was waited.
    pub waited: Duration,
    /// What was missing at the last look.
    pub missing: String,
}

/// Looks until the condition holds, and answers what it brought and when it was seen. Cancel-safe if `look` is.
///
/// # Errors
/// [`Late`] when `deadline` has passed. A look that hangs counts too.
pub async fn until<T, L>(deadline: Duration, mut look: impl FnMut() -> L) -> Result<(T, Instant), Late>
where
    L: Future<Output = Look<T>>,
{
    let started = Instant::now();
    let mut missing = "no answer yet".to_owned();
    let watch = async {
        loop {
            match look().await {
                Look::Holds(value) => return (value, Instant::now()),
                Look::NotYet(why) => missing = why,
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(deadline, watch).await {
        Ok(found) => Ok(found),
        Err(_) => Err(Late { waited: started.elapsed(), missing }),
    }
}

impl<T> Look<T> {
    /// Holds where there is a value; else what is missing is `why`.
    pub fn of(value: Option<T>, why: impl FnOnce() -> String) -> Self {
        value.map_or_else(|| Self::NotYet(why()), Self::Holds)
    }

    /// What a failed request comes to: it may succeed at the next look.
    pub fn failed(error: impl fmt::Display) -> Self {
        Self::NotYet(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_to_hold_is_answered() {
        let mut looks = 0;
        let (value, _) = until(Duration::from_secs(5), || {
            looks += 1;
            std::future::ready(Look::of((looks == 3).then_some(looks), || "too few looks".to_owned()))
        })
        .await
        .unwrap();
        assert_eq!(value, 3);
    }

    #[tokio::test]
    async fn what_never_holds_is_told_with_what_was_missing() {
        let late = until::<(), _>(Duration::from_millis(60), async || Look::NotYet("a holder".to_owned()))
            .await
            .unwrap_err();
        assert_eq!(late.missing, "a holder");
        assert!(late.waited >= Duration::from_millis(60));
    }

    #[tokio::test]
    async fn a_look_that_hangs_does_not_outlast_the_deadline() {
        let late = until::<(), _>(Duration::from_millis(20), async || std::future::pending().await);
        assert_eq!(late.await.unwrap_err().missing, "no answer yet");
    }
}
