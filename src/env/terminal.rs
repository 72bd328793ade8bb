//! A secret typed on the terminal of the process, which does not show it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// More than anybody types; what comes after is dropped.
const LINE_BYTES_MAX: usize = 4096;

const CONTROL_C: u8 = 3;
const CONTROL_D: u8 = 4;
const BACKSPACE: u8 = 8;
const CONTROL_U: u8 = 21;
const DELETE: u8 = 127;

/// The terminal that this process was started from, whatever its standard input is.
pub fn terminal() -> io::Result<File> {
    let no_control = OFlags::NOCTTY.bits().cast_signed();
    OpenOptions::new().read(true).write(true).custom_flags(no_control).open("/dev/tty")
}

/// Shows `prompt` and reads one line that is not shown. `None` if it was given up by Control-C, or by Control-D with
/// nothing typed. The terminal is afterwards as it was. Blocks until somebody has typed.
pub fn read_hidden(mut terminal: &File, prompt: &str) -> io::Result<Option<Zeroizing<String>>> {
    let hidden = Hidden::new(terminal)?;
    terminal.write_all(prompt.as_bytes())?;
    let mut line = Line::default();
    let mut byte = Zeroizing::new([0u8]);
    let typed = loop {
        let ended = terminal.read(&mut *byte)? == 0;
        match if ended { Typed::GivenUp } else { line.press(byte[0]) } {
            Typed::More => {}
            Typed::GivenUp => break None,
            Typed::Done => break Some(line.0),
        }
    };
    drop(hidden);
    terminal.write_all(b"\n")?;
    let text = |line: Zeroizing<Vec<u8>>| match std::str::from_utf8(&line) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "what was typed is no UTF-8")),
    };
    typed.map(text).transpose()
}

/// The terminal shows nothing and hands over every key, as long as this lives.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut modes = before.clone();
        // Without ISIG, Control-C is a key: nothing can end this process before the terminal is put right again.
        modes.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        // What was typed before the question stays in the queue: a script may be faster than this.
        tcsetattr(terminal, OptionalActions::Drain, &modes)?;
        Ok(Hidden { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

enum Typed {
    More,
    Done,
    GivenUp,
}

/// A line that is being typed.
#[derive(Default)]
struct Line(Zeroizing<Vec<u8>>);

impl Line {
    fn press(&mut self, byte: u8) -> Typed {
        match byte {
            b'\r' | b'\n' => return Typed::Done,
            CONTROL_C => return Typed::GivenUp,
            CONTROL_D if self.0.is_empty() => return Typed::GivenUp,
            BACKSPACE | DELETE => self.take_back(),
            CONTROL_U => self.0.clear(),
            // Other keys without a character, and the rest of a line that is too long.
            0..32 => {}
            _ if self.0.len() >= LINE_BYTES_MAX => {}
            byte => self.put(byte),
        }
        Typed::More
    }

    /// Makes room at once: a vector that grows would leave copies behind.
    fn put(&mut self, byte: u8) {
        if self.0.capacity() == 0 {
            self.0.reserve_exact(LINE_BYTES_MAX);
        }
        self.0.push(byte);
    }

    /// The last character, which may have several bytes.
    fn take_back(&mut self) {
        while self.0.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
    }
}

/// For tests: has `ask` run at a terminal where somebody answers each prompt, once it is shown, with some keys. What came
/// of it, everything that was shown, and whether the terminal was left as it had been.
#[cfg(test)]
pub fn at_terminal<T: Send>(ask: impl FnOnce(&File) -> T + Send, answers: &[(&str, &str)]) -> (T, String, bool) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal can be made");
    grantpt(&person).and_then(|()| unlockpt(&person)).expect("a terminal can be unlocked");
    let name = ptsname(&person, Vec::new()).expect("a terminal has a name").into_string().expect("which is text");
    let no_control = OFlags::NOCTTY.bits().cast_signed();
    let terminal = OpenOptions::new().read(true).write(true).custom_flags(no_control).open(name);
    let (mut person, terminal) = (File::from(person), terminal.expect("the other end can be opened"));
    let modes = |terminal: &File| tcgetattr(terminal).expect("it is a terminal").local_modes;
    let before = modes(&terminal);
    std::thread::scope(|scope| {
        let asking = scope.spawn(move || {
            let answer = ask(&terminal);
            (answer, modes(&terminal) == before)
        });
        let mut shown = Vec::new();
        for (prompt, keys) in answers {
            let mut some = [0; 256];
            while !String::from_utf8_lossy(&shown).contains(prompt) {
                let count = person.read(&mut some).expect("a prompt is shown");
                shown.extend_from_slice(&some[..count]);
            }
            person.write_all(keys.as_bytes()).expect("keys can be pressed");
        }
        let (answer, restored) = asking.join().expect("asking ends");
        // The end of a terminal that nobody has open any more is an error.
        let _ = person.read_to_end(&mut shown);
        (answer, String::from_utf8_lossy(&shown).into_owned(), restored)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_read_and_not_shown() {
        for (keys, line) in [
            ("correct horse\n", Some("correct horse")),
            ("grün\u{7f}\u{7f}\u{8}een\r", Some("geen")),
            ("wrong\u{15}right\u{1b}\u{1}\u{4}\n", Some("right")),
            ("\n", Some("")),
            ("half\u{3}", None),
            ("\u{4}", None),
        ] {
            let ask = |terminal: &File| read_hidden(terminal, "Secret: ").map(|line| line.map(|text| text.to_string()));
            let (read, shown, restored) = at_terminal(ask, &[("Secret: ", keys)]);
            assert_eq!(read.unwrap().as_deref(), line, "{keys:?}");
            assert_eq!(shown.trim_end(), "Secret:", "{keys:?}");
            assert!(restored, "{keys:?}");
        }
    }

    #[test]
    fn a_line_is_bounded() {
        let mut line = Line::default();
        for _ in 0..3 * LINE_BYTES_MAX {
            line.press(b'x');
        }
        assert_eq!((line.0.len(), line.0.capacity()), (LINE_BYTES_MAX, LINE_BYTES_MAX));
    }

    #[test]
    fn what_is_no_terminal_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        assert!(read_hidden(&file, "Secret: ").is_err());
    }
}
