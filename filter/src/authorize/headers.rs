//! The headers of a request.

/// The headers of a request, pseudo-headers included; names in lower case.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a>(pub &'a [(&'a str, &'a [u8])]);

impl<'a> Headers<'a> {
    /// Returns the values of a header, in order.
    pub fn named(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |(header, _)| *header == name).map(|(_, value)| *value)
    }

    /// Returns the first value of a header, if it is UTF-8.
    #[must_use]
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.named(name).next().and_then(|value| std::str::from_utf8(value).ok())
    }
}

/// Headers as the host writes them, in one piece: they are read where they are, not copied one by one.
///
/// That is their number, the lengths of each name and value, then the texts themselves, each with a
/// zero byte behind it (Proxy-Wasm ABI 0.2.1, serialization of maps); numbers have four bytes, the lowest
/// one first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderMap(pub Vec<u8>);

impl HeaderMap {
    /// Returns the headers, in order; none if they are not written as they should be.
    #[must_use]
    pub fn entries(&self) -> Vec<(&str, &[u8])> {
        self.read().unwrap_or_default()
    }

    /// Returns those of which this is true of the name, in one piece of their own.
    #[must_use]
    pub fn only(&self, is_kept: impl Fn(&str) -> bool) -> Self {
        let entries = self.entries();
        let kept: Vec<_> = entries.into_iter().filter(|(name, _)| is_kept(name)).collect();
        let lengths = kept.iter().flat_map(|(name, value)| [name.len(), value.len()]);
        let number = |number: usize| u32::try_from(number).unwrap_or_default().to_le_bytes();
        let texts = kept.iter().flat_map(|&(name, value)| [name.as_bytes(), value]);
        let mut bytes = number(kept.len()).to_vec();
        bytes.extend(lengths.flat_map(number));
        bytes.extend(texts.flat_map(|text| text.iter().chain(b"\0").copied()));
        bytes.shrink_to_fit();
        Self(bytes)
    }

    fn read(&self) -> Option<Vec<(&str, &[u8])>> {
        let (count, rest) = self.0.split_first_chunk()?;
        let (lengths, mut texts) = rest.split_at_checked(number(*count)?.checked_mul(8)?)?;
        let (lengths, _) = lengths.as_chunks::<4>();
        let (lengths, _) = lengths.as_chunks::<2>();
        let mut entries = Vec::with_capacity(lengths.len());
        for [name, value] in lengths {
            let name = take(&mut texts, number(*name)?)?;
            let value = take(&mut texts, number(*value)?)?;
            entries.push((std::str::from_utf8(name).ok()?, value));
        }
        Some(entries)
    }
}

fn number(bytes: [u8; 4]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

/// Takes a text of a length off the front, with the zero byte behind it.
fn take<'a>(texts: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (text, rest) = texts.split_at_checked(length)?;
    (_, *texts) = rest.split_first()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(entries: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut bytes = u32::try_from(entries.len()).unwrap().to_le_bytes().to_vec();
        for text in entries.iter().flat_map(|(name, value)| [name, value]) {
            bytes.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        }
        for text in entries.iter().flat_map(|(name, value)| [name, value]) {
            bytes.extend(text.iter().chain(b"\0"));
        }
        bytes
    }

    #[test]
    fn headers_are_read_as_they_were_written() {
        let entries: [(&str, &[u8]); 3] = [(":path", b"/a"), ("a", b""), ("a", b"\xff\0b")];
        let bytes = written(&entries.map(|(name, value)| (name.as_bytes(), value)));
        assert_eq!(HeaderMap(bytes).entries(), entries);
        assert!(HeaderMap(written(&[])).entries().is_empty());
    }

    #[test]
    fn part_of_headers_is_read_as_they_are() {
        let entries: [(&str, &[u8]); 4] =
            [(":path", b"/a"), ("a", b"1"), ("b", b"\xff\0"), ("a", b"")];
        let all = HeaderMap(written(&entries.map(|(name, value)| (name.as_bytes(), value))));
        assert_eq!(all.only(|_| true), all);
        let kept: [(&str, &[u8]); 2] = [("a", b"1"), ("a", b"")];
        assert_eq!(all.only(|name| name == "a").entries(), kept);
        assert!(all.only(|_| false).entries().is_empty());
    }

    /// What is not read holds no token, so the request is refused.
    #[test]
    fn headers_that_cannot_be_read_are_none() {
        let whole = written(&[(b":path", b"/a"), (b"a", b"b")]);
        for length in 0..whole.len() {
            assert!(HeaderMap(whole[..length].to_vec()).entries().is_empty(), "{length} bytes");
        }
        let mut many = whole;
        many[..4].copy_from_slice(&[0xff; 4]);
        assert!(HeaderMap(many).entries().is_empty());
        assert!(HeaderMap(written(&[(b"\xff", b"")])).entries().is_empty());
    }
}
