//! Numbers and texts in bytes.

use super::Unreadable;

/// Reads from the front of some bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// Takes so many bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Unreadable> {
        let (&byte, rest) = self.0.split_first().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Unreadable> {
        let (&bytes, rest) = self.0.split_first_chunk().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(bytes))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Unreadable> {
        let (&bytes, rest) = self.0.split_first_chunk().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Takes so many numbers.
    pub(super) fn u32s(&mut self, count: usize) -> Result<&'a [[u8; 4]], Unreadable> {
        let bytes = self.take(count.checked_mul(4).ok_or(Unreadable)?)?;
        Ok(bytes.as_chunks().0)
    }

    /// Takes a number in groups of seven bits, lowest first; the highest bit says that more follow.
    pub(super) fn varint(&mut self) -> Result<u64, Unreadable> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Unreadable)
    }

    /// Takes a length and so many bytes.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Unreadable> {
        let count = usize::try_from(self.varint()?).map_err(|_| Unreadable)?;
        self.take(count)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Unreadable> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Unreadable)
    }
}

/// Appends a number as [`Reader::varint`] takes it.
pub(super) fn put_varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        let [low, ..] = number.to_le_bytes();
        to.push(low | 0x80);
        number >>= 7;
    }
    let [low, ..] = number.to_le_bytes();
    to.push(low);
}

/// Appends a length and bytes, as [`Reader::bytes`] takes them.
pub(super) fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(to, as_u64(bytes.len()));
    to.extend_from_slice(bytes);
}

/// Appends a length as four bytes.
pub(super) fn put_len(to: &mut Vec<u8>, length: usize) {
    // A page is far below 4 GiB: more does not fit into a VM.
    to.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

pub(super) fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_and_bytes_come_back(number in any::<u64>(), bytes in any::<Vec<u8>>()) {
            let mut written = Vec::new();
            put_varint(&mut written, number);
            put_bytes(&mut written, &bytes);
            let mut reader = Reader(&written);
            prop_assert_eq!(reader.varint(), Ok(number));
            prop_assert_eq!(reader.bytes(), Ok(&*bytes));
            prop_assert_eq!(reader.byte(), Err(Unreadable));
        }

        #[test]
        fn whatever_bytes_are_read_nothing_is_taken_that_is_not_there(bytes in any::<Vec<u8>>()) {
            let mut reader = Reader(&bytes);
            while reader.bytes().is_ok() {}
            let _ = (reader.varint(), reader.u32(), reader.u64(), reader.u32s(usize::MAX));
        }
    }
}
