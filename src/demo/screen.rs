//! What the demo prints: one line for each thing that happened, in columns, coloured on a terminal only.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

/// Longest text of a line, in characters.
const TEXT: usize = 160;

/// What kind of thing a line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Somebody said something.
    Message,
    /// Control moved, or was asked for.
    Control,
    /// The conversation entered a state.
    State,
    /// Another entry of the thread.
    Event,
    /// The router delivered something.
    Webhook,
    /// The bot was asked, and answered.
    Turn,
    /// Somebody called the router.
    Call,
    /// Something went wrong.
    Fault,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Control => "control",
            Self::State => "state",
            Self::Event => "event",
            Self::Webhook => "webhook",
            Self::Turn => "turn",
            Self::Call => "call",
            Self::Fault => "FAULT",
        }
    }

    /// The colour as an SGR parameter: what is said stands out, how it travels steps back.
    fn colour(self) -> &'static str {
        match self {
            Self::Message => "1",
            Self::Control => "1;35",
            Self::State => "33",
            Self::Event => "36",
            Self::Webhook | Self::Turn => "32",
            Self::Call => "34",
            Self::Fault => "1;31",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) kind: Kind,
    pub(super) sequence: Option<u64>,
    pub(super) epoch: Option<u64>,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) text: String,
}

/// Where lines go.
pub(super) struct Screen {
    out: Box<dyn Write + Send>,
    coloured: bool,
}

impl Screen {
    /// Standard output; coloured if it is a terminal and `NO_COLOR` is not set.
    pub(super) fn stdout() -> Self {
        let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self::new(Box::new(io::stdout()), coloured)
    }

    pub(super) fn new(out: Box<dyn Write + Send>, coloured: bool) -> Self {
        Self { out, coloured }
    }

    /// Names the columns.
    pub(super) fn columns(&mut self) -> io::Result<()> {
        let columns = format!("{:>8}  {:>3}  {:>5}  {:<7}  {:<20}  what", "seconds", "seq", "epoch", "kind", "who");
        self.painted("2", &columns)
    }

    /// The next step of the story.
    pub(super) fn heading(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(b"\n")?;
        self.painted("1;36", &format!("== {text}"))
    }

    /// Text as it is, for what is to be copied.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    pub(super) fn line(&mut self, at: Duration, line: &Line) -> io::Result<()> {
        let number = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
        let numbers = format!("{:>8.3}  {:>3}  {:>5}", at.as_secs_f64(), number(line.sequence), number(line.epoch));
        let route = format!("{} -> {}", line.from, line.to);
        let text = format!("{:<7}  {route:<20}  {}", line.kind.name(), printable(&line.text));
        match self.coloured {
            true => {
                writeln!(self.out, "\x1b[2m{numbers}\x1b[0m  \x1b[{}m{}\x1b[0m", line.kind.colour(), text.trim_end())?
            }
            false => writeln!(self.out, "{numbers}  {}", text.trim_end())?,
        }
        self.out.flush()
    }

    fn painted(&mut self, colour: &str, text: &str) -> io::Result<()> {
        match self.coloured {
            true => writeln!(self.out, "\x1b[{colour}m{text}\x1b[0m")?,
            false => writeln!(self.out, "{text}")?,
        }
        self.out.flush()
    }
}

/// What people write goes to a terminal here: no control characters, and not without end.
fn printable(text: &str) -> String {
    let mut printable: String = text.chars().take(TEXT).map(|c| if c.is_control() { '\u{b7}' } else { c }).collect();
    if text.chars().nth(TEXT).is_some() {
        printable.push('\u{2026}');
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);
    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn printed(coloured: bool, print: impl Fn(&mut Screen) -> io::Result<()>) -> String {
        let paper = Paper::default();
        print(&mut Screen::new(Box::new(paper.clone()), coloured)).unwrap();
        let bytes = paper.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn said(text: &str) -> Line {
        Line {
            kind: Kind::Message,
            sequence: Some(12),
            epoch: Some(2),
            from: "customer".into(),
            to: "iva".into(),
            text: text.into(),
        }
    }

    #[test]
    fn columns_line_up_with_their_names() {
        let text = printed(false, |screen| {
            screen.columns()?;
            screen.line(Duration::from_millis(1234), &said("Hello"))?;
            screen.line(
                Duration::from_secs(90),
                &Line { kind: Kind::Call, sequence: None, epoch: None, to: "router".into(), ..said("events/send") },
            )
        });
        assert_eq!(
            text,
            " seconds  seq  epoch  kind     who                   what\n   \
                1.234   12      2  message  customer -> iva       Hello\n  \
               90.000              call     customer -> router    events/send\n"
        );
    }

    #[test]
    fn a_pipe_gets_no_colours_and_a_terminal_does() {
        let line = |screen: &mut Screen| screen.line(Duration::ZERO, &said("x"));
        assert!(!printed(false, line).contains('\x1b'));
        assert!(printed(true, line).contains("\x1b[1m"));
        assert!(!printed(false, |screen| screen.heading("x")).contains('\x1b'));
    }

    #[test]
    fn what_people_write_cannot_steer_the_terminal_or_fill_it() {
        let text = printed(false, |screen| screen.line(Duration::ZERO, &said("a\x1b[2Jb\nc")));
        assert!(text.ends_with("a\u{b7}[2Jb\u{b7}c\n"), "{text:?}");
        let text = printed(false, |screen| screen.line(Duration::ZERO, &said(&"é".repeat(1000))));
        assert_eq!(text.chars().filter(|&c| c == 'é').count(), TEXT);
        assert!(text.ends_with("\u{2026}\n"));
    }
}
