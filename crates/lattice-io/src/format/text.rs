//! Lines of a text file or of a text header, with their numbers and byte positions.

/// Walks the lines of a byte slice: `\n` or `\r\n` ends a line.
pub(crate) struct Lines<'a> {
    bytes: &'a [u8],
    /// Byte at which the next line begins.
    pub(crate) at: usize,
    /// Number of the line given last, from 1.
    pub(crate) number: u64,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, number: 0 }
    }

    /// Bytes not yet walked.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// The next line as text, without its end. Bytes that are not UTF-8 become replacement characters.
    pub(crate) fn next_text(&mut self) -> Option<std::borrow::Cow<'a, str>> {
        self.next_bytes().map(String::from_utf8_lossy)
    }

    fn next_bytes(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest();
        if rest.is_empty() {
            return None;
        }
        let (line, step) = match rest.iter().position(|&b| b == b'\n') {
            Some(end) => (&rest[..end], end + 1),
            None => (rest, rest.len()),
        };
        self.at += step;
        self.number += 1;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// The next line that is not blank.
    pub(crate) fn next_filled(&mut self) -> Option<std::borrow::Cow<'a, str>> {
        loop {
            let line = self.next_text()?;
            if !line.trim().is_empty() {
                return Some(line);
            }
        }
    }
}
