//! Tokens of a GraphQL document (GraphQL specification, September 2025, section 2.1).

use std::borrow::Cow;

use super::document::{DocumentError, Problem};

/// A token; of numbers, only their ends matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    End,
    Name(&'a str),
    /// An integer or a float.
    Number,
    /// A string, as it stands between its quotes.
    Text(&'a str),
    /// One of `! $ & ( ) : = @ [ ] { | }`.
    Punctuator(u8),
    /// `...`.
    Spread,
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Located<'a> {
    pub(super) token: Token<'a>,
    /// From 1.
    pub(super) line: u32,
    /// From 1, in bytes.
    pub(super) column: u32,
}

/// Reads tokens one after the other, as many as it may.
#[derive(Debug)]
pub(super) struct Lexer<'a, 'b> {
    text: &'a str,
    at: usize,
    line: u32,
    line_starts_at: usize,
    tokens_left: &'b mut usize,
}

impl<'a, 'b> Lexer<'a, 'b> {
    pub(super) fn new(text: &'a str, tokens_left: &'b mut usize) -> Self {
        Self { text, at: 0, line: 1, line_starts_at: 0, tokens_left }
    }

    pub(super) fn next(&mut self) -> Result<Located<'a>, DocumentError> {
        self.skip_ignored()?;
        let start = self.at;
        let (line, column) = (self.line, self.column(start));
        let token = match self.peek(0) {
            None => Token::End,
            Some(byte) => {
                self.token(byte).map_err(|problem| DocumentError::new(problem, line, column))?
            }
        };
        if token != Token::End {
            *self.tokens_left = self.tokens_left.checked_sub(1).ok_or(DocumentError::new(
                Problem::TooManyTokens,
                line,
                column,
            ))?;
        }
        Ok(Located { token, line, column })
    }

    fn column(&self, at: usize) -> u32 {
        u32::try_from(at - self.line_starts_at + 1).unwrap_or(u32::MAX)
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn token(&mut self, first: u8) -> Result<Token<'a>, Problem> {
        match first {
            b'!' | b'$' | b'&' | b'(' | b')' | b':' | b'=' | b'@' | b'[' | b']' | b'{' | b'|'
            | b'}' => {
                self.at += 1;
                Ok(Token::Punctuator(first))
            }
            b'.' if self.text.as_bytes().get(self.at..).is_some_and(|r| r.starts_with(b"...")) => {
                self.at += 3;
                Ok(Token::Spread)
            }
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                let start = self.at;
                while self.peek(0).is_some_and(continues_name) {
                    self.at += 1;
                }
                self.text.get(start..self.at).map(Token::Name).ok_or(Problem::Character)
            }
            b'-' | b'0'..=b'9' => self.number(),
            b'"' if self.peek(1) == Some(b'"') && self.peek(2) == Some(b'"') => self.block_string(),
            b'"' => self.string(),
            _ => Err(Problem::Character),
        }
    }

    /// Skips white space, line ends, commas, byte order marks and comments.
    fn skip_ignored(&mut self) -> Result<(), DocumentError> {
        while let Some(byte) = self.peek(0) {
            match byte {
                b' ' | b'\t' | b',' => self.at += 1,
                b'\n' | b'\r' => self.end_line(byte),
                0xef if self.peek(1) == Some(0xbb) && self.peek(2) == Some(0xbf) => self.at += 3,
                b'#' => self.skip_comment()?,
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn end_line(&mut self, byte: u8) {
        self.at += if byte == b'\r' && self.peek(1) == Some(b'\n') { 2 } else { 1 };
        self.line = self.line.saturating_add(1);
        self.line_starts_at = self.at;
    }

    /// Skips a comment up to the end of its line.
    ///
    /// What some readers take for a line's end though it is none here is refused: what follows would
    /// be a comment to one reader and part of the query to another.
    fn skip_comment(&mut self) -> Result<(), DocumentError> {
        while let Some(byte) = self.peek(0) {
            let is_other_line_end = match byte {
                b'\n' | b'\r' => return Ok(()),
                // NEL, LINE SEPARATOR and PARAGRAPH SEPARATOR.
                0xc2 => self.peek(1) == Some(0x85),
                0xe2 => self.peek(1) == Some(0x80) && matches!(self.peek(2), Some(0xa8 | 0xa9)),
                b'\t' => false,
                _ => byte.is_ascii_control(),
            };
            if is_other_line_end {
                let problem = Problem::Character;
                return Err(DocumentError::new(problem, self.line, self.column(self.at)));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Token<'a>, Problem> {
        if self.peek(0) == Some(b'-') {
            self.at += 1;
        }
        if self.peek(0) == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek(0) == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(0), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(0), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        match self.peek(0) {
            Some(byte) if continues_name(byte) || byte == b'.' => Err(Problem::Number),
            Some(_) | None => Ok(Token::Number),
        }
    }

    fn digits(&mut self) -> Result<(), Problem> {
        let start = self.at;
        while self.peek(0).is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(Problem::Number) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<Token<'a>, Problem> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.peek(0).ok_or(Problem::String)? {
                b'"' => {
                    self.at += 1;
                    let text = self.text.get(start..self.at - 1);
                    return text.map(Token::Text).ok_or(Problem::String);
                }
                b'\\' => self.escape()?,
                b'\t' => self.at += 1,
                byte if byte.is_ascii_control() => return Err(Problem::String),
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), Problem> {
        match self.peek(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') if self.peek(2) == Some(b'{') => {
                self.at += 3;
                while self.peek(0).is_some_and(|byte| byte.is_ascii_hexdigit()) {
                    self.at += 1;
                }
                if self.peek(0) != Some(b'}') {
                    return Err(Problem::String);
                }
                self.at += 1;
            }
            Some(b'u') => {
                for ahead in 2..6 {
                    if !self.peek(ahead).is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(Problem::String);
                    }
                }
                self.at += 6;
            }
            Some(_) | None => return Err(Problem::String),
        }
        Ok(())
    }

    fn block_string(&mut self) -> Result<Token<'a>, Problem> {
        self.at += 3;
        let start = self.at;
        loop {
            let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
            match rest.first().ok_or(Problem::String)? {
                b'"' if rest.starts_with(b"\"\"\"") => {
                    self.at += 3;
                    let text = self.text.get(start..self.at - 3);
                    return text.map(Token::Text).ok_or(Problem::String);
                }
                b'\\' if rest.starts_with(b"\\\"\"\"") => self.at += 4,
                byte @ (b'\n' | b'\r') => self.end_line(*byte),
                b'\t' => self.at += 1,
                byte if byte.is_ascii_control() => return Err(Problem::String),
                _ => self.at += 1,
            }
        }
    }
}

fn continues_name(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// Returns what a string says, as it stands between its quotes.
///
/// What an escape stands for that is no character is left out: it is in no name.
pub(super) fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut said = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        said.push_str(before);
        let (digits, after) = match escape.strip_prefix('u') {
            Some(code) => match code.strip_prefix('{').and_then(|code| code.split_once('}')) {
                Some(braced) => braced,
                None => code.split_at_checked(4).unwrap_or((code, "")),
            },
            None => {
                let mut characters = escape.chars();
                match characters.next() {
                    Some(character @ ('"' | '\\' | '/')) => said.push(character),
                    Some(_) | None => said.push(' '),
                }
                rest = characters.as_str();
                continue;
            }
        };
        said.extend(u32::from_str_radix(digits, 16).ok().and_then(char::from_u32));
        rest = after;
    }
    said.push_str(rest);
    Cow::Owned(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_is_read_as_what_it_says() {
        for (text, said) in [
            ("author.email", "author.email"),
            (r"\u0061uthor", "author"),
            (r"\u{61}uthor\u{00002e}email", "author.email"),
            (r#"a\"b\\c\/d\ne"#, r#"a"b\c/d e"#),
            (r"\ud83d", ""),
            (r"\u{110000}a", "a"),
        ] {
            assert_eq!(unescaped(text), said, "{text}");
        }
    }
}
