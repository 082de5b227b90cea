//! By when something must have come: what is late is given up, and nothing has changed.

use crate::openai::Refusal;
use hyper::StatusCode;
use std::time::Duration;
use tokio::time::Instant;

/// Seconds that may be said: a year.
const SECONDS_MAX: f64 = 366.0 * 86_400.0;

/// A moment, or none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deadline(Option<Within>);

#[derive(Clone, Copy, Debug)]
struct Within {
    seconds: f64,
    at: Instant,
}

impl Deadline {
    /// So many seconds from now, as a field says.
    pub fn of(field: &str, seconds: f64) -> Result<Self, Refusal> {
        if !(0.0..=SECONDS_MAX).contains(&seconds) {
            let expected = format!("seconds from 0 to {SECONDS_MAX}");
            return Err(Refusal::expected(field, &expected, seconds));
        }
        let at = Instant::now() + Duration::from_secs_f64(seconds);
        Ok(Self(Some(Within { seconds, at })))
    }

    /// Whichever comes first.
    pub fn or(self, other: Self) -> Self {
        let both = [self, other].into_iter().filter_map(|deadline| deadline.0);
        Self(both.min_by_key(|within| within.at))
    }

    /// The moment, if there is one.
    pub fn at(self) -> Option<Instant> {
        self.0.map(|within| within.at)
    }

    /// How long it was from the start.
    pub fn seconds(self) -> Option<f64> {
        self.0.map(|within| within.seconds)
    }

    /// Whether it has passed.
    pub fn has_passed(self) -> bool {
        self.at().is_some_and(|at| at <= Instant::now())
    }

    /// What is to come by then, or a refusal. What is late is dropped where it stands.
    pub async fn keep<T>(self, work: impl Future<Output = T>) -> Result<T, Refusal> {
        let Some(at) = self.at() else { return Ok(work.await) };
        // What could be had at once is too late, too.
        if self.has_passed() {
            return Err(self.late());
        }
        tokio::time::timeout_at(at, work).await.map_err(|_| self.late())
    }

    /// It has passed.
    pub fn late(self) -> Refusal {
        let seconds = self.seconds().unwrap_or_default();
        let words = format!(
            "the version was not there within {seconds} seconds: it is given up, and the one \
             before stays"
        );
        let mut refusal = Refusal::new(StatusCode::GATEWAY_TIMEOUT, words);
        refusal.code = Some("timed_out");
        refusal
    }
}

#[cfg(test)]
mod tests {
    use super::Deadline;
    use hyper::StatusCode;
    use std::time::Duration;

    fn deadline(seconds: f64) -> Deadline {
        Deadline::of("timeout_seconds", seconds).expect("a time")
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_late_is_given_up() {
        let after = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        assert!(Deadline::default().keep(after(1 << 20)).await.is_ok());
        assert!(deadline(2.0).keep(after(1)).await.is_ok());
        let late = deadline(2.0).keep(after(3)).await.expect_err("late");
        assert_eq!((late.status, late.code), (StatusCode::GATEWAY_TIMEOUT, Some("timed_out")));
        let both = deadline(9.0).or(deadline(1.0)).or(Deadline::default());
        assert_eq!(both.seconds(), Some(1.0));
        assert!(deadline(0.0).keep(async {}).await.is_err(), "not even what is there");
    }

    #[test]
    fn a_time_is_a_number_that_comes() {
        for seconds in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            let refused = Deadline::of("deadline_seconds", seconds).expect_err("no time");
            assert_eq!(refused.param.as_deref(), Some("deadline_seconds"));
        }
    }
}
