//! A place in the text, and the small things that are read there.

use crate::error::{ArtifactError, Diagnostic};
use crate::ir::At;

/// Most characters of the text that a message quotes.
const QUOTED: usize = 40;

/// Reads tokens one after another; whitespace and `//` comments between them are free.
pub(super) struct Cursor<'a> {
    rest: &'a str,
    line: u32,
    column: u32,
}

/// A fault of the text.
pub(super) type Parsed<T> = Result<T, ArtifactError>;

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.' | '-')
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, line: 1, column: 1 }
    }

    fn advance(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        for c in taken.chars() {
            match c {
                '\n' => (self.line, self.column) = (self.line.saturating_add(1), 1),
                _ => self.column = self.column.saturating_add(1),
            }
        }
        self.rest = rest;
        taken
    }

    fn skip_space(&mut self) {
        loop {
            let spaces = self.rest.len() - self.rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
            self.advance(spaces);
            if !self.rest.starts_with("//") {
                return;
            }
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.advance(end);
        }
    }

    /// Where the next token stands.
    pub(super) fn at(&mut self) -> At {
        self.skip_space();
        At { line: self.line, column: self.column }
    }

    pub(super) fn is_at_end(&mut self) -> bool {
        self.skip_space();
        self.rest.is_empty()
    }

    /// The next token as a message quotes it.
    fn found(&mut self) -> String {
        self.skip_space();
        let Some(first) = self.rest.chars().next() else { return "the end of the text".into() };
        let sigil = matches!(first, '%' | '@' | '#' | '!' | '"');
        let mut token: String = first.into();
        if sigil || is_name(first) {
            token.extend(self.rest.chars().skip(1).take_while(|&c| is_name(c)).take(QUOTED));
        }
        format!("`{token}`")
    }

    /// A fault here.
    pub(super) fn expected<T>(&mut self, what: &str) -> Parsed<T> {
        let found = self.found();
        self.refuse(format!("expected {what}, found {found}"))
    }

    /// A fault here, in other words.
    pub(super) fn refuse<T>(&mut self, message: String) -> Parsed<T> {
        let at = self.at();
        Self::refuse_at(at, message)
    }

    /// A fault elsewhere.
    pub(super) fn refuse_at<T>(at: At, message: String) -> Parsed<T> {
        Err(ArtifactError::Syntax(Diagnostic { at, message }))
    }

    /// Whether the text goes on with `mark`; it is not taken.
    pub(super) fn sees(&mut self, mark: &str) -> bool {
        self.skip_space();
        self.rest.starts_with(mark)
    }

    /// Takes `mark` where the text goes on with it.
    pub(super) fn takes(&mut self, mark: &str) -> bool {
        let sees = self.sees(mark);
        if sees {
            self.advance(mark.len());
        }
        sees
    }

    /// Takes `mark`.
    pub(super) fn expect(&mut self, mark: &str) -> Parsed<()> {
        match self.takes(mark) {
            true => Ok(()),
            false => self.expected(&format!("`{mark}`")),
        }
    }

    /// Takes this word, whole.
    pub(super) fn keyword(&mut self, word: &str) -> Parsed<()> {
        match self.peek_name() == word {
            true => {
                self.advance(word.len());
                Ok(())
            }
            false => self.expected(&format!("`{word}`")),
        }
    }

    /// The name that stands here, or nothing.
    pub(super) fn peek_name(&mut self) -> &'a str {
        self.skip_space();
        let end = self.rest.find(|c| !is_name(c)).unwrap_or(self.rest.len());
        &self.rest[..end]
    }

    /// A name, or the same in quotes.
    pub(super) fn word(&mut self, what: &str) -> Parsed<String> {
        if self.sees("\"") {
            return self.string();
        }
        let name = self.peek_name();
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            return self.expected(what);
        }
        Ok(self.advance(name.len()).into())
    }

    /// What follows `%` or `@`.
    pub(super) fn label(&mut self, sigil: &str, what: &str) -> Parsed<String> {
        if !self.sees(sigil) {
            return self.expected(what);
        }
        let rest = &self.rest[sigil.len()..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        if end == 0 {
            if sigil == "@" && rest.starts_with('"') {
                self.advance(sigil.len());
                return self.string();
            }
            return self.expected(what);
        }
        Ok(self.advance(sigil.len() + end)[sigil.len()..].into())
    }

    /// A string in quotes; `\"`, `\\`, `\n`, `\t` and bytes as two hexadecimal digits are escaped.
    pub(super) fn string(&mut self) -> Parsed<String> {
        let at = self.at();
        if !self.takes("\"") {
            return self.expected("a string in quotes");
        }
        let mut bytes = Vec::new();
        loop {
            let end = self.rest.find(['"', '\\', '\n']).unwrap_or(self.rest.len());
            bytes.extend_from_slice(self.advance(end).as_bytes());
            if self.rest.starts_with('"') {
                self.advance(1);
                let text = String::from_utf8(bytes);
                return text.or_else(|_| {
                    Self::refuse_at(at, "expected a string in UTF-8, found other bytes".into())
                });
            }
            if !self.rest.starts_with('\\') {
                return Self::refuse_at(
                    at,
                    "expected a string that ends on its line, found no closing quote".into(),
                );
            }
            let escape = self.rest.as_bytes().get(1..3).unwrap_or_default();
            let hex = escape.iter().map(|&b| char::from(b).to_digit(16)).collect::<Option<Vec<u32>>>();
            let (byte, taken) = match (escape.first(), hex.as_deref()) {
                (Some(b'"'), _) => (b'"', 2),
                (Some(b'\\'), _) => (b'\\', 2),
                (Some(b'n'), _) => (b'\n', 2),
                (Some(b't'), _) => (b'\t', 2),
                (_, Some(&[high, low])) => ((high * 16 + low) as u8, 3),
                _ => {
                    return Self::refuse_at(
                        at,
                        "expected one of \\\", \\\\, \\n, \\t or two hexadecimal digits after \\ in a string, found another"
                            .into(),
                    );
                }
            };
            bytes.push(byte);
            self.advance(taken);
        }
    }

    /// The text of a number: sign, digits, point, exponent.
    fn number(&mut self, what: &str) -> Parsed<&'a str> {
        self.skip_space();
        let bytes = self.rest.as_bytes();
        let digits = |from: usize| from + bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        let start = usize::from(bytes.first() == Some(&b'-'));
        let mut end = digits(start);
        if end == start {
            return self.expected(what);
        }
        if bytes.get(end) == Some(&b'.') {
            end = digits(end + 1);
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let after = digits(end + 1 + sign);
            if after > end + 1 + sign {
                end = after;
            }
        }
        Ok(self.advance(end))
    }

    /// An integer of 64 bits.
    pub(super) fn integer(&mut self) -> Parsed<i64> {
        let at = self.at();
        let text = self.number("an integer")?;
        integer_of(at, text)
    }

    /// Digits without a sign, as of a dimension; what follows may be a letter.
    pub(super) fn dimension(&mut self) -> Parsed<u64> {
        let at = self.at();
        let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let text = self.advance(digits);
        match text.parse::<u64>() {
            Ok(value) if i64::try_from(value).is_ok() => Ok(value),
            _ => Self::refuse_at(at, format!("expected a dimension below 2^63, found {}", shortened(text))),
        }
    }

    /// A number of type f64.
    pub(super) fn float(&mut self) -> Parsed<f64> {
        let at = self.at();
        let text = self.number("a number")?;
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => Self::refuse_at(at, format!("expected a number that f64 holds, found {}", shortened(text))),
        }
    }

    /// An integer, or the text of a number that is none.
    pub(super) fn integer_or_float(&mut self) -> Parsed<Result<i64, &'a str>> {
        let at = self.at();
        let text = self.number("a value: a string, a number, array<..> or #lattice...")?;
        match text.contains(['.', 'e', 'E']) {
            true => Ok(Err(text)),
            false => integer_of(at, text).map(Ok),
        }
    }
}

fn integer_of(at: At, text: &str) -> Parsed<i64> {
    match text.parse::<i64>() {
        Ok(value) => Ok(value),
        Err(_) => Cursor::refuse_at(at, format!("expected an integer of 64 bits, found {}", shortened(text))),
    }
}

/// A long number, cut for a message.
pub(super) fn shortened(text: &str) -> String {
    match text.len() > QUOTED {
        true => format!("`{}..` of {} characters", &text[..QUOTED], text.len()),
        false => format!("`{text}`"),
    }
}
