//! The story: text for a terminal of 80 columns, or JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::cost::{CALIBRATION_CALLS, REHEARSALS, UntracedPhase};
use super::trace::{Call, End, Trace};
use super::verbs::Verb;
use super::{Format, decode};

/// Columns of a terminal nobody has widened.
const WIDTH: usize = 80;

/// Where the text of a line begins: behind the microseconds.
const INDENT: usize = 11;

/// More calls than this that differ in one argument only are told as one line.
const LIKENESS: usize = 3;

/// The calls one process makes for one verb, one after the other.
struct Group<'a> {
    verb: Verb,
    calls: Vec<&'a Call>,
}

impl Group<'_> {
    fn cost_ns(&self) -> u64 {
        self.calls
            .iter()
            .filter(|call| !call.waits())
            .map(|call| call.cost_ns)
            .sum()
    }
}

/// What was seen, and what to say of its cost.
pub struct Story<'a> {
    /// Every call.
    pub trace: &'a Trace,
    /// Of how many watched set-ups each call's time is the median.
    pub watched: usize,
    /// What being watched adds to a piece of a call, in nanoseconds.
    pub watching_ns: u64,
    /// The same set-up unwatched.
    pub untraced: &'a [UntracedPhase],
}

impl Story<'_> {
    /// In the words that were asked for.
    pub fn told(&self, format: Format) -> String {
        match format {
            Format::Text => self.text(),
            Format::Json => format!("{}\n", self.json()),
        }
    }

    /// By process and verb, in the order of their beginnings.
    fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group> = Vec::new();
        for call in &self.trace.calls {
            let same_process =
                |group: &&mut Group| group.calls.first().is_some_and(|first| first.process == call.process);
            match groups
                .iter_mut()
                .rfind(same_process)
                .filter(|group| group.verb == call.verb)
            {
                Some(group) => group.calls.push(call),
                None => groups.push(Group {
                    verb: call.verb,
                    calls: vec![call],
                }),
            }
        }
        groups
    }

    /// For people.
    pub fn text(&self) -> String {
        let calls = &self.trace.calls;
        let mut processes: Vec<_> = calls.iter().map(|call| call.process).collect();
        processes.sort_unstable();
        processes.dedup();
        let of = match self.watched {
            1 => "in this one set-up, less the".to_owned(),
            n => format!("median of {n} watched set-ups, less the"),
        };
        let mut text = format!(
            "{} system calls of {} processes, in the order in which the steps began.\n\
             In front: microseconds, {of} {} that being\n\
             watched adds to a call (median of {CALIBRATION_CALLS} getpid calls).\n\
             ~ marks a call that waits for another process.\n",
            calls.len(),
            processes.len(),
            microseconds(self.watching_ns).trim(),
        );
        if !self.trace.readable {
            text.push_str("The memory of one process could not be read: its arguments stay numbers.\n");
        }
        for group in self.groups() {
            self.tell_group(&group, &mut text);
        }
        text.push_str(match self.trace.end {
            End::Program(_) => "\nWhat follows is the program's own doing.\n",
            End::Launcher(_) => "\nThe set-up ended here: no program was started.\n",
        });
        self.tell_phases(&mut text);
        text
    }

    fn tell_group(&self, group: &Group, text: &mut String) {
        let Some(first) = group.calls.first() else { return };
        let title = match group.verb.term() {
            Some(term) => format!("{}: {} ({term})", first.role.name(), group.verb.title()),
            None => format!("{}: {}", first.role.name(), group.verb.title()),
        };
        // write! to a String cannot fail.
        let _ = write!(text, "\n{}  ", microseconds(group.cost_ns()));
        wrap(&title, text);
        text.push_str(&" ".repeat(INDENT));
        wrap(group.verb.why(), text);
        let mut rest = &group.calls[..];
        while let Some(&first) = rest.first() {
            let alike = rest.iter().take_while(|call| is_like(first, call)).count();
            let told = if alike > LIKENESS { alike } else { 1 };
            self.tell_calls(&rest[..told], text);
            rest = &rest[told..];
        }
    }

    /// One call, or several that differ in their last argument only.
    fn tell_calls(&self, calls: &[&Call], text: &mut String) {
        let (Some(first), Some(last)) = (calls.first(), calls.last()) else {
            return;
        };
        let cost: u64 = calls.iter().map(|call| call.cost_ns).sum();
        let mut line = format!("{}({})", first.decoded.name, first.decoded.arguments.join(", "));
        if calls.len() > 1 {
            let end = last.decoded.arguments.last().map_or("", String::as_str);
            let _ = write!(line, " and {} more, to {end}", calls.len() - 1);
        }
        if let Some(result) = last.result {
            line.push_str(&decode::result(result));
        }
        let _ = write!(text, "{}{} ", microseconds(cost), if first.waits() { "~" } else { " " });
        wrap(&with_short_ids(&line), text);
    }

    fn tell_phases(&self, text: &mut String) {
        if self.untraced.is_empty() {
            return;
        }
        let whole: u64 = self.untraced.iter().map(|phase| phase.median_ns).sum();
        let _ = write!(
            text,
            "\nThe same set-up unwatched, median of {REHEARSALS} rehearsals (microseconds, until):\n"
        );
        for phase in self.untraced {
            let _ = writeln!(text, "{}  {}", microseconds(phase.median_ns), phase.phase.name());
        }
        let _ = writeln!(text, "{}  sum of the medians", microseconds(whole));
    }

    /// For programs: everything the text has, and each call for itself.
    pub fn json(&self) -> Value {
        let call = |call: &&Call| {
            json!({
                "name": call.decoded.name,
                "arguments": call.decoded.arguments,
                "registers": call.registers,
                "recognised": call.decoded.recognised,
                "result": call.result,
                "cost_ns": call.cost_ns,
                "waits": call.waits(),
            })
        };
        let group = |group: &Group| {
            let first = group.calls.first();
            json!({
                "process": first.map(|call| call.role.name()),
                "pid": first.map(|call| call.process.as_raw()),
                "verb": group.verb.title(),
                "term": group.verb.term(),
                "why": group.verb.why(),
                "cost_ns": group.cost_ns(),
                "calls": group.calls.iter().map(call).collect::<Vec<_>>(),
            })
        };
        let phase = |phase: &UntracedPhase| json!({ "until": phase.phase.name(), "median_ns": phase.median_ns });
        json!({
            "calls": self.trace.calls.len(),
            "watched": self.watched,
            "program_started": matches!(self.trace.end, End::Program(_)),
            "watching_ns": { "median": self.watching_ns, "n": CALIBRATION_CALLS, "of": "getpid" },
            "groups": self.groups().iter().map(group).collect::<Vec<_>>(),
            "unwatched": { "n": if self.untraced.is_empty() { 0 } else { REHEARSALS }, "phases": self.untraced.iter().map(phase).collect::<Vec<_>>() },
        })
    }
}

/// Whether two calls differ in their last argument at most.
fn is_like(one: &Call, other: &Call) -> bool {
    let (a, b) = (&one.decoded, &other.decoded);
    let front = |arguments: &[String]| arguments.split_last().map(|(_, front)| front.to_vec());
    a.name == b.name
        && one.result == other.result
        && a.arguments.len() == b.arguments.len()
        && front(&a.arguments) == front(&b.arguments)
}

/// Ids of containers and images, which have 64 digits, by the first of them, as `container ps` shows them.
fn with_short_ids(line: &str) -> String {
    const DIGITS: usize = 64;
    const SHOWN: usize = 12;
    let is_digit = |byte: &u8| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase();
    let mut text = String::new();
    let mut rest = line;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| is_digit(byte)).count();
        let end = match digits {
            // At least one character that is no digit, and up to the next one that is.
            0 => rest
                .find(|c: char| c.is_ascii() && is_digit(&(c as u8)))
                .unwrap_or(rest.len()),
            _ => digits,
        };
        let (piece, after) = rest.split_at(end);
        text.push_str(if digits == DIGITS { &piece[..SHOWN] } else { piece });
        rest = after;
    }
    text
}

/// Nine columns, one decimal.
fn microseconds(ns: u64) -> String {
    format!("{:9.1}", ns as f64 / 1000.0)
}

/// The text in pieces of at most `size` characters: data has no place of its own to be broken at.
fn chunks(text: &str, size: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.char_indices().nth(size).map_or(rest.len(), |(end, _)| end);
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Adds `line` to `text`, which is at column [`INDENT`]: broken at spaces, with the following lines indented. A word
/// longer than a line, as sets of flags and paths of cgroups are, is broken behind `|` and `/` too.
fn wrap(line: &str, text: &mut String) {
    let room = WIDTH - INDENT;
    let mut used = 0;
    for (i, word) in line.split(' ').enumerate() {
        let is_long = word.chars().count() > room - 2;
        let pieces: Vec<&str> = if is_long {
            word.split_inclusive(['|', '/'])
                .flat_map(|piece| chunks(piece, room - 2))
                .collect()
        } else {
            vec![word]
        };
        for (j, piece) in pieces.into_iter().enumerate() {
            let length = piece.chars().count();
            let space = usize::from(i > 0 && j == 0);
            if used > 0 && used + space + length > room {
                let _ = write!(text, "\n{}", " ".repeat(INDENT + 2));
                used = 2;
            } else if space > 0 {
                text.push(' ');
                used += 1;
            }
            text.push_str(piece);
            used += length;
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_cut_and_nothing_else() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(
            with_short_ids(&format!("mkdir(\"/état/{id}.new\", 0700) = 3 abc")),
            "mkdir(\"/état/0123456789ab.new\", 0700) = 3 abc"
        );
        let longer = format!("{id}0");
        assert_eq!(with_short_ids(&longer), longer);
    }

    #[test]
    fn long_lines_are_broken_at_spaces() {
        let mut text = " ".repeat(INDENT);
        wrap(&"word ".repeat(40), &mut text);
        assert!(text.lines().count() > 2);
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert_eq!(text.matches("word").count(), 40);
        let mut text = " ".repeat(INDENT);
        wrap(&format!("clone3({})", ["CLONE_NEWUSER"; 12].join("|")), &mut text);
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert!(text.trim_start().starts_with("clone3(CLONE_NEWUSER|"), "{text}");
        let mut text = " ".repeat(INDENT);
        wrap(&"é".repeat(200), &mut text);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert_eq!(text.matches('é').count(), 200);
    }
}
