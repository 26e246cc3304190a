//! What a scenario brings, and the target that it is held against.

use crate::load::Numbers;
use serde::{Deserialize, Serialize};

/// One line of the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// The scenario's name.
    pub name: String,
    /// What was measured, for people.
    pub what: String,
    /// The unit of `value`, `low` and `high`: `times` for ratios.
    pub unit: String,
    /// The median over the rounds.
    pub value: f64,
    /// The smallest of the rounds.
    pub low: f64,
    /// The largest of the rounds.
    pub high: f64,
    /// What is wanted.
    pub target: Target,
    /// What was seen on the way, such as both rates of a ratio.
    pub seen: String,
    /// The numbers of each load: ours, then the reference's, round by round.
    pub loads: Vec<(Numbers, Numbers)>,
}

/// What is wanted of a value.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Target {
    /// At least so much.
    AtLeast(f64),
    /// At most so much.
    AtMost(f64),
    /// It is shown, nothing more.
    None,
}

impl Row {
    /// A row of values that were taken in rounds.
    #[must_use]
    pub fn new(name: &str, what: &str, unit: &str, rounds: &[f64], target: Target) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        Self {
            name: name.to_owned(),
            what: what.to_owned(),
            unit: unit.to_owned(),
            value: at(sorted.len() / 2),
            low: at(0),
            high: at(sorted.len().saturating_sub(1)),
            target,
            seen: String::new(),
            loads: Vec::new(),
        }
    }

    /// The same with what was seen on the way.
    #[must_use]
    pub fn seen(mut self, seen: String) -> Self {
        self.seen = seen;
        self
    }

    /// Whether the median is what is wanted; none where nothing is.
    #[must_use]
    pub fn holds(&self) -> Option<bool> {
        match self.target {
            Target::AtLeast(min) => Some(self.value >= min),
            Target::AtMost(max) => Some(self.value <= max),
            Target::None => None,
        }
    }
}

/// The results of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// The machine, in words.
    pub machine: String,
    /// The revision that was measured.
    pub revision: String,
    /// When, as seconds since 1970.
    pub at: u64,
    /// The lines of the table.
    pub rows: Vec<Row>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_median_and_the_spread() {
        let row = Row::new("a", "", "times", &[3.0, 1.0, 2.0], Target::AtLeast(2.0));
        assert_eq!((row.low, row.value, row.high), (1.0, 2.0, 3.0));
        assert_eq!(row.holds(), Some(true));
        let row = Row::new("a", "", "times", &[3.0], Target::AtMost(2.0));
        assert_eq!(row.holds(), Some(false));
    }
}
