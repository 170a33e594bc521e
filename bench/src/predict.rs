//! `--predict`: a guess before the race. Who has guessed remembers the answer; who has not finds it obvious afterwards.

use std::io::{self, BufRead, IsTerminal, Write};

/// Smallest and largest guess that makes sense of "how many times as long".
const SENSIBLE: std::ops::RangeInclusive<f64> = 0.001..=100_000.0;

/// Why there is no guess.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody to ask.
    #[error("--predict asks on a terminal, and standard input is none: give the guess with it, as in --predict 3.5")]
    NobodyThere,
    /// The terminal failed.
    #[error("cannot ask for a guess: {0}")]
    Terminal(#[from] io::Error),
    /// The terminal closed before a guess came.
    #[error("no guess was made; leave --predict out to race without one")]
    NoAnswer,
}

/// Reads a guess: `3.5`, `3,5`, `3.5x`, `1/4`.
///
/// # Errors
/// What a guess looks like.
pub fn parse(text: &str) -> Result<f64, String> {
    let text = text.trim().trim_end_matches(['x', '×']).trim().replace(',', ".");
    let guess = match text.split_once('/') {
        Some((over, under)) => over
            .trim()
            .parse()
            .and_then(|o: f64| Ok(o / under.trim().parse::<f64>()?)),
        None => text.parse(),
    };
    match guess {
        Ok(guess) if SENSIBLE.contains(&guess) => Ok(guess),
        _ => Err(
            "a guess is a number above 0 such as 3.5: how many times as long as a container a VM takes to start; \
                  below 1 says that the VM is faster"
                .to_owned(),
        ),
    }
}

/// Asks on the terminal until a guess comes.
///
/// # Errors
/// See [`Error`].
pub fn ask() -> Result<f64, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::NobodyThere);
    }
    loop {
        let mut err = io::stderr();
        write!(
            err,
            "Your guess first: how many times as long as a container does a VM take to start here? "
        )?;
        err.flush()?;
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            return Err(Error::NoAnswer);
        }
        match parse(&line) {
            Ok(guess) => return Ok(guess),
            Err(problem) => writeln!(err, "{problem}")?,
        }
    }
}

/// How near the guess came, in a sentence: off by the factor between it and what was measured.
pub fn judgement(guess: f64, ratio: f64, [low, high]: [f64; 2]) -> String {
    let guessed = crate::words::ratio(guess);
    let found = crate::words::ratio(ratio);
    if (low..=high).contains(&guess) {
        return format!("You guessed {guessed} times; {found} was measured, and your guess lies within its interval.");
    }
    let factor = (guess / ratio).max(ratio / guess);
    let way = if guess > ratio { "high" } else { "low" };
    format!(
        "You guessed {guessed} times; {found} was measured: too {way} by a factor of {}.",
        crate::words::ratio(factor)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_come_in_many_forms() {
        for (text, guess) in [("3.5", 3.5), (" 3,5x\n", 3.5), ("1/4", 0.25), ("40×", 40.0)] {
            assert_eq!(parse(text), Ok(guess), "{text}");
        }
        for text in ["", "fast", "0", "-2", "1/0", "inf", "NaN"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_guess_is_judged_by_the_interval() {
        assert!(judgement(2.0, 1.93, [1.84, 2.02]).contains("within its interval"));
        let far = judgement(20.0, 2.0, [1.8, 2.2]);
        assert!(far.contains("too high by a factor of 10"), "{far}");
        assert!(judgement(0.5, 2.0, [1.8, 2.2]).contains("too low by a factor of 4.0"));
    }
}
