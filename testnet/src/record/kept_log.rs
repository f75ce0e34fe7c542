//! A member's log as a record keeps it: bounded, scrubbed, its beginning and its end.
//!
//! A log at level trace grows by megabytes a second, and a record is copied and committed. How a member came up and how
//! it ended are what people look for; what lies between is left out with a line that says how much. Copying holds no
//! more in memory than is kept.

use super::scrub::Scrub;
use std::collections::VecDeque;
use std::io::{self, BufRead, Read, Write};

/// Most bytes kept of a log's beginning.
pub const HEAD_MAX_BYTES: usize = 64 << 10;
/// Most bytes kept of its end.
pub const TAIL_MAX_BYTES: usize = 192 << 10;
/// Longest line kept, in bytes; a longer one is cut.
pub const LINE_MAX_BYTES: usize = 8 << 10;

/// Copies a log's lines, scrubbed; answers the last `lines` of them.
///
/// # Errors
/// What the system answered.
pub fn keep(from: impl BufRead, mut to: impl Write, scrub: &Scrub, lines: usize) -> io::Result<Vec<String>> {
    let mut from = from;
    let mut head_bytes = 0;
    let mut tail = VecDeque::new();
    let mut tail_bytes = 0;
    let (mut lines_left_out, mut bytes_left_out) = (0_u64, 0_u64);
    let mut last = VecDeque::new();
    while let Some(line) = next_line(&mut from)? {
        let line = scrub.clean(&line);
        last.push_back(line.clone());
        if last.len() > lines {
            last.pop_front();
        }
        if tail.is_empty() && head_bytes + line.len() < HEAD_MAX_BYTES {
            head_bytes += line.len() + 1;
            writeln!(to, "{line}")?;
            continue;
        }
        tail_bytes += line.len() + 1;
        tail.push_back(line);
        while tail_bytes > TAIL_MAX_BYTES
            && let Some(line) = tail.pop_front()
        {
            tail_bytes -= line.len() + 1;
            lines_left_out += 1;
            bytes_left_out += line.len() as u64 + 1;
        }
    }
    if lines_left_out > 0 {
        writeln!(to, "… {lines_left_out} lines ({bytes_left_out} bytes) are left out of this copy …")?;
    }
    for line in tail {
        writeln!(to, "{line}")?;
    }
    to.flush()?;
    Ok(last.into())
}

/// The next line without its end, cut to [`LINE_MAX_BYTES`]; none at the end.
fn next_line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if from.by_ref().take(LINE_MAX_BYTES as u64).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let cut = !line.ends_with(b"\n");
    if !cut {
        line.pop();
    }
    let mut text = String::from_utf8_lossy(&line).into_owned();
    // Without a newline it is cut, or the log's last line, which nothing follows.
    if cut && skip_line(from)? > 0 {
        text.push('…');
    }
    Ok(Some(text))
}

/// Reads to the end of the line; answers how many bytes that were.
fn skip_line(from: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffered = from.fill_buf()?;
        let (part, ended) = match buffered.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffered.len(), buffered.is_empty()),
        };
        from.consume(part);
        skipped += part as u64;
        if ended {
            return Ok(skipped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kept(log: &[u8]) -> (String, Vec<String>) {
        let mut copy = Vec::new();
        let last = keep(log, &mut copy, &Scrub::default(), 2).unwrap();
        (String::from_utf8(copy).unwrap(), last)
    }

    #[test]
    fn a_short_log_is_kept_whole_and_its_last_lines_are_told() {
        let (copy, last) = kept(b"one\ntwo\nthree");
        assert_eq!((copy.as_str(), last), ("one\ntwo\nthree\n", vec!["two".to_owned(), "three".to_owned()]));
    }

    #[test]
    fn of_a_huge_log_its_beginning_and_end_are_kept_with_a_note_between() {
        let lines: Vec<String> = (0..100_000).map(|line| format!("line {line}")).collect();
        let log = lines.join("\n");
        let (copy, _) = kept(log.as_bytes());
        assert!(copy.len() < HEAD_MAX_BYTES + TAIL_MAX_BYTES + 100, "{}", copy.len());
        assert!(copy.starts_with("line 0\n") && copy.ends_with("line 99999\n"));
        let note = copy.lines().find(|line| line.starts_with('…')).unwrap();
        let left_out: usize = note.split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(copy.lines().count() - 1 + left_out, 100_000);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let log = [vec![b'x'; 3 * LINE_MAX_BYTES], b"\nnext\n".to_vec()].concat();
        let (copy, last) = kept(&log);
        assert!(copy.len() < LINE_MAX_BYTES + 20 && copy.ends_with("x…\nnext\n"));
        assert_eq!(last[1], "next");
    }

    proptest! {
        #[test]
        fn any_bytes_are_kept_as_lines(log in prop::collection::vec(any::<u8>(), 0..400)) {
            let (copy, _) = kept(&log);
            let lines = log.split(|byte| *byte == b'\n').count() - usize::from(log.is_empty() || log.ends_with(b"\n"));
            prop_assert_eq!(copy.lines().count(), copy.matches('\n').count());
            prop_assert_eq!(copy.matches('\n').count(), lines);
        }
    }
}
