//! What happened in a schedule, for people. Told only on request: most schedules are of no interest.

use super::clock::Moment;

/// The lines of a story.
#[derive(Debug, Default)]
pub struct Story {
    lines: Option<Vec<String>>,
    step: usize,
}

impl Story {
    /// A story that is told.
    pub fn told() -> Self {
        Self { lines: Some(Vec::new()), step: 0 }
    }

    /// A story that nobody asked for: costs nothing.
    pub fn untold() -> Self {
        Self::default()
    }

    /// The next step begins.
    pub fn step(&mut self, step: usize) {
        self.step = step;
    }

    /// Adds a line, if anybody wants to hear it.
    pub fn tell(&mut self, now: Moment, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>4}  {now}  {}", self.step, line()));
        }
    }

    /// The whole story.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
