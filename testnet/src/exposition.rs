//! Reading Prometheus' text format, as far as members write it: samples without timestamps.
//!
//! Only what the demo checks and records is read; `promtool` judges the format itself. A line that is no sample is an
//! error, because a check on a half-read exposition would prove nothing.

use std::collections::BTreeMap;

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The family's name, with a histogram's suffix.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// All samples of an exposition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exposition(Vec<Sample>);

/// A line that is no sample.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the exposition is no sample: {text:?}")]
pub struct NoSample {
    /// The line's number, from 1.
    pub line: usize,
    /// The line.
    pub text: String,
}

impl Exposition {
    /// Reads an exposition.
    ///
    /// # Errors
    /// [`NoSample`] with the first line that is neither a sample nor a comment.
    pub fn parse(text: &str) -> Result<Self, NoSample> {
        text.lines()
            .enumerate()
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(index, line)| {
                sample(line).ok_or_else(|| NoSample { line: index + 1, text: line.to_owned() })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// All samples, in the order in which they were written.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.0.iter()
    }

    /// The samples of a family.
    pub fn family(&self, name: &str) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }

    /// The sum over a family's samples; none where it has none.
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.family(name).map(|sample| sample.value).reduce(|sum, value| sum + value)
    }

    /// The value of the sample of a family whose `label` is `value`, summed over its other labels.
    pub fn sum_where(&self, name: &str, label: &str, value: &str) -> f64 {
        self.family(name)
            .filter(|sample| sample.labels.get(label).is_some_and(|found| found == value))
            .map(|sample| sample.value)
            .sum()
    }
}

fn sample(line: &str) -> Option<Sample> {
    let name_end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    (!name.is_empty()).then(|| Sample { name: name.to_owned(), labels, value })
}

/// Reads labels up to the closing brace, and answers what follows it.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = quoted(after)?;
        labels.insert(name.to_owned(), value);
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

/// Reads a value up to its closing quote: `\\`, `\"` and `\n` are escapes.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[index + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            character => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "# HELP served_total Bytes.\n# TYPE served_total counter\n\
        served_total{member=\"a\",transport=\"tcp\"} 5\nserved_total{member=\"b\",transport=\"tcp\"} 7\n\
        served_total{member=\"a\",transport=\"quic\"} 1e3\nfairness 0.5\n";

    #[test]
    fn families_are_summed_as_a_whole_and_by_label() {
        let exposition = Exposition::parse(TEXT).unwrap();
        assert_eq!(exposition.sum("served_total"), Some(1012.0));
        assert!((exposition.sum_where("served_total", "member", "a") - 1005.0).abs() < 1e-9);
        assert_eq!(exposition.sum("fairness"), Some(0.5));
        assert_eq!(exposition.sum("absent"), None);
    }

    #[test]
    fn a_line_that_is_no_sample_is_told_with_its_number() {
        let error = Exposition::parse("a 1\nthis is not\n").unwrap_err();
        assert_eq!(error.line, 2);
    }

    proptest! {
        #[test]
        fn a_label_holds_any_text(text in any::<String>()) {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            // Lines end at newlines only, which are escaped; others are part of a value.
            prop_assume!(!text.contains('\r'));
            let exposition = Exposition::parse(&format!("x{{a=\"{escaped}\",b=\"}}\"}} 1")).unwrap();
            prop_assert_eq!(&exposition.0[0].labels["a"], &text);
            prop_assert_eq!(&exposition.0[0].labels["b"], "}");
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in any::<String>()) {
            let _ = Exposition::parse(&text);
        }
    }
}
